"""Randomised blocks keep what they promise to keep and reach every arrangement evenly."""

from collections import Counter

import numpy as np
import pytest

from emergraph.analysis.emergence.rewiring import WeightNull, randomised_graph, rewire
from emergraph.analysis.unitgraph import UnitBlock, UnitLayer, from_arrays
from emergraph.errors import UsageError
from emergraph.graphstore.records import EdgeKind, LayerKind


def test_rewiring_keeps_all_sums():
    rng = np.random.default_rng(0)
    matrix = rng.random((31, 17)) < 0.3
    rows, columns, before = matrix.sum(axis=1), matrix.sum(axis=0), matrix.copy()
    rewire(matrix, rng)
    np.testing.assert_array_equal(matrix.sum(axis=1), rows)
    np.testing.assert_array_equal(matrix.sum(axis=0), columns)
    assert (matrix != before).mean() > 0.1


def test_rewiring_is_uniform_over_matrices_with_these_sums():
    # Rows and columns of sum 1: the 6 permutation matrices, and every one as often.
    rng = np.random.default_rng(1)
    seen = Counter()
    for _ in range(3000):
        matrix = np.eye(3, dtype=bool)
        rewire(matrix, rng, trades=8)
        seen[tuple(np.flatnonzero(matrix))] += 1
    assert len(seen) == 6
    assert sum((count - 500) ** 2 / 500 for count in seen.values()) < 20.5  # chi-squared, 5 df, p = .001


def test_a_full_matrix_cannot_be_rewired():
    matrix = np.ones((4, 5), dtype=bool)
    rewire(matrix, np.random.default_rng(0))
    assert matrix.all()
    with pytest.raises(UsageError):
        rewire(matrix, np.random.default_rng(0), trades=0)


def net(*, shared):
    """Two blocks that hold one tensor (shared) and one that is not a matrix."""
    rng = np.random.default_rng(5)
    layers = [
        UnitLayer(id=k, name=f"l{k}", kind=LayerKind.DENSE, first_unit=6 * k, n_units=6) for k in range(4)
    ]
    mask = rng.random((6, 6)) < 0.5
    blocks, columns = [], {}
    for k in range(2):
        # The second use names its units in another order, as a transposed or permuted use would.
        src_units, dst_units = 6 * k + rng.permutation(6), 6 * (k + 1) + rng.permutation(6)
        row, column = np.nonzero(mask)
        src, dst = src_units[row], dst_units[column]
        order = np.lexsort((dst, src))
        blocks.append(
            UnitBlock(
                id=k, kind=EdgeKind.WEIGHT, layer=k + 1, n_edges=len(row), src_units=src_units,
                dst_units=dst_units, tensor="w", shared_with=0 if k and shared else None,
            )
        )  # fmt: skip
        weight = (row * 6 + column + 1.0)[order]
        columns[k] = {"src": src[order], "dst": dst[order], "weight": weight}
    src, dst = np.array([12, 13, 13, 15]), np.array([18, 18, 20, 21])
    blocks.append(UnitBlock(id=2, kind=EdgeKind.WEIGHT, layer=3, n_edges=4))
    columns[2] = {"src": src, "dst": dst, "weight": np.arange(4.0)}
    blocks.append(UnitBlock(id=3, kind=EdgeKind.IDENTITY, layer=3, n_edges=1))
    columns[3] = {"src": np.array([0]), "dst": np.array([18]), "weight": np.ones(1)}
    return from_arrays(layers, blocks, columns)


def edges_of(graph, columns=("src", "dst", "weight", "origin")):
    return {block.id: edges for block, edges in graph.iter_edges(columns=columns)}


@pytest.mark.parametrize("kind", list(WeightNull))
def test_randomised_blocks_keep_their_size_and_their_weights(kind):
    graph = net(shared=False)
    original = edges_of(graph, ("src", "dst", "weight"))
    drawn = edges_of(randomised_graph(graph, kind, seed=1, draw=0))
    for block in graph.blocks:
        old, new = original[block.id], drawn[block.id]
        pairs = set(zip(new["src"].tolist(), new["dst"].tolist(), strict=True))
        assert len(pairs) == block.n_edges
        assert sorted(zip(new["src"], new["dst"], strict=True)) == list(
            zip(new["src"], new["dst"], strict=True)
        )
        assert sorted(new["weight"]) == sorted(old["weight"])
        np.testing.assert_array_equal(new["weight"], old["weight"][new["origin"]])
        for name in ("src", "dst"):
            if kind is WeightNull.REWIRE or block.kind is EdgeKind.IDENTITY:
                assert Counter(new[name].tolist()) == Counter(old[name].tolist())
        if kind is WeightNull.REWIRE:
            np.testing.assert_array_equal(new["src"], old["src"][new["origin"]])
    assert any(drawn[0]["dst"].tolist() != original[0]["dst"].tolist() for _ in [0])


def test_a_block_that_is_no_matrix_keeps_its_edges_when_weights_are_shuffled():
    graph = net(shared=False)
    draws = [edges_of(randomised_graph(graph, WeightNull.SHUFFLE, seed=0, draw=d))[2] for d in range(10)]
    assert all(d["src"].tolist() == [12, 13, 13, 15] for d in draws)
    assert len({tuple(d["weight"]) for d in draws}) > 1


@pytest.mark.parametrize("kind", list(WeightNull))
def test_blocks_that_share_a_tensor_are_randomised_alike(kind):
    graph = net(shared=True)
    drawn = edges_of(randomised_graph(graph, kind, seed=2, draw=3))
    matrices = []
    for block in graph.blocks[:2]:
        matrix = np.zeros((6, 6))
        row = [block.src_units.tolist().index(u) for u in drawn[block.id]["src"]]
        column = [block.dst_units.tolist().index(u) for u in drawn[block.id]["dst"]]
        matrix[row, column] = drawn[block.id]["weight"]
        matrices.append(matrix)
    np.testing.assert_array_equal(matrices[0], matrices[1])


def test_draws_differ_and_repeat():
    graph = net(shared=False)
    draw = [edges_of(randomised_graph(graph, WeightNull.REWIRE, seed=1, draw=d))[0] for d in (0, 0, 1)]
    assert draw[0]["dst"].tolist() == draw[1]["dst"].tolist()
    assert draw[0]["dst"].tolist() != draw[2]["dst"].tolist()
