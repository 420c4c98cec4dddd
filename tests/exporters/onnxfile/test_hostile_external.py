"""Cases 1 to 7: values outside the model file."""

import gc
import os
import resource
import threading
from pathlib import Path

import numpy as np
import pytest

from emergraph.errors import LimitError
from emergraph.exporters.onnxfile import external as external_module
from emergraph.exporters.onnxfile.check import check_onnx
from emergraph.exporters.onnxfile.reader import read_onnx

VALUES = np.arange(1200, dtype=np.float32).reshape(30, 40)


def put(path, name="w.bin", content=None):
    target = path.parent / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(VALUES.tobytes() if content is None else content)
    return target


def open_descriptors():
    gc.collect()
    return len(list(Path("/dev/fd").iterdir()))


@pytest.fixture
def opened(monkeypatch):
    """Paths that are opened, the model itself left out."""
    paths = []
    real = os.open

    def record(path, *args, **kwargs):
        if not str(path).endswith("m.onnx"):
            paths.append(str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(external_module.os, "open", record)
    return paths


@pytest.mark.parametrize("name", ["w.bin", "./w.bin", "deep/er/w.bin", "odd name ü=1.bin"])
def test_values_below_the_model_are_read_without_a_copy(make, save, accepted, name):
    path = save(make.external(name))
    put(path, name)
    file = accepted(path, "ONNX-EXT-USED")
    np.testing.assert_array_equal(file.tensors["w"].array(), VALUES)
    assert file.tensors["w"].raw().obj is next(iter(file.external_files.values())).content.obj


def test_offset_and_missing_length(make, save, accepted):
    path = save(make.external("w.bin", None, offset=96))
    put(path, content=bytes(96) + VALUES.tobytes())
    np.testing.assert_array_equal(accepted(path).tensors["w"].array(), VALUES)


def test_case_01_location_above_the_folder(make, save, refused, opened):
    path = save(make.external("../secret.bin"))
    put(path, "../secret.bin")
    refused(path, "ONNX-EXT-OUTSIDE")
    assert opened == []


@pytest.mark.parametrize("location", ["a/../../secret.bin", "a/..", "./../x"])
def test_case_01_upwards_in_the_middle(make, refused, location, opened):
    refused(make.external(location), "ONNX-EXT-OUTSIDE")
    assert opened == []


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "/dev/zero",
        "..\\x",
        "a\\b",
        "file:///etc/passwd",
        "https://example.org/w",
        "C:w.bin",
        "w\0.bin",
        "",
        "x" * 5000,
        ".",
        "//",
        "*/_ORT_MEM_ADDR_/*\0",
    ],
)
def test_case_02_location_is_no_plain_path(make, refused, opened, location):
    refused(make.external(location), "ONNX-EXT-LOCATION")
    assert opened == []


def test_case_02_no_location_at_all(make, refused):
    refused(make.external(None), "ONNX-EXT-LOCATION")


def test_case_02_memory_address_marker_of_a_runtime_is_a_file_name_like_any_other(make, refused):
    refused(make.external("*/_ORT_MEM_ADDR_/*", offset=94000000000), "ONNX-EXT-MISSING")


def test_case_02_marker_of_the_light_model_cannot_be_forged(make, refused):
    model = make.external("*emergraph/values-in-the-model-file*", offset=40)
    refused(model, "ONNX-EXT-LOCATION")


def test_case_03_symlink_to_a_file(make, save, refused, tmp_path):
    path = save(make.external("w.bin"))
    secret = tmp_path / "secret.bin"
    secret.write_bytes(VALUES.tobytes())
    (path.parent / "w.bin").symlink_to(secret)
    refused(path, "ONNX-EXT-SYMLINK")
    refused(path, "ONNX-EXT-OUTSIDE", root=path.parent)


def test_case_03_symlink_as_parent_folder(make, save, refused, tmp_path):
    path = save(make.external("sub/w.bin"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/w.bin").write_bytes(VALUES.tobytes())
    (path.parent / "sub").symlink_to(tmp_path / "elsewhere")
    refused(path, "ONNX-EXT-SYMLINK")


def test_case_03_symlink_inside_an_explicit_root(make, save, accepted, refused, tmp_path):
    """A hub cache: the snapshot's files are links into a folder of blobs beside it."""
    path = save(make.external("w.bin"))
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / "abc").write_bytes(VALUES.tobytes())
    (path.parent / "w.bin").symlink_to("../blobs/abc")
    refused(path, "ONNX-EXT-SYMLINK")
    file = accepted(path, root=tmp_path)
    np.testing.assert_array_equal(file.tensors["w"].array(), VALUES)


def test_case_03_dangling_and_circular_links(make, save, refused):
    path = save(make.external("w.bin"))
    link = path.parent / "w.bin"
    link.symlink_to("w.bin")
    refused(path, "ONNX-EXT-SYMLINK")
    refused(path, "ONNX-EXT-SYMLINK", root=path.parent)
    link.unlink()
    link.symlink_to("nothing")
    refused(path, "ONNX-EXT-SYMLINK")
    refused(path, "ONNX-EXT-MISSING", root=path.parent)


def test_case_03_the_model_itself_may_be_a_link(make, save, tmp_path):
    path = save(make.dense(VALUES))
    link = tmp_path / "m.onnx"
    link.symlink_to(path)
    np.testing.assert_array_equal(read_onnx(link).tensors["w"].array(), VALUES)


def test_case_04_hard_link(make, save, refused, tmp_path):
    path = save(make.external("w.bin"))
    secret = tmp_path / "secret.bin"
    secret.write_bytes(VALUES.tobytes())
    os.link(secret, path.parent / "w.bin")
    refused(path, "ONNX-EXT-HARDLINK")


def test_case_05_pipe(make, save, refused):
    path = save(make.external("w.bin"))
    os.mkfifo(path.parent / "w.bin")
    refused(path, "ONNX-EXT-SPECIAL", seconds=2)


def test_case_05_pipe_with_a_writer(make, save, refused):
    path = save(make.external("w.bin"))
    fifo = path.parent / "w.bin"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: os.close(os.open(fifo, os.O_RDWR)))
    writer.start()
    refused(path, "ONNX-EXT-SPECIAL", seconds=2)
    writer.join()


def test_case_05_folder(make, save, refused):
    path = save(make.external("w.bin"))
    (path.parent / "w.bin").mkdir()
    refused(path, "ONNX-EXT-SPECIAL")


@pytest.mark.parametrize(
    "keys",
    [
        {"length": 10**15},
        {"length": 10**30},
        {"offset": -1},
        {"offset": "0x10"},
        {"offset": "١"},
        {"offset": 10**15},
        {"offset": 4},
        {"length": "4_800"},
        {"length": " 4800"},
    ],
)
def test_case_06_range_beyond_the_file(make, save, refused, keys):
    path = save(make.external("w.bin", **keys))
    put(path)
    refused(path, "ONNX-EXT-RANGE")


def test_case_06_unknown_keys_are_ignored_and_reported(make, save, accepted):
    path = save(make.external("w.bin", __class__="os.system", checksum="00"))
    put(path)
    np.testing.assert_array_equal(accepted(path, "ONNX-EXT-KEY").tensors["w"].array(), VALUES)


def test_case_06_key_given_twice(make, refused):
    model = make.external("w.bin")
    model.graph.initializer[0].external_data.add(key="location", value="other.bin")
    refused(model, "ONNX-WIRE-DUPLICATE")


def test_case_07_file_shorter_or_longer_than_the_dimensions(make, save, refused):
    path = save(make.external("w.bin", None))
    put(path, content=VALUES.tobytes()[:-4])
    refused(path, "ONNX-EXT-RANGE")
    put(path, content=VALUES.tobytes() + b"....")
    refused(path, "ONNX-EXT-RANGE")
    path = save(make.external("w.bin", 400, dims=(30, 40)))
    put(path)
    refused(path, "ONNX-EXT-RANGE")


def test_missing_and_unreadable_files(make, save, refused):
    path = save(make.external("w.bin"))
    assert "No such file" in refused(path, "ONNX-EXT-MISSING")
    assert "too long" in refused(make.external("x" * 300), "ONNX-EXT-MISSING")


def test_no_descriptor_is_left_open(make, save, refused):
    path = save(make.external("sub/w.bin"))
    put(path, "sub/w.bin", b"short")
    before = open_descriptors()
    for _ in range(5):
        refused(path, "ONNX-EXT-RANGE")
    (path.parent / "sub/w.bin").unlink()
    for _ in range(5):
        refused(path, "ONNX-EXT-MISSING")
    assert open_descriptors() <= before


def test_external_findings_name_no_folder(make, save):
    path = save(make.external("../../secret.bin"))
    assert all(str(path.parent) not in finding.line() for finding in check_onnx(path))


def test_more_files_than_may_be_open(make, save):
    model = make.external("w0.bin", 0, dims=(0,))
    for index in range(1, 200):
        copy = model.graph.initializer.add()
        copy.CopyFrom(model.graph.initializer[0])
        copy.name = f"w{index}"
        copy.external_data[0].value = f"w{index}.bin"
    path = save(model)
    for index in range(200):
        put(path, f"w{index}.bin", b"x")
    for tensor in model.graph.initializer:
        tensor.dims[:] = [1]
        tensor.data_type = 2
        tensor.external_data[1].value = "1"
    save(model)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() + 60, hard))
    try:
        found = check_onnx(path)
        with pytest.raises(LimitError, match="ulimit"):
            read_onnx(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "ONNX-EXT-COUNT" in {finding.id for finding in found}
