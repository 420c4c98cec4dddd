"""Topology runs as rows of a store."""

from typing import TYPE_CHECKING

from emergraph.analysis.topology.analysis import BLOCKS, LAYERS, MEASURES, RICH_CLUB, SPECTRA, TOPOLOGY, UNITS
from emergraph.analysis.topology.topology import TopologyResult
from emergraph.graphstore.store import Store

if TYPE_CHECKING:
    import polars as pl


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
    return store.record_run(graph, TOPOLOGY.name, parameters, seed=result.options.seed, result_tables=tables)
