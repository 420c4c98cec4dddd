"""The tests of the plan `transfer`, from the tables of trained networks."""

from collections.abc import Iterator

import numpy as np
import polars as pl
from pathcounts.claims import initialisation_effects
from planned import Row, among, judge, named, over_replicates, read_plan

PLAN = read_plan("transfer")


def primary(
    tasks: pl.DataFrame, vgg: pl.DataFrame, schemes: dict[str, tuple[pl.DataFrame, pl.DataFrame]]
) -> pl.DataFrame:
    """Every claim in each of its settings under each count.

    Args:
        tasks: Networks that learned two tasks, one row per epoch.
        vgg: Those with a scaled classifier.
        schemes: Counts and metrics of the groups of initialisations, by name.
    """
    rows = [
        named("transfer", claim, setting=setting, count=count) | row
        for claim, setting, count, row in (*_of_tasks(tasks), *_of_vgg(vgg), *_of_schemes(schemes))
    ]
    return judge(rows, level=PLAN["level"])


Found = Iterator[tuple[str, str, str, Row]]
"""Claim, setting, count, and what was found."""


def _log(frame: pl.DataFrame, count: str) -> np.ndarray:
    """log10(1 + E) in the order of the seeds."""
    return np.log10(1 + frame.sort("seed")[count].to_numpy())


def _of_tasks(tasks: pl.DataFrame) -> Found:
    transferred = tasks.filter(arm="transferred")
    for (setting,), own in transferred.group_by(["setting"], maintain_order=True):
        last = own["epoch"].max()
        at = {(task, epoch): own.filter(task=task, epoch=epoch) for task in (1, 2) for epoch in (0, 1, last)}
        for count in PLAN["counts"]:
            e = {place: _log(frame, count) for place, frame in at.items()}
            yield "rises", str(setting), count, over_replicates(e[2, 1] - e[1, last], unit="decades")
            yield "falls_again", str(setting), count, over_replicates(e[2, 1] - e[2, last], unit="decades")
            final = at[2, last].sort("seed")["test_accuracy"].to_numpy()
            yield "foretells", str(setting), count, among(e[2, 0], final)


def _of_vgg(vgg: pl.DataFrame) -> Found:
    good, low = (vgg.filter(scaling=name) for name in ("good", "low"))
    for count in PLAN["counts"]:
        starts = [_log(frame.filter(epoch=0), count) for frame in (good, low)]
        yield "scaling_raises", "vgg", count, over_replicates(starts[0] - starts[1], unit="decades")
    last = vgg["epoch"].max()
    ends = [frame.filter(epoch=last).sort("seed")["test_accuracy"].to_numpy() for frame in (good, low)]
    yield "scaling_trains", "vgg", "", over_replicates(ends[0] - ends[1], unit="accuracy")


def _of_schemes(schemes: dict[str, tuple[pl.DataFrame, pl.DataFrame]]) -> Found:
    for name, (counts, metrics) in schemes.items():
        chosen = counts.filter(pl.col("rule") == "mean", threshold=0.05)
        for effect in initialisation_effects(name, chosen, metrics):
            if "that learn" in effect.detail and effect.interior in PLAN["counts"]:
                yield "scale", name, effect.interior, effect.found or {}
