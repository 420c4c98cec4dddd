"""A graph read from a store counts like the same graph in memory."""

import numpy as np
import polars as pl
import pytest

from emergraph.analysis.activity.rules import activity
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.storedgraph import read_unit_graph, read_unit_trace
from emergraph.analysis.unitgraph import ROLES
from emergraph.errors import UsageError
from emergraph.graphstore.records import (
    Block,
    EdgeKind,
    GraphFooter,
    GraphHeader,
    Layer,
    LayerKind,
    MatrixKernels,
    Role,
    Tensor,
    TraceHeader,
    UnitColumns,
)
from emergraph.graphstore.store import open_store

SIZES = (5, 6, 6, 3)
FIRSTS = (0, 5, 11, 17)
KINDS = (LayerKind.INPUT, LayerKind.CONV, LayerKind.JUNCTION, LayerKind.DENSE)
N_UNITS = 20


def weights():
    rng = np.random.default_rng(8)
    first = rng.integers(0, 4, (5, 6))
    return first, rng.standard_normal((6, 3)).astype(np.float32)


def write(path):
    """Convolution with kernels -> junction with a copy of itself -> dense layer, full, and a skip edge."""
    kernels, dense = weights()
    units = [np.arange(f, f + n) for f, n in zip(FIRSTS, SIZES, strict=True)]
    rows = {"l1": kernels, "l2": kernels, "max_abs": kernels > 0}
    with open_store(path, mode="create") as store:
        header = GraphHeader(name="small", source="m.onnx", sha256="0" * 64, format="onnx")
        with store.write_graph(header) as writer:

            def block(number, kind, layer):
                return Block(id=number, name=f"op{number}", op="x", kind=kind, layer=layer, tensor=None)

            writer.write_matrix(
                block(0, EdgeKind.WEIGHT, 1),
                units[0],
                units[1],
                kernels.astype(float),
                MatrixKernels(
                    **{k: v.astype(float) for k, v in rows.items()}, n_params=kernels.astype(np.int32)
                ),
            )
            writer.write_edges(block(1, EdgeKind.IDENTITY, 2), units[1], units[2], np.ones(6, np.float32))
            writer.write_edges(block(2, EdgeKind.IDENTITY, 2), units[1], units[2], np.ones(6, np.float32))
            writer.write_matrix(block(3, EdgeKind.WEIGHT, 3), units[2], units[3], dense)
            writer.write_edges(block(4, EdgeKind.RECURRENT, 1), units[1][:1], units[1][:1])
            writer.write_layers(
                [
                    Layer(id=k, name=f"l{k}", op="x", kind=KINDS[k], depth=k, first_unit=FIRSTS[k], n_units=n)
                    for k, n in enumerate(SIZES)
                ]
            )
            roles = (Role.INPUT, Role.HIDDEN, Role.HIDDEN, Role.OUTPUT)
            writer.write_units([UnitColumns(layer=k, role=role) for k, role in enumerate(roles)])
            raw = np.array([0.0, 1.0], dtype=np.float32)
            writer.write_tensor(
                Tensor(name="t", dtype="float32", shape=(2,), n_params=2, n_zeros=1, data=raw.tobytes())
            )
            writer.write_operations([])
            writer.finish(
                GraphFooter(
                    n_parameters=2, n_parameters_understood=2, n_operations=0, n_operations_understood=0
                )
            )
        samples = np.random.default_rng(1).standard_normal((4, 12)).astype(np.float32)
        frame = pl.DataFrame(
            {
                "unit": pl.Series(np.r_[0:11, 17], dtype=pl.Int32),
                "mean": samples.mean(axis=0).astype(float),
                "mean_abs": np.abs(samples).mean(axis=0).astype(float),
                "rms": np.zeros(12),
                "std": np.zeros(12),
                "min": samples.min(axis=0).astype(float),
                "max": samples.max(axis=0).astype(float),
                "share_positive": np.zeros(12),
                "n": np.full(12, 4),
                "n_positions": np.full(12, 1),
                "values": pl.Series(list(samples.T), dtype=pl.List(pl.Float32)),
            }
        )
        for name in ("first", "second"):
            store.write_trace(0, TraceHeader(name=name, kind="random", n_samples=4, n_values=4), frame)
    return samples


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "small.duckdb"
    samples = write(path)
    with open_store(path) as store:
        yield store.graph(), samples


def test_units_and_layers_come_back(stored):
    reader, _ = stored
    graph = read_unit_graph(reader)
    assert graph.name == "small"
    assert [layer.kind for layer in graph.layers] == [kind.value for kind in KINDS]
    assert graph.neuron.tolist() == [True] * 11 + [False] * 6 + [True] * 3
    assert [ROLES[code] for code in graph.role[[0, 5, 11, 19]]] == ["input", "hidden", "hidden", "output"]
    assert (graph.n_params, graph.n_nonzero) == (2, 1)
    kernels, dense = weights()
    assert graph.n_edges == np.count_nonzero(kernels) + 12 + dense.size + 1
    assert [block.dense for block in graph.blocks] == [False, False, False, True, True]


@pytest.mark.parametrize("paths", ["units", "weights"])
def test_counts_equal_enumeration(stored, brute_force_paths, paths):
    reader, _ = stored
    graph = read_unit_graph(reader)
    kernels, _ = weights()
    edges = [(int(a), int(b) + 5, int(kernels[a, b])) for a, b in np.argwhere(kernels)]
    edges += [(5 + k, 11 + k, 1) for k in range(6)] * 2
    edges += [(11 + a, 17 + b, 1) for a in range(6) for b in range(3)]
    active = np.random.default_rng(2).random(N_UNITS) < 0.5
    states = ["active" if on else "inactive" for on in active]
    states[11:17] = ["transparent"] * 6
    result = path_count_emergence(graph, active, options=EmergenceOptions(paths=paths, exact=True))
    for interior in ("active", "any"):
        assert result.count(interior).exact == brute_force_paths(
            edges, states, interior=interior, weights=paths == "weights"
        )
    assert result.edges_left_out == {EdgeKind.RECURRENT: 1}


def test_traces_come_back(stored):
    reader, samples = stored
    trace = read_unit_trace(reader)
    assert trace.name == "second"
    assert read_unit_trace(reader, "first").name == "first"
    assert read_unit_trace(reader, 0).name == "first"
    np.testing.assert_array_equal(trace.samples[:, 0:11], samples[:, :11])
    assert np.isnan(trace.samples[:, 11:17]).all()
    assert trace.n_samples == 4
    result = activity("majority", read_unit_graph(reader), trace=trace, threshold=0.0)
    assert result.known.sum() == 12
    with pytest.raises(UsageError):
        read_unit_trace(reader, "third")
