"""Orders that are made only as far as somebody looks are the whole orders."""

import numpy as np
import pytest

from emergraph.analysis.edgesets import gradual
from emergraph.analysis.edgesets.ends import Ends
from emergraph.analysis.edgesets.gradual import DrawnOrder, GradualOrder, ShuffledOrder
from emergraph.analysis.edgesets.ordering import descending
from emergraph.analysis.pruning.selection import CodedPart, magnitude_codes, mark_levels, removal_levels


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(gradual, "_PART", 50)
    monkeypatch.setattr(gradual, "_SCAN", 64)


def some_keys(kind, dtype):
    rng = np.random.default_rng(5)
    keys = rng.normal(size=1000).astype(dtype)
    if kind == "ties":
        keys = np.round(keys, 1)
    if kind == "nan":
        keys[rng.random(1000) < 0.2] = np.nan
        keys[3] = -0.0
    return np.abs(keys) if kind == "positive" else keys


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["distinct", "ties", "nan", "positive"])
def test_gradual_order_is_the_whole_order(kind, dtype):
    keys = some_keys(kind, dtype)
    whole, bit_by_bit = descending(keys), GradualOrder(keys)
    assert np.array_equal(bit_by_bit[:7], whole.edges[:7])
    assert bit_by_bit.n_made < len(keys)
    assert bit_by_bit.has_ties == whole.has_ties
    assert np.array_equal(bit_by_bit[:], whole.edges)
    assert np.array_equal(bit_by_bit[np.array([900, 3])], whole.edges[[900, 3]])
    assert np.array_equal(bit_by_bit.ranks(len(keys)), whole.ranks())
    ours, theirs = (one.shuffled_ties(300, np.random.default_rng(1)) for one in (GradualOrder(keys), whole))
    assert np.array_equal(ours, theirs)


def test_ranks_beyond_what_is_made_are_the_largest_number():
    keys = some_keys("ties", np.float32)
    order = GradualOrder(keys)
    ranks, whole = order.ranks(20), descending(keys).ranks()
    known = ranks < np.iinfo(np.int32).max
    assert 20 <= known.sum() == order.n_made < len(keys)
    assert np.array_equal(ranks[known], whole[known])


def test_drawn_orders_hold_every_edge_once_and_are_equally_likely():
    order = DrawnOrder(997, np.random.default_rng(0), first=10)
    assert np.array_equal(np.sort(order[:]), np.arange(10, 1007))
    firsts = [int(DrawnOrder(6, np.random.default_rng(seed))[0:1][0]) for seed in range(1200)]
    counts = np.bincount(firsts, minlength=6)
    assert counts.sum() == 1200
    assert ((counts - 200) ** 2 / 200).sum() < 20.5  # chi squared, 5 degrees of freedom: p = 0.001


def test_shuffled_orders_keep_the_block_at_every_position():
    keys = np.random.default_rng(2).normal(size=600).astype(np.float32)
    starts = np.array([0, 100, 350, 600])
    order = ShuffledOrder(GradualOrder(keys), starts, np.random.default_rng(0), np.random.default_rng(1))
    found = order[:]
    assert np.array_equal(np.sort(found), np.arange(600))
    block = np.repeat(np.arange(3), np.diff(starts))
    assert np.array_equal(block[found], block[descending(keys).edges])
    assert not np.array_equal(found, descending(keys).edges)


def test_ends_of_matrices_are_those_that_would_be_listed():
    starts = np.array([0, 12, 15, 35])
    sources = [np.array([7, 9, 2], np.int32), np.array([4, 4, 5], np.int32), np.arange(5, dtype=np.int32)]
    targets = [
        np.array([10, 11, 12, 13], np.int32),
        np.array([1, 2, 3], np.int32),
        np.arange(20, 24, dtype=np.int32),
    ]
    listed = (
        np.concatenate([np.repeat(sources[0], 4), sources[1], np.repeat(sources[2], 4)]),
        np.concatenate([np.tile(targets[0], 3), targets[1], np.tile(targets[2], 5)]),
    )
    for side, (units, expected) in enumerate(zip((sources, targets), listed, strict=True)):
        ends = Ends(starts, units, [4, 0, 4], rows=side == 0)
        assert len(ends) == 35
        for first in range(36):
            for last in range(first, 36):
                assert np.array_equal(ends[first:last], expected[first:last])
        at = np.random.default_rng(0).integers(0, 35, size=200)
        assert np.array_equal(ends[at], expected[at])


@pytest.mark.parametrize("kind", ["distinct", "ties", "nan"])
def test_levels_of_very_many_items_are_those_of_all_at_once(monkeypatch, kind):
    scores = some_keys(kind, np.float32)
    one_group = np.broadcast_to(np.int64(0), len(scores))
    levels = [0.0, 0.1, 0.1, 0.505, 0.99]
    whole = removal_levels(scores, one_group, levels)
    monkeypatch.setattr("emergraph.analysis.pruning.selection.GRADUAL_EDGES", 999)
    assert np.array_equal(removal_levels(scores, one_group, levels), whole)
    assert np.array_equal(removal_levels(scores, one_group, [0.0]), np.ones(len(scores)))


def test_ties_at_the_end_of_a_level_go_by_position_whatever_the_parts():
    """Parts may come in any order within an owner, and hold what is no item."""
    random = np.random.default_rng(0)
    grid = np.round(random.standard_normal((40, 30)), 1).astype(np.float32)
    gone = np.full(grid.shape, 9, np.uint8, order="F")

    def parts(owners=None):
        for first in range(0, 30, 7):
            columns = slice(first, first + 7)
            yield CodedPart(
                0,
                magnitude_codes(grid[:, columns].T.reshape(-1), full=False),
                lambda at, first=first: at % 40 * 30 + first + at // 40,
                gone[:, columns].T.reshape(-1),
            )

    there = grid != 0
    levels = [0.0, 0.2, 0.21, 0.8]
    mark_levels(parts, levels, n_items=int(there.sum()), n_codes=grid.size)
    expected = removal_levels(np.abs(grid[there]), np.zeros(there.sum(), np.int64), levels)
    assert np.array_equal(gone[there], expected)
    assert not gone[~there].any()
