"""GGUF files as the gguf package writes them: every value bit for bit as the package itself unpacks it."""

import sys

import gguf
import numpy as np
import pytest

import emergraph
from emergraph.errors import MissingExtraError
from emergraph.exporters.weightfiles.gguf.elements import BLOCKS, PLAIN
from emergraph.exporters.weightfiles.gguf.header import Several
from emergraph.exporters.weightfiles.reader import check_weights, read_weights
from emergraph.exporters.weightfiles.wiring_parameters import parameters

TYPES = {kind.value: kind for kind in gguf.GGMLQuantizationType}


def write(path, arrays, *, arch="toy", add=lambda writer: None):
    """Write arrays, or (bytes, type) pairs of packed ones."""
    writer = gguf.GGUFWriter(path, arch)
    add(writer)
    for name, array in arrays.items():
        if isinstance(array, tuple):
            writer.add_tensor(name, array[0], raw_dtype=array[1])
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def packed(kind, rows=3, blocks=2, seed=0):
    """Random bytes as blocks of a type; scales among them may be anything."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (rows, blocks * size), dtype=np.uint8), (rows, blocks * values)


def test_the_types_are_those_of_the_package():
    """Sizes of blocks, and which of them it unpacks."""
    assert {TYPES[number].name for number in BLOCKS} | {TYPES[n].name for n in PLAIN} == {
        kind.name for kind in TYPES.values()
    }
    for number, block in BLOCKS.items():
        assert (block.values, block.n_bytes) == gguf.GGML_QUANT_SIZES[TYPES[number]]
        assert block.name == TYPES[number].name
        data, _ = packed(TYPES[number], blocks=1)
        if block.decoded:
            with np.errstate(all="ignore"):
                gguf.dequantize(data, TYPES[number])
        else:
            with pytest.raises(NotImplementedError):
                gguf.dequantize(data, TYPES[number])


@pytest.mark.parametrize("number", [number for number, block in BLOCKS.items() if block.decoded])
def test_every_packed_type_is_unpacked_as_the_package_does(tmp_path, number, monkeypatch):
    """Bit for bit, in one piece and row by row."""
    kind = TYPES[number]
    data, shape = packed(kind)
    path = write(tmp_path / "m.gguf", {"fc.weight": (data, kind)})
    found = parameters(read_weights(path))["fc.weight"]
    with np.errstate(all="ignore"):
        expected = gguf.dequantize(data, kind)
    assert found.shape == shape == expected.shape
    assert found.floats().tobytes() == expected.tobytes()
    monkeypatch.setattr("emergraph.exporters.weightfiles.gguf.elements._CHUNK", 1)
    assert found.floats().tobytes() == expected.tobytes()
    assert found.encoding.scheme == f"{kind.name} (ggml)"


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int8", "int16", "int32", "int64"])
def test_plain_types_are_views_of_the_file(tmp_path, dtype):
    """Axes as torch has them, the innermost one last."""
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    (tensor,) = read_weights(write(tmp_path / "m.gguf", {"w": array})).tensors.values()
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(tensor.array(), array, strict=True)


def test_bfloat16_is_plain(tmp_path):
    """The package calls it packed; its numbers are numbers."""
    values = np.array([[1.5, -2.0], [0.0, 3.25]], np.float32)
    data = gguf.quantize(values, gguf.GGMLQuantizationType.BF16)
    path = write(tmp_path / "m.gguf", {"w": (data, gguf.GGMLQuantizationType.BF16)})
    (tensor,) = read_weights(path).tensors.values()
    assert tensor.dtype == "bfloat16"
    np.testing.assert_array_equal(tensor.array().astype(np.float32), values)


def test_metadata_is_as_the_package_reads_it(tmp_path):
    """Every type, arrays with their number of values, and long ones without the values that nobody needs."""

    def add(writer):
        writer.add_block_count(3)
        writer.add_string("text", "häß")
        writer.add_bool("yes", True)
        writer.add_float64("pi", 3.14159)
        writer.add_int8("small", -5)
        writer.add_array("list", [1, 2, 3])
        writer.add_array("flags", [True, False])
        writer.add_array("words", [f"w{n}" for n in range(5000)])

    found = read_weights(write(tmp_path / "m.gguf", {"w": np.ones((2, 2), np.float32)}, add=add)).metadata
    assert found["general.architecture"] == "toy"
    assert found["toy.block_count"] == 3
    assert found["text"] == "häß"
    assert found["yes"] is True
    assert found["pi"] == 3.14159
    assert found["small"] == -5
    assert found["list"] == Several(3, (1, 2, 3))
    assert found["flags"].all() == (True, False)
    assert found["words"].count == 5000
    assert found["words"].all() is None
    assert found["words"].first[:2] == ("w0", "w1")


def test_types_that_nothing_unpacks_are_left_out(tmp_path):
    """And said so."""
    data, _ = packed(gguf.GGMLQuantizationType.Q8_K)
    arrays = {"a": (data, gguf.GGMLQuantizationType.Q8_K), "b": np.ones((2, 2), np.float32)}
    weights = read_weights(write(tmp_path / "m.gguf", arrays))
    assert list(weights.tensors) == ["b"]
    assert [(entry.name, entry.reason) for entry in weights.skipped] == [
        ("a", "elements of type Q8_K are not decoded")
    ]


def test_without_the_package_one_line_says_what_to_install(tmp_path, monkeypatch):
    """Plain files need none."""
    data, _ = packed(gguf.GGMLQuantizationType.Q4_K)
    path = write(tmp_path / "m.gguf", {"w.weight": (data, gguf.GGMLQuantizationType.Q4_K)})
    plain = write(tmp_path / "p.gguf", {"w.weight": np.ones((2, 2), np.float32)})
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r'unpacking Q4_K needs the gguf package: pip install "emer'):
        emergraph.export(path, tmp_path / "a.duckdb", wire="none")
    assert emergraph.export(plain, tmp_path / "b.duckdb", wire="none").layers["n_units"].sum() == 4


def test_check_looks_at_what_the_blocks_stand_for(tmp_path):
    """A scale that is not a number, and a template for other programs."""
    data = np.zeros((1, 34), np.uint8)
    data[0, :2] = np.array([np.nan], np.float16).view(np.uint8)
    path = write(
        tmp_path / "m.gguf",
        {"w.weight": (data, gguf.GGMLQuantizationType.Q8_0)},
        add=lambda writer: writer.add_chat_template("{{ messages }}"),
    )
    found = {finding.id: finding.message for finding in check_weights(path)}
    assert found["TENSOR-NONFINITE"] == "32 of 32 values are NaN or infinite"
    assert "tokenizer.chat_template" in found["GGUF-TEMPLATE"]


def test_weights_alone_restore_to_the_bytes_of_the_file(tmp_path):
    """What the store keeps of a packed tensor is the packed tensor."""
    data, shape = packed(gguf.GGMLQuantizationType.Q5_K, rows=8, blocks=1, seed=3)
    data[:, :4] = np.tile(np.array([0.5, 0.25], np.float16).view(np.uint8), (8, 1))
    path = write(tmp_path / "m.gguf", {"blk.0.fc.weight": (data, gguf.GGMLQuantizationType.Q5_K)})
    graph = emergraph.export(path, tmp_path / "a.duckdb", wire="none")
    assert graph.layers["n_units"].sum() == sum(shape)
    stored = emergraph.open(tmp_path / "a.duckdb").sql(
        "SELECT dtype, shape, n_params, understood FROM tensors"
    )
    assert stored.row(0) == ("uint8", [8, 176], shape[0] * shape[1], True)
