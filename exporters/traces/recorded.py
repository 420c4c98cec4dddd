"""`import_trace`: activations that were recorded elsewhere, keyed by layer or tensor name."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emergraph.choices import unknown
from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.runtime.pooling import SampleAxis, pooled
from emergraph.exporters.runtime.quoting import quoted
from emergraph.exporters.traces.record import TraceSummary
from emergraph.exporters.traces.statistics import UnitStatistics, kept_samples
from emergraph.exporters.traces.targets import Target, by_tensor, targets_of
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.graphstore.records import TraceHeader
from emergraph.graphstore.store import StoreFile
from emergraph.paths import open_file

# Numeric columns out of a Parquet file.

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
    except (pa.ArrowException, UnicodeDecodeError) as error:  # names of columns that are not text
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


Array = NDArray[np.generic]

CHUNK_BYTES = 64 << 20
"""Samples are read in chunks of about this size, so that a large file is never in memory as a whole."""


@dataclass(frozen=True)
class Recording:
    """One recorded array of a file."""

    key: str
    """Name in the file."""
    shape: tuple[int, ...]
    read: Callable[[], Array]


def import_trace(
    store: StoreFile,
    graph: str | int | None,
    path: str | Path,
    *,
    name: str | None = None,
    n_values: int = 1024,
    sample_axis: int = 0,
) -> TraceSummary:
    """Store activations that were recorded elsewhere.

    The file is an .npz, .safetensors or Parquet file. Each array (or Parquet column of numbers or lists) is
    named after a layer of the graph or after the tensor that holds a layer's activations, and is either
    (samples, units) or a whole activation tensor, whose other axes are positions.

    Args:
        store: Open for writing.
        graph: Name or id; the newest by default.
        path: The file.
        name: Name of the trace; the file's stem by default.
        n_values: Most samples whose values are kept, the first ones.
        sample_axis: Axis of the samples in whole activation tensors.

    Raises:
        InvalidInputError: A name matches no layer, a shape does not fit, or arrays differ in samples.
        UnsafeInputError: The file asks for code or claims absurd sizes.
        UsageError: No such graph.

    Example:
        >>> with open_store("net.duckdb", mode="write") as store:  # doctest: +SKIP
        ...     import_trace(store, None, "activations.npz").n_samples
        5000
    """
    begin = perf_counter()
    reader = store.graph(graph)
    recordings, source, sha256 = read_recordings(Path(path))
    targets = targets_of(reader.layers())
    matched = match_recordings(recordings, targets)
    n = _one_count(matched, sample_axis)
    kept = kept_samples(n, sum(target.n_units for target in matched), n_values)
    frames = [
        _statistics(target, recording, kept, sample_axis).frame(target.first_unit)
        for target, recording in matched.items()
    ]
    left_out = {target.name: "not in the file" for target in targets if target not in matched}
    header = TraceHeader(
        name=name or Path(source).stem,
        kind="imported",
        n_samples=n,
        n_values=kept,
        source=source,
        sha256=sha256,
        settings={"sample_axis": sample_axis, "keys": [recording.key for recording in matched.values()]},
    )
    frame = pl.concat(frames)
    trace = store.write_trace(reader.id, header, frame)
    return TraceSummary(
        trace=trace,
        name=str(reader.traces().filter(pl.col("id") == trace)["name"].item()),
        graph=reader.id,
        n_samples=n,
        n_values=kept,
        n_layers=len(matched),
        n_units=frame.height,
        left_out=left_out,
        batching="imported",
        seconds=perf_counter() - begin,
    )


def read_recordings(path: Path) -> tuple[list[Recording], str, str]:
    """The arrays of a file, its name and its SHA-256.

    Raises:
        InvalidInputError: The file is missing, damaged, or of another format.
    """
    if path.suffix.lower() in (".parquet", ".pq"):
        columns, sha256 = read_parquet_columns(path)
        found = [Recording(key, array.shape, partial(np.asarray, array)) for key, array in columns.items()]
        return found, path.name, sha256
    weights = read_weights(path)
    for skipped in weights.skipped:
        raise InvalidInputError(
            f"{quoted(weights.source)}: {quoted(skipped.name)} cannot be an activation: {skipped.reason}"
        )
    found = [Recording(key, tensor.shape, tensor.array) for key, tensor in weights.tensors.items()]
    return found, weights.source, weights.sha256


def match_recordings(recordings: Iterable[Recording], targets: Iterable[Target]) -> dict[Target, Recording]:
    """Pair every recording with the layers that it is named after, by layer name before tensor name.

    Raises:
        InvalidInputError: A recording matches no layer, or two match the same one.
    """
    by_name = {target.name: [target] for target in targets}
    of_tensors = by_tensor(targets)
    matched: dict[Target, Recording] = {}
    for recording in recordings:
        found = by_name.get(recording.key) or of_tensors.get(recording.key)
        if not found:
            raise InvalidInputError(unknown("layer or tensor", recording.key, [*by_name, *of_tensors]))
        for target in found:
            if target in matched:
                raise InvalidInputError(
                    f"layer {quoted(target.name)} is recorded twice, as {quoted(matched[target].key)} and as "
                    f"{quoted(recording.key)}; expected once"
                )
            matched[target] = recording
    if not matched:
        raise InvalidInputError("the file holds no arrays")
    return matched


def _one_count(matched: Mapping[Target, Recording], sample_axis: int) -> int:
    """The number of samples that all recordings have."""
    counts = {
        target: recording.shape[_layout(target, recording, sample_axis)[0]]
        for target, recording in matched.items()
    }
    (first, n), *others = counts.items()
    for target, count in others:
        if count != n:
            raise InvalidInputError(
                f"layer {quoted(target.name)} has {count} samples and layer {quoted(first.name)} has {n}; "
                "expected the same number in all"
            )
    if n == 0:
        raise InvalidInputError(f"layer {quoted(first.name)} has no samples")
    return n


def _layout(target: Target, recording: Recording, sample_axis: int) -> tuple[int, tuple[int, ...]]:
    """Sample axis and unit axes of a recorded array."""
    shape = recording.shape
    if len(shape) == 2 and shape[1] == target.n_units:
        return 0, (1,)
    if len(shape) == 1 and target.n_units == 1:
        return 0, ()
    axes = target.axes
    fits = target.tensor is not None and -len(shape) <= sample_axis < len(shape)
    if fits and all(axis < len(shape) for axis in axes) and sample_axis % len(shape) not in axes:
        count = 1
        for axis in axes:
            count *= shape[axis]
        if count == target.n_units:
            return sample_axis % len(shape), axes
    whole = f", or a whole tensor with the units along axes {list(axes)}" if target.tensor is not None else ""
    raise InvalidInputError(
        f"{quoted(recording.key)} has shape {list(shape)}; expected [samples, {target.n_units}] for layer "
        f"{quoted(target.name)}{whole}"
    )


def _statistics(target: Target, recording: Recording, kept: int, sample_axis: int) -> UnitStatistics:
    axis, units = _layout(target, recording, sample_axis)
    array = recording.read()
    if array.dtype.kind == "c":
        raise InvalidInputError(f"{quoted(recording.key)} holds complex numbers; expected real activations")
    statistics = UnitStatistics(target.n_units, kept)
    n = array.shape[axis]
    step = max(1, CHUNK_BYTES // max(1, array.nbytes // n))
    where = (slice(None),) * axis
    for start in range(0, n, step):
        part = array[(*where, slice(start, start + step))]
        if part.dtype.kind not in "fiub":
            part = part.astype(np.float32)
        statistics.add(pooled(part, units, SampleAxis(axis), part.shape[axis]))
    return statistics
