"""Both sides of every cap on weight files: what just fits is read, what is one larger is refused or cut."""

import io
import json
import pickle
import pickletools
import struct
import warnings
import zipfile

import numpy as np
import pytest

from emergraph.errors import EmergraphError
from emergraph.exporters.weightfiles import (
    collect,
    inside,
    npzfile,
    numpyobjects,
    reader,
    rebuild,
    safetensorsfile,
    sharded,
    tensors,
    torchfiles,
    wiring_sequential,
)
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.picklescan import MAX_INTEGER_BITS, MAX_KEY_BITS, MAX_KEY_COST
from emergraph.exporters.weightfiles.reader import read_weights

torch = pytest.importorskip("torch")


@pytest.fixture
def reads(tmp_path):
    """Whether a file's content is read within limits; the finding's name where it is not."""

    def check(content, name="m.pt", **limits):
        path = tmp_path / name
        path.write_bytes(content)
        try:
            read_weights(path, limits=WeightLimits(**limits))
        except EmergraphError as error:
            return str(error)
        return True

    return check


def saved(values):
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def record(content, ending):
    archive = zipfile.ZipFile(io.BytesIO(content))
    return next(archive.read(name) for name in archive.namelist() if name.endswith(ending))


def safetensors_file(n, metadata=None):
    header = {f"w{k}": {"dtype": "U8", "shape": [1], "data_offsets": [k, k + 1]} for k in range(n)}
    text = json.dumps({**header, **({"__metadata__": metadata} if metadata else {})}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(n), len(text)


def refused_below(reads, field, need, content, name="m.pt"):
    assert reads(content, name, **{field: need}) is True
    assert "limit" in (found := str(reads(content, name, **{field: need - 1}))) or "more than" in found, found


def test_tensors_and_headers_of_safetensors(reads):
    content, header = safetensors_file(3)
    refused_below(reads, "tensors", 3, content, "m.safetensors")
    assert reads(content, "m.safetensors", header_bytes=header) is True
    assert "header" in reads(content, "m.safetensors", header_bytes=header - 1)


def test_tensors_records_and_pickles_of_torch_files(reads):
    content = saved({"a": torch.ones(2), "b": torch.zeros(3)})
    data = record(content, "data.pkl")
    refused_below(reads, "tensors", 2, content)
    refused_below(reads, "zip_records", len(zipfile.ZipFile(io.BytesIO(content)).namelist()), content)
    refused_below(reads, "pickle_opcodes", sum(1 for _ in pickletools.genops(data)), content)
    # room for the bytes, and for as many again that names and tensors stand for
    assert reads(content, pickle_bytes=10 * len(data)) is True
    assert reads(content, pickle_bytes=len(data) - 1) is not True


@pytest.mark.parametrize(("depth", "fits"), [(9, True), (10, False)])
def test_groups_that_are_open_at_once(reads, forge, depth, fits):
    nested = b"(" * depth + b"t" * depth
    content = forge.torch_zip(b"\x80\x02}(" + forge.text("x") + nested + b"u.", {"0": bytes(16)})
    found = reads(content, pickle_marks=10)
    assert ("groups at once" not in str(found)) == fits


def test_compressed_arrays(reads, monkeypatch):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.zeros(1000, np.float32))
    content = buffer.getvalue()
    (info,) = zipfile.ZipFile(buffer).infolist()
    refused_below(reads, "inflated_bytes", info.file_size, content, "m.npz")
    monkeypatch.setattr(npzfile, "_LARGE", 0)
    ratio = -(-info.file_size // info.compress_size)
    assert reads(content, "m.npz", inflation_ratio=ratio) is True
    assert "ratio" in reads(content, "m.npz", inflation_ratio=ratio - 1)
    monkeypatch.setattr(npzfile, "_LARGE", info.file_size)
    assert reads(content, "m.npz", inflation_ratio=1) is True


@pytest.mark.parametrize("beyond", [0, 1])
def test_headers_of_arrays(reads, monkeypatch, beyond):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3, np.float32))
    monkeypatch.setattr(npzfile, "_MAX_HEADER", 128 - beyond)
    found = reads(buffer.getvalue(), "m.npz")
    assert found is True if not beyond else "claims 128 bytes" in found


def test_sparse_tensors(tmp_path):
    sparse = torch.eye(10).to_sparse()
    content = saved({"s": sparse, "w": torch.ones(1)})
    (tmp_path / "s.pt").write_bytes(content)
    for limit, fits in ((400, True), (399, False)):
        weights = read_weights(tmp_path / "s.pt", limits=WeightLimits(dense_bytes=limit))
        assert ("s" in weights.tensors) == fits


def test_views_of_one_storage(reads):
    """Beyond a mebibyte, they may add up to so many times the storage."""
    storage = torch.ones(1000)
    views = saved(
        {f"v{k}": storage[k : k + 601] for k in range(400)}
        | {f"u{k}": storage[k : k + 599] for k in range(400)}
    )
    claimed = 4 * 400 * (601 + 599)
    factor = next(f for f in range(1000) if f * 4000 + (1 << 20) >= claimed)
    assert reads(views, view_factor=factor) is True
    assert "overlapping tensors claim" in reads(views, view_factor=factor - 1)


def test_parts_and_index_of_a_sharded_file(tmp_path):
    content, _ = safetensors_file(1)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (tmp_path / names[0]).write_bytes(content)
    (tmp_path / names[1]).write_bytes(content.replace(b"w0", b"w1"))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w0": names[0], "w1": names[1]}}))
    for field, need in (("shards", 2), ("json_bytes", index.stat().st_size)):
        assert len(read_weights(index, limits=WeightLimits(**{field: need})).tensors) == 2
        with pytest.raises(EmergraphError, match=f"the limit is {need - 1}"):
            read_weights(index, limits=WeightLimits(**{field: need - 1}))


def test_metadata_of_safetensors(tmp_path, monkeypatch):
    content, _ = safetensors_file(1, {"a": "x" * 1001, "b": "y"})
    (tmp_path / "m.safetensors").write_bytes(content)
    for limit in (2, 1):
        monkeypatch.setattr(safetensorsfile, "_MAX_METADATA", limit)
        found = read_weights(tmp_path / "m.safetensors").metadata
        assert [key for key in ("a", "b") if key in found] == ["a", "b"][:limit]
        assert len(str(found["a"])) == 1000


@pytest.mark.parametrize(("constant", "limit", "kept"), [("MAX_METADATA", 2, 2), ("MAX_METADATA", 1, 1)])
def test_metadata_of_checkpoints(tmp_path, monkeypatch, constant, limit, kept):
    monkeypatch.setattr(collect, constant, limit)
    monkeypatch.setattr(collect, "MAX_TEXT", 3)
    (tmp_path / "m.pt").write_bytes(saved({"w": torch.ones(1), "a": "abc", "b": "abcd"}))
    found = read_weights(tmp_path / "m.pt").metadata
    noted = {key: found[key] for key in ("a", "b") if key in found}
    assert noted == dict([("a", "abc"), ("b", "abc")][:kept])


@pytest.mark.parametrize(("depth", "fits"), [(3, True), (4, False)])
def test_dictionaries_within_dictionaries(reads, monkeypatch, depth, fits):
    monkeypatch.setattr(collect, "MAX_DEPTH", 3)
    values = torch.ones(1)
    for level in range(depth):
        values = {f"k{level}": values}
    assert (reads(saved(values)) is True) == fits


@pytest.mark.parametrize("rank", [tensors.MAX_RANK, tensors.MAX_RANK + 1])
def test_dimensions(reads, rank):
    text = json.dumps({"w": {"dtype": "U8", "shape": [1] * rank, "data_offsets": [0, 1]}}).encode()
    found = reads(struct.pack("<Q", len(text)) + text + bytes(1), "m.safetensors")
    assert found is True if rank == tensors.MAX_RANK else "at most 32 dimensions" in found


@pytest.mark.parametrize("power", [62, 63])
def test_bytes_that_a_shape_stands_for(power):
    def check():
        tensors.check_shape((0, 1 << power), "uint8", "w")

    if power == 62:
        check()
    else:
        with pytest.raises(EmergraphError, match="overflow"):
            check()


def test_integers_of_a_pickle(reads, forge):
    def holding(value):
        body = forge.text("w") + forge.tensor((1,), (1,)) + forge.text("n")
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return forge.torch_zip(
            b"\x80\x02}(" + body + b"\x8b" + struct.pack("<i", len(raw)) + raw + b"u.", {"0": bytes(16)}
        )

    assert reads(holding((1 << MAX_INTEGER_BITS) - 1)) is True
    assert "integer of" in reads(holding(1 << MAX_INTEGER_BITS))


def test_keys_of_a_pickle(reads, forge):
    def keyed(key):
        return forge.torch_zip(b"\x80\x02}(" + key + forge.tensor((1,), (1,)) + b"u.", {"0": bytes(16)})

    def refused(key):
        return "very long to hash" in str(reads(keyed(key)))

    assert not refused(forge.number((1 << MAX_KEY_BITS) - 1))
    assert refused(forge.number(1 << MAX_KEY_BITS))
    n = next(n for n in range(1, 200) if refused(b"(" + forge.number(1) * n + b"t"))
    assert n == MAX_KEY_COST  # the tuple itself counts


@pytest.mark.parametrize(
    ("module", "constant"), [(numpyobjects, "_MAX_INTEGERS"), (rebuild, "_MAX_KEY_ITEMS")]
)
def test_tuples_of_a_pickle(monkeypatch, module, constant):
    monkeypatch.setattr(module, constant, 3)
    if module is numpyobjects:
        assert numpyobjects.integers((1, 2, 3), "a size") == (1, 2, 3)
        with pytest.raises(EmergraphError, match="a size"):
            numpyobjects.integers((1, 2, 3, 4), "a size")
    else:
        assert rebuild._plain_key((1, 2, 3))
        assert not rebuild._plain_key((1, 2, 3, 4))


def test_names_of_a_folder(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).touch()
    for limit in (3, 2):
        monkeypatch.setattr(sharded, "_MAX_NAMES", limit)
        assert len(sharded._names(tmp_path)[0]) == limit


def test_settings_beside_a_file(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    path.write_text('{"quantization_config": {"quant_method": "awq"}}')
    size = path.stat().st_size
    for limit, found in ((size, True), (size - 1, False)):
        monkeypatch.setattr(reader, "_MAX_BYTES", limit)
        assert bool(reader._settings_of(path, None)) == found


def test_code_of_torchscript(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(torch.nn.Linear(2, 1), torch.ones(1, 2)).save(tmp_path / "m.pt")
    archive = zipfile.ZipFile(tmp_path / "m.pt")
    size = sum(
        i.file_size for i in archive.infolist() if "/code/" in i.filename and i.filename.endswith(".py")
    )
    monkeypatch.setattr(torchfiles, "_MAX_CODE", size)
    assert len(read_weights(tmp_path / "m.pt").tensors) == 2
    monkeypatch.setattr(torchfiles, "_MAX_CODE", size - 1)
    with pytest.raises(EmergraphError, match="code unpacks to more than"):
        read_weights(tmp_path / "m.pt")


class Runs:
    def __reduce__(self):
        return print, ()


@pytest.mark.parametrize("constant", ["_MAX_MEMBERS", "_MAX_FINDINGS"])
def test_what_is_searched_for_code(monkeypatch, constant):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for k in range(3):
            archive.writestr(f"{k}.pkl", pickle.dumps(Runs(), 2))

    def found(limit):
        monkeypatch.setattr(inside, constant, limit)
        content = memoryview(buffer.getvalue())
        return [f.id for f in inside.code_inside("m.zip", content, limits=WeightLimits())]

    assert found(3) == ["PICKLE-CODE"] * 3
    cut = found(2)
    assert cut == ["PICKLE-CODE"] * 2 + ["WEIGHTS-LIMIT"] * (constant == "_MAX_MEMBERS")


@pytest.mark.parametrize(("limit", "told"), [(3, False), (2, True)])
def test_records_of_a_damaged_archive_that_are_not_looked_at_are_told(monkeypatch, limit, told):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for k in range(3):
            archive.writestr(f"{k}.pkl", pickle.dumps([1.5], 2))
    monkeypatch.setattr(inside, "_MAX_MEMBERS", limit)
    content = memoryview(buffer.getvalue()[:-60])
    found = inside.code_inside("m.zip", content, limits=WeightLimits())
    assert [f.id for f in found] == ["WEIGHTS-LIMIT"] * told


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_code_behind_many_pickles(monkeypatch, limit):
    monkeypatch.setattr(inside, "_MAX_PICKLES", limit)
    content = pickle.dumps([1.5], 2) * 3 + pickle.dumps(Runs(), 2)
    found = inside.code_inside("m.pkl", memoryview(content), limits=WeightLimits())
    assert [f.id for f in found] == ["PICKLE-CODE"]


@pytest.mark.parametrize("limit", [0, -1])
def test_orders_of_a_chain(monkeypatch, limit):
    monkeypatch.setattr(wiring_sequential, "_MAX_SEARCHED", limit)
    assert wiring_sequential._fitting_orders([]) == ([[]] if limit == 0 else [])
