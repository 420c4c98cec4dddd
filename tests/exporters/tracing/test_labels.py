"""Label arrays against naive twins."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emergraph.exporters.tracing.labels import (
    DistinctRows,
    absorb_padding,
    compress,
    core,
    distinct_multisets,
    distinct_rows,
    distinct_sets,
    distinct_tuples,
    look_up,
    reduced_rows,
    unit_axes,
    units_in,
)

SMALL = st.integers(-1, 3)


@st.composite
def labels(draw, ndim=3):
    """Labels that are often constant along some axes, with or without stride 0."""
    shape = draw(hnp.array_shapes(min_dims=ndim, max_dims=ndim, min_side=1, max_side=4))
    inner = tuple(1 if draw(st.booleans()) else n for n in shape)
    array = np.broadcast_to(draw(hnp.arrays(np.int64, inner, elements=SMALL)), shape)
    return array if draw(st.booleans()) else np.ascontiguousarray(array)


@given(labels())
def test_compressing_keeps_labels_and_finds_every_constant_axis(array):
    packed = compress(array)
    assert np.array_equal(packed, array)
    for axis in range(array.ndim):
        constant = all(
            np.array_equal(np.take(array, k, axis), np.take(array, 0, axis)) for k in range(array.shape[axis])
        )
        assert (packed.strides[axis] == 0 or array.shape[axis] == 1) == constant


@given(labels())
def test_the_core_holds_every_unit(array):
    assert set(core(compress(array)).ravel().tolist()) == set(array.ravel().tolist())
    assert units_in(array).tolist() == sorted(set(array.ravel().tolist()) - {-1})


@given(labels(ndim=2))
def test_distinct_rows_in_order_of_appearance(matrix):
    expected = list(dict.fromkeys(map(tuple, matrix.tolist())))
    found = distinct_rows(matrix)
    assert list(map(tuple, found.rows.tolist())) == expected
    assert [expected[k] for k in found.which] == list(map(tuple, matrix.tolist()))


@given(labels(ndim=2))
def test_distinct_sets_ignore_order_repetition_and_gaps(matrix):
    rows = [tuple(sorted(set(row) - {-1})) for row in matrix.tolist()]
    sets, which = distinct_sets(matrix)
    assert [tuple(s.tolist()) for s in sets] == list(dict.fromkeys(rows))
    assert [tuple(sets[k].tolist()) for k in which] == rows


@given(labels(ndim=2))
def test_distinct_multisets_ignore_order_and_gaps(matrix):
    rows = [tuple(sorted(x for x in row if x >= 0)) for row in matrix.tolist()]
    sets, counts, which = distinct_multisets(matrix)
    spelled = [tuple(np.repeat(s, c).tolist()) for s, c in zip(sets, counts, strict=True)]
    assert spelled == list(dict.fromkeys(rows))
    assert [spelled[k] for k in which] == rows


@given(labels(), st.data())
def test_distinct_tuples_of_equally_shaped_arrays(array, data):
    other = data.draw(hnp.arrays(np.int64, array.shape, elements=SMALL))
    tuples, which = distinct_tuples([array, other])
    assert np.array_equal(tuples[which], np.stack([array, other], axis=-1))
    assert len({tuple(t) for t in tuples.tolist()}) == len(tuples)


@given(labels(), st.sets(st.integers(0, 2), min_size=1))
def test_rows_of_a_reduction_hold_what_is_reduced(array, axes):
    laid_out = reduced_rows(array, sorted(axes))
    kept = [k for k in range(3) if k not in axes]
    expected = array.transpose([*kept, *sorted(axes)]).reshape([*(array.shape[k] for k in kept), -1])
    rows = laid_out.rows.reshape([*(laid_out.shape[k] for k in kept), -1])
    spread = np.broadcast_to(rows, [*expected.shape[:-1], rows.shape[-1]])
    for index in np.ndindex(*expected.shape[:-1]):
        assert sorted(np.repeat(spread[index], laid_out.repeats)) == sorted(expected[index])


@given(labels(ndim=2))
def test_padded_rows_are_taken_as_rows_that_they_fit(matrix):
    found = absorb_padding(distinct_rows(matrix))
    for row, which in zip(matrix, found.which, strict=True):
        chosen = found.rows[which]
        assert ((row < 0) | (row == chosen)).all()


def test_a_padded_row_is_the_fullest_row_that_it_fits():
    rows = np.asarray([[-1, 2, 3], [1, 2, 3], [-1, -1, 3], [4, 2, -1]])
    found = absorb_padding(DistinctRows(rows, np.arange(4)))
    assert found.rows.tolist() == [[1, 2, 3], [4, 2, -1]]
    assert found.which.tolist() == [0, 0, 0, 1]


@given(labels())
def test_looking_up_keeps_the_shape(array):
    table = np.asarray([10, 11, 12, 13, 7])
    assert np.array_equal(look_up(table, compress(array)), table[array])


def test_unit_axes_give_the_index_within_the_layer():
    grid = np.broadcast_to(np.arange(6).reshape(1, 2, 1, 3) + 5, (4, 2, 7, 3))
    assert unit_axes(grid, 5, 6) == (1, 3)
    assert unit_axes(grid, 4, 6) is None
    assert unit_axes(np.moveaxis(grid, 3, 1), 5, 6) == (2, 1)
    assert unit_axes(np.broadcast_to(np.asarray([5, 7, 6])[:, None], (3, 2)), 5, 3) is None


def test_unit_axes_of_a_single_unit_are_its_channel_axis_if_it_has_one():
    assert unit_axes(np.full((3, 1, 5), 9), 9, 1) == (1,)
    assert unit_axes(np.full((3, 4, 5), 9), 9, 1) == ()
    assert unit_axes(np.full((), 9), 9, 1) == ()
