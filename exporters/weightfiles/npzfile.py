"""numpy's .npz: a zip archive of arrays, read without pickles and unpacked only when asked."""

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from emergraph.errors import InvalidInputError
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.dtypes import DECODED
from emergraph.exporters.weightfiles.registry import Finding, refusal
from emergraph.exporters.weightfiles.tensors import Array, LazyTensor, check_shape
from emergraph.exporters.weightfiles.weightfile import Contents
from emergraph.exporters.weightfiles.zipstrict import StrictZip, ZipRecord

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000
_LARGE = 16 << 20
_ORDERS = frozenset({"<", ">", "|", "="})


@dataclass(frozen=True, slots=True)
class _Header:
    dtype: np.dtype[np.generic]
    fortran: bool
    shape: tuple[int, ...]
    length: int
    """Bytes before the values."""


def read_npz(archive: StrictZip, contents: Contents, *, allow_missing: bool) -> None:
    """Read the arrays of an npz file.

    Checksums are verified here, in a stream; compressed arrays are unpacked when they are asked for, stored
    ones are views of the file.

    Args:
        archive: The archive.
        contents: Where the tensors go.
        allow_missing: Leave arrays of Python objects out instead of refusing the file.

    Raises:
        InvalidInputError: malformed headers (NPY-HEADER), wrong sizes (TENSOR-STORAGE), damage.
        UnsafeInputError: an array of Python objects (NPY-PICKLE), or a decompression bomb (ZIP-BOMB).
    """
    limits = contents.limits
    total = sum(record.size for record in archive.records.values() if record.compressed)
    if total > limits.inflated_bytes:
        message = f"the records unpack to {total} bytes, the limit is {limits.inflated_bytes}"
        raise refusal("ZIP-BOMB", message, archive.where)
    for record in archive.records.values():
        name = record.name.removesuffix(".npy")
        if record.compressed and record.size > max(_LARGE, limits.inflation_ratio * len(record.data)):
            message = (
                f"{len(record.data)} bytes unpack to {record.size}, a ratio above {limits.inflation_ratio}"
            )
            raise refusal("ZIP-BOMB", message, printable(record.name))
        if name == record.name:
            contents.skip(record.name, "the record is not a numpy array", "TENSOR-UNREADABLE")
            continue
        _add(archive, record, name, contents, allow_missing=allow_missing)


def _add(
    archive: StrictZip, record: ZipRecord, name: str, contents: Contents, *, allow_missing: bool
) -> None:
    where = printable(name)
    archive.verify(record.name)
    header = _read_header(archive.peek(record.name, _MAX_HEADER + 12), where)
    if header.dtype.hasobject:
        if not allow_missing:
            message = "an array of Python objects, a pickle that can run code; save plain numbers"
            raise refusal("NPY-PICKLE", f"{message}, or leave it out with --allow-missing-classes", where)
        contents.skip(name, "an array of Python objects is a pickle; it was not opened", "PICKLE-SKIPPED")
        return
    if header.dtype.name not in DECODED:
        contents.skip(
            name, f"elements of type {printable(header.dtype.name)} are not numbers", "TENSOR-UNREADABLE"
        )
        return
    if not _checked_size(header, record.size, where):
        contents.findings.append(Finding("TENSOR-EMPTY", f"shape {header.shape} has no elements", where))
    reader = _reader(archive, record, header)
    contents.add_tensor(LazyTensor(name=name, dtype=header.dtype.name, shape=header.shape, _read=reader))


def read_npy(content: bytes, where: str) -> Array:
    """Read the array of a .npy file; nothing is unpickled.

    Args:
        content: Of the whole file.
        where: The file's name, for messages.

    Raises:
        InvalidInputError: A malformed header (NPY-HEADER), a wrong size (TENSOR-STORAGE), or no numbers.
        UnsafeInputError: An array of Python objects (NPY-PICKLE).
    """
    where = printable(where)
    header = _read_header(content[: _MAX_HEADER + 12], where)
    if header.dtype.hasobject:
        raise refusal("NPY-PICKLE", "an array of Python objects, a pickle that can run code", where)
    if header.dtype.name not in DECODED:
        raise InvalidInputError(f"{where}: elements of type {printable(header.dtype.name)} are not numbers")
    _checked_size(header, len(content), where)
    return _values(content, header)


def _checked_size(header: _Header, size: int, where: str) -> int:
    """The bytes that the values take, which must be all that follows the header."""
    check_shape(header.shape, header.dtype.name, where)
    needed = math.prod(header.shape) * header.dtype.itemsize
    if header.length + needed != size:
        message = f"{size - header.length} bytes of values, its shape and type take {needed}"
        raise refusal("TENSOR-STORAGE", f"{message}; fetch the file again", where)
    return needed


def _reader(archive: StrictZip, record: ZipRecord, header: _Header) -> Callable[[], Array]:
    def read() -> Array:
        data = archive.unpack(record.name, record.size) if record.compressed else record.data
        return _values(data, header)

    return read


def _values(data: bytes | memoryview, header: _Header) -> Array:
    if 0 in header.shape:
        return np.empty(header.shape, header.dtype)
    flat: Array = np.frombuffer(data, header.dtype, offset=header.length)
    values = flat.reshape(header.shape, order="F" if header.fortran else "C")
    return values.astype(header.dtype.newbyteorder("<"), copy=False)


def _read_header(start: bytes, where: str) -> _Header:
    """Parse the header of an array (numpy's format description, versions 1 to 3)."""
    version = start[6:8]
    width = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}.get(version)
    if start[:6] != _MAGIC or width is None:
        raise refusal("NPY-HEADER", "the record is not a numpy array of a known version", where)
    length = 8 + width + int.from_bytes(start[8 : 8 + width], "little")
    text = start[8 + width : length]
    if length > len(start) or length > _MAX_HEADER:
        raise refusal(
            "NPY-HEADER", f"the header claims {length} bytes, at most {_MAX_HEADER} are read", where
        )
    try:
        fields = ast.literal_eval(text.decode("latin-1").strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise refusal("NPY-HEADER", "the header is not what numpy writes", where) from None
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise refusal("NPY-HEADER", "the header must say descr, fortran_order and shape", where)
    shape, descr, fortran = fields["shape"], fields["descr"], fields["fortran_order"]
    if (
        not isinstance(shape, tuple)
        or any(type(dim) is not int for dim in shape)
        or not isinstance(fortran, bool)
    ):
        raise refusal("NPY-HEADER", "the shape or the order is malformed", where)
    return _Header(_dtype(descr, where), fortran, shape, length)


def _dtype(descr: object, where: str) -> np.dtype[np.generic]:
    """Return the element type; structured ones come back as what they are, and are left out later."""
    try:
        if isinstance(descr, str) and descr[:1] in _ORDERS and len(descr) <= 16:
            return np.dtype(descr)
        if isinstance(descr, list):
            return np.dtype([tuple(field) for field in descr])
    except (TypeError, ValueError):
        pass
    raise refusal("NPY-HEADER", f"the element type {printable(str(descr))} is unknown", where)
