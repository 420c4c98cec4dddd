"""The page of findings and the long tables, written from the study's data."""

import polars as pl
from markdown import table
from planned import Row, among, answers

from ruggedness.correlate import CONTROLS, EMERGENCE
from ruggedness.findings import CELL, PLAN, between, share_between, together, two_stages

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


def page(nets: pl.DataFrame, seeds: pl.DataFrame, found: pl.DataFrame, tested: pl.DataFrame) -> str:
    """Markdown of the page of findings.

    Args:
        nets: The networks with all statistics.
        seeds: More seeds of each cell, with those that the plan tests.
        found: All correlations of the former.
        tested: What the plan tests.
    """
    parts = [
        HEAD.format(
            n=nets.height,
            more=seeds.height,
            cells=nets.select(CELL).n_unique(),
            per_cell=seeds.height // nets.select(CELL).n_unique(),
            architectures=nets["sizes"].n_unique(),
            levels=", ".join(f"{100 * level:.0f} %" for level in sorted(nets["level"].unique())),
            low=100 * float(nets["accuracy"].min() or 0),
            high=100 * float(nets["accuracy"].max() or 0),
            tests=found.drop_nulls("p").height,
            between=100 * share_between(seeds),
            between_before=100 * share_between(nets),
            sentence=_sentence(tested),
            answers=answers("ruggedness", tested),
        ),
        _design_and_seed(nets, seeds),
        _summary(found),
        _levels(nets),
        LIMITS,
    ]
    return "\n".join(parts)


def _sentence(tested: pl.DataFrame) -> str:
    """The paper's hypothesis, in one sentence."""
    rows = {row["claim"]: row for row in tested.to_dicts()}
    verdicts = {row["verdict"] for row in rows.values()}
    what = {
        "minima": "the number of minima",
        "walks": "the ruggedness of walks",
        "rise": "the rise of the loss",
    }
    told = ", ".join(
        f"{words} by rho {rows[name]['mean']:+.2f} [{rows[name]['low']:+.2f}, {rows[name]['high']:+.2f}]"
        for name, words in what.items()
    )
    ending = f"which leaves the hypothesis {verdicts.pop()}" if len(verdicts) == 1 else "each judged below"
    return f"Where the design is the same and the seed differs, emergence goes with {told}, {ending}."


def _design_and_seed(nets: pl.DataFrame, seeds: pl.DataFrame) -> str:
    rows = []
    for claim in PLAN["claims"].values():
        column = claim["column"]
        both = together((nets, seeds), column)
        within = among(
            both[PLAN["count"]].to_numpy(), both[column].to_numpy(), cells=both.select(CELL).rows()
        )
        rows.append(
            [
                column,
                both.height,
                *(_plain(row) for row in (between(both, column), within, two_stages(both, column))),
            ]
        )
    head = ["statistic", "networks", "between cells", "within cells", "within, mean of the cells' own"]
    return f"""
## Design and seed (exploratory)

Rank correlation of E with each statistic, old and new networks together: of the means of the cells; of networks within their
cells; and the mean of the correlations in each cell, with Student's interval over cells, for which cells are the replicates and may
differ (a mixed model in two stages).

{table(head, rows, words=1)}"""


def _plain(row: Row) -> str:
    if row["mean"] is None:
        return "-"
    ends = "" if row["low"] is None else f" [{row['low']:+.2f}, {row['high']:+.2f}]"
    return f"{row['mean']:+.2f}{ends}"


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

**Design.** {cells} cells of small networks: {architectures} architectures, {levels} of the weights removed. {n} networks, 5 seeds in each
cell, with all statistics of the loss around them; {more} more, {per_cell} new seeds in each cell, with those that the
[plan](../studies/plans/ruggedness.toml) tests on them. {between:.1f} % of the variance of log10(1 + E) lies between cells
({between_before:.1f} % in the older networks), so networks are compared within their cell, by permuting there.

**Answer.** {sentence} Rank correlations within cells with their 95 % interval, p corrected over the three tests, n networks:

{answers}

Between cells, E goes with everything that the design moves: sparser and smaller networks have fewer paths, and other
landscapes. That is no evidence for or against the hypothesis.

**What would change it.** More seeds in each cell; larger networks, other data; minima that are counted in some way that
is cheap enough for hundreds of networks.

Written by `studies/ruggedness_study.py` (`make study`) from `studies/results/ruggedness/`; do not edit. All
correlations are in the tables [beside the results](../studies/results/ruggedness/tables.md).

{n} dense ReLU nets ({architectures} architectures; {levels} of the weights removed; every net with a seed of
its own) were trained on the 8 x 8 digits, pruned by magnitude, and trained on; they reach {low:.1f} % to
{high:.1f} % on 500 test images. Emergence is the path count of arXiv 2409.01568 on the real (pruned) graph:
a unit is active when its mean activation over the evaluation set is above 0.05; outputs are logits. The landscape is the
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
