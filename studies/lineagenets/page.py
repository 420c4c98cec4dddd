"""The last part of `docs/lineage.md`, from what was measured."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from markdown import table

from lineagenets.experiment import LEVEL, auroc

MARK = "<!-- results -->\n"


def write_page(results: Path, page: Path) -> None:
    """Write what was measured below the mark of the page."""
    text = results_text(
        pl.read_parquet(results / "pairs.parquet"),
        pl.read_parquet(results / "scores.parquet"),
        json.loads((results / "fingerprints.json").read_text(encoding="utf-8")),
    )
    text += _students(
        pl.read_parquet(results / "students.parquet"), pl.read_parquet(results / "students-false.parquet")
    )
    own = page.read_text(encoding="utf-8").split(MARK)[0]
    page.write_text(f"{own}{MARK}\n{text}", encoding="utf-8")


def results_text(pairs: pl.DataFrame, scores: pl.DataFrame | None, prints: Mapping[str, float]) -> str:
    """Return the tables with their sentences."""
    parts = [_relations(pairs), _confusion(pairs)]
    if scores is not None:
        parts.append(_scores(scores))
    return "\n".join([*parts, _fingerprints(prints)])


def _relations(pairs: pl.DataFrame) -> str:
    rows = []
    for (name,), own in pairs.group_by("architecture", maintain_order=True):
        known = own.filter(pl.col("truth").is_not_null())
        apart = own.filter(pl.col("truth") == "independent")
        right = known.filter(pl.col("truth") != "independent")
        rows.append(
            [
                name,
                own.height - apart.height,
                apart.height,
                f"{auroc(own):.4f}",
                apart["related"].sum(),
                f"{100 * (right['truth'] == right['kind']).mean():.0f} %",
                f"{np.mean([p is not None and p <= 0.05 for p in apart['p']]):.3f}",
                f"{np.mean([p is not None and p <= 0.01 for p in apart['p']]):.3f}",
                f"{apart['matched'].max():.2f}",
            ]
        )
    head = [
        *("architecture", "related pairs", "pairs of other seeds", "AUROC", f"false links at {LEVEL:g}"),
        *("kind right", "p <= .05", "p <= .01", "largest cosine after matching"),
    ]
    apart = pairs.filter(pl.col("truth") == "independent")
    shares = [np.mean([p is not None and p <= level for p in apart["p"]]) for level in (0.05, 0.01)]
    return (
        f"{table(head, rows, words=1)}\n"
        "AUROC orders pairs by the larger of the cosine as stored and, beyond 0.5, that after matching. p of "
        f"the exact test, over all {apart.height} pairs of other seeds: at most .05 in {shares[0]:.3f} of "
        f"them, at most .01 in {shares[1]:.3f}. Kinds are of related pairs alone.\n"
    )


def _confusion(pairs: pl.DataFrame) -> str:
    known = pairs.filter(pl.col("truth").is_not_null())
    kinds = sorted(set(known["truth"]) | set(known["kind"]))
    counts = {(t, k): n for t, k, n in known.group_by("truth", "kind").len().iter_rows()}
    rows = [
        [truth, *(counts.get((truth, kind), "") for kind in kinds)] for truth in sorted(set(known["truth"]))
    ]
    return f"What they are (rows) and are called (columns):\n\n{table(['', *kinds], rows, words=1)}"


def _scores(scores: pl.DataFrame) -> str:
    rows = []
    for (name,), own in scores.group_by("architecture", maintain_order=True):
        others = own.filter(~pl.col("calibrating"))
        rows.append(
            [
                name,
                own["calibrating"].sum(),
                others.height,
                *(f"{(others['match_p'] <= level).mean():.3f}" for level in (0.05, 0.01)),
                f"{own['score'].mean():.3f}",
                f"{own['score'].max():.2f}",
            ]
        )
    head = [
        *("architecture", "calibrating pairs", "other pairs", "match_p <= .05", "match_p <= .01"),
        *("mean score", "largest score"),
    ]
    return (
        "The match score of independent nets of one architecture and data. `match_p` is read off the pairs "
        "of 26 nets, and held against pairs with 8 others:\n\n"
        f"{table(head, rows, words=1)}"
    )


def _students(pairs: pl.DataFrame, rates: pl.DataFrame) -> str:
    """Students that learnt outputs, by what they are and are called, and false links where nobody was taught."""
    kinds = ("distilled", "undecided", "independent")
    groups = {
        "distilled, same architecture": (pl.col("truth") == "distilled") & ~pl.col("across"),
        "distilled, another architecture": (pl.col("truth") == "distilled") & pl.col("across"),
        "two students of one net": pl.col("truth") == "two students",
        "independent": pl.col("truth") == "independent",
    }
    rows = []
    for label, chosen in groups.items():
        own = pairs.filter(chosen)
        least, most = (f"{value:.2f}" for value in (own["score"].min(), own["score"].max()))
        rows.append([label, *((own["kind"] == kind).sum() for kind in kinds), f"{least} to {most}"])
    head = ["nets, sets", "sets", "with a false link", "pairs", "follow", "unclear"]
    drawn = [[f"{row[0]}, {row[1]} nets", *row[2:]] for row in rates.iter_rows()]
    truth = pairs.filter(pl.col("truth") == "distilled")
    right = 100 * (truth["kind"] == "distilled").mean()
    exact = pairs.filter(pl.col("truth") == "distilled")["p"].drop_nulls()
    return (
        "\nStudents learnt the outputs of a net from their own start, without a label, on the data of its task, four times "
        "as long as it did; all nets of a task are compared on 300 samples of it. What pairs are (rows) and are called "
        f"(columns), with the score where it was computed: {right:.0f} % of {truth.height} are found.\n\n"
        f"{table(['', *kinds, 'score'], rows, words=1)}\n"
        f"By weights they are independent: the smallest p of {exact.len()} students and their nets is {exact.min():.2g}. "
        "Sets of independent nets, drawn from 34 of each architecture, in which nothing follows anything:\n\n"
        f"{table(head, drawn, words=1)}"
    )


def _fingerprints(prints: Mapping[str, float]) -> str:
    rows = [
        [name.removeprefix("recall, "), f"{share:.3f}"]
        for name, share in prints.items()
        if "recall, " in name
    ]
    return (
        f"Candidates among {prints['fingerprints']:,} synthetic fingerprints of {prints['bytes']} bytes take "
        f"{prints['cpu_seconds']:g} CPU seconds: {prints['candidates']:,} pairs, with "
        f"{100 * prints['recall']:.1f} % of the related ones among them. By what was done to the net:\n\n"
        f"{table(['derivation', 'recall'], rows, words=1)}"
    )
