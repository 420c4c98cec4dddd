"""Both sides of the sizes at which an analysis takes another path or refuses."""

import igraph
import numpy as np
import polars as pl
import pytest

from emergraph.analysis.edgesets import forest
from emergraph.analysis.emergence import rewiring
from emergraph.analysis.information import sequences
from emergraph.analysis.landscape import spectrum
from emergraph.analysis.landscape.hypercube import MAX_GROUPS
from emergraph.analysis.landscape.layout import Layout
from emergraph.analysis.landscape.survey import filter_groups, layer_groups
from emergraph.analysis.landscape.tasks import mask_tasks
from emergraph.analysis.layerednets import layered_net
from emergraph.analysis.paths import edgesums
from emergraph.analysis.percolation import concepts, edgelist
from emergraph.analysis.pruning import options
from emergraph.analysis.pruning.channels import movement
from emergraph.analysis.pruning.channels.tracks import ChannelTrack
from emergraph.analysis.topology import topology, weightededges, weightspectra, wholegraph
from emergraph.analysis.topology import topology as measures
from emergraph.analysis.topology.options import TopologyOptions
from emergraph.errors import InvalidInputError, LimitError, UsageError

RNG = np.random.default_rng(16)
NET = layered_net([RNG.normal(size=shape) for shape in ((3, 4), (4, 2))])


def test_edges_in_memory(monkeypatch):
    for module, read in ((edgelist, edgelist.read_edges), (weightededges, weightededges.weighted_edges)):
        monkeypatch.setattr(module, "MAX_EDGES", 20)
        assert len(read(NET).src) == 20
        monkeypatch.setattr(module, "MAX_EDGES", 19)
        with pytest.raises(LimitError, match="20 edges, at most 19"):
            read(NET)


@pytest.mark.parametrize("limit", [3, 2])
def test_rows_of_pairs(monkeypatch, limit):
    monkeypatch.setattr(concepts, "MAX_OBSERVATIONS", limit)
    seen = pl.DataFrame({"entity": ["a", "b", "a"], "property": ["x", "y", "x"]})
    if limit == 3:
        assert concepts.read_pairs(seen).n_observations == 3
    else:
        with pytest.raises(LimitError, match="3 rows, at most 2"):
            concepts.read_pairs(seen)


def test_levels_of_a_sweep():
    levels = np.linspace(0, 0.9, options.MAX_LEVELS + 1)
    assert len(options.checked_levels(levels[:-1].tolist())) == options.MAX_LEVELS
    with pytest.raises(UsageError, match="255 levels"):
        options.checked_levels(levels.tolist())


@pytest.mark.parametrize("size", [24, 23])
def test_reshapes_that_are_followed(monkeypatch, size):
    monkeypatch.setattr(movement, "MAX_ELEMENTS", size)
    track = ChannelTrack(1, np.arange(4))
    if size == 24:
        axis, ids = movement._reshaped(track, (1, 4, 6), (1, 4, 2, 3))
        assert (axis, ids.tolist()) == (1, [0, 1, 2, 3])
    else:
        with pytest.raises(movement.UnfollowedError, match="too large"):
            movement._reshaped(track, (1, 4, 6), (1, 4, 2, 3))


def butterflies(src, dst):
    return topology.block_motifs(src, dst)["butterflies"]


@pytest.mark.parametrize("density", [0.02, 0.5])
def test_butterflies_of_full_and_sparse_blocks(monkeypatch, density):
    present = RNG.random((40, 60)) < density
    src, dst = np.nonzero(present)
    common = (present.astype(int) @ present.T)[np.triu_indices(40, 1)]
    expected = int((common * (common - 1) // 2).sum())
    used = len(np.unique(src))
    monkeypatch.setattr(topology, "MAX_SIDE", min(used, len(np.unique(dst))))
    assert butterflies(src, dst) == expected
    monkeypatch.setattr(topology, "MAX_SIDE", topology.MAX_SIDE - 1)
    assert butterflies(src, dst) is None


@pytest.mark.parametrize("shape", [(16, 1 << 16), (16, (1 << 16) + 1)])
def test_spectra_of_matrices_around_a_million_elements(shape):
    matrix = RNG.normal(size=shape)
    expected = np.linalg.eigvalsh(matrix @ matrix.T)
    assert np.allclose(weightspectra.squared_singular_values(matrix), expected)


@pytest.mark.parametrize("side", [5, 4])
def test_spectra_of_sides(monkeypatch, side):
    monkeypatch.setattr(weightspectra, "MAX_SMALL_SIDE", side)
    found = weightspectra._diagnosis(RNG.normal(size=(5, 7)), convolution=False)
    assert isinstance(found, dict) if side == 5 else found == "both sides exceed 4"


@pytest.mark.parametrize("limit", [6, 5])
def test_paths_of_a_whole_graph(monkeypatch, limit):
    monkeypatch.setattr(wholegraph, "MAX_PATHS", limit)
    found = wholegraph.small_world(igraph.Graph.Ring(6), seed=0)
    assert found["mean_path"] == (pytest.approx(1.8) if limit == 6 else None)


@pytest.mark.parametrize("limit", [12, 11])
def test_rewiring_in_one_matrix(monkeypatch, limit):
    monkeypatch.setattr(rewiring, "MAXIMUM_CELLS", limit)
    at = np.asarray([0, 5, 6, 11])
    cells = rewiring._Cells(sources=np.arange(3), targets=np.arange(4), at=at, order=None)
    if limit == 12:
        assert len(rewiring._rewired(cells, RNG)) == 4
    else:
        with pytest.raises(LimitError, match="3 x 4 pairs"):
            rewiring._rewired(cells, RNG)


@pytest.mark.parametrize("cells", [1, 9, 10, 30])
def test_sums_over_edges_a_piece_at_a_time(monkeypatch, cells):
    src, dst = np.repeat(np.arange(7), 10), np.tile(np.arange(10), 7)
    values = RNG.normal(size=(10, edgesums.FEW_COLUMNS + 1))
    sums = edgesums.group_edges(src, dst, first_target=0)
    expected = np.tile(values.sum(axis=0), (7, 1))
    monkeypatch.setattr(edgesums, "MATRIX_CELLS", cells)
    assert np.allclose(sums._by_matrix(values, 0, 10), expected)


@pytest.mark.parametrize("size", [1, 5, 6])
def test_merges_a_chunk_at_a_time(monkeypatch, size):
    edges = edgelist.read_edges(NET)
    order = RNG.permutation(edges.n_edges)

    def merges():
        start = forest.starting_components(9, edges.src[:0], edges.dst[:0])
        return forest.find_merges(edges.src, edges.dst, order, *start)

    expected = merges().position.tolist()
    monkeypatch.setattr(forest, "_SMALLEST_CHUNK", size)
    monkeypatch.setattr(forest, "_LARGEST_CHUNK", size)
    assert merges().position.tolist() == expected


@pytest.mark.parametrize("limit", [40 * 60, 40 * 60 - 1])
def test_butterflies_by_full_and_by_sparse_products(monkeypatch, limit):
    present = np.ones((40, 60), bool)
    monkeypatch.setattr(topology, "MAX_FULL", limit)
    assert butterflies(*np.nonzero(present)) == (40 * 39 // 2) * (60 * 59 // 2)


@pytest.mark.parametrize("limit", [12, 11])
def test_motifs_of_large_blocks(monkeypatch, limit):
    monkeypatch.setattr(measures, "MAX_MOTIF_EDGES", limit)
    blocks = measures.topology(NET, options=TopologyOptions(nulls=0)).blocks
    counted = dict(blocks.select("n_edges", "diverging").iter_rows())
    assert counted == {12: 3 * 6 if limit == 12 else None, 8: 4}


def test_vectors_of_a_basis_in_memory(monkeypatch):
    n = 60
    matrix = RNG.normal(size=(n, n))
    matrix += matrix.T

    def largest():
        return spectrum.extreme_eigenvectors(lambda v: matrix @ v, n, k=1)[0]

    whole = largest()
    assert whole.converged
    assert whole.products < n
    monkeypatch.setattr(spectrum, "BASIS_BYTES", 8 * n * (whole.products + 1))
    assert largest() == whole
    monkeypatch.setattr(spectrum, "BASIS_BYTES", 8 * n * whole.products)
    cut = largest()
    assert (cut.converged, cut.products) == (False, whole.products - 1)


@pytest.mark.parametrize("beyond", [0, 1])
def test_groups_of_a_mask_landscape(beyond):
    m = MAX_GROUPS + beyond
    layout = Layout.of_shapes([(20, 3)] * 20, [f"w{k}" for k in range(20)])
    groups = tuple(np.array([k]) for k in range(m))
    makers = (
        lambda: layer_groups(layout, m=m),
        lambda: filter_groups(layout, "w0", m=m),
        lambda: mask_tasks(groups, chunk=1 << MAX_GROUPS),
    )
    if not beyond:
        assert [len(make()) for make in makers] == [m, m, 1]
        return
    for make in makers:
        with pytest.raises(UsageError, match=f"expected 1 to {MAX_GROUPS}"):
            make()


@pytest.mark.parametrize("limit", [6, 5])
def test_sequences_that_are_listed(monkeypatch, limit):
    monkeypatch.setattr(sequences, "LARGEST_LIST", limit)
    if limit == 6:
        assert sequences.entity_sequences([1, 2, 3], 0, shots=2).population == 6
    else:
        with pytest.raises(UsageError, match="6 sequences; expected at most 5"):
            sequences.entity_sequences([1, 2, 3], 0, shots=2)


@pytest.mark.parametrize("ending", ["txt", "npy"])
def test_bytes_of_a_file_of_sequences(monkeypatch, tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    if ending == "npy":
        np.save(path, np.arange(6).reshape(2, 3))
    else:
        path.write_text("0 1 2\n3 4 5\n")
    monkeypatch.setattr(sequences, "MAX_FILE_BYTES", path.stat().st_size)
    assert sequences.read_sequences(path).values.tolist() == [[0, 1, 2], [3, 4, 5]]
    monkeypatch.setattr(sequences, "MAX_FILE_BYTES", path.stat().st_size - 1)
    with pytest.raises(InvalidInputError, match="larger than"):
        sequences.read_sequences(path)
    with pytest.raises(InvalidInputError, match="larger than"):
        sequences.text_sequences(path, length=2)
