"""Path counts over blocks in place as tasks: the same number wherever tiles are computed."""

import os
import pickle
from itertools import pairwise

import numpy as np
import pytest
from inplacemodels import dense_onnx, export_twice, sparse_weights

from emergraph.analysis.access import GraphAccess
from emergraph.analysis.emergence.analysis import EMERGENCE
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.engines.cluster import tasks_on
from emergraph.analysis.engines.options import Backend, EngineOptions
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.storedgraph import read_unit_graph
from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters import modeltensors
from emergraph.exporters.modeltensors import open_model
from emergraph.graphstore import inplace
from emergraph.graphstore.inplace import mask_times, tile_times
from emergraph.graphstore.modelfiles import model_given
from emergraph.graphstore.store import open_store

SIZES = (70, 90, 80, 60, 75, 65, 85, 95, 90, 80, 70)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    model = dense_onnx(folder / "net.onnx", weights(0))
    return model, *export_twice(model, folder)


def weights(seed):
    return [sparse_weights(shape, seed=seed + k) for k, shape in enumerate(pairwise(SIZES))]


@pytest.fixture
def graph(made):
    """A reader with its model; the file's matrices are cut into many tiles."""
    model, _, store = made
    with model_given(open_model(model)), open_store(store) as opened:
        yield opened.graph()


def counts(graph, *, exact=True):
    """E in floats beyond 2**53, and as integers."""
    scores = np.random.default_rng(0).random(graph.n_units)
    found = path_count_emergence(graph, scores < 0.5, options=EmergenceOptions(exact=exact))
    assert found.counts[1].emergence.value > 2**53
    sums = [count.emergence.value for count in found.counts]
    return [*sums, *(count.exact for count in found.counts), *found.layers.rows()]


@pytest.mark.parametrize("backend", [Backend.SERIAL, Backend.THREADING, Backend.PROCESSES, Backend.DASK])
def test_e_is_the_same_wherever_tiles_are_computed(graph, backend, monkeypatch):
    if backend is Backend.DASK:
        pytest.importorskip("distributed")
    monkeypatch.setattr(inplace, "TILE_CELLS", 2500)
    exact = backend is not Backend.DASK  # which takes a while for each task
    expected = counts(read_unit_graph(graph), exact=exact)
    with tasks_on(EngineOptions(backend=backend, jobs=2)) as mapped:
        assert repr(counts(read_unit_graph(graph, mapped=mapped), exact=exact)) == repr(expected)


def test_e_as_rows_and_as_tiles(made, graph, monkeypatch):
    monkeypatch.setattr(inplace, "TILE_CELLS", 700)
    with open_store(made[1]) as stored:
        rows = counts(read_unit_graph(stored.graph()))
    tiles = counts(read_unit_graph(graph))
    np.testing.assert_allclose(tiles[:2], rows[:2], rtol=1e-13)
    assert tiles[2:4] == rows[2:4]


def block(graph):
    return next(one for one in graph.blocks_info() if one.place is not None)


def test_a_matrix_travels_as_its_place_in_the_file(graph):
    matrix = graph.matrix(block(graph))
    some = matrix.select(np.array([3, 1, 2]), np.arange(matrix.shape[1]))
    for one in (matrix, some):
        sent = pickle.dumps(one)
        assert len(sent) < 2000 < matrix.size
        assert np.array_equal(pickle.loads(sent).array(), one.array())
        again = pickle.dumps(pickle.loads(sent))
        assert np.array_equal(pickle.loads(again).array(), one.array())
    copied = inplace.Matrix.over(matrix.array())
    assert np.array_equal(pickle.loads(pickle.dumps(copied)).array(), matrix.array())


def test_who_opens_the_same_file_computes_no_checksum_and_another_file_is_refused(
    made, tmp_path, monkeypatch
):
    model = tmp_path / "net.onnx"
    model.write_bytes(made[0].read_bytes())
    monkeypatch.setattr(modeltensors, "_opened_once", modeltensors._opened_once.__wrapped__)
    with model_given(open_model(model)), open_store(made[2]) as opened:
        matrix = opened.graph().matrix(block(opened.graph()))
        sent, values = pickle.dumps(matrix), matrix.array()
    with monkeypatch.context() as patch:
        patch.setattr(modeltensors._Candidate, "digest", lambda one: one.sha256)
        assert np.array_equal(pickle.loads(sent).array(), values)
    os.utime(model, ns=(1, 1))
    assert np.array_equal(pickle.loads(sent).array(), values)
    dense_onnx(model, weights(50))
    with pytest.raises(InvalidInputError, match="other values"):
        pickle.loads(sent)


def died(matrix, tile, vectors):
    os.kill(os.getpid(), 9)


def test_a_worker_that_dies_is_said(graph):
    matrix = graph.matrix(block(graph))
    vectors = np.ones((matrix.shape[1], 1))
    with (
        tasks_on(EngineOptions(backend=Backend.PROCESSES, jobs=2)) as mapped,
        pytest.raises(LimitError) as said,
    ):
        mask_times(matrix, vectors, mapped=lambda _, calls: mapped(died, calls))
    assert "--jobs" in str(said.value)
    with tasks_on(EngineOptions(backend=Backend.PROCESSES, jobs=2)) as mapped:
        assert np.array_equal(mask_times(matrix, vectors, mapped=mapped), mask_times(matrix, vectors))


def test_tiles_depend_on_nothing_but_the_matrix(monkeypatch):
    """Each sends a result for all rows: large matrices have no more of them than small ones."""
    seen = []

    def mapped(do, calls):
        seen.append(len(calls))
        return (do(*call) for call in calls)

    monkeypatch.setattr(inplace, "TILE_CELLS", 100)
    for side in (10, 20, 200):
        values = np.random.default_rng(0).random((side, side)) < 0.5
        vectors = np.ones((side, 1))
        found = mask_times(inplace.Matrix.over(values.astype(np.float32)), vectors, mapped=mapped)
        assert np.array_equal(found[:, 0], values.sum(axis=1))
    assert seen == [1, 4, 67]  # whole rows: three of 200 are 600 entries, and 625 are asked for


def test_a_tile_is_what_its_part_of_the_matrix_adds(graph):
    matrix = graph.matrix(block(graph))
    vectors = np.random.default_rng(1).integers(0, 9, (matrix.shape[1], 2)).astype(float)
    whole = (matrix.array() != 0).astype(float)
    for rows, columns in matrix.pieces(cells=500):
        found = tile_times(matrix, (rows, columns), vectors[columns])
        assert np.array_equal(found, whole[rows, columns] @ vectors[columns])


def test_the_option_says_where(made):
    """The analysis asks for the engine that it was given, and its run does not depend on it."""
    with GraphAccess(made[2], None, save=False) as at, model_given(open_model(made[0])):
        at.run_on(EngineOptions(backend=Backend.THREADING, jobs=2))
        assert at.units().edges.mapped is not None
    assert EngineOptions in EMERGENCE.options
