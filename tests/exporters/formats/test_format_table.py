"""The table of formats: what each kind of file is called, in `check` and wherever a model is expected."""

import bz2
import contextlib
import gzip
import io
import lzma
import pickle
import sqlite3
import subprocess
import sys
import tarfile
import zlib

import duckdb
import numpy as np
import polars as pl
import pytest
import torch
from clifiles import DEMO, chain_of_layers
from picklecases import safetensors, zipped

from emergraph.errors import EmergraphError, InvalidInputError
from emergraph.exporters.checking import check_any
from emergraph.exporters.formats import FORMATS, Reader, format_of
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.sources import export_any
from emergraph.exporters.weightfiles.reader import READERS, read_weights


def saved(write, *arguments, **options):
    buffer = io.BytesIO()
    write(*arguments, buffer, **options)
    return buffer.getvalue()


def array(values, **options):
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def tar(name):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    return buffer.getvalue()


def parquet():
    buffer = io.BytesIO()
    pl.DataFrame({"a": [1]}).write_parquet(buffer)
    return buffer.getvalue()


def encrypted():
    content = bytearray(zipped({"m.pkl": b"secret"}))
    content[6] |= 1
    content[content.find(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


STATE = {"w": torch.ones(2, 2)}
ONNX = chain_of_layers("dense").SerializeToString()
OCTET = b'{"w":'
FILES = {
    "empty": ("model.onnx", b""),
    "distcp": ("__0_0.distcp", b"PK\x03\x04"),
    "index": ("model.safetensors.index.json", b'{"weight_map": {}}'),
    "onnx_data": ("model.onnx_data", bytes(range(256))),
    "lfs": ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"),
    "annex": ("model.pt", b"/annex/objects/SHA256E-s5--00.pt\n"),
    "torch_package": ("m.pt", zipped({"p/.data/extern_modules": b"", "p/data.pkl": b"N."})),
    "exported_program": ("m.pt2", zipped({"m/archive_format": b"pt2", "m/models/model.json": b"{}"})),
    "torchscript": ("m.pt", zipped({"m/data.pkl": b"N.", "m/constants.pkl": b"N.", "m/code/a.py": b""})),
    "torch_zip": ("m.bin", saved(torch.save, STATE)),
    "npz": ("m.npz", npz(a=np.ones(2))),
    "keras": ("m.keras", zipped({"config.json": b"{}", "model.weights.h5": b"\x89HDF"})),
    "mlpackage": ("m.zip", zipped({"m.mlpackage/Data/model.mlmodel": b""})),
    "encrypted_zip": ("m.zip", encrypted()),
    "zip": ("m.docx", zipped({"word/document.xml": b"<x/>"})),
    "legacy_torch": ("m.pt", saved(torch.save, STATE, _use_new_zipfile_serialization=False)),
    "tar_torch": ("m.pt", tar("sys_info")),
    "tar": ("m.tar", tar("model.onnx")),
    "npy_objects": ("a.npy", array(np.array([{}], object), allow_pickle=True)),
    "npy": ("a.npy", array(np.ones(2))),
    "hdf5": ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(20)),
    "gguf": ("m.gguf", b"GGUF\x03\x00\x00\x00" + bytes(16)),
    "ggml": ("ggml-model.bin", b"tjgg\x03\x00\x00\x00" + bytes(16)),
    "ort": ("m.ort", b"\x20\x00\x00\x00ORTM" + bytes(16)),
    "tflite": ("m.tflite", b"\x1c\x00\x00\x00TFL3" + bytes(16)),
    "safetensors": ("m.safetensors", safetensors()),
    "gzip": ("m.onnx.gz", gzip.compress(ONNX)),
    "bzip2": ("m.bz2", bz2.compress(ONNX)),
    "xz": ("m.xz", lzma.compress(ONNX)),
    "zlib": ("m.joblib", zlib.compress(pickle.dumps([1, 2]))),
    "zstd": ("m.zst", b"\x28\xb5\x2f\xfd\x24\x00" + bytes(9)),
    "lz4": ("m.lz4", b"\x04\x22\x4d\x18" + bytes(9)),
    "7z": ("m.7z", b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(24)),
    "rar": ("m.rar", b"Rar!\x1a\x07\x01\x00" + bytes(9)),
    "parquet": ("t.parquet", parquet()),
    "arrow": ("t.arrow", b"ARROW1\x00\x00" + bytes(9)),
    "png": ("model.onnx", b"\x89PNG\r\n\x1a\n" + bytes(20)),
    "jpeg": ("a.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"),
    "gif": ("a.gif", b"GIF89a" + bytes(10)),
    "webp": ("a.webp", b"RIFF\x24\x00\x00\x00WEBPVP8 "),
    "wav": ("a.wav", b"RIFF\x24\x00\x00\x00WAVEfmt "),
    "bmp": ("a.bmp", b"BM\x46\x00\x00\x00" + bytes(20)),
    "tiff": ("a.tif", b"II*\x00\x08\x00\x00\x00"),
    "pdf": ("paper.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"),
    "elf": ("lib.so", b"\x7fELF\x02\x01\x01" + bytes(60)),
    "pe": ("lib.dll", b"MZ" + bytes(58) + b"\x40\x00\x00\x00PE\x00\x00" + bytes(9)),
    "macho": ("lib.dylib", bytes.fromhex("cffaedfe") + bytes(30)),
    "pickle": ("m.pkl", pickle.dumps({"a": 1}, 0)),
    "html": ("model.onnx", b"<!DOCTYPE html><html><body>Sign in</body></html>"),
    "openvino": ("m.xml", b'<?xml version="1.0"?>\n<net name="m" version="11"><layers/></net>'),
    "xml": ("m.xml", b'<?xml version="1.0"?><svg/>'),
    "json": ("config.json", b'{"model_type": "bert"}'),
    "script": ("model.py", b"print('hello')\n"),
    "csv": ("t.csv", b"a,b\n1,2\n3,4\n"),
    "markdown": ("README.md", b"# A model\n\nIt is good.\n"),
    "text": ("LICENSE", b"Permission is hereby granted, free of charge.\n"),
    "saved_model": ("saved_model.pb", b"\x08\x01\x12\x04\x0a\x02\x08\x01"),
    "coreml": ("m.mlmodel", b"\x08\x04\x12\x00\xa2\x1f\x00"),
    "onnx": ("model.onnx", ONNX),
    "graph_def": ("frozen.pb", b"\x0a\x06\x0a\x01x\x12\x01y\x22\x00"),
    "msgpack": ("flax_model.msgpack", b"\x81\xa6params\x80"),
    "unknown": ("blob", b"\x00\x13\xf7" * 50),
}
"""One file of each format, by the name of the format."""


def written(tmp_path, name):
    file_name, content = FILES[name]
    path = tmp_path / file_name
    path.write_bytes(content)
    return path


def databases(tmp_path):
    duckdb.connect(tmp_path / "s.duckdb").close()
    with sqlite3.connect(tmp_path / "s.sqlite") as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    return {"store": tmp_path / "s.duckdb", "sqlite": tmp_path / "s.sqlite"}


def test_every_format_has_a_file():
    assert {known.name for known in FORMATS} == FILES.keys() | {"store", "sqlite"}


def test_every_weight_format_has_a_reader():
    weights = {known.name for known in FORMATS if known.reader is Reader.WEIGHTS}
    assert weights == READERS


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_what_it_is(name):
    file_name, content = FILES[name]
    assert format_of(file_name, memoryview(content)).name == name


@pytest.mark.parametrize("name", FILES)
def test_the_name_of_the_file_does_not_hide_what_it_is(name):
    """Formats that have a sign in their bytes are told under the name of any other."""
    by_name = {
        "distcp",
        "index",
        "onnx_data",
        "script",
        "csv",
        "markdown",
        "saved_model",
        "graph_def",
        "msgpack",
    }
    if name in by_name | {"empty", "unknown"}:
        return
    for other in ("model.onnx", "model.safetensors", "weights.pt", "x"):
        assert format_of(other, memoryview(FILES[name][1])).name == name


def test_databases(tmp_path):
    for name, path in databases(tmp_path).items():
        assert format_of(path.name, memoryview(path.read_bytes())).name == name
        assert [finding.id for finding in check_any(path)] == ["FILE-FORMAT"]


@pytest.mark.parametrize("name", [known.name for known in FORMATS if known.reader is Reader.NONE])
def test_what_is_no_model_is_named_everywhere(tmp_path, name):
    path = databases(tmp_path)[name] if name == "sqlite" else written(tmp_path, name)
    known = next(known for known in FORMATS if known.name == name)
    if name == "empty":
        assert [finding.id for finding in check_any(path)] == ["FILE-EMPTY"]
        return
    told = [known.title, known.step.replace("FILE", path.name)]
    (finding,) = check_any(path)
    assert finding.id == "FILE-FORMAT"
    assert all(words in finding.message for words in told)
    if name == "unknown":  # as any other file that is no weight file
        return
    for read in (export_any, read_onnx, read_weights):
        with pytest.raises(InvalidInputError) as caught:
            read(path, None) if read is export_any else read(path)
        assert all(words in str(caught.value) for words in told)


def test_models_are_named_to_the_other_reader(tmp_path):
    weights, model = written(tmp_path, "torch_zip"), written(tmp_path, "onnx")
    with pytest.raises(InvalidInputError, match="not an ONNX model but a PyTorch file"):
        read_onnx(weights)
    with pytest.raises(InvalidInputError, match=r"not a weight file .* but an ONNX model"):
        read_weights(model)


@pytest.mark.parametrize("name", FILES)
def test_every_cut_of_a_file_is_read_or_refused(tmp_path, name):
    file_name, content = FILES[name]
    for end in sorted({0, 1, 2, 3, 4, 8, 12, 30, 60, len(content) // 2, len(content) - 1}):
        path = tmp_path / file_name
        path.write_bytes(content[: max(0, end)])
        assert format_of(file_name, memoryview(path.read_bytes())) in FORMATS
        check_any(path)
        with contextlib.suppress(EmergraphError):
            export_any(path, None)


def test_damaged_onnx_is_still_onnx(tmp_path):
    path = tmp_path / "m.onnx"
    content = (DEMO / "digits_dense.onnx").read_bytes()
    for end in (200, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:end])
        assert [finding.id for finding in check_any(path)] == ["ONNX-WIRE-DAMAGED"]
    path.rename(tmp_path / "m")
    assert [finding.id for finding in check_any(tmp_path / "m")] == ["ONNX-WIRE-DAMAGED"]


def test_a_large_file_of_another_format_is_no_large_onnx_file(tmp_path):
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.write(b"GGUF\x03\x00\x00\x00")
        file.truncate(2_300_000_000)
    with pytest.raises(InvalidInputError, match="GGUF"):
        read_onnx(path)


def test_text_in_other_encodings(tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        content = '{"a": "\u00e9"}'.encode(encoding)
        assert format_of("x", memoryview(content)).name == "json"


def test_formats_need_no_heavy_library():
    code = "import sys, emergraph.exporters.formats; print({'numpy', 'torch', 'onnx'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
