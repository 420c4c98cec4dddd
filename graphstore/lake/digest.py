"""Checksums of tables: of their values column by column, however the rows come in pieces."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class TableDigest:
    """SHA-256 over names and values of the tables that are added, in order."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()

    def add(self, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
        """Take in one table; return its number of rows."""
        parts: dict[tuple[int, str], Any] = {}
        n_rows = 0
        for batch in batches:
            n_rows += batch.num_rows
            for at, column in enumerate(batch.columns):
                _add(parts, at, "", column)
        self._whole.update(f"{name}\0{n_rows}\0".encode())
        for at, field in enumerate(schema):
            self._whole.update(f"{field.name}\0".encode())
            for key in sorted(key for key in parts if key[0] == at):
                self._whole.update(key[1].encode() + b"\0" + parts[key].digest())
        return n_rows

    def hexdigest(self) -> str:
        """Return the checksum of all that was added."""
        return self._whole.hexdigest()


def _add(parts: dict[tuple[int, str], Any], at: int, path: str, column: pa.Array) -> None:
    """Take in a piece of a column; lists and texts as their lengths and what is in them."""

    def update(what: str, values: "np.ndarray[Any, Any]") -> None:
        key = (at, f"{path}{what}")
        if key not in parts:
            parts[key] = hashlib.sha256()
        parts[key].update(np.ascontiguousarray(values).data)

    update("null", np.asarray(column.is_null().to_numpy(zero_copy_only=False), np.uint8))
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        update("length", _plain(pc.list_value_length(column).cast(pa.int64())))
        _add(parts, at, f"{path}list.", column.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind):
        update("length", _plain(pc.binary_length(column).cast(pa.int64())))
        update("bytes", np.frombuffer(b"".join(_bytes(column)), np.uint8))
    elif pa.types.is_boolean(kind):
        update("value", _plain(column.cast(pa.uint8())))
    elif pa.types.is_timestamp(kind):
        update("value", _plain(column.cast(pa.timestamp("us")).cast(pa.int64())))
    else:
        update("value", _plain(column))


def _plain(column: pa.Array) -> "np.ndarray[Any, Any]":
    if column.null_count:
        column = pc.fill_null(column, pa.scalar(0).cast(column.type))
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _bytes(column: pa.Array) -> list[bytes]:
    kind = pa.large_binary()
    return [value for value in column.cast(kind).to_pylist() if value is not None]
