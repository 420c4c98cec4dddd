"""Speed of percolation: one weight order of a large random layered net, beside igraph adding edges in steps.

Run `python benchmarks/bench_percolation.py [--edges 10000000 --units 20000]`. The first figure is the whole
analysis of one order without null models: reading, sorting, the exact curve, reach, blocks, predictions.
"""

import argparse
import resource
import time

import igraph
import numpy as np

from emergraph.analysis.edgesets.forest import find_merges
from emergraph.analysis.edgesets.ordering import descending
from emergraph.analysis.percolation.curve import merge_curve
from emergraph.analysis.percolation.options import PercolationOptions
from emergraph.analysis.percolation.percolate import percolate
from emergraph.analysis.unitgraph import UnitBlock, UnitGraph, UnitLayer, from_arrays
from emergraph.graphstore.records import EdgeKind, LayerKind

LAYERS = 10
IGRAPH_POINTS = 10


def random_net(n_edges: int, n_units: int) -> UnitGraph:
    """A net of layers of equal width with random pairs as edges."""
    rng = np.random.default_rng(0)
    width = n_units // LAYERS
    layers = [
        UnitLayer(
            id=i,
            name=f"l{i}",
            kind=LayerKind.DENSE if i else LayerKind.INPUT,
            first_unit=i * width,
            n_units=width,
        )
        for i in range(LAYERS)
    ]
    per_block = n_edges // (LAYERS - 1)
    blocks, columns = [], {}
    for i in range(LAYERS - 1):
        blocks.append(UnitBlock(id=i, kind=EdgeKind.WEIGHT, layer=i + 1, n_edges=per_block))
        columns[i] = {
            "src": (rng.integers(0, width, per_block) + i * width).astype(np.int32),
            "dst": (rng.integers(0, width, per_block) + (i + 1) * width).astype(np.int32),
            "weight": rng.standard_normal(per_block, dtype=np.float32),
        }
    return from_arrays(layers, blocks, columns)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--units", type=int, default=20_000)
    arguments = parser.parse_args()
    net = random_net(arguments.edges, arguments.units)
    parts = list(net.edges.iter_edges(net.blocks, columns=("src", "dst", "weight")))
    src, dst, weight = (
        np.concatenate([part[name] for _, part in parts]) for name in ("src", "dst", "weight")
    )

    start = time.perf_counter()
    order = descending(np.abs(weight))
    sorted_at = time.perf_counter()
    one_each = np.ones(net.n_units, dtype=np.int64)
    curve = merge_curve(find_merges(src, dst, order.edges, np.arange(net.n_units), one_each))
    done = time.perf_counter()
    print(f"{len(src)} edges, {net.n_units} units")
    print(
        f"sort {sorted_at - start:.2f} s, exact curve {done - sorted_at:.2f} s, threshold {curve.threshold}"
    )

    start, processor = time.perf_counter(), time.process_time()
    percolate(net, options=PercolationOptions(seeds=1, nulls=0))
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    print(f"whole analysis, one seed, no nulls: {seconds:.2f} s, of the processor {processor:.2f} s")
    print(f"peak of the process {peak:.2f} GiB")

    start = time.perf_counter()
    for m in np.geomspace(1000, len(src), IGRAPH_POINTS).astype(int).tolist():
        chosen = order.edges[:m]
        pairs = zip(src[chosen].tolist(), dst[chosen].tolist(), strict=True)
        sizes = igraph.Graph(n=net.n_units, edges=pairs).connected_components().sizes()
        assert max(sizes) == curve.giant[curve.at(m)]
    print(f"igraph, the same curve at {IGRAPH_POINTS} points: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
