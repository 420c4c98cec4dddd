"""npz files: values equal numpy's, pickles refused, bombs counted before they unpack."""

import io
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.findings import finding_of
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.npzfile import read_npy
from emergraph.exporters.weightfiles.reader import check_weights, read_weights


def npy(array, **options):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def header(text, *, version=b"\x01\x00", body=b""):
    """An array file with a handmade header."""
    raw = text.encode()
    width = 2 if version[0] == 1 else 4
    return b"\x93NUMPY" + version + len(raw).to_bytes(width, "little") + raw + body


@pytest.fixture
def npz_refused(refused, forge):
    def check(records, finding, *, compress=(), **options):
        content = forge.zip_bytes(list(records.items()), prefix="", compress=compress)
        return refused(content, finding, name="m.npz", **options)

    return check


@settings(max_examples=60, deadline=None)
@given(
    array=hnp.arrays(
        st.one_of(
            hnp.floating_dtypes(endianness="?"), hnp.integer_dtypes(endianness="?"), hnp.boolean_dtypes()
        ),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
    packed=st.booleans(),
    fortran=st.booleans(),
)
def test_any_array_equals_numpy_s(tmp_path_factory, array, packed, fortran):
    path = tmp_path_factory.mktemp("any") / "m.npz"
    save = np.savez_compressed if packed else np.savez
    save(path, a=np.asfortranarray(array) if fortran else array)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return
    tensor = read_weights(path).tensors["a"]
    expected = np.load(path)["a"]
    assert tensor.shape == expected.shape
    assert tensor.dtype == expected.dtype.name
    assert bytes(tensor.raw()) == expected.astype(expected.dtype.newbyteorder("<")).tobytes()
    assert not tensor.array().flags.writeable


def test_stored_arrays_are_views(tmp_path):
    np.savez(tmp_path / "m.npz", a=np.ones((64, 64), np.uint8))
    tensor = read_weights(tmp_path / "m.npz").tensors["a"]
    assert np.shares_memory(tensor.array(), tensor.array())


def test_order_and_names(tmp_path):
    np.savez(tmp_path / "m.npz", **{"net.2.weight": np.ones(1), "net.0.weight": np.ones(2)})
    weights = read_weights(tmp_path / "m.npz")
    assert list(weights.tensors) == ["net.2.weight", "net.0.weight"]
    assert weights.format == "npz"
    assert check_weights(tmp_path / "m.npz") == []


def test_object_arrays_are_refused(npz_refused, save, forge, payload):
    records = {"a.npy": npy(np.array([payload], object), allow_pickle=True), "w.npy": npy(np.ones(2))}
    npz_refused(records, "NPY-PICKLE")
    path = save(forge.zip_bytes(list(records.items()), prefix=""), "m.npz")
    weights = read_weights(path, allow_missing_classes=True)
    assert list(weights.tensors) == ["w"]
    assert [entry.name for entry in weights.skipped] == ["a"]


def test_structured_arrays_with_objects_are_refused(npz_refused):
    text = "{'descr': [('x', '|O')], 'fortran_order': False, 'shape': (1,)}"
    npz_refused({"a.npy": header(text, body=bytes(8))}, "NPY-PICKLE")


@pytest.mark.parametrize("array", [np.array(["text"]), np.zeros(2, [("x", "f4")]), np.array([1], "M8[s]")])
def test_other_arrays_are_left_out(tmp_path, array):
    np.savez(tmp_path / "m.npz", a=array, w=np.ones(2))
    weights = read_weights(tmp_path / "m.npz")
    assert list(weights.tensors) == ["w"]
    assert [finding.id for finding in weights.findings] == ["TENSOR-UNREADABLE"]


def test_bfloat16_loses_its_name_in_npz(tmp_path):
    """numpy writes types of its extensions as raw bytes; what they were is not in the file."""
    np.savez(tmp_path / "m.npz", a=np.ones(2, ml_dtypes.bfloat16), w=np.ones(2))
    weights = read_weights(tmp_path / "m.npz")
    assert list(weights.tensors) == ["w"]


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1 << 40,)}", "NPY-HEADER"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}", "TENSOR-STORAGE"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}", "TENSOR-SHAPE"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "TENSOR-SHAPE"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1.0,)}", "NPY-HEADER"),
        ("{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}", "NPY-HEADER"),
        ("{'descr': '<f4', 'shape': (1,)}", "NPY-HEADER"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", "NPY-HEADER"),
        ("{'descr': '<zz', 'fortran_order': False, 'shape': (1,)}", "NPY-HEADER"),
        ("{'descr': [('x',)], 'fortran_order': False, 'shape': (1,)}", "NPY-HEADER"),
        ("__import__('os').system('touch marker')", "NPY-HEADER"),
        ("(" * 5_000, "NPY-HEADER"),
        ("[]", "NPY-HEADER"),
        ("", "NPY-HEADER"),
    ],
)
def test_headers_that_lie(npz_refused, text, finding):
    npz_refused({"a.npy": header(text, body=bytes(4))}, finding)


def test_other_headers(npz_refused):
    good = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}"
    npz_refused({"a.npy": b"\x93NUMPZ" + bytes(20)}, "NPY-HEADER")
    npz_refused({"a.npy": b""}, "NPY-HEADER")
    npz_refused({"a.npy": header(good, version=b"\x09\x00", body=bytes(4))}, "NPY-HEADER")
    npz_refused({"a.npy": header(good + " " * 20_000, body=bytes(4))}, "NPY-HEADER")
    npz_refused({"a.npy": header(good, body=bytes(5))}, "TENSOR-STORAGE")
    npz_refused({"a.npy": header(good, body=bytes(3))}, "TENSOR-STORAGE")


def test_decompression_bombs(npz_refused):
    zeros = npy(np.zeros(1 << 25, np.uint8))
    npz_refused({"a.npy": zeros}, "ZIP-BOMB", compress=("a.npy",))
    small = {f"{index}.npy": npy(np.zeros(1 << 20, np.uint8)) for index in range(8)}
    npz_refused(small, "ZIP-BOMB", compress=tuple(small), limits=WeightLimits(inflated_bytes=1 << 22))


def test_compressed_zeros_of_a_sensible_size(tmp_path):
    """A pruned layer packs well; below 16 MiB any ratio is fine."""
    np.savez_compressed(tmp_path / "m.npz", a=np.zeros((1000, 1000), np.float32))
    assert read_weights(tmp_path / "m.npz").tensors["a"].array().sum() == 0


def test_compressed_data_that_does_not_match(npz_refused, forge, refused):
    content = forge.zip_bytes([("a.npy", npy(np.arange(100.0)))], prefix="", compress=("a.npy",))
    middle = len(content) // 2
    damaged = content[: middle - 60] + bytes(4) + content[middle - 56 :]
    refused(damaged, "ZIP-DAMAGED", name="m.npz")


def test_records_that_are_no_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("a.npy", npy(np.ones(2)))
        archive.writestr("readme.txt", b"hello")
    weights = read_weights(tmp_path / "m.npz")
    assert list(weights.tensors) == ["a"]
    assert [entry.name for entry in weights.skipped] == ["readme.txt"]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_a_single_array(version):
    for array in (np.arange(6.0).reshape(2, 3).T, np.arange(3, dtype=">i2"), np.zeros((0, 4)), np.array(7)):
        found = read_npy(npy(array, version=version), "a.npy")
        assert found.tolist() == array.tolist()
        assert found.shape == array.shape


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "NPY-HEADER"),
        (b"\x93NUMPY\x01\x00", "NPY-HEADER"),
        (header("{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2"), "NPY-HEADER"),
        (header("{'descr': '<i8', 'fortran_order': False, 'shape': (9000000000000,)}"), "TENSOR-STORAGE"),
        (npy(np.arange(9))[:-1], "TENSOR-STORAGE"),
        (npy(np.arange(9)) + b"x", "TENSOR-STORAGE"),
        (npy(np.array(["a"])), None),
        (npy(np.array([None]), allow_pickle=True), "NPY-PICKLE"),
    ],
)
def test_what_a_single_array_is_refused_for(content, code):
    with pytest.raises(EmergraphError) as caught:
        read_npy(content, "a.npy")
    finding = finding_of(caught.value)
    assert (None if finding is None else finding.id) == code
    assert str(caught.value).startswith("a.npy: ")
