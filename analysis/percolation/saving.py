"""Percolation runs as rows of a store."""

import polars as pl

from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.percolation.result import PercolationResult
from emergraph.graphstore.results import Column, ResultTable, register
from emergraph.graphstore.store import Store

COMMAND = "percolate"

THRESHOLDS = register(
    ResultTable(
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
)
CURVE = register(
    ResultTable(
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
)
BY_BLOCK = register(
    ResultTable(
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
)


def save_percolation(store: Store, graph: int, result: PercolationResult, **about: object) -> int:
    """Write a run to a store; return its id.

    Args:
        store: Open for writing.
        graph: Id of the graph.
        result: The run.
        about: Parameters beside the options and the order, such as the trace.
    """
    predictions = {
        "degree_threshold": finite_or_none(result.degree_threshold),
        "layered_threshold": finite_or_none(result.layered_threshold),
    }
    thresholds = result.summary().with_columns(
        pl.lit(value, dtype=pl.Float64).alias(name) for name, value in predictions.items()
    )
    blocks = result.layers.with_columns(
        pl.when(pl.col("degree_threshold").is_finite()).then("degree_threshold").alias("degree_threshold")
    )
    return store.record_run(
        graph,
        COMMAND,
        {"order": result.order, **result.options.to_dict(), **about},
        seed=result.options.seed,
        result_tables={THRESHOLDS.name: thresholds, CURVE.name: result.curve(), BY_BLOCK.name: blocks},
    )
