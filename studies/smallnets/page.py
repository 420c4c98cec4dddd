"""`docs/smallnets-study.md`, and the long tables beside the results."""

from pathlib import Path

import numpy as np
import polars as pl
from markdown import markdown, table
from parts import seconds_of
from planned import answers, over_replicates

from smallnets.design import DEPTHS, IMAGES, LEVELS, SEEDS, STEPS, WIDTHS
from smallnets.findings import OURS, PLAN, explained, exponents, gains_given_design, prepared, primary


def write_page(results: Path, page: Path) -> None:
    """Test what the plan says, keep it in `primary.parquet`, and write the page and `tables.md`."""
    file = results / "networks.parquet"
    nets, noise = pl.read_parquet(file), pl.read_parquet(results / "noise.parquet")
    tested, frame = primary(nets), prepared(nets)
    tested.write_parquet(results / "primary.parquet", compression="zstd")
    parts = [
        _head(tested, frame, seconds_of([file])),
        _law(frame),
        _chance(frame),
        _foretold(frame, noise),
        LIMITS,
    ]
    page.write_text("\n".join(parts), encoding="utf-8")
    (results / "tables.md").write_text(_cells(frame), encoding="utf-8")


def between_cells(frame: pl.DataFrame, column: str) -> float:
    """Share of the variance of a column that lies between the cells of the design."""
    means = frame.select(pl.col(column).mean().over("cell")).to_series()
    return float(means.var() / frame[column].var())  # type: ignore[operator,arg-type]


def _head(tested: pl.DataFrame, frame: pl.DataFrame, seconds: float) -> str:
    return f"""# What is E, and does it foretell anything?

<!-- Written by studies/smallnets_study.py from studies/results/smallnets; do not edit. -->

**Question.** How does path-count emergence grow with width and depth at fixed activity; is it more than a network of the same
sizes, density and activity has by chance; does it foretell accuracy, generalisation or prunability beyond what is used already?

**Design.** {frame.height} dense ReLU networks on the 8x8 digits: {DEPTHS[0]} to {DEPTHS[-1]} hidden layers of {", ".join(map(str, WIDTHS))} units; {", ".join(f"{level:.0%}" for level in LEVELS)} of the weights removed; {" or ".join(map(str, IMAGES))} images.
{frame["cell"].n_unique()} cells of {SEEDS} seeds. E by the paper's rule (mean activation above 0.05) on the training images, interior `active`. Outer folds leave
whole cells out: ridge regression on path norm, sharpness, effective rank, neural persistence and activity, with E and without it.
Within cells, what such a regression leaves. Tests as the [plan](../studies/plans/smallnets.toml) chose them before any of these was trained.

**Answer**; effect with its 95 % interval, p corrected over all {tested.height} tests, n replicates:

{answers("smallnets", tested)}

By arithmetic: without pruning every layer is fully connected, and E is a function of the sizes and of how many units of each
layer are active, to the last path. It cannot know more than activity does. E is mostly size: where the regression is told the design as well, E takes away
{_given(frame)} (exploratory, below). {100 * between_cells(frame, "log_E_active"):.1f} % of the variance of log10(1 + E) lies
between the cells.

**What would change it.** Targets that are harder to foretell than those of small networks on digits; networks whose wiring is not a
few dense layers; other measures of what E would have to add to.

`python studies/smallnets_study.py` trains what is missing and writes this page; the networks took {seconds / 60:.1f} minutes of CPU time.
"""


def _given(frame: pl.DataFrame) -> str:
    rows = {target: gains_given_design(frame, target) for target in PLAN["targets"]}
    return "; ".join(
        f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] decades of the error of {target}"
        for target, row in rows.items()
    )


def _law(frame: pl.DataFrame) -> str:
    seen, expected, share = (
        exponents(frame, name) for name in ("half_active", "half_expected_active", "half_any")
    )
    rows = [
        [depth, f"{level:.0%}", *(_ends(found[depth, level]) for found in (seen, expected, share))]
        for depth, level in seen
    ]
    factors = (
        frame.group_by("width", "level", "depth")
        .agg((pl.col("half_active") + 1).log(10).mean())
        .pivot("depth", index=["width", "level"], values="half_active")
        .sort("level", "width")
        .select("width", "level", *map(str, DEPTHS))
    )
    head = ["hidden layers", "removed", "exponent of E", "of its expected value", "of E, interior any"]
    return f"""## The law

Half of the units of each layer active, those with the highest means. Exponent of the width, {WIDTHS[0]} to {WIDTHS[-1]} units. Without pruning
`E = sum over layers i < j of (n_i - a_i) a_j prod a_k`; its longest paths cross all hidden layers, so the exponent tends to
their number as layers widen, and each further layer multiplies E by its active units. Pruning multiplies a path by the density of
each layer that it crosses.

{table(head, rows, words=0)}
log10(1 + E) at half activity, by number of hidden layers:

{markdown(factors)}
"""


def _ends(slopes: np.ndarray) -> str:
    """Mean over seeds with its interval, if they differ."""
    found = over_replicates(slopes, unit="exponent")
    return f"{found['mean']:.2f}" + (
        "" if found["low"] is None else f" [{found['low']:.2f}, {found['high']:.2f}]"
    )


def _chance(frame: pl.DataFrame) -> str:
    found = (
        frame.group_by("level", "depth")
        .agg(
            pl.col("log_E_active").mean(),
            pl.col("log_expected_active").mean().alias("expected"),
            pl.col("over_chance").mean().alias("difference"),
            pl.col("over_chance").std().alias("deviation"),
        )
        .sort("level", "depth")
        .rename({"log_E_active": "log10(1 + E)"})
    )
    return f"""## E beside chance

Expected of as many weights per layer at random places, with as many active units: an exact sum, as a path takes one edge of each
layer. Decades.

{markdown(found, {"difference": ".3f", "deviation": ".3f"})}
"""


def _foretold(frame: pl.DataFrame, noise: pl.DataFrame) -> str:
    sure = noise.filter(pl.col("p") < PLAN["level"])
    better, worse = sure.filter(pl.col("mean") > 0).height, sure.filter(pl.col("mean") < 0).height
    baselines = PLAN["baselines"]
    sets = {
        "baselines": baselines,
        "baselines and E": (*baselines, *OURS),
        "E alone": OURS,
        "activity alone": ("share_active", "active_hidden"),
        **{name: (name,) for name in baselines[:4]},
    }
    rows = [
        [name, *(f"{explained(frame, chosen, target):.3f}" for target in PLAN["targets"])]
        for name, chosen in sets.items()
    ]
    given = [
        [target, f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]", f"{row['p']:.4f}"]
        for target, row in ((target, gains_given_design(frame, target)) for target in PLAN["targets"])
    ]
    return f"""## What is foretold

Share of the variance between all networks that is explained in cells that were left out (exploratory, but for the first two
rows' difference; below 0: worse than the mean). `gap`: test less training loss. `prunability`: share of the weights left that may go,
the smallest first and without training on, for 2 points of test accuracy.

{table(["predictors", *PLAN["targets"]], rows, words=1)}
E is mostly size, and path norm and its like are not told the size. What E takes away of the squared error of cells that were left
out once the design itself is told (depth, log10 of width and of images, level; decades, exploratory, p uncorrected):

{table(["target", "decades of squared error", "p"], given, words=1)}
Predictors that are noise, one value per cell and a fifth of it per network, were tried {noise.height} times in the place of E: they made
predictions better beyond p = 0.05 {better} times, and worse {worse} times. A loss is no finding.
"""


LIMITS = f"""## What this does not show

Predictors are measured at the end of training, so that "foretell" is of data and cells that were left out, not of the future. Cells
share their training images; errors of left-out cells share the networks that they are predicted from, which makes intervals over
cells approximate. Networks are trained by full-batch Adam, {STEPS} steps before pruning and as many after.
"""


def _cells(frame: pl.DataFrame) -> str:
    columns = ["test_accuracy", "gap", "prunability", "log_E_active", "over_chance", *PLAN["baselines"]]
    means = frame.group_by("cell", maintain_order=True).agg(pl.col(columns).mean())
    return f"# Means of the cells\n\nWritten by studies/smallnets_study.py; do not edit.\n\n{markdown(means, {'gap': '.3f', 'test_accuracy': '.3f'})}\n"
