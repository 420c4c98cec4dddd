"""Topology runs as rows of a store."""

from typing import TYPE_CHECKING

from emergraph.analysis.topology.topology import TopologyResult
from emergraph.graphstore.results import Column, ResultTable, register
from emergraph.graphstore.store import Store

if TYPE_CHECKING:
    import polars as pl

COMMAND = "topology"

MEASURES = register(
    ResultTable(
        "topology",
        "One row per measure of a whole graph.",
        (
            Column("measure", "VARCHAR", "Name of the measure."),
            Column("value", "DOUBLE", "Its value; NULL where there is none."),
            Column("on", "VARCHAR", "What it was measured on: graph or backbone."),
        ),
    )
)
UNITS = register(
    ResultTable(
        "topology_units",
        "One row per unit of a run.",
        (
            Column("unit", "INTEGER", "units.id within the run's graph."),
            Column("in_degree", "BIGINT", "Edges into the unit."),
            Column("out_degree", "BIGINT", "Edges out of the unit."),
            Column("in_strength", "DOUBLE", "Sum of the weights into the unit."),
            Column("out_strength", "DOUBLE", "Sum of the weights out of the unit."),
            Column("in_abs", "DOUBLE", "Sum of their absolute values, in."),
            Column("out_abs", "DOUBLE", "Sum of their absolute values, out."),
            Column("strength", "DOUBLE", "in_strength + out_strength."),
            Column("strength_abs", "DOUBLE", "in_abs + out_abs."),
            Column("strength_with_bias", "DOUBLE", "strength plus the unit's bias."),
            Column("community", "BIGINT", "Leiden community, 0 for the largest."),
            Column("coreness", "BIGINT", "Largest k such that the unit is in the k-core."),
            Column("pagerank", "DOUBLE", "PageRank, weighted, damping 0.85."),
            Column("betweenness", "DOUBLE", "Shortest directed paths through the unit; NULL: not measured."),
        ),
    )
)
LAYERS = register(
    ResultTable(
        "topology_layers",
        "One row per layer of a run.",
        (
            Column("layer", "INTEGER", "layers.id."),
            Column("name", "VARCHAR", "layers.name."),
            Column("n_units", "INTEGER", "Units."),
            Column("sources", "INTEGER", "Layers with an edge into this one."),
            Column("targets", "INTEGER", "Layers with an edge from this one."),
            Column("betweenness", "DOUBLE", "Of the layer graph, directed, unweighted."),
            Column("pagerank", "DOUBLE", "Of the layer graph, weighted by absolute weight."),
            Column("strength_mean", "DOUBLE", "Mean absolute strength (in + out) of its units."),
            Column("strength_p05", "DOUBLE", "Percentile 5 of the absolute strengths of its units."),
            Column("strength_median", "DOUBLE", "Their median."),
            Column("strength_p95", "DOUBLE", "Percentile 95."),
            Column("strength_max", "DOUBLE", "Largest absolute strength."),
            Column("fluctuation", "DOUBLE", "Standard deviation of its units' signed strengths."),
            Column("fluctuation_with_bias", "DOUBLE", "The same with biases added."),
        ),
    )
)
BLOCKS = register(
    ResultTable(
        "topology_blocks",
        "One row per block of parameters of a run.",
        (
            Column("block", "INTEGER", "blocks.id."),
            Column("name", "VARCHAR", "Name of the operation."),
            Column("layer", "INTEGER", "Target layer: layers.id."),
            Column("n_edges", "BIGINT", "Edges."),
            Column("persistence", "DOUBLE", "Neural persistence, p = 2, weights over the network's largest."),
            Column("persistence_normalised", "DOUBLE", "The same over its upper bound, in [0, 1]."),
            Column("diverging", "BIGINT", "Pairs of edges with a common source."),
            Column("converging", "BIGINT", "Pairs of edges with a common target."),
            Column("butterflies", "BIGINT", "Complete 2 x 2 subgraphs; NULL where not counted."),
        ),
    )
)
RICH_CLUB = register(
    ResultTable(
        "topology_rich_club",
        "One row per degree of a run.",
        (
            Column("k", "BIGINT", "Degree."),
            Column("n_units", "BIGINT", "Units of a higher degree."),
            Column("phi", "DOUBLE", "Density of edges among them, in [0, 1]."),
        ),
    )
)
SPECTRA = register(
    ResultTable(
        "spectra",
        "One row per weight tensor of a run.",
        (
            Column("tensor", "VARCHAR", "tensors.name."),
            Column("layer", "INTEGER", "Target layer of its first use; NULL where the graph has none."),
            Column("rows", "INTEGER", "Rows of each matrix."),
            Column("columns", "INTEGER", "Columns of each matrix."),
            Column("matrices", "INTEGER", "Matrices whose eigenvalues are pooled (kernel positions)."),
            Column("alpha", "DOUBLE", "Exponent of the power-law tail; NULL where nothing fits."),
            Column("d", "DOUBLE", "Kolmogorov-Smirnov distance of the fit, in [0, 1]."),
            Column("x_min", "DOUBLE", "Smallest eigenvalue of the tail."),
            Column("n_tail", "INTEGER", "Eigenvalues in the tail."),
            Column("n_eigenvalues", "INTEGER", "All of them."),
            Column("alpha_hat", "DOUBLE", "alpha * log10(largest eigenvalue)."),
            Column("stable_rank", "DOUBLE", "Sum of eigenvalues over the largest."),
            Column("log_norm", "DOUBLE", "log10 of the squared Frobenius norm."),
            Column("log_spectral_norm", "DOUBLE", "log10 of the squared spectral norm."),
            Column("log_alpha_norm", "DOUBLE", "log10 of the sum of eigenvalues to the power alpha."),
            Column("entropy", "DOUBLE", "Entropy of the spectrum over the log of the rank, in [0, 1]."),
            Column("status", "VARCHAR", "ok, short tail (fewer than 10 eigenvalues) or no fit."),
        ),
    )
)


def save_topology(store: Store, graph: int, result: TopologyResult) -> int:
    """Write a run to a store; return its id.

    Args:
        store: Open for writing.
        graph: Id of the graph.
        result: The run.
    """
    tables: dict[str, pl.DataFrame] = {
        MEASURES.name: result.measures,
        UNITS.name: result.units,
        LAYERS.name: result.layers,
        BLOCKS.name: result.blocks,
        RICH_CLUB.name: result.rich_club,
    }
    if result.spectra is not None:
        tables[SPECTRA.name] = result.spectra
    parameters = {**result.options.to_dict(), "notes": list(result.notes)}
    return store.record_run(graph, COMMAND, parameters, seed=result.options.seed, result_tables=tables)
