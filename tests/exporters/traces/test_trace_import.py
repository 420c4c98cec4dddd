"""Traces recorded elsewhere."""

import json
import struct

import numpy as np
import polars as pl
import pytest

from emergraph.errors import InvalidInputError, LimitError, UnsafeInputError
from emergraph.exporters.traces import recorded
from emergraph.exporters.traces.recorded import import_trace, read_parquet_columns
from emergraph.graphstore.records import (
    Block,
    EdgeKind,
    GraphFooter,
    GraphHeader,
    Layer,
    LayerKind,
    Role,
    UnitColumns,
)
from emergraph.graphstore.store import open_store

RNG = np.random.default_rng(3)


@pytest.fixture
def store(tmp_path):
    """A graph of three inputs and two channels, whose activations are in the tensor "relu_out" (axis 1)."""
    layers = [
        Layer(
            id=0,
            name="in",
            op="Input",
            kind=LayerKind.INPUT,
            depth=0,
            first_unit=0,
            n_units=3,
            activation_tensor="x",
            activation_axes=(1,),
        ),
        Layer(
            id=1,
            name="conv1",
            op="Conv",
            kind=LayerKind.CONV,
            depth=1,
            first_unit=3,
            n_units=2,
            activation_tensor="relu_out",
            activation_axes=(1,),
        ),
        Layer(id=2, name="out", op="Add", kind=LayerKind.JUNCTION, depth=2, first_unit=5, n_units=1),
    ]
    block = Block(id=0, name="conv1", op="Conv", kind=EdgeKind.WEIGHT, layer=1)
    header = GraphHeader(name="net", source="net.onnx", sha256="0" * 64, format="onnx")
    footer = GraphFooter(n_parameters=6, n_parameters_understood=6, n_operations=1, n_operations_understood=1)
    with open_store(tmp_path / "net.duckdb", mode="create") as opened:
        with opened.write_graph(header) as writer:
            writer.write_matrix(block, np.arange(3), np.arange(3, 5), np.ones((3, 2), np.float32))
            writer.write_layers(layers)
            writer.write_units([UnitColumns(layer=k, role=Role.HIDDEN) for k in range(3)])
            writer.write_operations([])
            writer.finish(footer)
        yield opened


def means(store):
    return dict(store.graph().activations().select("unit", "mean").rows())


def write_safetensors(path, arrays, text=None):
    header, offset = {}, 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    encoded = (text or json.dumps(header)).encode()
    path.write_bytes(
        struct.pack("<Q", len(encoded)) + encoded + b"".join(a.tobytes() for a in arrays.values())
    )


def write(folder, kind, arrays):
    path = folder / f"recorded.{kind}"
    if kind == "npz":
        np.savez(path, **arrays)
    elif kind == "safetensors":
        write_safetensors(path, arrays)
    else:
        flat = {name: array for name, array in arrays.items() if array.ndim <= 2}
        pl.DataFrame(
            {
                name: pl.Series(array.tolist(), dtype=pl.List(pl.Float32)) if array.ndim == 2 else array
                for name, array in flat.items()
            }
        ).write_parquet(path)
    return path


def test_names_of_columns_that_are_no_text_are_damage(tmp_path):
    path = tmp_path / "names.parquet"
    pl.DataFrame({"unit_name_": [1.0]}).write_parquet(path)
    path.write_bytes(path.read_bytes().replace(b"unit_name_", b"un\xe9\xff_name_"))
    with pytest.raises(InvalidInputError, match="not a readable Parquet file"):
        read_parquet_columns(path)


@pytest.mark.parametrize("kind", ["npz", "safetensors", "parquet"])
@pytest.mark.parametrize("key", ["conv1", "relu_out"])
def test_arrays_by_layer_or_tensor_name(store, tmp_path, kind, key):
    values = RNG.standard_normal((7, 2)).astype(np.float32)
    single = RNG.standard_normal(7).astype(np.float32)
    path = write(tmp_path, kind, {key: values, "out": single})
    summary = import_trace(store, None, path, n_values=3)
    found = means(store)
    assert found.keys() == {3, 4, 5}
    np.testing.assert_allclose([found[3], found[4]], values.astype(float).mean(0), atol=1e-6)
    assert found[5] == pytest.approx(float(single.astype(float).mean()), abs=1e-6)
    assert (summary.n_samples, summary.n_values, summary.n_layers) == (7, 3, 2)
    assert summary.left_out == {"in": "not in the file"}
    header = store.graph().traces().row(0, named=True)
    assert (header["kind"], header["name"], header["source"]) == ("imported", "recorded", path.name)
    assert len(header["sha256"]) == 64
    kept = store.graph().activations().filter(pl.col("unit") == 3)["values"].item().to_list()
    np.testing.assert_array_equal(kept, values[:3, 0])


@pytest.mark.parametrize("sample_axis", [0, 2])
def test_whole_tensors_are_averaged(store, tmp_path, monkeypatch, sample_axis):
    monkeypatch.setattr(recorded, "CHUNK_BYTES", 100)
    values = RNG.standard_normal((6, 2, 5, 4)).astype(np.float32)
    stored = np.moveaxis(values, 0, sample_axis) if sample_axis == 0 else values.transpose(2, 1, 0, 3)
    path = write(tmp_path, "npz", {"conv1": np.ascontiguousarray(stored)})
    import_trace(store, None, path, sample_axis=sample_axis)
    expected = values.astype(float).mean((0, 2, 3))
    np.testing.assert_allclose([means(store)[3], means(store)[4]], expected, atol=1e-7)


def test_half_precision_is_read_exactly(store, tmp_path):
    values = RNG.standard_normal((5, 2)).astype(np.float16)
    import_trace(store, None, write(tmp_path, "npz", {"conv1": values}))
    np.testing.assert_allclose([means(store)[3], means(store)[4]], values.astype(float).mean(0), rtol=1e-12)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"conv2": np.zeros((3, 2))}, "unknown layer or tensor 'conv2'; available: .*conv1"),
        ({"conv1": np.zeros((3, 4))}, r"shape \[3, 4\]; expected \[samples, 2\] for layer 'conv1'"),
        ({"out": np.zeros((3, 4))}, r"shape \[3, 4\]; expected \[samples, 1\] for layer 'out'"),
        ({"conv1": np.zeros((3, 2)), "in": np.zeros((4, 3))}, "'in' has 4 samples and layer 'conv1' has 3"),
        ({"conv1": np.zeros((3, 2)), "relu_out": np.zeros((3, 2))}, "'conv1' is recorded twice"),
        ({"conv1": np.zeros((0, 2))}, "no samples"),
        ({"conv1": np.zeros(3)}, r"shape \[3\]"),
    ],
)
def test_recordings_that_do_not_fit_are_refused(store, tmp_path, arrays, message):
    with pytest.raises(InvalidInputError, match=message):
        import_trace(store, None, write(tmp_path, "npz", arrays))
    assert store.graph().traces().is_empty()


def test_hostile_files_are_refused(store, tmp_path):
    np.savez(tmp_path / "objects.npz", conv1=np.array([{}], dtype=object))
    with pytest.raises(UnsafeInputError):
        import_trace(store, None, tmp_path / "objects.npz")
    entry = '{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}'
    write_safetensors(
        tmp_path / "twice.safetensors",
        {"conv1": np.zeros((1, 2), np.float32)},
        f'{{"conv1":{entry},"conv1":{entry}}}',
    )
    with pytest.raises(UnsafeInputError):
        import_trace(store, None, tmp_path / "twice.safetensors")
    for name in ("none.npz", "none.parquet"):
        with pytest.raises(InvalidInputError, match="none"):
            import_trace(store, None, tmp_path / name)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InvalidInputError, match="not a readable Parquet file"):
        import_trace(store, None, tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.Series(["a", "b"]), "holds string|holds large_string"),
        (pl.Series([1.0, None]), "1 missing values"),
        (pl.Series([[1.0, 2.0], [3.0]]), "lists of 1 to 2 values"),
        (pl.Series([[1.0, None], [3.0, 4.0]]), "none missing"),
        (pl.Series([["a"], ["b"]]), "expected numbers"),
    ],
)
def test_parquet_columns_of_something_else_are_refused(store, tmp_path, column, message):
    pl.DataFrame({"conv1": column}).write_parquet(tmp_path / "odd.parquet")
    with pytest.raises(InvalidInputError, match=message):
        import_trace(store, None, tmp_path / "odd.parquet")


def test_parquet_arrays_of_fixed_length(store, tmp_path):
    values = RNG.standard_normal((4, 2))
    series = pl.Series(values.tolist(), dtype=pl.Array(pl.Float64, 2))
    pl.DataFrame({"conv1": series}).write_parquet(tmp_path / "fixed.parquet")
    import_trace(store, None, tmp_path / "fixed.parquet")
    np.testing.assert_allclose([means(store)[3], means(store)[4]], values.mean(0))


def test_parquet_files_are_counted_before_they_are_read(store, tmp_path, monkeypatch):
    """A million equal values take a few hundred bytes in the file."""
    pl.DataFrame({"out": np.ones(1_000_000)}).write_parquet(tmp_path / "long.parquet")
    monkeypatch.setattr(recorded, "MAX_VALUES", 999_999)
    with pytest.raises(LimitError, match="1000000 values; expected at most 999999"):
        import_trace(store, None, tmp_path / "long.parquet")
