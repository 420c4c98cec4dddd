"""The page of findings and the long tables, written from the study's data."""

import polars as pl
from markdown import table

from ruggedness.correlate import CONTROLS, EMERGENCE

SHOWN = (
    *("filter_rise", "filter_excess_ruggedness", "filter_convexity", "filter_m_0", "filter_plane_n_minima"),
    *("element_rise", "element_excess_ruggedness", "element_convexity", "element_plane_n_minima"),
    *("filter_average_sharpness", "element_average_sharpness", "worst_case_highest"),
    *("adaptive_worst_case_highest", "hessian_largest_1", "hessian_trace", "hessian_negative_mass"),
    *("mask_n_strict_minima", "mask_additive_share", "lon_n_optima"),
)

QUESTIONS = {
    "more minima with higher E?": (
        *("filter_plane_n_minima", "element_plane_n_minima", "mask_n_strict_minima", "lon_n_optima"),
    ),
    "walks more rugged than a bowl's with higher E?": (
        *("filter_excess_ruggedness", "element_excess_ruggedness", "filter_m_0", "element_m_0"),
    ),
    "a steeper rise with higher E?": ("filter_rise", "element_rise"),
    "sharper with higher E?": (
        *("hessian_largest_1", "hessian_trace", "worst_case_highest", "adaptive_worst_case_highest"),
        *("filter_average_sharpness", "element_average_sharpness"),
    ),
}
"""What the answer says besides counts, and the statistics that it looks at."""


HYPOTHESIS = {
    "more minima": "filter_plane_n_minima",
    "more rugged walks": "filter_excess_ruggedness",
    "a steeper rise": "filter_rise",
}
"""The paper's words, and the statistic of each that is quoted."""
MARGIN = 0.1
"""Correlations within it, on both sides of 0, are none."""


def page(nets: pl.DataFrame, found: pl.DataFrame) -> str:
    """Markdown of the page of findings."""
    parts = [
        HEAD.format(
            n=nets.height,
            architectures=nets["sizes"].n_unique(),
            levels=", ".join(f"{100 * level:.0f} %" for level in sorted(nets["level"].unique())),
            low=100 * float(nets["accuracy"].min() or 0),
            high=100 * float(nets["accuracy"].max() or 0),
            tests=found.drop_nulls("p").height,
            hypothesis=_hypothesis(found),
        ),
        _summary(found),
        _levels(nets),
        LIMITS,
    ]
    return "\n".join(parts)


def _hypothesis(found: pl.DataFrame) -> str:
    """What is left of the hypothesis among nets of one level and architecture, which differ by their seed."""
    said = []
    for words, statistic in HYPOTHESIS.items():
        rows = found.filter(measure="E_active", statistic=statistic, control="given sparsity, size")
        for row in rows.drop_nulls("low").iter_rows(named=True):
            low, high = row["low"], row["high"]
            verdict = (
                "no effect"
                if low >= -MARGIN and high <= MARGIN
                else "undecided"
                if low <= 0 <= high or (row["p_holm"] or 0.0) >= 0.05
                else "yes"
                if low > 0
                else "the other way round"
            )
            said.append(f"{words}: {verdict}, rho {row['rho']:+.2f} [{low:+.2f}, {high:+.2f}]")
    return "; ".join(said)


def tables(found: pl.DataFrame) -> str:
    """Markdown of the long tables, which lie beside the results."""
    measures = (("E_active", "E"), ("E_active_per_density", "E per density (relative E)"))
    parts = [_correlations(found, measure, title) for measure, title in (*measures, ("sparsity", "sparsity"))]
    return "\n".join([TABLES, *parts])


def _summary(found: pl.DataFrame) -> str:
    lines = ["\n## All correlations, counted\n"]
    for control in CONTROLS:
        rows = found.filter((pl.col("control") == control) & pl.col("measure").is_in(EMERGENCE))
        tested, significant = rows.drop_nulls("p"), rows.filter(pl.col("p_holm") < 0.05)
        strongest = significant.sort(pl.col("rho").abs(), descending=True).head(1)
        said = "" if strongest.is_empty() else f"; the strongest is {_named(strongest.row(0, named=True))}"
        lines.append(
            f"- {control}: {significant.height} of {tested.height} correlations of a measure of E with a "
            f"statistic differ from 0 after correction{said}."
        )
    for title, statistics in QUESTIONS.items():
        rows = found.filter(pl.col("statistic").is_in(statistics) & pl.col("measure").is_in(EMERGENCE))
        tested, significant = rows.drop_nulls("p"), rows.filter(pl.col("p_holm") < 0.05)
        largest = tested.sort(pl.col("rho").abs(), descending=True).head(1)
        lines.append(
            f"- {title}: {significant.height} of {tested.height} correlations differ from 0; the largest is "
            f"{_named(largest.row(0, named=True))}."
            if tested.height
            else f"- {title}: does not vary."
        )
    return "\n".join(lines) + "\n"


def _named(row: dict[str, object]) -> str:
    return f"{row['measure']} with {row['statistic']} ({row['control']}): {_cell(row)}"


def _cell(row: dict[str, object]) -> str:
    if row["rho"] is None:
        return "constant"
    ends = "" if row["low"] is None else f" [{row['low']:+.2f}, {row['high']:+.2f}]"
    text = f"{row['rho']:+.2f}{ends}"
    corrected = row["p_holm"]
    return f"**{text}**" if isinstance(corrected, float) and corrected < 0.05 else text


def _correlations(found: pl.DataFrame, measure: str, title: str) -> str:
    controls = [c for c in CONTROLS if c in set(found.filter(pl.col("measure") == measure)["control"])]
    rows = []
    for statistic in SHOWN:
        own = found.filter((pl.col("statistic") == statistic) & (pl.col("measure") == measure))
        cells = {row["control"]: _cell(row) for row in own.iter_rows(named=True)}
        rows.append([statistic, *(cells.get(c, "-") for c in controls)])
    return f"\n## {title}\n\n{table(['statistic', *controls], rows)}"


def _levels(nets: pl.DataFrame) -> str:
    columns = ["accuracy", "E_active", "E_active_per_density", "filter_rise", "element_rise"]
    columns += ["filter_excess_ruggedness", "element_excess_ruggedness", "hessian_trace", "lon_n_optima"]
    medians = nets.group_by("level").agg(pl.col(columns).median()).sort("level")
    rows = [
        [f"{100 * level:.0f} %", *(f"{median:.4g}" for median in row)] for level, *row in medians.iter_rows()
    ]
    return (
        "\n## By pruning level\n\nMedians over architectures and seeds.\n\n"
        f"{table(['removed', *columns], rows)}"
    )


HEAD = """# Does a network of higher emergence lie in a more rugged landscape?

**Question.** Has a network of higher emergence more minima and a more rugged landscape, as arXiv 2409.01568
supposes?

**Design.** {n} small networks that differ by architecture, level of pruning and seed; E, and statistics of
the loss around them. Networks are the replicates. What differs between the cells of the design is held
constant by permuting within them. No plan was committed before: all {tests} correlations are counted, and
corrected together.

**Answer.** Among networks of one architecture and level, which differ by their seed: {hypothesis}.
What correlates without such a control is the design: sparser and smaller networks have fewer paths, and other
landscapes.

**What would change it.** More seeds in each cell, of which five leave these intervals. Larger networks, other
data.

Written by `studies/ruggedness_study.py` (`make study`) from `studies/results/ruggedness/`; do not edit. All
correlations are in the tables [beside the results](../studies/results/ruggedness/tables.md).

{n} dense ReLU nets ({architectures} architectures; {levels} of the weights removed; every net with a seed of
its own) were trained on the 8 x 8 digits, pruned by magnitude, and trained on; they reach {low:.1f} % to
{high:.1f} % on 500 test images. Emergence is the path count of arXiv 2409.01568 on the real (pruned) graph:
a unit is active when its mean activation over the evaluation set is above 0.05. The landscape is the
cross-entropy of 400 training images. Ruggedness is measured with 10 directions, 10 planes, 10 walks of 60
steps, 20 pairs; `filter` directions also move the removed weights, `element` directions leave them at 0.
Hessians are over all parameters. `lon_n_optima` counts optima of different functions that L-BFGS descents
from kicked weights reach; `mask_n_strict_minima` those of the exact landscape of removing ten groups of
weights. p values, {tests} in all, permute nets: among those of one level of pruning where sparsity is given,
of one level and architecture where size is given too. Given the loss as well, nets of one level and
architecture are compared less a line in the loss (`emergraph.analysis.statistics.conditional`).
"""

TABLES = """# What correlates with emergence

Written by `studies/ruggedness_study.py`; the findings are in `docs/ruggedness-study.md`.

Spearman correlation (of normal scores where the loss is given) with its 95 % jackknife interval; in bold
where p < 0.05 after Holm's correction over all statistics and controls of a measure. All rows are in
`correlations.parquet`.
"""

LIMITS = """
## What this does not show

Correlations over nets of one data set and one way of training, no causes. Larger nets have more paths, more
weights and other landscapes for reasons of size alone, and nets that fit worse are sharper; the last columns
compare nets of one level, or of one level and architecture: what is left there is the difference between
seeds. Statistics of single nets carry their own error, which weakens correlations.
"""
