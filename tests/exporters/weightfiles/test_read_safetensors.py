"""safetensors (section 4.3 of the attacks): values, strictness beyond the reference reader, shards."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.errors import EmergraphError
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.reader import check_weights, read_weights

safetensors = pytest.importorskip("safetensors")
torch = pytest.importorskip("torch")
pytest.importorskip("safetensors.numpy")
pytest.importorskip("safetensors.torch")


def build(header, body=b"", *, length=None):
    """A file from a header (an object or ready text) and the bytes behind it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


GOOD = build({"w": entry()}, bytes(8))


@pytest.fixture
def st_refused(refused):
    def check(content, finding, **options):
        return refused(content, finding, name="m.safetensors", **options)

    return check


TORCH_DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool),
    *(torch.uint16, torch.uint32, torch.uint64, torch.complex64),
]


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
def test_every_element_type_equals_the_reference_reader(tmp_path, dtype):
    raw = torch.randint(0, 255, (6, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    values = raw.view(dtype) if dtype is not torch.bool else raw > 100
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file({"w": values.contiguous(), "s": values[0, 0].clone()}, path, {"format": "pt"})
    weights = read_weights(path)
    expected = safetensors.torch.load_file(path)
    assert set(weights.tensors) == set(expected)
    for name, value in expected.items():
        tensor = weights.tensors[name]
        assert tensor.dtype == str(value.dtype).removeprefix("torch.")
        assert tensor.shape == tuple(value.shape)
        assert bytes(tensor.raw()) == bytes(value.reshape(-1).view(torch.uint8).numpy())
    assert weights.format == "safetensors"
    assert weights.metadata == {"format": "pt"}


@pytest.mark.parametrize("name", ["float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz"])
def test_other_types_of_8_bits(save, name):
    code = {"float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ"}[
        name
    ]
    body = bytes(range(256))
    path = save(build({"w": entry(code, (256,), (0, 256))}, body), "m.safetensors")
    tensor = read_weights(path).tensors["w"]
    assert tensor.dtype == name
    assert tensor.array().dtype == np.dtype(getattr(ml_dtypes, name))
    assert bytes(tensor.raw()) == body


def test_four_bits_per_element(save):
    """The lower half of a byte comes first."""
    path = save(build({"w": entry("F4", (2, 2), (0, 2))}, bytes([0x21, 0x73])), "m.safetensors")
    tensor = read_weights(path).tensors["w"]
    assert tensor.array().astype(np.float32).tolist() == [[0.5, 1.0], [1.5, 6.0]]
    assert bytes(tensor.raw()) == bytes([0x21, 0x73])


def test_six_bits_per_element_are_left_out(save):
    header = {"w": entry("F6_E2M3", (4,), (0, 3)), "v": entry("U8", (1,), (3, 4))}
    weights = read_weights(save(build(header, bytes(4)), "m.safetensors"))
    assert list(weights.tensors) == ["v"]
    assert "float6_e2m3fn" in weights.skipped[0].reason


def test_values_are_not_copied(tmp_path):
    safetensors.numpy.save_file({"w": np.ones((64, 64), np.float32)}, tmp_path / "m.safetensors")
    tensor = read_weights(tmp_path / "m.safetensors").tensors["w"]
    assert np.shares_memory(tensor.array(), tensor.array())
    assert not tensor.array().flags.writeable


def test_order_is_the_header_s(save):
    header = {"b": entry(offsets=(8, 16)), "a": entry()}
    assert list(read_weights(save(build(header, bytes(16)), "m.safetensors")).tensors) == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (build(b"{}", length=1 << 40), "SAFETENSORS-HEADER"),
        (build(b"{}", length=100_000_001), "SAFETENSORS-HEADER"),
        (GOOD[:-1], "SAFETENSORS-LAYOUT"),
        (GOOD[:40], "SAFETENSORS-HEADER"),
        (GOOD + b"PK\x03\x04", "SAFETENSORS-LAYOUT"),
        (build({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)), "SAFETENSORS-LAYOUT"),
        (build({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)), "SAFETENSORS-LAYOUT"),
        (build({"a": entry(offsets=(8, 0))}, bytes(8)), "SAFETENSORS-LAYOUT"),
        (build({"a": entry(offsets=(-8, 0))}, bytes(8)), "SAFETENSORS-HEADER"),
        (build({"a": entry(shape=(3,))}, bytes(8)), "SAFETENSORS-LAYOUT"),
        (build({"a": entry(shape=(1 << 40, 1 << 40))}, bytes(8)), "TENSOR-SHAPE"),
        (build({"a": entry(shape=(-2,))}, bytes(8)), "SAFETENSORS-HEADER"),
        (build({"a": entry(shape=(2.0,))}, bytes(8)), "SAFETENSORS-HEADER"),
        (build({"a": entry(shape=(True, 2))}, bytes(8)), "SAFETENSORS-HEADER"),
        (build({"a": entry(dtype="F7")}, bytes(8)), "SAFETENSORS-HEADER"),
        (build({"a": entry(dtype=["F32"])}, bytes(8)), "SAFETENSORS-HEADER"),
        (build({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "SAFETENSORS-HEADER"),
        (build({"a": [1]}), "SAFETENSORS-HEADER"),
        (build({"__metadata__": {"a": 1}, "w": entry()}, bytes(8)), "SAFETENSORS-HEADER"),
        (build({"__metadata__": [], "w": entry()}, bytes(8)), "SAFETENSORS-HEADER"),
        (build(b'{"\xff": 1}'), "SAFETENSORS-HEADER"),
        (build(b'{"a":' + b"[" * 200_000), "SAFETENSORS-HEADER"),
        (build(b'{"a": NaN}'), "SAFETENSORS-HEADER"),
        (build(b'{"a": 1'), "SAFETENSORS-HEADER"),
        (
            build(b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 8]}}'),
            "SAFETENSORS-HEADER",
        ),
        (build({}), "WEIGHTS-NONE"),
    ],
)
def test_refused_as_the_reference_reader_does(st_refused, content, finding):
    st_refused(content, finding)
    if finding != "WEIGHTS-NONE":
        with pytest.raises(safetensors.SafetensorError):
            safetensors.deserialize(content)


PLAIN = b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
OTHER = b'{"dtype":"I32","shape":[2],"data_offsets":[0,8]}'


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (build(b'{"w":' + PLAIN + b',"w":' + OTHER + b"}", bytes(8)), "SAFETENSORS-DUPLICATE"),
        (build(b'{"__metadata__": {"a": "1", "a": "2"}}'), "SAFETENSORS-DUPLICATE"),
        (build(b' {"w":' + PLAIN + b"}", bytes(8)), "SAFETENSORS-HEADER"),
        (build({"a": entry(shape=(0, 1 << 62), offsets=(0, 0))}), "TENSOR-SHAPE"),
        (build({"a": entry() | {"code": "x"}}, bytes(8)), "SAFETENSORS-HEADER"),
    ],
    ids=["duplicate tensor", "duplicate metadata", "leading space", "huge empty shape", "unknown key"],
)
def test_refused_though_the_reference_reader_accepts_it(st_refused, content, finding):
    st_refused(content, finding)
    safetensors.deserialize(content)


def test_zero_size_tensors_are_said(save):
    header = {"e": entry(shape=(0, 1 << 40), offsets=(0, 0)), "w": entry()}
    path = save(build(header, bytes(8)), "m.safetensors")
    assert [finding.id for finding in check_weights(path)] == ["TENSOR-EMPTY"]
    assert read_weights(path).tensors["e"].array().shape == (0, 1 << 40)


def test_300_000_empty_tensors(st_refused):
    header = {f"t{index}": entry("U8", (0,), (0, 0)) for index in range(3_000)}
    st_refused(build(header), "WEIGHTS-LIMIT", limits=WeightLimits(tensors=1_000))
    assert WeightLimits().tensors < 300_000


def test_header_over_the_limit(st_refused):
    st_refused(build({"w": entry()}, bytes(8)), "SAFETENSORS-HEADER", limits=WeightLimits(header_bytes=10))


def test_evil_names_stay_data(save):
    names = ["../../x", "a\x1b[2J", "<script>", "'; DROP TABLE edges;--", "\u202e", "a\nb"]
    header = {name: entry("U8", (1,), (index, index + 1)) for index, name in enumerate(names)}
    path = save(build(header, bytes(6)), "m.safetensors")
    assert list(read_weights(path).tensors) == names
    found = check_weights(path)
    assert {finding.id for finding in found} == {"TENSOR-NAME"}
    assert all(finding.line().isprintable() for finding in found)


def test_nan_is_found(save):
    path = save(build({"w": entry()}, struct.pack("<2f", float("nan"), 1)), "m.safetensors")
    assert [finding.id for finding in check_weights(path)] == ["TENSOR-NONFINITE"]


@settings(max_examples=200, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), change=st.binary(min_size=1, max_size=6), cut=st.booleans())
def test_damaged_files_are_read_or_refused_never_more(tmp_path_factory, place, change, cut):
    header = {"__metadata__": {"k": "v"}, "w": entry("BF16", (2, 2), (0, 8)), "v": entry("F4", (4,), (8, 10))}
    content = build(header, bytes(range(10)))
    position = int(place * len(content))
    path = tmp_path_factory.mktemp("damaged") / "m.safetensors"
    path.write_bytes(content[:position] + (b"" if cut else change + content[position + len(change) :]))
    error = None
    try:
        for tensor in read_weights(path).tensors.values():
            tensor.raw()
    except EmergraphError as caught:
        error = caught
    assert error is None or (error.finding is not None and str(error).isprintable())


# Shards


@pytest.fixture
def sharded(tmp_path):
    """A folder with two parts and their index; the test may change the index before reading."""
    folder = tmp_path / "model"
    folder.mkdir()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    safetensors.numpy.save_file(
        {"a": np.ones(2, np.float32), "b": np.zeros(3, np.float16)}, folder / names[0]
    )
    safetensors.numpy.save_file({"c": np.full((2, 2), 5.0)}, folder / names[1])
    index = {"metadata": {"total_size": 46}, "weight_map": {"c": names[1], "a": names[0], "b": names[0]}}

    def write(changes=None):
        index["weight_map"].update(changes or {})
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return folder / "model.safetensors.index.json"

    return write


def test_shards_are_one_file(sharded):
    path = sharded()
    weights = read_weights(path)
    assert list(weights.tensors) == ["a", "b", "c"]
    assert weights.tensors["c"].array().tolist() == [[5, 5], [5, 5]]
    assert weights.format == "safetensors"
    assert weights.metadata["parts"] == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert weights.size == sum(part.stat().st_size for part in path.parent.iterdir())
    assert read_weights(path.parent).sha256 == weights.sha256


def test_the_digest_covers_every_part(sharded):
    path = sharded()
    before = read_weights(path).sha256
    part = path.parent / "model-00002-of-00002.safetensors"
    safetensors.numpy.save_file({"c": np.full((2, 2), 6.0)}, part)
    assert read_weights(path).sha256 != before


def test_pickled_shards(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00001.bin")
    index = {"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert read_weights(tmp_path).tensors["a"].array().tolist() == [1, 1]


@pytest.mark.parametrize(
    "name", ["../evil.safetensors", "/etc/passwd", "..", "", "a/b", "a\\b", "C:x", "a\0b"]
)
def test_shards_outside_the_folder(sharded, refused, name):
    refused(sharded({"x": name}), "SHARD-OUTSIDE")


def test_missing_shard(sharded, refused):
    refused(sharded({"x": "none.safetensors"}), "SHARD-MISSING")


def test_shard_without_its_tensor(sharded, refused):
    refused(sharded({"x": "model-00002-of-00002.safetensors"}), "SHARD-MISSING")


def test_tensor_in_another_shard_than_the_index_says(sharded, refused):
    refused(sharded({"a": "model-00002-of-00002.safetensors"}), "SHARD-CONFLICT")


def test_tensor_in_two_shards(sharded, refused, tmp_path):
    path = sharded()
    part = path.parent / "model-00002-of-00002.safetensors"
    safetensors.numpy.save_file({"c": np.ones(1), "a": np.ones(2, np.float32)}, part)
    refused(path, "SHARD-CONFLICT")


def test_shards_that_are_symbolic_links(sharded, refused, tmp_path):
    """Download caches keep parts as links; that needs a root folder that the user names."""
    path = sharded()
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    part = path.parent / "model-00002-of-00002.safetensors"
    part.rename(blobs / "c")
    part.symlink_to(blobs / "c")
    refused(path, "SHARD-OUTSIDE")
    refused(path, "SHARD-OUTSIDE", root=path.parent)
    assert list(read_weights(path, root=tmp_path).tensors) == ["a", "b", "c"]


def test_a_folder_of_a_download_cache(tmp_path, refused):
    """Everything in it is a link, the index too."""
    folder, blobs = tmp_path / "model", tmp_path / "blobs"
    folder.mkdir()
    blobs.mkdir()
    safetensors.numpy.save_file({"a": np.ones(2, np.float32)}, blobs / "1")
    (blobs / "2").write_text('{"weight_map": {"a": "part.safetensors"}}')
    (folder / "part.safetensors").symlink_to(blobs / "1")
    (folder / "model.safetensors.index.json").symlink_to(blobs / "2")
    refused(folder, "SHARD-OUTSIDE")
    assert list(read_weights(folder, root=tmp_path).tensors) == ["a"]


def test_shard_that_is_a_folder_or_a_pipe(sharded, refused):
    import os

    path = sharded({"x": "folder"})
    (path.parent / "folder").mkdir()
    refused(path, "WEIGHTS-FILE-MISSING")
    (path.parent / "folder").rmdir()
    os.mkfifo(path.parent / "folder")
    refused(path, "WEIGHTS-FILE-MISSING", seconds=2)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "[" * 100_000]
)
def test_index_that_is_none(tmp_path, refused, text):
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "model.safetensors.index.json"
    path.write_text(text)
    refused(path, "SAFETENSORS-HEADER" if text else "FILE-EMPTY")


def test_index_with_a_duplicate_key(tmp_path, refused):
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "model.safetensors.index.json"
    path.write_text('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}')
    refused(path, "SAFETENSORS-DUPLICATE")


def test_too_many_parts(sharded, refused):
    refused(sharded(), "WEIGHTS-LIMIT", limits=WeightLimits(shards=1))


def test_remote_code_in_a_folder_is_ignored(sharded, marker):
    path = sharded()
    code = f"open({str(marker)!r}, 'w')"
    (path.parent / "modeling.py").write_text(code)
    (path.parent / "config.json").write_text('{"auto_map": {"AutoModel": "modeling.Model"}}')
    assert len(read_weights(path.parent).tensors) == 3
