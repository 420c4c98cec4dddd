"""The tests of the plan `smallnets`: laws of E, E beside chance, and what E foretells."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import polars as pl
from numpy.typing import NDArray
from planned import Row, among, judge, named, over_replicates, read_plan

from smallnets.design import DEPTHS, LEVELS, WIDTHS
from smallnets.measure import design_cells

Floats = NDArray[np.float64]
PLAN = read_plan("smallnets")
LOGS = ("E_active", "E_any", "E_printed", "expected_active", "expected_any")


def prepared(nets: pl.DataFrame) -> pl.DataFrame:
    """With the cell of each network, and what the plan says of E: its logarithm, and that over chance."""
    logs = [(1 + pl.col(name)).log(10).alias(f"log_{name}") for name in LOGS]
    chance = (pl.col("log_E_active") - pl.col("log_expected_active")).alias("over_chance")
    return nets.with_columns(pl.Series("cell", design_cells(nets)), *logs).with_columns(chance)


def primary(nets: pl.DataFrame) -> pl.DataFrame:
    """All tests of the plan."""
    frame = prepared(nets)
    found = (*_law(frame), *_chance(frame), *_across(frame), *_within(frame))
    return judge(
        (named("smallnets", claim, setting=setting) | row for claim, setting, row in found),
        level=PLAN["level"],
    )


Found = Iterator[tuple[str, str, Row]]


def exponents(frame: pl.DataFrame, column: str) -> dict[tuple[int, float], Floats]:
    """By depth and level: for each seed the slope of log10 E on log10 of the width, mean over images."""
    numbered = frame.with_columns(number=pl.col("seed").rank("ordinal").over("cell"))
    mean = numbered.group_by("depth", "level", "number", "width").agg((pl.col(column) + 1).log(10).mean())
    found = {}
    for depth, level in product(DEPTHS, LEVELS):
        wide = mean.filter(depth=depth, level=level).sort("number", "width")
        values = wide[column].to_numpy().reshape(-1, len(WIDTHS))
        x = np.log10(WIDTHS) - np.log10(WIDTHS).mean()
        found[depth, level] = values @ x / (x @ x)
    return found


def _law(frame: pl.DataFrame) -> Found:
    """The exponent less that of the expected value; without pruning they are one, by arithmetic."""
    seen, expected = (exponents(frame, f"half_{name}active") for name in ("", "expected_"))
    for (depth, level), slopes in seen.items():
        if level:
            setting = f"{depth} hidden, {level:.0%} removed"
            yield "law", setting, over_replicates(slopes - expected[depth, level], unit="exponent")


def _chance(frame: pl.DataFrame) -> Found:
    for level in LEVELS[1:]:
        means = frame.filter(level=level).group_by("cell").agg(pl.col("over_chance").mean())
        yield "expected", f"{level:.0%} removed", over_replicates(means["over_chance"], unit="decades")


OURS = ("log_E_active", "over_chance")


def ridge(x: Floats, y: Floats, at: Floats, *, penalty: float) -> Floats:
    """Predictions of ridge regression with an intercept, predictors standardised by the rows it is fitted to.

    Args:
        x: (n, k) predictors; those that do not vary are left out.
        y: (n,) target.
        at: (m, k) where to predict.
        penalty: Of the squared coefficients.
    """
    centre, scale = x.mean(axis=0), x.std(axis=0)
    varies = scale > 1e-12
    z, there = ((a - centre)[:, varies] / scale[varies] for a in (x, at))
    coefficients = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (y - y.mean()))
    return np.asarray(y.mean() + there @ coefficients)


def held_out(frame: pl.DataFrame, predictors: Sequence[str], target: str) -> Floats:
    """(n,) predictions of the networks of each cell by a regression that has not seen the cell."""
    x, y = frame.select(predictors).to_numpy().astype(np.float64), frame[target].to_numpy()
    cells, found = frame["cell"].to_numpy(), np.empty(len(y))
    for cell in np.unique(cells):
        out = cells == cell
        found[out] = ridge(x[~out], y[~out], x[out], penalty=PLAN["penalty"])
    return found


def _across(frame: pl.DataFrame) -> Found:
    for target in PLAN["targets"]:
        yield "across", target, over_replicates(gains(frame, PLAN["baselines"], target), unit="decades")


def gains(frame: pl.DataFrame, baselines: Sequence[str], target: str) -> Floats:
    """(n_cells,) decades of squared error that E takes away in the cells that were left out."""
    errors = frame.select("cell").with_columns(
        *(
            pl.Series(name, (held_out(frame, chosen, target) - frame[target].to_numpy()) ** 2)
            for name, chosen in (("without", baselines), ("with", (*baselines, *OURS)))
        )
    )
    sums = errors.group_by("cell").agg(pl.col("without", "with").sum()).sort("cell")
    return np.log10(sums["without"].to_numpy() / sums["with"].to_numpy())


DESIGN = ("depth", "log_width", "level", "log_images")


def gains_given_design(frame: pl.DataFrame, target: str) -> Row:
    """As `across`, with the design itself among the predictors: E can then add nothing that size tells."""
    logs = [pl.col(name).log(10).alias(f"log_{name}") for name in ("width", "images")]
    baselines = (*PLAN["baselines"], *DESIGN)
    return over_replicates(gains(frame.with_columns(*logs), baselines, target), unit="decades")


def noise_gains(nets: pl.DataFrame, *, draws: int = 120) -> pl.DataFrame:
    """Mean and p of `across` with noise in the place of E: a value per cell, a fifth of it per network."""
    frame = prepared(nets)
    cells, members = np.unique(frame["cell"].to_numpy(), return_inverse=True)
    rng = np.random.default_rng(0)
    rows = []
    for draw in range(draws):
        noise = rng.normal(size=(len(cells), 2))[members] + rng.normal(size=(len(members), 2)) / 5
        drawn = frame.with_columns(pl.Series(name, noise[:, k]) for k, name in enumerate(OURS))
        target = PLAN["targets"][draw % len(PLAN["targets"])]
        found = over_replicates(gains(drawn, PLAN["baselines"], target), unit="decades")
        rows.append({"target": target, "mean": found["mean"], "p": found["p"]})
    return pl.DataFrame(rows)


def explained(frame: pl.DataFrame, predictors: Sequence[str], target: str) -> float:
    """Share of the variance between all networks that predictions of cells left out explain."""
    y = frame[target].to_numpy()
    return float(1 - ((held_out(frame, predictors, target) - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def _within(frame: pl.DataFrame) -> Found:
    names = (*PLAN["baselines"], *PLAN["targets"], "log_E_active")
    own = frame.with_columns(pl.col(name) - pl.col(name).mean().over("cell") for name in names)
    for target in PLAN["targets"]:
        left = own[target].to_numpy() - held_out(own, PLAN["baselines"], target)
        yield "within", target, among(own["log_E_active"].to_numpy(), left, cells=own["cell"].to_list())
