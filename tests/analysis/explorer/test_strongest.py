"""The k strongest edges of each unit, against sorting all edges of every unit."""

import math

import numpy as np
import pytest

from emergraph.analysis.explorer import collect
from emergraph.analysis.explorer.collect import strongest_edges
from emergraph.analysis.unitgraph import UnitBlock, UnitLayer, from_arrays
from emergraph.graphstore.records import EdgeKind


def random_graph(seed):
    """Three layers with a matrix in odd order, kernels, equal weights, a NaN, and edges without a weight."""
    rng = np.random.default_rng(seed)
    layers = [UnitLayer(id=i, name=f"l{i}", kind="dense", first_unit=first, n_units=n) for i, (first, n) in
              enumerate([(0, 7), (7, 6), (13, 5)])]  # fmt: skip
    blocks, columns = [], {}

    def block(kind, layer, rows, targets, *, tensor="w", kernels=False):
        pairs = [(s, t) for s in rows for t in targets if rng.random() < 0.7]
        weight = rng.choice([-2.0, -1.0, 0.5, 1.0, np.nan], len(pairs)).astype(np.float32)
        weight = np.full(len(pairs), np.nan, np.float32) if tensor is None else weight
        held = {"src": [s for s, _ in pairs], "dst": [t for _, t in pairs], "weight": weight}
        held = {name: np.asarray(value) for name, value in held.items()}
        if kernels:
            held["l1"] = np.abs(weight.astype(np.float64)) + rng.choice([0.0, 1.5], len(pairs))
        about = {
            "id": 10 * len(blocks),
            "kind": kind,
            "layer": layer,
            "n_edges": len(pairs),
            "tensor": tensor,
        }
        blocks.append(UnitBlock(**about, src_units=np.asarray(rows), dst_units=np.asarray(targets)))
        columns[blocks[-1].id] = held

    block(EdgeKind.WEIGHT, 1, list(rng.permutation(7)), list(7 + rng.permutation(6)))
    block(EdgeKind.IDENTITY, 1, range(7), range(7, 13), tensor=None)
    block(EdgeKind.WEIGHT, 2, range(7, 13), range(13, 18), kernels=True)
    block(EdgeKind.RECURRENT, 1, range(7, 13), range(7, 13))
    return from_arrays(layers, blocks, columns)


def expected(graph, k):
    """Every unit's edges, sorted on both sides."""
    edges = []
    for place, (block, held) in enumerate(graph.iter_edges(columns=("src", "dst", "weight", "l1"))):
        for s, t, w, strength in zip(
            *(held[name].tolist() for name in ("src", "dst", "weight", "l1")), strict=True
        ):
            unknown = math.inf if block.tensor else 1.0
            edges.append((unknown if math.isnan(strength) else strength, place, s, t, w))
    kept = set()
    for side in (2, 3):
        for unit in range(graph.n_units):
            own = sorted((e for e in edges if e[side] == unit), key=lambda e: (-e[0], e[1], e[2], e[3]))
            kept.update((e[2], -e[0], e[1], e[3], str(e[4])) for e in own[:k])
    return sorted(kept)


@pytest.mark.parametrize("most_held", [5, 10**6])
@pytest.mark.parametrize("k", [1, 3, 100])
def test_the_strongest_of_each_side_are_kept(monkeypatch, k, most_held):
    monkeypatch.setattr(collect, "MOST_HELD", most_held)
    for seed in range(12):
        graph = random_graph(seed)
        kept = strongest_edges(graph, k)
        found = zip(kept.src.tolist(), (-kept.strength).tolist(), kept.block.tolist(), kept.dst.tolist(),
                    map(str, kept.weight.tolist()), strict=True)  # fmt: skip
        assert list(found) == expected(graph, k)


def test_a_graph_without_edges():
    graph = from_arrays([UnitLayer(id=0, name="x", kind="input", first_unit=0, n_units=2)], [])
    assert strongest_edges(graph, 3).src.size == 0
