"""Parameter tensors out of a store, bit for bit."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emergraph.choices import unknown
from emergraph.errors import LimitError, StoreError, UsageError
from emergraph.graphstore.connection import translated_errors
from emergraph.graphstore.frames import element_type, fetch_batches, fetch_frame, fetch_table
from emergraph.graphstore.modelfiles import required
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.tensors import PART_BYTES
from emergraph.graphstore.text import printable

_COUNT_PARTS = "SELECT count(*) AS n FROM tensor_parts WHERE graph = ? AND tensor = ?"
# No ORDER BY: the pieces lie in order, and sorting would hold all of them in memory.
_READ_PARTS = "SELECT part, data FROM tensor_parts WHERE graph = ? AND tensor = ?"
_PARTS_AT_ONCE = 512


@dataclass(frozen=True)
class _Stored:
    """A row of the table `tensors`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str | None
    block: int | None
    block_transposed: bool
    zero_signs: bytes | None
    shard: str | None


def restore_tensor(reader: GraphReader, name: str) -> NDArray[np.generic]:
    """Return a parameter tensor as it was in the model: from the store, or where it stayed in the file.

    Args:
        reader: The graph.
        name: Name of the tensor.

    Returns:
        Array of the tensor's shape and element type (of ml_dtypes where numpy has none).

    Raises:
        UsageError: The graph has no such tensor, its elements are not numbers, or it stayed in the model file
            and no model was given.
        InvalidInputError: The model that was given has no such tensor, or one with other values.
        StoreError: The values in the store do not fit the tensor.

    Example:
        >>> weights = restore_tensor(store.graph(), "fc1.weight")  # doctest: +SKIP
    """
    stored = _stored(reader, name)
    dtype = element_type(stored.dtype)
    if dtype is None:
        raise UsageError(
            f"tensor {printable(name, limit=60)!r}: {printable(stored.dtype)} elements are not kept"
        )
    if any(size < 0 for size in stored.shape):
        raise _damaged(reader, name, f"shape {stored.shape}")
    if stored.shard is not None:
        return _values_in_file(reader, stored)
    read = _raw_values if stored.block is None else _block_values
    try:
        values = read(reader, stored, dtype)
    except MemoryError as error:
        raise LimitError(
            f"tensor {printable(name, limit=60)!r}: no memory for shape {stored.shape}"
        ) from error
    if stored.sha256 is not None and hashlib.sha256(values.view(np.uint8).data).hexdigest() != stored.sha256:
        raise _damaged(reader, name, "the checksum differs")
    return values.reshape(stored.shape)


def restore_all(reader: GraphReader) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield the name and the values of every tensor of the graph that holds numbers, by name."""
    for name, dtype in reader.tensors().select("name", "dtype").iter_rows():
        if element_type(dtype) is not None:
            yield name, restore_tensor(reader, name)


def _stored(reader: GraphReader, name: str) -> _Stored:
    sql = """
        SELECT name, dtype, shape, sha256, block, block_transposed, zero_signs, shard
        FROM tensors WHERE graph = ? AND name = ?
    """
    with translated_errors(reader.path):
        rows = fetch_frame(reader.connection, sql, [reader.id, name]).to_dicts()
    if not rows:
        raise UsageError(unknown("tensor", name, reader.tensors()["name"]))
    return _Stored(**{**rows[0], "shape": tuple(rows[0]["shape"])})


def _values_in_file(reader: GraphReader, stored: _Stored) -> NDArray[np.generic]:
    files = required(reader.files, reader.path)
    try:
        return files.values(reader.left.tensors[stored.name])
    except ValueError as error:
        raise _damaged(reader, stored.name, str(error)) from error


def _raw_values(reader: GraphReader, stored: _Stored, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Return the values of a tensor from its raw bytes, one-dimensional."""
    key = [reader.id, stored.name]
    expected = math.prod(stored.shape) * dtype.itemsize
    with translated_errors(reader.path):
        n_parts = fetch_table(reader.connection, _COUNT_PARTS, key).column("n")[0].as_py()
        if expected > n_parts * PART_BYTES:
            raise _damaged(reader, stored.name, f"{n_parts} pieces, {expected} bytes expected")
        raw = np.empty(expected, dtype=np.uint8)
        position = n_read = 0
        for batch in fetch_batches(reader.connection, _READ_PARTS, key, rows=_PARTS_AT_ONCE):
            piece = _joined(batch.column("data"))
            numbers = batch.column("part").to_numpy()
            wrong = np.flatnonzero(numbers != np.arange(n_read, n_read + numbers.size))
            if wrong.size or position + piece.size > expected:
                part = numbers[wrong[0]] if wrong.size else n_read + numbers.size - 1
                raise _damaged(reader, stored.name, f"piece {part} does not fit")
            raw[position : position + piece.size] = piece
            position += piece.size
            n_read += numbers.size
    if position != expected:
        raise _damaged(reader, stored.name, f"{position} bytes, {expected} expected")
    return raw.view(dtype)


def _joined(pieces: pa.Array) -> NDArray[np.uint8]:
    """Return all bytes of an array of pieces, one after the other, without a copy."""
    if not len(pieces):
        return np.empty(0, dtype=np.uint8)
    _, offsets, data = pieces.buffers()  # no cast to large ones, for which Arrow loads all its functions
    wide = np.int64 if pa.types.is_large_binary(pieces.type) else np.int32
    ends = np.frombuffer(offsets, dtype=wide)[pieces.offset : pieces.offset + len(pieces) + 1]
    return np.frombuffer(data, dtype=np.uint8)[ends[0] : ends[-1]] if data else np.empty(0, dtype=np.uint8)


def _block_values(reader: GraphReader, stored: _Stored, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Return the values of a tensor from the matrix of its block, one-dimensional in the tensor's order."""
    block = next((info for info in reader.blocks_info() if info.id == stored.block), None)
    if block is None or block.src_units is None or block.dst_units is None:
        raise _damaged(reader, stored.name, f"block {stored.block} is not a matrix")
    matrix_shape = (block.src_units.size, block.dst_units.size)
    if stored.shape != (matrix_shape[::-1] if stored.block_transposed else matrix_shape):
        raise _damaged(reader, stored.name, f"shape {stored.shape}, but the matrix is {matrix_shape}")
    edges = reader.block_edges(block, columns=("src", "dst", "weight"))
    rows, columns = _index_in(block.src_units, edges["src"]), _index_in(block.dst_units, edges["dst"])
    if rows is None or columns is None:
        raise _damaged(reader, stored.name, f"edges of block {stored.block} outside its matrix")
    matrix = np.zeros(matrix_shape, dtype=np.float32)
    matrix[rows, columns] = edges["weight"]
    if stored.zero_signs is not None:
        flat = matrix.reshape(-1)
        zeros = np.flatnonzero(flat == 0)
        signs = np.unpackbits(np.frombuffer(stored.zero_signs, dtype=np.uint8))
        if signs.size < zeros.size:
            raise _damaged(reader, stored.name, "signs of zeros are missing")
        flat[zeros[signs[: zeros.size] == 1]] = -0.0
    oriented = matrix.T if stored.block_transposed else matrix
    return np.ascontiguousarray(oriented.astype(dtype, copy=False)).reshape(-1)


def _index_in(units: NDArray[np.int64], wanted: NDArray[np.generic]) -> NDArray[np.int64] | None:
    """Return where in `units` each wanted id is; None when one is missing."""
    ids = wanted.astype(np.int64)
    if units.size == 0 or ids.size == 0:
        return ids if ids.size == 0 else None
    if np.array_equal(units, np.arange(units[0], units[0] + units.size)):
        found = ids - units[0]
        return found if found.min() >= 0 and found.max() < units.size else None
    order = np.argsort(units)
    found = order[np.minimum(np.searchsorted(units, ids, sorter=order), units.size - 1)]
    return found if np.array_equal(units[found], ids) else None


def _damaged(reader: GraphReader, name: str, why: str) -> StoreError:
    return StoreError(
        f"{printable(str(reader.path))}: damaged, tensor {printable(name, limit=60)!r}: {why}; "
        "restore it from a copy or export the model again"
    )
