"""Cases 19 and 20, and everything else that is wrong before a graph is looked at."""

import json
import os
import pickle
import resource
import time
import zipfile

import numpy as np
import onnx
import pytest

from emergraph.errors import InvalidInputError
from emergraph.exporters.onnxfile.check import check_onnx
from emergraph.exporters.onnxfile.limits import ReadLimits
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.onnxfile.weightless_model import encode_bytes, encode_bytes_header


def peak_anonymous_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_case_19_more_than_two_gibibytes(tmp_path, refused):
    path = tmp_path / "m.onnx"
    with path.open("wb") as handle:
        handle.write(onnx.ModelProto(ir_version=8).SerializeToString())
        handle.truncate(2_300_000_000)
    message = refused(path, "ONNX-FILE-SIZE", seconds=1)
    assert "external data" in message


def test_case_20_empty(refused):
    refused(b"", "FILE-EMPTY")


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html><body>Sign in</body></html>",
        b"\n  <html>",
        b'<?xml version="1.0"?>',
        b'{"error": "not found"}',
        b"PK\x03\x04rest",
        b"\x80\x02}q\x00.",
        pickle.dumps({"a": 1}),
        b"\x89HDF\r\n\x1a\n",
        b"GGUF\x03\x00",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
        b"\x1f\x8b\x08\x00",
        b"\x08\x00\x00\x00ORTM",
        len(b'{"w":{}}').to_bytes(8, "little") + b'{"w":{}}',
        b"\x93NUMPY\x01\x00",
        b"hello world, this is no model",
    ],
)
def test_case_20_other_formats_are_named(refused, content):
    assert "not an ONNX model but" in refused(content, "FILE-FORMAT")


def test_case_20_archives_of_the_usual_makers(refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    refused((tmp_path / "a.zip").read_bytes(), "FILE-FORMAT")
    refused(json.dumps({"a": 1}).encode(), "FILE-FORMAT")


@pytest.mark.parametrize("content", [b"\0" * 100, b"\xff" * 100, b"\x0b\x0c", b"\x06"])
def test_case_20_arbitrary_bytes(refused, content):
    refused(content, "ONNX-WIRE-DAMAGED")


@pytest.mark.parametrize("model", [onnx.ModelProto(ir_version=8), onnx.ModelProto(producer_name="x")])
def test_case_20_a_message_without_a_model(refused, model):
    refused(model, "ONNX-MODEL-NONE")


def test_case_20_every_truncation_of_a_model(make, save):
    content = make.dense(np.ones((3, 100), np.float32)).SerializeToString()
    assert check_onnx(save(content)) == []
    for size in range(1, len(content)):
        path = save(content[:size])
        found = check_onnx(path)
        if content[size:] == b"\x42\x04\x0a\x00\x10\x15":  # cut between two fields: only the opset is missing
            assert [finding.id for finding in found] == ["ONNX-OPSET-MISSING"]
            continue
        assert any(finding.severity == "error" for finding in found)
        with pytest.raises(InvalidInputError):
            read_onnx(path)


def test_paths_that_are_no_file(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    start = time.monotonic()
    for path, expected in (
        (tmp_path / "missing.onnx", "no such file"),
        (tmp_path, "is a folder"),
        (fifo, "pipe"),
        ("/dev/zero", "device"),
        (tmp_path / "missing" / "m.onnx", "no such file"),
        (tmp_path / ("x" * 300), "too long"),
        (str(tmp_path) + "/a\0b", "null (byte|character)"),
    ):
        for reader in (read_onnx, check_onnx):
            with pytest.raises(InvalidInputError, match=expected) as caught:
                reader(path)
            assert str(caught.value).isprintable()
    assert time.monotonic() - start < 2


def test_no_permission(tmp_path, monkeypatch):
    def forbid(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "m.onnx").write_bytes(b"1")
    monkeypatch.setattr("emergraph.paths.os.open", forbid)
    with pytest.raises(InvalidInputError, match="Permission denied"):
        read_onnx(tmp_path / "m.onnx")


def test_hostile_file_names_are_shown_harmlessly(tmp_path):
    path = tmp_path / "a\x1b[2J\nb.onnx"
    path.write_bytes(b"")
    with pytest.raises(InvalidInputError) as caught:
        read_onnx(path)
    assert str(caught.value).isprintable()


HEAD = b"\x08\x0a"
BOMBS = {
    "operations": lambda n: encode_bytes(7, b"\x0a\x00" * n),
    "attributes": lambda n: encode_bytes(7, encode_bytes(1, b"\x2a\x00" * n)),
    "initializers": lambda n: encode_bytes(7, b"\x2a\x00" * n),
    "dimensions of a shape": lambda n: encode_bytes(
        7, encode_bytes(11, encode_bytes(2, encode_bytes(1, encode_bytes(2, b"\x0a\x00" * n))))
    ),
    "dimensions of a tensor": lambda n: encode_bytes(7, encode_bytes(5, encode_bytes(1, b"\x01" * n))),
    "integers": lambda n: encode_bytes(7, encode_bytes(1, encode_bytes(5, encode_bytes(8, b"\x01" * n)))),
    "metadata": lambda n: b"\x72\x00" * n,
    "single values": lambda n: encode_bytes(7, encode_bytes(5, b"\x25\0\0\0\0" * n)),
    "strings": lambda n: encode_bytes(7, encode_bytes(5, b"\x32\x00" * n)),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_files_that_would_take_many_times_their_size_in_memory(refused, bomb):
    refused(HEAD + bomb(300_000), "ONNX-FILE-MEMORY", limits=ReadLimits(model_memory=1 << 20))


def test_two_graphs_in_one_model(make, refused):
    content = make.dense().SerializeToString()
    refused(content + make.dense().SerializeToString(), "ONNX-WIRE-DUPLICATE")


def test_two_tensors_in_one_attribute(refused):
    tensor = encode_bytes(5, onnx.TensorProto(data_type=1, dims=[1], raw_data=b"abcd").SerializeToString())
    refused(HEAD + encode_bytes(7, encode_bytes(1, encode_bytes(5, tensor + tensor))), "ONNX-WIRE-DUPLICATE")


def test_raw_data_twice(refused):
    tensor = onnx.TensorProto(data_type=1, dims=[1]).SerializeToString() + encode_bytes(9, b"abcd") * 2
    refused(HEAD + encode_bytes(7, encode_bytes(5, tensor)), "ONNX-WIRE-DUPLICATE")


def test_values_in_several_pieces_are_put_together(save):
    """Allowed by protobuf though nobody writes it: packed and single values of one field, mixed."""
    pieces = encode_bytes(4, np.arange(300, dtype=np.float32).tobytes())
    pieces += b"\x25" + np.float32(300).tobytes() + encode_bytes(4, np.float32([301, 302]).tobytes())
    tensor = onnx.TensorProto(data_type=1, dims=[303], name="w").SerializeToString() + pieces
    graph = encode_bytes(5, tensor) + encode_bytes(12, encode_bytes(1, b"w"))
    file = read_onnx(save(HEAD + encode_bytes(7, graph)))
    np.testing.assert_array_equal(file.tensors["w"].array(), np.arange(303))


def test_unknown_fields_are_kept_out_of_the_way(make, save):
    content = make.dense().SerializeToString() + encode_bytes(5000, b"something new") + b"\xa0\x9c\x03\x07"
    assert read_onnx(save(content)).tensors["w"].n_elements == 1200


@pytest.mark.parametrize(
    "tail",
    [
        b"\x03\x04",  # a group, which ONNX never has
        b"\x07",  # wire type 7
        b"\x00\x01",  # field 0
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length of 2^64 - 1
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # an integer of 11 bytes
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # a tag of 11 bytes
        b"\xff\xff\xff\xff\xff\x0f\x01",  # a field number beyond 32 bits
        b"\x0d\x00\x00\x00",  # four bytes announced, three there
        b"\x09\x00",
        b"\x08",
        b"\x12",
        b"\x12\x05abcd",
    ],
)
def test_malformed_fields(make, refused, tail):
    refused(make.dense().SerializeToString() + tail, "ONNX-WIRE-DAMAGED")


def test_a_length_that_reaches_into_what_follows(refused):
    inner = encode_bytes_header(5, 1000) + b"\x08\x01"
    refused(HEAD + encode_bytes(7, inner) + bytes(2000), "ONNX-WIRE-DAMAGED")


def test_reading_takes_no_memory_for_values(tmp_path, make):
    model = make.dense(np.ones((30, 40), np.float32))
    path = tmp_path / "m.onnx"
    content = model.SerializeToString()
    size = 1 << 30
    blob = encode_bytes(9, b"")[:-1]  # the tag of raw_data
    tensor = onnx.TensorProto(data_type=2, dims=[size], name="big").SerializeToString()
    header = blob + _varint(size)
    graph_head = encode_bytes_header(5, len(tensor) + len(header) + size)
    with path.open("wb") as handle:  # a sparse file of 1 GiB
        graph = model.graph.SerializeToString()
        handle.write(onnx.ModelProto(ir_version=10).SerializeToString())
        handle.write(encode_bytes_header(7, len(graph) + len(graph_head) + len(tensor) + len(header) + size))
        handle.write(graph + graph_head + tensor + header)
        handle.truncate(handle.tell() + size)
    before = peak_anonymous_memory()
    start = time.monotonic()
    file = read_onnx(path)
    assert time.monotonic() - start < 2
    assert peak_anonymous_memory() - before < 20_000
    assert file.tensors["big"].n_elements == size
    assert len(file.tensors["big"].raw()) == size
    assert content


def _varint(value):
    return encode_bytes_header(1, value)[1:]
