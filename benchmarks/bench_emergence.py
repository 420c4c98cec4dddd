"""Speed of path-count emergence from a store, beside SQL, a numpy loop and networkx.

Run `python benchmarks/bench_emergence.py [--layers 12 --width 768]`. Every figure comes from this one run, on
a synthetic pre-norm transformer whose matrices have 1.4 % exact zeros (as the int8 MiniLM has), so that no
block is full, and on fully connected nets. Activities are random: the time does not depend on them.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import networkx as nx
import numpy as np

from emergraph.analysis.activity.scores import ActivityRule, ActivityScores
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.emergence.thresholds import default_thresholds, threshold_sweep
from emergraph.analysis.layerednets import dense_net
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.storedgraph import read_unit_graph
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.records import (
    Block,
    EdgeKind,
    GraphFooter,
    GraphHeader,
    Layer,
    LayerKind,
    Role,
    UnitColumns,
)
from emergraph.graphstore.store import open_store
from emergraph.graphstore.writer import GraphWriter

Result = TypeVar("Result")

ZEROS = 0.014
HEADS = 12


class TransformerWriter:
    """Writes the unit graph of a transformer without embeddings."""

    def __init__(self, writer: GraphWriter, *, width: int, zeros: float) -> None:
        self.writer, self.width, self.zeros = writer, width, zeros
        self.rng = np.random.default_rng(0)
        self.layers: list[Layer] = []
        self.n_blocks = 0

    def layer(self, kind: LayerKind, n_units: int) -> Layer:
        """Add a layer."""
        first = self.layers[-1].first_unit + self.layers[-1].n_units if self.layers else 0
        number = len(self.layers)
        self.layers.append(
            Layer(
                id=number,
                name=f"{kind}{number}",
                op="x",
                kind=kind,
                depth=number,
                first_unit=first,
                n_units=n_units,
            )
        )
        return self.layers[-1]

    def matrix(self, source: Layer, target: Layer) -> None:
        """Connect two layers by random weights, some of them zero."""
        weights = self.rng.standard_normal((source.n_units, target.n_units), dtype=np.float32)
        weights *= self.rng.random(weights.shape, dtype=np.float32) >= self.zeros
        self.writer.write_matrix(self.block(EdgeKind.WEIGHT, target), units(source), units(target), weights)

    def each(self, kind: EdgeKind, source: Layer, target: Layer) -> None:
        """One edge per source unit, spread over the target's units."""
        targets = (
            units(source) % target.n_units if target.n_units < source.n_units else np.arange(source.n_units)
        )
        self.writer.write_edges(self.block(kind, target), units(source), targets + target.first_unit)

    def block(self, kind: EdgeKind, target: Layer) -> Block:
        """Describe the next block."""
        self.n_blocks += 1
        return Block(id=self.n_blocks - 1, name=f"b{self.n_blocks}", op="x", kind=kind, layer=target.id)

    def transformer_block(self, x: Layer) -> Layer:
        """Add attention and a feed-forward part, each with a residual connection."""
        q, k, v = (self.layer(LayerKind.DENSE, self.width) for _ in range(3))
        for part in (q, k, v):
            self.matrix(x, part)
        score, context = self.layer(LayerKind.SCORE, HEADS), self.layer(LayerKind.CONTEXT, self.width)
        for part, target in ((q, score), (k, score), (v, context)):
            self.each(EdgeKind.ATTENTION, part, target)
        x = self.residual(x, context, self.width)
        up = self.layer(LayerKind.DENSE, 4 * self.width)
        self.matrix(x, up)
        return self.residual(x, up, self.width)

    def residual(self, x: Layer, inner: Layer, width: int) -> Layer:
        """Project the inner layer and add it to x."""
        down, junction = self.layer(LayerKind.DENSE, width), self.layer(LayerKind.JUNCTION, width)
        self.matrix(inner, down)
        self.each(EdgeKind.IDENTITY, x, junction)
        self.each(EdgeKind.IDENTITY, down, junction)
        return junction


def units(layer: Layer) -> np.ndarray:
    return np.arange(layer.first_unit, layer.first_unit + layer.n_units)


def write_transformer(path: Path, *, layers: int, width: int, zeros: float) -> None:
    header = GraphHeader(name="transformer", source="made", sha256="0" * 64, format="onnx")
    with open_store(path, mode="create") as store, store.write_graph(header) as writer:
        made = TransformerWriter(writer, width=width, zeros=zeros)
        x = made.layer(LayerKind.INPUT, width)
        for _ in range(layers):
            x = made.transformer_block(x)
        writer.write_layers(made.layers)
        writer.write_units([UnitColumns(layer=layer.id, role=Role.HIDDEN) for layer in made.layers])
        writer.finish(
            GraphFooter(n_parameters=1, n_parameters_understood=1, n_operations=0, n_operations_understood=0)
        )


def in_sql(reader: GraphReader, graph: UnitGraph, active: np.ndarray) -> float:
    """Interior "any" with one join-and-sum per target layer."""
    connection = reader.connection
    below = np.zeros(graph.n_units)
    start = active & graph.neuron
    for layer in reversed(graph.layers):
        blocks = [block.id for block in graph.blocks if block.layer == layer.id]
        here = np.arange(graph.n_units)[layer.units]
        values = start[layer.units] + below[layer.units]
        if not blocks:
            continue
        connection.register("g", {"dst": here, "value": values})
        sums = connection.sql(
            "SELECT src, sum(value) AS total FROM connections JOIN g USING (dst) "
            "WHERE block IN (SELECT unnest(?)) GROUP BY src",
            params=[blocks],
        ).to_arrow_table()
        connection.unregister("g")
        below[sums.column("src").to_numpy()] += sums.column("total").to_numpy()
    return float(below[~active & graph.neuron].sum())


def with_bincount(graph: UnitGraph, active: np.ndarray) -> float:
    """Interior "any" with one bincount per block, all edges in memory."""
    below = np.zeros(graph.n_units)
    start = (active & graph.neuron).astype(float)
    for block, edges in graph.iter_edges(sorted(graph.blocks, key=lambda block: -block.layer)):
        if block.n_edges:
            values = (start + below)[edges["dst"]]
            below += np.bincount(edges["src"], weights=values, minlength=graph.n_units)
    return float(below[~active & graph.neuron].sum())


def with_networkx(graph: UnitGraph, active: np.ndarray) -> float:
    """Interior "any" by the recursion on a networkx graph, building it included."""
    net = nx.MultiDiGraph()
    net.add_nodes_from(range(graph.n_units))
    for _, edges in graph.iter_edges():
        net.add_edges_from(zip(edges["src"].tolist(), edges["dst"].tolist(), strict=True))
    start = active & graph.neuron
    paths: dict[int, float] = {}
    total = 0.0
    for unit in reversed(list(nx.topological_sort(net))):
        below = sum(paths[target] for _, target in net.out_edges(unit))
        paths[unit] = below + start[unit]
        if not active[unit] and graph.neuron[unit]:
            total += below
    return total


def timed(label: str, work: Callable[[], Result]) -> Result:
    began = time.perf_counter()
    result = work()
    print(f"  {label:<58}{time.perf_counter() - began:9.3f} s")
    return result


def scores_of(graph: UnitGraph) -> ActivityScores:
    values = np.random.default_rng(1).standard_normal(graph.n_units)
    return ActivityScores(values=values, rule=ActivityRule.MEAN, text="mean > {t}")


def measure(path: Path, *, others: bool) -> None:
    with open_store(path) as store:
        reader = store.graph()
        graph = timed("open the graph", lambda: read_unit_graph(reader))
        print(f"  {graph.n_edges / 1e6:.1f} M edges, {graph.n_units} units")
        scores = scores_of(graph)
        activity = scores.above(0.05)
        both = timed("both interiors", lambda: path_count_emergence(graph, activity))
        exact = EmergenceOptions(exact=True)
        timed("both interiors, exact integers", lambda: path_count_emergence(graph, activity, options=exact))
        flows = EmergenceOptions(by_end_layer=True)
        timed(
            "both interiors, by both ends' layers",
            lambda: path_count_emergence(graph, activity, options=flows),
        )
        timed(
            "100 thresholds, both interiors",
            lambda: threshold_sweep(graph, scores, default_thresholds(scores)),
        )
        if not others:
            return
        for label, count in (
            ("beside: one interior, DuckDB join and sum", lambda: in_sql(reader, graph, activity.active)),
            ("beside: one interior, numpy bincount", lambda: with_bincount(graph, activity.active)),
        ):
            assert np.isclose(timed(label, count), both.any.emergence.value, rtol=1e-9)


def measure_dense(sizes: list[int]) -> None:
    graph = dense_net(sizes)
    scores = scores_of(graph)
    print(f"dense {'-'.join(map(str, sizes))}, {graph.n_edges / 1e6:.1f} M edges")
    timed("both interiors", lambda: path_count_emergence(graph, scores.above(0.05)))
    timed("100 thresholds", lambda: threshold_sweep(graph, scores, np.linspace(-2, 2, 100)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cases = (
            ("MiniLM size, 1.4 % zeros", 6, 384, ZEROS, True),
            ("large, 1.4 % zeros", arguments.layers, arguments.width, ZEROS, True),
            ("large, full blocks", arguments.layers, arguments.width, 0.0, False),
        )
        for label, layers, width, zeros, others in cases:
            print(f"{label}: {layers} layers of width {width}")
            path = Path(folder) / "net.duckdb"
            write_transformer(path, layers=layers, width=width, zeros=zeros)
            measure(path, others=others)
            path.unlink()
        print("networkx, on a small one: 1 layer of width 96")
        write_transformer(path, layers=1, width=96, zeros=ZEROS)
        with open_store(path) as store:
            graph = read_unit_graph(store.graph())
            activity = scores_of(graph).above(0.05)
            print(f"  {graph.n_edges / 1e6:.2f} M edges")
            ours = timed("both interiors", lambda: path_count_emergence(graph, activity))
            theirs = timed("beside: one interior, networkx", lambda: with_networkx(graph, activity.active))
            assert np.isclose(theirs, ours.any.emergence.value, rtol=1e-9)
    measure_dense([784, 256, 128, 10])
    measure_dense([20_000, 20_000, 20_000, 1000])
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
