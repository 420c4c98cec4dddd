"""Percolation runs as rows of a store."""

import polars as pl

from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.percolation.analysis import BY_BLOCK, CURVE, PERCOLATE, THRESHOLDS
from emergraph.analysis.percolation.result import PercolationResult
from emergraph.graphstore.store import Store


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
        PERCOLATE.name,
        {"order": result.order, **result.options.to_dict(), **about},
        seed=result.options.seed,
        result_tables={THRESHOLDS.name: thresholds, CURVE.name: result.curve(), BY_BLOCK.name: blocks},
    )
