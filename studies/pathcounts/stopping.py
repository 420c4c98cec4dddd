"""How many epochs before ordinary early stopping a rule on E stops, and what that costs."""

import polars as pl

from emergraph.analysis.emergence.trajectory import TrajectoryOptions, stoppings
from emergraph.analysis.statistics.intervals import student

PATIENCE = 3
OPTIONS = TrajectoryOptions(patience=PATIENCE, tolerance=0.01, share=0.01)


def stopping_rows(name: str, counts: pl.DataFrame, metrics: pl.DataFrame) -> list[dict[str, object]]:
    """One row per rule of activity, interior and stopping rule, over the seeds of a group's dense networks.

    Ordinary stopping looks at validation accuracy with patience 3; the cost is in test accuracy, between the
    epochs of best validation accuracy that either rule has seen.
    """
    dense = counts.filter(pl.col("variant") == "0").join(
        metrics.filter(pl.col("variant") == "0"), on=["seed", "variant", "epoch"]
    )
    rows: list[dict[str, object]] = []
    keys = ["form", "rule", "threshold"]
    for (form, rule, threshold), part in dense.sort(*keys, "seed", "epoch").group_by(
        keys, maintain_order=True
    ):
        for interior in ("active", "any"):
            for kind in ("settled", "near_zero"):
                saved, cost = [], []
                for run in part.partition_by("seed", maintain_order=True):
                    found = _of_run(run, interior, kind)
                    if found is not None:
                        saved.append(found[0])
                        cost.append(found[1])
                n_seeds = part["seed"].n_unique()
                row: dict[str, object] = {
                    "group": name,
                    "form": form,
                    "rule": f"{rule} {threshold:g}",
                    "interior": interior,
                    "stops_when": kind,
                    "seeds_stopped": len(saved),
                    "seeds": n_seeds,
                }
                if len(saved) >= 3:
                    for label, values in (("epochs_saved", saved), ("accuracy_lost", cost)):
                        over = student(values)
                        row |= {label: over.mean, f"{label}_low": over.low, f"{label}_high": over.high}
                rows.append(row)
    return rows


def _of_run(run: pl.DataFrame, interior: str, kind: str) -> tuple[float, float] | None:
    """Epochs saved and test accuracy lost; None where the rule never stops."""
    validation = run["validation_accuracy"].to_numpy()
    test = run["test_accuracy"].to_numpy()
    epochs = run["epoch"].to_list()
    found = next(
        s for s in stoppings("E", run[interior].to_numpy(), validation, epochs, OPTIONS) if s.rule == kind
    )
    if found.step is None or found.saved is None:
        return None
    here = epochs.index(found.step)
    until = len(epochs) - 1 if found.ordinary_step is None else epochs.index(found.ordinary_step)
    ours, theirs = (int(validation[: end + 1].argmax()) for end in (here, until))
    return float(found.saved), float(test[theirs] - test[ours])
