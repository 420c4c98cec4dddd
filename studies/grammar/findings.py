"""What the trainings say: transitions, exponents, and where the data themselves percolate."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from emergraph.analysis.percolation.concepts import ConceptOptions, PairColumns, concept_percolation
from emergraph.analysis.percolation.training import (
    LogColumns,
    TrainingResult,
    slope_exponent,
    training_transitions,
)
from emergraph.errors import InvalidInputError

METRICS: dict[str, tuple[str, str, str]] = {
    "grammar_share": ("grammar", "discontinuous", "free sentences that are grammatical"),
    "grammar_mass": ("grammar", "continuous", "probability on parts of speech that may follow"),
    "relative_share": ("relative types", "discontinuous", "verbs and objects of the right class, free"),
    "relative_top": ("relative types", "discontinuous", "likeliest verb or object is of the right class"),
    "relative_mass": ("relative types", "continuous", "probability on verbs and objects of that class"),
    "descriptive_share": ("descriptive types", "discontinuous", "pairs of the right class, free"),
    "descriptive_top": ("descriptive types", "discontinuous", "likeliest property is of the right class"),
    "descriptive_mass": ("descriptive types", "continuous", "probability on properties of that class"),
    "unseen_lift": ("unseen pairs", "continuous", "log10 odds of unseen pairs of a class over foreign ones"),
}
"""Metric: capability, kind, meaning."""

PRIMARY = "descriptive_mass"
"""The metric of the capability that the theory is about, whose exponent is the study's answer."""


def transitions(logs: pl.DataFrame, *, draws: int = 500) -> dict[str, TrainingResult]:
    """The transitions of all metrics of one group of runs, but those that no run measured often enough."""
    found = {}
    for metric in METRICS:
        try:
            found[metric] = training_transitions(logs, columns=LogColumns(metric=metric), draws=draws)
        except InvalidInputError:  # nothing of the kind was ever generated: happens in tiny runs only
            continue
    return found


def exponent_table(group: str, found: dict[str, TrainingResult]) -> pl.DataFrame:
    """One row per metric and method."""
    frames = []
    for metric, result in found.items():
        if result.exponents:
            capability, kind, _ = METRICS[metric]
            about = {"group": group, "capability": capability, "kind": kind, "metric": metric}
            counts = {f"runs_{sort}": n for sort, n in result.preferred().items()}
            named = [pl.lit(value).alias(name) for name, value in {**about, **counts}.items()]
            frames.append(result.exponent_table().select(*named, pl.all()))
    return pl.concat(frames) if frames else pl.DataFrame()


def middles(group: str, found: dict[str, TrainingResult]) -> pl.DataFrame:
    """Mean step of the middle of each metric's rise, per size."""
    frames = []
    for metric, result in found.items():
        table = (
            result.runs()
            .group_by("n_entities", "n_properties")
            .agg(
                pl.col("middle").mean(),
                pl.col("middle").min().alias("first"),
                pl.col("middle").max().alias("last"),
            )
        )
        frames.append(table.select(pl.lit(group).alias("group"), pl.lit(metric).alias("metric"), pl.all()))
    return pl.concat(frames).sort("metric", "n_properties")


def after_grammar(found: dict[str, TrainingResult]) -> dict[str, object] | None:
    """The exponent of descriptive types counted from the middle of the grammar's rise; not planned before.

    None where a run learned its types before its grammar.
    """
    runs = (
        found[PRIMARY]
        .runs()
        .join(found["grammar_mass"].runs(), on=["run", "n_entities", "n_properties"], suffix="_grammar")
    )
    waits = (runs["middle"] - runs["middle_grammar"]).to_numpy()
    if runs.height < 3 or runs["n_properties"].n_unique() < 2 or (waits <= 0).any():
        return None
    sizes = (runs["n_entities"] * runs["n_properties"]).to_numpy().astype(np.float64)
    return slope_exponent("middle after grammar", sizes, waits).to_dict()


def data_percolation(pairs: pl.DataFrame, *, nulls: int = 20, n_classes: int = 10) -> pl.DataFrame:
    """When the pairs of the training sentences percolate, per size: pairs and steps, beside theory."""
    rows = []
    for (n_entities, n_properties, batch), own in pairs.group_by(
        ["n_entities", "n_properties", "batch"], maintain_order=True
    ):
        classed = own.sort("step", maintain_order=True).with_columns(kind=pl.col("entity") % n_classes)
        # Within a step the order of pairs is that of its sentences: rows count as time.
        result = concept_percolation(
            classed, columns=PairColumns(of_class="kind"), options=ConceptOptions(nulls=nulls)
        )
        observed, *_, random = result.thresholds.iter_rows(named=True)
        seen = classed["step"].to_numpy()
        rows.append(
            {
                "n_entities": n_entities,
                "n_properties": n_properties,
                "batch": batch,
                "n_pairs": result.n_pairs,
                "expected_threshold": result.expected_threshold,
                "threshold": observed["threshold"],
                "random_threshold": random["threshold"],
                "random_low": random["low"],
                "random_high": random["high"],
                "step_of_threshold": int(seen[round(observed["threshold"]) - 1]),
                "step_of_all": int(seen[-1]),
                "connected": result.connected_share,
            }
        )
    return pl.DataFrame(rows)


def seen_pairs(pairs: pl.DataFrame, steps: Sequence[int]) -> list[int]:
    """Distinct pairs up to each step."""
    return np.searchsorted(np.sort(pairs["step"].to_numpy()), steps, side="right").tolist()
