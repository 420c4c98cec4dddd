"""Topology of a graph in a store, with its spectra."""

from dataclasses import replace

from emergraph.analysis.storedgraph import read_unit_graph
from emergraph.analysis.topology.options import TopologyOptions
from emergraph.analysis.topology.topology import TopologyResult, topology
from emergraph.analysis.topology.weightspectra import weight_spectra
from emergraph.graphstore.reader import GraphReader


def measure_topology(reader: GraphReader, *, options: TopologyOptions | None = None) -> TopologyResult:
    """Measure a stored graph; see `topology` and `weight_spectra`.

    Args:
        reader: From `Store.graph`.
        options: Conventions and limits.
    """
    options = options or TopologyOptions()
    bias = reader.units()["bias"].fill_null(float("nan")).to_numpy()
    result = topology(read_unit_graph(reader), bias=bias, options=options)
    if not options.spectra:
        return result
    spectra, left_out = weight_spectra(reader)
    return replace(result, spectra=spectra, notes=(*result.notes, *left_out))
