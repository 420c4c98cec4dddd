"""Numeric columns out of a Parquet file."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.runtime.quoting import quoted
from emergraph.paths import open_file

MAX_VALUES = 1 << 29
"""Values that the columns may have in all, counted from the file's metadata before they are read."""


def read_parquet_columns(path: Path) -> tuple[dict[str, NDArray[np.generic]], str]:
    """The columns of a Parquet file as arrays, one row per sample: (rows,) for numbers, (rows, n) for lists.

    Args:
        path: The file.

    Returns:
        Arrays by column name, and the file's SHA-256.

    Raises:
        InvalidInputError: The file is missing or damaged, has columns of something else than numbers, missing
            values, or lists of different lengths.
        LimitError: The columns have more than `MAX_VALUES` values.
    """
    try:
        with open_file(path) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            content = pq.ParquetFile(file)
            _check_size(content.metadata, path)
            table = content.read()
    except OSError as error:
        raise InvalidInputError(f"cannot read {quoted(str(path))}: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise InvalidInputError(f"{quoted(path.name)} is not a readable Parquet file") from error
    return {name: _column(name, table.column(name)) for name in _distinct(table.column_names, path)}, sha256


def _check_size(metadata: pq.FileMetaData, path: Path) -> None:
    """Count the values that the file says it has: its bytes may be few, since repeated values take none."""
    groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
    values = sum(group.column(k).num_values for group in groups for k in range(group.num_columns))
    if values > MAX_VALUES:
        raise LimitError(
            f"{quoted(path.name)}: {values} values; expected at most {MAX_VALUES}, so split the file"
        )


def _distinct(names: list[str], path: Path) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise InvalidInputError(f"{quoted(path.name)}: column {quoted(name)} occurs twice")
    return names


def _column(name: str, column: pa.ChunkedArray) -> NDArray[np.generic]:
    where = f"column {quoted(name)}"
    array = column.combine_chunks()
    if array.null_count:
        raise InvalidInputError(f"{where} has {array.null_count} missing values; expected one per sample")
    width = None
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        lengths = np.unique(pc.list_value_length(array).to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            raise InvalidInputError(
                f"{where} has lists of {lengths[0]} to {lengths[-1]} values; expected one length, that "
                "of the layer"
            )
        width, array = (int(lengths[0]) if len(lengths) else 0), array.flatten()
    elif pa.types.is_fixed_size_list(array.type):
        width, array = array.type.list_size, array.flatten()
    kind = array.type
    if array.null_count or not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    ):
        raise InvalidInputError(f"{where} holds {kind}; expected numbers or lists of numbers, none missing")
    values: NDArray[np.generic] = array.to_numpy(zero_copy_only=False)
    return values if width is None else values.reshape(len(column), width)
