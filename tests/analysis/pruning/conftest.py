"""Graphs for pruning tests, and naive twins that look at one level at a time."""

from dataclasses import dataclass

import networkx as nx
import numpy as np
import pytest
from edgesink import EdgeSink

from emergraph.analysis.edgesets.edgetable import EdgeTable, read_edge_table
from emergraph.analysis.pruning.components import REACH_KINDS
from emergraph.analysis.unitgraph import ROLES, UnitBlock, UnitGraph, UnitLayer, from_arrays
from emergraph.graphstore.records import LayerKind, Role


def graph_of(sink: EdgeSink) -> UnitGraph:
    """The unit graph of what an exporter wrote."""
    layers = [
        UnitLayer(
            id=la.id,
            name=la.name,
            kind=la.kind,
            first_unit=la.first_unit,
            n_units=la.n_units,
            n_params=la.n_params,
            n_zeros=la.n_zeros,
        )
        for la in sorted(sink.layers, key=lambda la: la.id)
    ]
    role = np.empty(sink.n_units, dtype=np.uint8)
    for columns in sink.columns:
        layer = next(la for la in layers if la.id == columns.layer)
        role[layer.units] = ROLES.index(Role(columns.role))
    blocks, edges = [], {}
    for found in sink.blocks:
        about = found.block
        blocks.append(
            UnitBlock(
                id=about.id,
                kind=about.kind,
                layer=about.layer,
                n_edges=found.src.size,
                src_units=None if found.matrix is None else found.matrix[0],
                dst_units=None if found.matrix is None else found.matrix[1],
                name=about.name,
                tensor=about.tensor,
                shared_with=about.shared_with,
                has_kernels=found.has_kernels,
            )
        )
        edges[about.id] = {
            "src": found.src,
            "dst": found.dst,
            "weight": found.weight,
            "l1": found.l1,
            "l2": found.l2,
            "n_params": found.n_params,
        }
    return from_arrays(layers, blocks, edges, role=role)


@dataclass(frozen=True)
class Naive:
    """A masked graph as a networkx graph: every edge is (block, position)."""

    table: EdgeTable

    def digraph(self, kept: np.ndarray, units: np.ndarray) -> nx.MultiDiGraph:
        graph: nx.MultiDiGraph = nx.MultiDiGraph()
        graph.add_nodes_from(np.flatnonzero(units).tolist())
        for block in self.table.of_kinds(REACH_KINDS).blocks:
            ends = zip(
                block.src.tolist(), block.dst.tolist(), range(block.first, block.edges.stop), strict=True
            )
            for src, dst, number in ends:
                if kept[number] and units[src] and units[dst]:
                    graph.add_edge(src, dst, key=number)
        return graph

    def on_paths(self, kept: np.ndarray, units: np.ndarray | None = None) -> set[int]:
        """Numbers of the edges on an input-output path, by searching from every end."""
        unit_graph = self.table.graph
        there = np.ones(unit_graph.n_units, dtype=bool) if units is None else units
        graph = self.digraph(kept, there)
        embedding = [layer.kind == LayerKind.EMBEDDING for layer in unit_graph.layers]
        starts = [
            u
            for u in graph.nodes
            if unit_graph.role[u] == ROLES.index(Role.INPUT) or embedding[unit_graph.unit_layer[u]]
        ]
        ends = [u for u in graph.nodes if unit_graph.role[u] == ROLES.index(Role.OUTPUT)]
        reached = set(starts).union(*(nx.descendants(graph, u) for u in starts))
        reaching = set(ends).union(*(nx.ancestors(graph, u) for u in ends))
        return {key for src, dst, key in graph.edges(keys=True) if src in reached and dst in reaching}


@pytest.fixture(scope="session")
def sink_graph():
    return graph_of


@pytest.fixture(scope="session")
def naive():
    return lambda graph: Naive(read_edge_table(graph))
