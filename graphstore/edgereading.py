"""Edges of blocks out of a store as arrays, many small blocks per query.

A query costs about a millisecond and a graph may have thousands of tiny blocks. Edges lie in the store
ordered by block, so neighbours are fetched together and cut apart by their known sizes.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from emergraph.choices import unknown
from emergraph.errors import StoreError, UsageError
from emergraph.graphstore.blockinfo import BlockInfo, within
from emergraph.graphstore.connection import translated_errors
from emergraph.graphstore.frames import fetch_arrays
from emergraph.graphstore.sql import compose
from emergraph.graphstore.text import printable
from emergraph.steps import steps

EDGE_COLUMNS = ("src", "dst", "weight", "l1", "l2", "max_abs", "n_params")
"""Columns that can be asked for."""

_MAGNITUDES = ("l1", "l2", "max_abs")
_BATCH_EDGES = 1 << 22
_GAP_EDGES = 1 << 16
"""Edges between two wanted blocks that are cheaper to fetch and drop than to query around."""

EdgeArrays = dict[str, NDArray[np.generic]]


class BlockEdges:
    """Reads the edges of the blocks of one graph."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        path: Path,
        blocks: Sequence[BlockInfo],
        units: Mapping[int, range],
    ) -> None:
        self._connection = connection
        self._path = path
        self._units = units
        self._n_units = sum(map(len, units.values()))
        self._tables = {flag: _BlockTable(blocks, has_kernels=flag) for flag in (False, True)}

    def read(
        self, blocks: Sequence[BlockInfo], columns: Sequence[str]
    ) -> Iterator[tuple[BlockInfo, EdgeArrays]]:
        """Yield the blocks in the given order, each with the asked columns of its edges.

        Raises:
            UsageError: A column is unknown.
            StoreError: The store holds more or fewer edges than its blocks say.
        """
        if missing := [name for name in columns if name not in EDGE_COLUMNS]:
            raise UsageError(unknown("edge column", missing[0], EDGE_COLUMNS))
        for batch in steps(list(_batches(blocks)), "blocks of edges"):
            found: dict[int, EdgeArrays] = {}
            for has_kernels, table in self._tables.items():
                wanted = sorted(
                    block.id for block in batch if block.has_kernels == has_kernels and block.n_edges
                )
                for run in table.runs(wanted):
                    found |= self._read_run(table, run, columns)
            for block in batch:
                if block.n_edges:
                    self._check(block, found[block.id])
                yield block, found[block.id] if block.n_edges else _no_edges(columns)

    def _check(self, block: BlockInfo, edges: EdgeArrays) -> None:
        """Refuse edges of units that the graph does not have, and edges into other layers."""
        for name, known in (("src", range(self._n_units)), ("dst", self._units[block.layer])):
            if name in edges and not within(edges[name], known):
                what = (
                    f"edges of block {block.id} have a {name} outside units {known.start} to {known.stop - 1}"
                )
                raise StoreError(
                    f"{printable(str(self._path))}: damaged, {what}; "
                    "restore it from a copy or export the model again"
                )

    def _read_run(
        self, table: "_BlockTable", run: Sequence[int], columns: Sequence[str]
    ) -> dict[int, EdgeArrays]:
        """Read the blocks from `run[0]` to `run[-1]` in one query and return those in `run`."""
        stored = table.stored_columns(columns)
        sql = compose(
            "SELECT {columns} FROM {table} WHERE block BETWEEN ? AND ?",
            columns=", ".join(stored),
            table=table.name,
        )
        with translated_errors(self._path):
            arrays = fetch_arrays(self._connection, sql, [run[0], run[-1]])
        start = table.start[run[0]]
        expected = table.end[run[-1]] - start
        n_found = arrays[stored[0]].size
        if n_found != expected:
            raise StoreError(
                f"{printable(str(self._path))}: damaged, {n_found} edges in blocks {run[0]} to {run[-1]}, "
                f"expected {expected}; restore it from a copy or export the model again"
            )
        result: dict[int, EdgeArrays] = {}
        for block in run:
            cut = slice(table.start[block] - start, table.end[block] - start)
            result[block] = {name: _column(name, arrays, cut) for name in columns}
        return result


class _BlockTable:
    """Where the edges of each block lie in `connections` or in `kernels`, counted within the graph."""

    def __init__(self, blocks: Sequence[BlockInfo], *, has_kernels: bool) -> None:
        self.name = "kernels" if has_kernels else "connections"
        self._has_kernels = has_kernels
        self.start: dict[int, int] = {}
        self.end: dict[int, int] = {}
        position = 0
        for block in sorted(blocks, key=lambda block: block.id):
            if block.has_kernels == has_kernels:
                self.start[block.id] = position
                position += block.n_edges
                self.end[block.id] = position

    def runs(self, wanted: Sequence[int]) -> Iterator[list[int]]:
        """Yield the ascending ids in groups that lie close together."""
        run: list[int] = []
        for block in wanted:
            if run and self.start[block] - self.end[run[-1]] > _GAP_EDGES:
                yield run
                run = []
            run.append(block)
        if run:
            yield run

    def stored_columns(self, columns: Sequence[str]) -> list[str]:
        """Return what to select for the asked columns; at least one column."""
        if self._has_kernels:
            return list(dict.fromkeys(columns)) or ["src"]
        stored = dict.fromkeys("weight" if name in _MAGNITUDES else name for name in columns)
        return [name for name in stored if name != "n_params"] or ["src"]


def _column(name: str, arrays: EdgeArrays, cut: slice) -> NDArray[np.generic]:
    """Return a column; edges of one parameter have magnitudes equal to |weight| and n_params 1."""
    if name in arrays:
        return arrays[name][cut]
    if name == "n_params":
        return np.ones(cut.stop - cut.start, dtype=np.int32)
    return np.abs(arrays["weight"][cut], dtype=np.float64)


def _batches(blocks: Sequence[BlockInfo]) -> Iterator[list[BlockInfo]]:
    batch: list[BlockInfo] = []
    n_edges = 0
    for block in blocks:
        if batch and n_edges + block.n_edges > _BATCH_EDGES:
            yield batch
            batch, n_edges = [], 0
        batch.append(block)
        n_edges += block.n_edges
    if batch:
        yield batch


def _no_edges(columns: Sequence[str]) -> EdgeArrays:
    types = {"src": np.int32, "dst": np.int32, "weight": np.float32, "n_params": np.int32}
    return {name: np.empty(0, dtype=types.get(name, np.float64)) for name in columns}
