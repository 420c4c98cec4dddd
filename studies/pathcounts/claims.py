"""The paper's claims (arXiv 2409.01568) as effects per seed, with intervals and corrected p values.

Every claim is turned into one number per seed that is positive where the claim holds. Its mean over seeds has
Student's interval and p value; all p values of a claim are corrected together by Holm's method. Beside it is
the p value of the sign-flip permutation test, which assumes no distribution but is at least 2^(1 - seeds).
Numbers that pair a seed with the others, and correlations over initialisations, have a test of their own, and
no interval. A claim is *confirmed* for a group of networks and a rule when the interval is above 0 and the
corrected p below 0.05, *refuted* when the interval is below 0 and the corrected p below 0.05; without an
interval the mean decides. Where the interval lies within `MARGINS` there is *no effect*, whatever p is:
that is shown, too. All else is *undecided*.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.statistics.intervals import Support, student
from emergraph.analysis.statistics.permutation import (
    FEWEST_MORE,
    holm,
    partial_spearman,
    rank_correlation,
    sign_flip_p,
    student_p,
)
from emergraph.analysis.statistics.series import pair_correlations, paired_runs_p

Floats = NDArray[np.float64]

LEVEL = 0.05
RHO = "Spearman's rho"
LOST, WON = "decades of E lost", "decades of E / density won"
MARGINS = {LOST: 0.05, WON: 0.05, RHO: 0.1}
"""By unit: effects within it, on both sides of 0, are none: an eighth of E, a rank correlation of 0.1."""
VERDICTS = ("confirmed", "refuted", "no effect", "undecided")
CLAIMS = {
    "falls": "E falls during training",
    "pruning_lowers": "pruning lowers E",
    "pruning_raises_relative": "pruning raises relative E (per density)",
    "goes_with_change": "along a run, the change in accuracy goes with E",
    "beyond_time": "... beyond the time course that all seeds share",
    "initialisation": "high-emergence initialisation trains better",
    "near_zero": "E is near zero when training is over",
}


@dataclass(frozen=True)
class Effect:
    """One number per seed."""

    claim: str
    group: str
    form: str
    rule: str
    interior: str
    detail: str
    unit: str
    values: Floats
    """(n_seeds,)."""
    p: float | None = None
    """Of a test of its own, for values that are not independent of each other; they have no interval then."""


def _per_seed(frame: pl.DataFrame, figure: Callable[[pl.DataFrame], float]) -> Floats:
    parts = frame.sort("seed", "epoch").partition_by("seed", maintain_order=True)
    return np.array([figure(part) for part in parts])


def _log(frame: pl.DataFrame, interior: str) -> Floats:
    """log10(1 + E), which E = 0 has too."""
    return np.log10(1 + frame[interior].to_numpy())


def training_effects(name: str, counts: pl.DataFrame, metrics: pl.DataFrame) -> Iterator[Effect]:
    """Effects of a group that was pruned: the dense networks along training, the pruned ones beside them."""
    baseline = int(metrics.filter(pl.col("variant") != "0")["epoch"].min())  # type: ignore[arg-type]
    last = int(metrics["epoch"].max())  # type: ignore[arg-type]
    keys = ["form", "rule", "threshold"]
    for (form, rule, threshold), part in counts.sort(keys).group_by(keys, maintain_order=True):
        label = f"{rule} {threshold:g}"
        for interior in ("active", "any"):

            def effect(claim: str, values: Floats, detail: str, unit: str) -> Effect:
                return Effect(claim, name, str(form), label, interior, detail, unit, values)  # noqa: B023 - used at once

            dense = part.filter(pl.col("variant") == "0")
            yield effect(
                "falls",
                _per_seed(dense, lambda f: -float(np.diff(_log(f, interior)[[0, -1]])[0])),  # noqa: B023
                f"first count to epoch {last}",
                LOST,
            )
            by_level = _levels(part, interior, (baseline, last))
            for level, epoch, lost, gained in by_level:
                detail = f"{float(level):.0%} pruned, epoch {epoch}"
                yield effect("pruning_lowers", lost, detail, LOST)
                yield effect("pruning_raises_relative", gained, detail, WON)
            joined = dense.join(metrics.filter(pl.col("variant") == "0"), on=["seed", "variant", "epoch"])
            yield from _changes(joined, effect, interior)
            largest = _per_seed(
                dense,
                lambda f: 0.01 - float(f[interior][-1] / max(float(f[interior].max()), 1.0)),  # noqa: B023
            )
            yield effect("near_zero", largest, f"epoch {last}", "1 % less E's share of its maximum")


def _levels(
    part: pl.DataFrame, interior: str, epochs: tuple[int, int]
) -> Iterator[tuple[str, int, Floats, Floats]]:
    """Level, epoch, and per seed the decades that E has lost, and E over density has won, by pruning."""
    for level in sorted(set(part["variant"]) - {"0"}):
        for epoch in epochs:
            both = [
                part.filter((pl.col("variant") == variant) & (pl.col("epoch") == epoch)).sort("seed")
                for variant in ("0", level)
            ]
            dense, pruned = (frame[interior].to_numpy() for frame in both)
            lost = np.log10(1 + dense) - np.log10(1 + pruned)
            yield level, epoch, lost, np.log10(1 + pruned / (1 - float(level))) - np.log10(1 + dense)


def _changes(frame: pl.DataFrame, effect: Callable[..., Effect], interior: str) -> Iterator[Effect]:
    """E along each run with the change of accuracy that follows it.

    Two series that only drift go together in every run. What is beyond the time course that all seeds share
    shows in E of a seed beside the changes of the others: `paired_runs_p`, see docs/calibration.md. Ranks
    less those of the epoch would not do: p values of such residuals reject up to 0.87 of independent pairs.
    """
    runs = frame.sort("seed", "epoch").partition_by("seed", maintain_order=True)
    x = np.array([run[interior].to_numpy()[:-1] for run in runs], dtype=np.float64)
    y = np.array([np.diff(run["test_accuracy"].to_numpy()) for run in runs])
    detail = "test accuracy in the epoch that follows"
    rho = np.array([partial_spearman(one, other) for one, other in zip(x, y, strict=True)])
    yield effect("goes_with_change", rho, detail, RHO)
    table, test = pair_correlations(x, y), paired_runs_p(x, y)
    beyond = np.diag(table) - table.mean(axis=1) if test.p is not None else np.full(len(x), np.nan)
    yield replace(effect("beyond_time", beyond, detail, f"{RHO} beyond that with other seeds"), p=test.p)


LEARNS = 0.2
"""Accuracy at the end, mean over seeds, above which an initialisation has learnt anything: chance is 0.1."""


def initialisation_effects(name: str, counts: pl.DataFrame, metrics: pl.DataFrame) -> Iterator[Effect]:
    """The rank correlation over initialisations of E at the start with accuracy at the end, means over seeds.

    Initialisations are the replicates: more seeds of the same seven say no more about an eighth. Beside all,
    those that leave chance: two that never do, with hardly any paths, make a correlation by themselves.
    """
    last = int(metrics["epoch"].max())  # type: ignore[arg-type]
    final = (
        metrics.filter(pl.col("epoch") == last).group_by("variant").agg(final=pl.col("test_accuracy").mean())
    )
    learns = final.filter(pl.col("final") > LEARNS)
    start = counts.filter(pl.col("epoch") == 0)
    keys = ["form", "rule", "threshold"]
    for (form, rule, threshold), part in start.sort(keys).group_by(keys, maintain_order=True):
        for interior in ("active", "any"):
            mean = part.group_by("variant").agg((pl.col(interior) + 1).log(10).mean())
            for what, chosen in (("all", final), ("that learn", learns)):
                both = mean.join(chosen, on="variant").sort("variant")
                values, p = _over_initialisations(both[interior].to_numpy(), both["final"].to_numpy())
                detail = f"{both.height} initialisations, {what}; accuracy at epoch {last}"
                label, unit = f"{rule} {threshold:g}", f"{RHO} over initialisations"
                yield Effect("initialisation", name, str(form), label, interior, detail, unit, values, p)


def _over_initialisations(emergence: Floats, final: Floats) -> tuple[Floats, float | None]:
    """(1,) their rank correlation, and its p by permuting; NaN and none where there is none."""
    found = rank_correlation(emergence, final) if len(final) >= FEWEST_MORE else None
    return (
        (np.full(1, np.nan), None) if found is None or found.rho is None else (np.array([found.rho]), found.p)
    )


FIGURES = ("mean", "low", "high", "d", "p", "p_flip")


def judged(effects: list[Effect]) -> pl.DataFrame:
    """One row per effect: mean over seeds, interval, Cohen's d, corrected p, verdict."""
    rows = []
    for effect in effects:
        values = effect.values[np.isfinite(effect.values)]
        row: dict[str, object] = {
            "claim": effect.claim,
            "group": effect.group,
            "form": effect.form,
            "rule": effect.rule,
            "interior": effect.interior,
            "detail": effect.detail,
            "unit": effect.unit,
            "n": len(values),
            **dict.fromkeys(FIGURES),
        }
        if effect.p is not None:
            row |= {"mean": float(values.mean()), "p": effect.p}
        elif len(values) >= 3:
            over = student(values, support=Support.CORRELATION if effect.unit == RHO else Support.REAL)
            # seeds that are all equal have no interval, and the p value of their signs
            known = isfinite(over.low)
            row |= {
                "mean": over.mean,
                "low": over.low if known else None,
                "high": over.high if known else None,
                "d": over.mean / over.sd if known and over.sd > 0 else None,
                "p": student_p(values),
                "p_flip": sign_flip_p(values),
            }
        rows.append(row)
    frame = pl.DataFrame(rows, infer_schema_length=None, schema_overrides=dict.fromkeys(FIGURES, pl.Float64))
    parts = [
        part.with_columns(pl.Series("p_holm", holm(part["p"].to_list()), dtype=pl.Float64))
        for part in frame.partition_by("claim", maintain_order=True)
    ]
    sure = pl.col("p_holm") < LEVEL
    margin = pl.col("unit").replace_strict(MARGINS, default=0.0, return_dtype=pl.Float64)
    return pl.concat(parts).with_columns(
        pl.when((pl.col("low") >= -margin) & (pl.col("high") <= margin))
        .then(pl.lit("no effect"))
        .when(sure & (pl.coalesce("low", "mean") > 0))
        .then(pl.lit("confirmed"))
        .when(sure & (pl.coalesce("high", "mean") < 0))
        .then(pl.lit("refuted"))
        .otherwise(pl.lit("undecided"))
        .alias("verdict")
    )
