"""Plan files (`plans/NAME.toml`): what a study tests, and the words for what comes out.

A plan is committed before its analysis, which reads margins, levels and settings from it. Each of its tests is one
row: an effect that is positive where the claim holds, with an interval and a p value.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from emergraph.analysis.statistics.intervals import Support, student
from emergraph.analysis.statistics.permutation import holm, rank_correlation, student_p

PLANS = Path(__file__).resolve().parent / "plans"
VERDICTS = ("confirmed", "refuted", "no effect", "undecided")
Row = dict[str, Any]


@cache
def read_plan(study: str) -> Mapping[str, Any]:
    """The plan of a study; its claims by name under `claims`."""
    with (PLANS / f"{study}.toml").open("rb") as file:
        plan = tomllib.load(file)
    return plan | {"claims": {claim["name"]: claim for claim in plan["claim"]}}


def over_replicates(values: ArrayLike, *, unit: str) -> Row:
    """Mean of replicates, Student's interval and p; nothing for fewer than three."""
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    row: Row = {"n": len(array), "mean": None, "low": None, "high": None, "p": None}
    if len(array) >= 3:
        found = student(array, support=Support.CORRELATION if unit == "rho" else Support.REAL)
        known = bool(np.isfinite(found.low))  # replicates that are all equal have no spread
        row |= {"mean": found.mean, "p": student_p(array)}
        row |= {"low": found.low, "high": found.high} if known else {}
    return row


def among(
    x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, *, cells: Sequence[object] | None = None
) -> Row:
    """Rank correlation over replicates, within cells where there are some, with interval and p by permuting."""
    found = rank_correlation(x, y, within=cells)
    return {"n": found.n, "mean": found.rho, "low": found.low, "high": found.high, "p": found.p}


def judge(rows: Iterable[Row], *, level: float) -> pl.DataFrame:
    """The primary tests of a plan: p corrected over all of them, and verdicts.

    Args:
        rows: claim, count, setting, unit, margin (0 where no effect cannot be shown), and what `over_replicates` or
            `among` found.
        level: Of the corrected p.
    """
    names = ("mean", "low", "high", "p", "margin")
    frame = pl.DataFrame(
        list(rows), infer_schema_length=None, schema_overrides=dict.fromkeys(names, pl.Float64)
    )
    corrected = pl.Series("p_holm", holm(frame["p"].to_list()), dtype=pl.Float64)
    return frame.with_columns(corrected).with_columns(verdict(level))


def verdict(level: float) -> pl.Expr:
    """Of rows with mean, low, high, p_holm and margin: one of `VERDICTS`.

    Where there is no interval the mean says on which side of 0 the effect lies.
    """
    sure, margin = pl.col("p_holm") < level, pl.col("margin")
    return (
        pl.when((margin > 0) & (pl.col("low") >= -margin) & (pl.col("high") <= margin))
        .then(pl.lit("no effect"))
        .when(sure & (pl.coalesce("low", "mean") > 0))
        .then(pl.lit("confirmed"))
        .when(sure & (pl.coalesce("high", "mean") < 0))
        .then(pl.lit("refuted"))
        .otherwise(pl.lit("undecided"))
        .alias("verdict")
    )


def against(low: float, high: float, *, predicted: float, margin: float) -> str:
    """Of a claim that a figure has a value: confirmed within the margin of it, refuted outside of that."""
    if predicted - margin <= low and high <= predicted + margin:
        return "confirmed"
    return "refuted" if low > predicted + margin or high < predicted - margin else "undecided"


def cell(row: Row) -> str:
    """Verdict, effect and interval of a row of `judge`, as a page says it."""
    if row["mean"] is None:
        return f"**undecided**, {row['n']} of the three replicates that a test needs"
    digits = 2 if row["unit"] in ("rho", "exponent") else 3
    ends = "" if row["low"] is None else f" [{row['low']:+.{digits}f}, {row['high']:+.{digits}f}]"
    p = row.get("p_holm")
    chance = "" if p is None else ", p < 0.0001" if p < 1e-4 else f", p {p:.4f}"
    return f"**{row['verdict']}** {row['mean']:+.{digits}f}{ends}{chance}, n {row['n']}"


def answers(study: str, found: pl.DataFrame) -> str:
    """One item for each claim of a plan: its words, unit, and what was found in each setting under each count."""
    said = []
    for name, claim in read_plan(study)["claims"].items():
        rows = found.filter(pl.col("claim") == name).to_dicts()
        parts = [f"{_where(row)}{cell(row)}" for row in rows]
        if parts:
            said.append(f"- *{claim['says']}* ({claim['unit']}): {'; '.join(parts)}.")
    return "\n".join(said)


def _where(row: Row) -> str:
    names = [row[name] for name in ("setting", "count") if row.get(name)]
    return f"{', '.join(names)}: " if names else ""
