"""Plan files (`plans/NAME.toml`): what a study tests, and the words for what comes out.

A plan is committed before its analysis, which reads margins, levels and settings from it. Each of its tests
is one row: an effect that is positive where the claim holds, with an interval and a p value.
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
NUMBERS = ("mean", "low", "high", "p", "margin", "predicted")
ROW: Row = {"claim": "", "setting": "", "count": "", "unit": "", "n": 0, **dict.fromkeys(NUMBERS)}
"""What a test has, at least."""


@cache
def read_plan(study: str) -> Mapping[str, Any]:
    """The plan of a study; its claims by name under `claims`."""
    with (PLANS / f"{study}.toml").open("rb") as file:
        plan = tomllib.load(file)
    return plan | {"claims": {claim["name"]: claim for claim in plan["claim"]}}


def named(study: str, claim: str, *, setting: str = "", count: str = "") -> Row:
    """What a plan says of a claim, for a row of `judge`."""
    said = read_plan(study)["claims"][claim]
    row = {"claim": claim, "setting": setting, "count": count, "unit": said["unit"]}
    return row | {"margin": said.get("margin", 0.0), "predicted": said.get("predicted")}


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
    """Rank correlation over replicates, within cells if there are some, with interval and p by permuting."""
    found = rank_correlation(x, y, within=cells)
    return {"n": found.n, "mean": found.rho, "low": found.low, "high": found.high, "p": found.p}


def judge(rows: Iterable[Row], *, level: float) -> pl.DataFrame:
    """The primary tests of a plan: p corrected over all of them, and verdicts.

    Args:
        rows: claim, setting, count, unit, margin (0 where no effect cannot be shown), what
            `over_replicates` or `among` found, and `predicted` for claims that a figure has a value.
        level: Of the corrected p.
    """
    found = [ROW | row for row in rows]
    frame = pl.DataFrame(
        found or [ROW], infer_schema_length=None, schema_overrides=dict.fromkeys(NUMBERS, pl.Float64)
    )
    frame = frame.head(len(found))
    tested = [None if row["predicted"] is not None else row["p"] for row in frame.iter_rows(named=True)]
    corrected = pl.Series("p_holm", holm(tested), dtype=pl.Float64)
    frame = frame.with_columns(corrected)
    valued = pl.when(pl.col("predicted").is_null()).then(verdict(level)).otherwise(_of_value())
    return frame.with_columns(valued.alias("verdict"))


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


def _of_value() -> pl.Expr:
    """Of a claim that a figure has a value: confirmed within the margin of it, refuted outside of that."""
    near, far = (pl.col("predicted") + sign * pl.col("margin") for sign in (-1, 1))
    return (
        pl.when((pl.col("low") >= near) & (pl.col("high") <= far))
        .then(pl.lit("confirmed"))
        .when((pl.col("low") > far) | (pl.col("high") < near))
        .then(pl.lit("refuted"))
        .otherwise(pl.lit("undecided"))
    )


def cell(row: Row) -> str:
    """Verdict, effect and interval of a row of `judge`, as a page says it."""
    if row["mean"] is None:
        return f"**undecided**, as {row['n'] or 'no'} replicates have the figure and a test needs three"
    form = ".2f" if row["unit"] == "exponent" else "+.2f" if row["unit"] == "rho" else "+.3f"
    ends = "" if row["low"] is None else f" [{row['low']:{form}}, {row['high']:{form}}]"
    p = row["p_holm"]
    chance = "" if p is None else ", p < 0.0001" if p < 1e-4 else f", p {p:.4f}"
    return f"**{row['verdict']}** {row['mean']:{form}}{ends}{chance}, n {row['n']}"


def answers(study: str, found: pl.DataFrame) -> str:
    """One item for each claim of a plan: words, unit, what was found in each setting under each count."""
    said = []
    for name, claim in read_plan(study)["claims"].items():
        parts = [f"{_where(row)}{cell(row)}" for row in found.filter(claim=name).to_dicts()]
        if parts:
            said.append(f"- *{claim['says']}* ({claim['unit']}): {'; '.join(parts)}.")
    return "\n".join(said)


def _where(row: Row) -> str:
    names = [row[name] for name in ("setting", "count") if row[name]]
    return f"{', '.join(names)}: " if names else ""
