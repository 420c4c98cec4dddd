"""`emergraph percolate`: what grows together as edges are added one by one."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emergraph.analysis.declaration import Analysis, Headline, Query, SectionSpec, Subject, TableSpec
from emergraph.analysis.percolation.options import OrderOptions, PercolationOptions
from emergraph.graphstore.results import Column, ResultTable

if TYPE_CHECKING:
    from emergraph.analysis.figures.figure import Figure

THRESHOLDS = ResultTable(
    "percolation",
    "One row per series of a run: the observed order of edges, and null models.",
    (
        Column("series", "VARCHAR", "observed, shuffled within blocks (the null model), or random."),
        Column("threshold", "DOUBLE", "Edges at the peak of the susceptibility, mean over seeds."),
        Column("low", "DOUBLE", "Percentile 2.5 of it over seeds."),
        Column("high", "DOUBLE", "Percentile 97.5 of it over seeds."),
        Column("share", "DOUBLE", "Threshold as a share of all edges that are added, in [0, 1]."),
        Column("giant", "DOUBLE", "Share of units in the largest component at the peak, first seed."),
        Column("susceptibility", "DOUBLE", "Height of the peak, in units, first seed."),
        Column("half_reach", "BIGINT", "Edges at which half of the inputs reach an output; NULL: never."),
        Column("n_seeds", "INTEGER", "Repetitions; 1 where nothing is random."),
        Column("degree_threshold", "DOUBLE", "Edges expected from the degrees; NULL for never."),
        Column("layered_threshold", "DOUBLE", "Edges expected from edges per layer; NULL for never."),
    ),
)
CURVE = ResultTable(
    "percolation_curve",
    "One row per series and number of edges of a run.",
    (
        Column("series", "VARCHAR", "As in percolation."),
        Column("edges", "BIGINT", "Edges that have been added."),
        Column("share", "DOUBLE", "The same as a share of all, in [0, 1]."),
        Column("giant", "DOUBLE", "Share of units in the largest component, mean over seeds."),
        Column("giant_low", "DOUBLE", "Percentile 2.5 of it over seeds."),
        Column("giant_high", "DOUBLE", "Percentile 97.5 of it over seeds."),
        Column(
            "susceptibility",
            "DOUBLE",
            "Expected component size of a core unit, 0 in the giant one; mean.",
        ),
        Column("components", "DOUBLE", "Number of components, mean over seeds."),
        Column("reach", "DOUBLE", "Share of inputs with a directed path to an output, first seed."),
    ),
)
BY_BLOCK = ResultTable(
    "percolation_blocks",
    "One row per block of a run: the block by itself, as a bipartite graph.",
    (
        Column("block", "INTEGER", "blocks.id."),
        Column("name", "VARCHAR", "Name of the operation."),
        Column("layer", "INTEGER", "Target layer: layers.id."),
        Column("n_src", "INTEGER", "Source units with edges."),
        Column("n_dst", "INTEGER", "Target units with edges."),
        Column("n_edges", "BIGINT", "Edges."),
        Column("threshold", "BIGINT", "Edges at the peak of the susceptibility."),
        Column("predicted", "DOUBLE", "sqrt(n_src n_dst), for random pairs."),
        Column("degree_threshold", "DOUBLE", "Expected from the degrees; NULL for never."),
    ),
)
SECTION = SectionSpec(
    id="percolation",
    title="Percolation",
    lead="Edges are added one by one, and the network grows together. The null models say what is special "
    "about it.",
    tables=(
        TableSpec(
            name="percolation",
            title="Thresholds",
            definition=(
                "Threshold: edges at the peak of the susceptibility, mean and percentiles 2.5 to 97.5 over "
                "seeds; share: the same over all edges. Half reach: edges at which half of the inputs reach "
                "an output. Expected thresholds: of random graphs with these degrees, and with as many "
                "edges between layers."
            ),
            query=Query(
                name="rows",
                table="percolation",
                sql="""
SELECT series, threshold, low, high, share, half_reach, n_seeds AS seeds,
       degree_threshold AS expected_from_degrees, layered_threshold AS expected_from_layers
FROM percolation WHERE run = {run} ORDER BY series = 'observed' DESC, series""",
            ),
        ),
    ),
)


def _figures() -> "Sequence[Figure]":
    from emergraph.analysis.percolation import figures

    return figures.FIGURES


def _headline(rows: Sequence[tuple[Any, ...]], _parameters: Mapping[str, Any]) -> str:
    edges, share = rows[0]
    return f"grows together at {edges:,.0f} edges, {100 * share:.3g} % of them"


PERCOLATE = Analysis(
    name="percolate",
    summary="Add the edges one by one, strongest first, and find where the network grows together.",
    of=Subject.GRAPH,
    options=(OrderOptions, PercolationOptions),
    tables=(THRESHOLDS, CURVE, BY_BLOCK),
    section=SECTION,
    figures=_figures,
    measures=(
        Query(
            name="percolation",
            table="percolation",
            sql="""
            SELECT 'threshold, share of edges, ' || series, share, low / threshold * share,
                   high / threshold * share
            FROM percolation WHERE run = {run} AND threshold > 0 ORDER BY series
        """,
        ),
    ),
    headline=Headline(
        query=Query(
            name="percolation",
            table="percolation",
            sql="SELECT threshold, share FROM percolation WHERE run = {run} AND series = 'observed'",
        ),
        text=_headline,
    ),
)
