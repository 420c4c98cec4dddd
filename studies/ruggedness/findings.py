"""The tests of the plan `ruggedness`, and how much of E is design: what differs between cells."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from planned import Row, among, judge, named, over_replicates, read_plan

PLAN = read_plan("ruggedness")
CELL = ("sizes", "level")
FEWEST = 4
"""Networks of a cell that a correlation of its own needs."""


def primary(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Every claim of the plan, on the table that it names, if that is there."""
    rows = []
    for name, claim in PLAN["claims"].items():
        if claim["table"] not in tables:
            continue
        nets = finite(tables[claim["table"]], claim["column"])
        found = among(
            nets[PLAN["count"]].to_numpy(), nets[claim["column"]].to_numpy(), cells=nets.select(CELL).rows()
        )
        rows.append(named("ruggedness", name) | found)
    return judge(rows, level=PLAN["level"])


def finite(nets: pl.DataFrame, column: str) -> pl.DataFrame:
    """The networks that have a statistic."""
    return nets.filter(pl.col(column).is_finite())


def share_between(nets: pl.DataFrame, column: str = "E_active") -> float:
    """Share of the variance of log10(1 + E) that lies between the cells of the design."""
    logs = nets.select(*CELL, (1 + pl.col(column)).log(10).alias("log"))
    means = logs.select(pl.col("log").mean().over(CELL)).to_series()
    return float(means.var() / logs["log"].var())  # type: ignore[operator,arg-type]


def two_stages(nets: pl.DataFrame, column: str) -> Row:
    """A rank correlation in each cell, and their mean with an interval over cells: slopes differ by cell."""
    own = finite(nets, column)
    each = []
    for part in own.partition_by(CELL, maintain_order=True):
        x, y = part[PLAN["count"]].to_numpy(), part[column].to_numpy()
        if len(x) >= FEWEST and len(np.unique(x)) > 1 and len(np.unique(y)) > 1:
            each.append(among(x, y)["mean"])
    return over_replicates(each, unit="rho")


def between(nets: pl.DataFrame, column: str) -> Row:
    """The rank correlation of the means of the cells: what the design has to do with both."""
    means = (
        finite(nets, column)
        .group_by(CELL)
        .agg((pl.col(PLAN["count"]) + 1).log(10).mean(), pl.col(column).mean())
    )
    return among(means[PLAN["count"]].to_numpy(), means[column].to_numpy())


def together(tables: Sequence[pl.DataFrame], column: str) -> pl.DataFrame:
    """The networks of all tables that have a statistic."""
    names = [*CELL, "seed", PLAN["count"], column]
    return pl.concat(table.select(names) for table in tables if column in table.columns)
