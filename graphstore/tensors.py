"""Parameter tensors into a store: raw bytes in pieces, or a pointer to the block whose matrix they are."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa

from emergraph.graphstore.frames import element_type
from emergraph.graphstore.graphrows import insert_rows, list_array
from emergraph.graphstore.layout import BlockRow
from emergraph.graphstore.modelfiles import Coding
from emergraph.graphstore.records import Tensor, matrix_restores
from emergraph.graphstore.text import storable

PART_BYTES = 1 << 15
"""Bytes per row of tensor_parts. DuckDB reads 2048 rows at once, wanted or not: 64 MiB at this size."""
SNAPSHOT_PART_BYTES = 128
"""Bytes per row for the snapshots of a training, a small graph after the other. DuckDB writes the last row
group of a table (up to 122 880 rows) anew with every graph that is added: here 16 MB at most, not 4 GB."""
_SNAPSHOT_SETTINGS = (
    # Of the methods for text, the one that is fast on rows of this size and gains something.
    "SET disabled_compression_methods = 'dict_fsst'",
    "SET zstd_min_string_length = 1",
)
_BATCH_BYTES = 1 << 26
KEPT_BYTES = 1 << 18
"""Largest tensor that a graph in place keeps raw, such as a bias or a norm; larger ones stay in the file."""


class TensorLoader:
    """Writes the tensors of one graph."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        graph: int,
        *,
        snapshot: bool = False,
        in_place: bool = False,
    ) -> None:
        self._connection = connection
        self._in_place = in_place
        self._left: set[str] = set()
        self._part_bytes = SNAPSHOT_PART_BYTES if snapshot else PART_BYTES
        for setting in _SNAPSHOT_SETTINGS if snapshot else ():
            connection.execute(setting)
        self._graph = graph
        self._tensors: dict[str, Tensor] = {}
        self._sha256: dict[str, str | None] = {}
        self._small: list[tuple[str, memoryview]] = []

    @property
    def made(self) -> dict[str, Coding]:
        """How values that stay in the file follow from what it holds, by the name of the tensor."""
        return {
            name: tensor.made
            for name, tensor in self._tensors.items()
            if tensor.in_file is not None and tensor.made is not None
        }

    def leave(self, name: str) -> None:
        """Leave a tensor in the model file, where the edges of a block are, whatever its size."""
        self._left.add(name)

    def add(self, tensor: Tensor) -> None:
        """Take one tensor; its raw bytes go to the store now or, gathered with others, soon.

        Raises:
            ValueError: The name repeats, both or neither of `data` and `block` are given, or the number of
                bytes is not what type and shape ask for.
        """
        name = storable(tensor.name)
        if name in self._tensors:
            raise ValueError(f"tensor {name!r}: written twice")
        dtype = element_type(tensor.dtype)
        if (tensor.data is not None and tensor.block is not None) or (
            dtype is not None and tensor.data is None and tensor.block is None and tensor.made is None
        ):
            raise ValueError(f"tensor {name!r}: expected either data or block")
        self._sha256[name] = tensor.sha256
        data = None if tensor.data is None else memoryview(tensor.data).cast("B")
        n_bytes = math.prod(tensor.shape) * (dtype.itemsize if dtype else 1)
        if data is not None:
            if dtype is not None and data.nbytes != n_bytes:
                raise ValueError(f"tensor {name!r}: expected {n_bytes} bytes, got {data.nbytes}")
            self._sha256[name] = hashlib.sha256(data).hexdigest()
        if self._stays(tensor, name, n_bytes):
            self._tensors[name] = replace(tensor, data=None, block=None)
            return
        self._tensors[name] = replace(tensor, data=None, in_file=None)
        if data is not None:
            self._write(name, data)

    def _stays(self, tensor: Tensor, name: str, n_bytes: int) -> bool:
        """Whether the values of a tensor stay in the model file.

        Raises:
            ValueError: They have to, since edges do, but nobody knows where in the file they are.
        """
        left = tensor.name in self._left
        known = tensor.in_file is not None and self._sha256[name] is not None
        if left and not known:
            raise ValueError(f"tensor {name!r}: has edges in place, expected to know where it lies")
        made = tensor.made is not None and tensor.data is None and tensor.block is None
        if made and not (
            known and self._in_place
        ):  # values of types without bytes, such as text, are not kept
            raise ValueError(f"tensor {name!r}: expected its values, which do not stay in the file")
        return known and self._in_place and (left or n_bytes > KEPT_BYTES)

    def _write(self, name: str, data: memoryview) -> None:
        if data.nbytes > PART_BYTES:
            self._write_large(name, data)
        elif data.nbytes:
            self._small.append((name, data))
            if len(self._small) * PART_BYTES >= _BATCH_BYTES:
                self._write_small()

    def finish(self, blocks: Mapping[int, BlockRow]) -> None:
        """Write the rows of all tensors; `blocks` are the graph's blocks by their number.

        Raises:
            ValueError: A tensor points to a block that cannot restore it.
        """
        self._write_small()
        rows = [(name, tensor, _block_row(tensor, blocks)) for name, tensor in self._tensors.items()]
        tensors = [tensor for _, tensor, _ in rows]
        columns = {
            "graph": pa.array([self._graph] * len(rows), pa.int32()),
            "name": pa.array([name for name, _, _ in rows], pa.string()),
            "role": pa.array([storable(t.role) for t in tensors], pa.string()),
            "dtype": pa.array([storable(t.dtype) for t in tensors], pa.string()),
            "shape": list_array([t.shape for t in tensors], pa.int64()),
            "n_params": pa.array([t.n_params for t in tensors], pa.int64()),
            "n_zeros": pa.array([t.n_zeros for t in tensors], pa.int64()),
            "n_nonfinite": pa.array([t.n_nonfinite for t in tensors], pa.int64()),
            "understood": pa.array([t.understood for t in tensors], pa.bool_()),
            "sha256": pa.array([self._sha256[name] for name, _, _ in rows], pa.string()),
            "block": pa.array([None if row is None else row.id for _, _, row in rows], pa.int32()),
            "block_transposed": pa.array([t.block_transposed for t in tensors], pa.bool_()),
            "zero_signs": pa.array(
                [None if row is None else row.zero_signs for _, _, row in rows], pa.binary()
            ),
            "shard": pa.array(
                [None if t.in_file is None else storable(t.in_file.file) for t in tensors], pa.string()
            ),
            "shard_offset": pa.array(
                [None if t.in_file is None else t.in_file.offset for t in tensors], pa.int64()
            ),
        }
        insert_rows(self._connection, "tensors", columns)

    def _write_large(self, name: str, data: memoryview) -> None:
        buffer = pa.py_buffer(data)
        cuts = np.append(np.arange(0, data.nbytes, self._part_bytes, dtype=np.int64), data.nbytes)
        parts_at_once = _BATCH_BYTES // self._part_bytes
        for first in range(0, cuts.size - 1, parts_at_once):
            offsets = cuts[first : first + parts_at_once + 1]
            pieces = pa.Array.from_buffers(
                pa.large_binary(), offsets.size - 1, [None, pa.py_buffer(offsets), buffer]
            )
            names = pa.repeat(pa.scalar(name, pa.string()), len(pieces))
            self._write_parts(names, np.arange(first, first + len(pieces)), pieces)

    def _write_small(self) -> None:
        if self._small:
            cut = [
                (name, start // self._part_bytes, bytes(data[start : start + self._part_bytes]))
                for name, data in self._small
                for start in range(0, data.nbytes, self._part_bytes)
            ]
            names, parts, pieces = zip(*cut, strict=True)
            self._write_parts(
                pa.array(names, pa.string()), np.array(parts), pa.array(pieces, pa.large_binary())
            )
        self._small = []

    def _write_parts(self, names: pa.Array, parts: np.ndarray, pieces: pa.Array) -> None:
        columns = {
            "graph": pa.repeat(pa.scalar(self._graph, pa.int32()), len(names)),
            "tensor": names,
            "part": pa.array(parts.astype(np.int32)),
            "data": pieces,
        }
        insert_rows(self._connection, "tensor_parts", columns)


def _block_row(tensor: Tensor, blocks: Mapping[int, BlockRow]) -> BlockRow | None:
    """Return the block that holds a tensor, after checking that it can; None for raw tensors."""
    if tensor.block is None:
        return None
    row = blocks.get(tensor.block)
    what = f"tensor {storable(tensor.name)!r}"
    if row is None or not row.is_matrix or row.has_kernels:
        raise ValueError(f"{what}: block {tensor.block} is not a matrix of single parameters")
    if not matrix_restores(tensor.dtype, tensor.n_nonfinite):
        raise ValueError(f"{what}: float32 edges cannot hold {tensor.dtype} exactly; give data")
    matrix = (row.dst.size, row.src.size) if tensor.block_transposed else (row.src.size, row.dst.size)
    if tuple(tensor.shape) != matrix:
        raise ValueError(f"{what}: shape {tensor.shape}, but the matrix of block {tensor.block} is {matrix}")
    return row
