"""What is a position, against naive twins."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emergraph.exporters.tracing.builder import Lineage
from emergraph.exporters.tracing.labels import compress, core
from emergraph.exporters.tracing.positionaxes import (
    close_gaps,
    contends,
    join_tuples,
    shared_positions,
    uses_of,
)


def families(units):
    """Units 0 to 2 are one layer, 3 to 5 another."""
    return np.asarray(units) // 3


@st.composite
def labels(draw, ndim=3):
    """Labels that are often constant along some axes."""
    shape = draw(hnp.array_shapes(min_dims=ndim, max_dims=ndim, min_side=1, max_side=3))
    inner = tuple(1 if draw(st.booleans()) else n for n in shape)
    return np.broadcast_to(draw(hnp.arrays(np.int64, inner, elements=st.integers(-1, 5))), shape)


def naive_contends(array, axes):
    moved = np.moveaxis(array, axes, range(len(axes))).reshape(np.prod([array.shape[k] for k in axes]), -1)
    for column in moved.T:
        for a, b in itertools.combinations(set(column.tolist()) - {-1}, 2):
            if a // 3 == b // 3:
                return True
    return False


@given(labels(), st.sets(st.integers(0, 2), min_size=1))
def test_what_contends(array, axes):
    assert contends(compress(array), sorted(axes), families) == naive_contends(array, sorted(axes))


@given(labels(), st.sets(st.integers(0, 2), min_size=1))
def test_closing_gaps_only_fills_them(array, axes):
    closed = close_gaps(compress(array), sorted(axes))
    assert closed.shape == array.shape
    assert np.array_equal(closed[array >= 0], array[array >= 0])
    assert set(core(closed).ravel().tolist()) <= set(array.ravel().tolist())


@given(labels())
def test_every_position_is_in_a_set_that_holds_its_labels(array):
    found = uses_of(compress(array), families)
    which = np.broadcast_to(found.which, array.shape[:-1])
    for index in np.ndindex(*array.shape[:-1]):
        rows = np.stack(found.rows[which[index]])
        for k, label in enumerate(array[index].tolist()):
            assert label < 0 or label in rows[:, k]
    for rows in found.rows:
        pairs = [(k, label) for row in rows for k, label in enumerate(row.tolist()) if label >= 0]
        assert len(set(pairs)) == len(pairs)
        assert set(pairs) <= {
            (k, label) for *_, k in np.ndindex(*array.shape) for label in array[..., k].ravel()
        }


@given(labels())
def test_one_set_where_nothing_contends(array):
    if not naive_contends(array, [0, 1]):
        assert len(uses_of(compress(array), families).rows) == 1


@given(labels(ndim=2))
def test_sets_are_joined_by_position_alone(array):
    """Tuples that stand at one index of the other axis are one group."""
    found = join_tuples(array + 1, (0,))
    where = np.broadcast_to(found.which, array.shape)
    for column in range(array.shape[1]):
        group = where[0, column]
        members = set(found.tuple_of[found.group_of == group].tolist())
        assert members == set((array[:, column] + 1).tolist())


def test_an_operand_that_was_broadcast_says_nothing_about_an_axis():
    features = np.asarray([[0], [3]])
    gate = np.broadcast_to(np.asarray([[1]]), (2, 1))
    assert shared_positions([features, gate], [(2, 1), (1, 1)], [0], families) == ()
    assert shared_positions([features, gate], [(2, 1), (2, 1)], [0], families) == (0,)


def test_beside_attention_scores_everything_is_a_position():
    distances, score = np.asarray([[0, 1], [1, 2]]), np.broadcast_to(np.asarray([[4]]), (2, 2))
    sizes = [(2, 2), (2, 2)]
    assert shared_positions([distances, score], sizes, [0, 1], families) == ()
    scores = [False, True]
    assert shared_positions([distances, score], sizes, [0, 1], families, scores=scores) == (0, 1)


def test_steps_are_uses_behind_one_another():
    lineage = Lineage()
    for layer, source in ((1, 0), (2, 1), (3, 2)):
        lineage.uses(layer, "again")
        lineage.reads(layer, [source])
    lineage.uses(4, "again")
    lineage.reads(4, [0])
    assert lineage.are_steps([1, 2])
    assert lineage.are_steps([0, 2])
    assert not lineage.are_steps([0, 1])
    assert not lineage.are_steps([1, 4])
    assert not lineage.are_steps([3])
