"""The matrix of a block comes out of the store as it went in, whatever the order of its units."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storegraphs import block, finish, header

from emergraph.analysis.blockmatrix import block_matrix
from emergraph.analysis.edgesets.ordering import positions_in
from emergraph.errors import UsageError
from emergraph.graphstore.store import open_store


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, unique=True), st.data())
def test_positions_are_those_that_index_finds(units, data):
    wanted = data.draw(st.lists(st.sampled_from(units)))
    found = positions_in(np.array(units), np.array(wanted, dtype=np.int64))
    assert found.tolist() == [units.index(unit) for unit in wanted]


def test_a_matrix_comes_back_with_its_zeros(tmp_path):
    weights = np.array([[1, 0, 2], [0, 0, 3]], dtype=np.float32)
    path = tmp_path / "net.duckdb"
    with open_store(path, mode="create") as store, store.write_graph(header()) as writer:
        writer.write_matrix(block(), np.array([1, 0]), np.array([4, 2, 3]), weights)
        finish(writer, [2, 3])
    with open_store(path) as store:
        reader = store.graph()
        np.testing.assert_array_equal(block_matrix(reader, reader.blocks_info()[0]), weights)


def test_edges_in_a_list_are_no_matrix(tmp_path):
    path = tmp_path / "net.duckdb"
    with open_store(path, mode="create") as store, store.write_graph(header()) as writer:
        writer.write_edges(block(), np.array([1, 0]), np.array([2, 3]), np.array([1.0, 2.0]))
        finish(writer, [2, 2])
    with open_store(path) as store:
        reader = store.graph()
        with pytest.raises(UsageError, match="block 0 is not a matrix"):
            block_matrix(reader, reader.blocks_info()[0])
