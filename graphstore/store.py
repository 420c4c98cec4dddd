"""One DuckDB file that holds many graphs: opened, checked, and the way to its readers and writers."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import duckdb
import polars as pl

from emergraph.errors import StoreError
from emergraph.graphstore.catalog import find_graph, graph_id, unique_name
from emergraph.graphstore.connection import connect, cut_back, transaction, translated_errors, wal_path
from emergraph.graphstore.frames import fetch_frame
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.records import GraphHeader, TraceHeader
from emergraph.graphstore.runs import Run, fetch_results, record_run
from emergraph.graphstore.schema import (
    SCHEMA_VERSION,
    create_schema,
    migrate,
    migrations,
    stored_version,
)
from emergraph.graphstore.storefile import check_place
from emergraph.graphstore.text import printable
from emergraph.graphstore.traces import write_metrics, write_trace
from emergraph.graphstore.writer import GraphWriter

Mode = Literal["read", "write", "create"]


def open_store(
    path: str | os.PathLike[str],
    *,
    mode: Mode = "read",
    threads: int | None = None,
    memory_limit: int | None = None,
    keep_empty: bool = False,
    any_name: bool = False,
) -> "Store":
    """Open the store at `path`. Use it in a `with` statement.

    Several processes can read a store at the same time, or one can write. A store of an older schema is
    migrated, in any mode.

    Args:
        path: A file, by habit named `*.duckdb`.
        mode: "read"; "write" to change an existing store; "create" to change it, made when missing.
        threads: Threads that queries use; all by default.
        memory_limit: Bytes that DuckDB may take; 80 % of the machine's memory by default.
        keep_empty: Keep a file that was made here even when no graph gets into it.
        any_name: Let a new store have a name that does not end in .duckdb or .db.

    Raises:
        InvalidInputError: There is no such file or folder, or it is no regular file.
        UsageError: A new store has another ending, or the path a question mark.
        StoreError: The file is locked by another process, from elsewhere, newer, or damaged.

    Example:
        >>> with open_store("net.duckdb") as store:  # doctest: +SKIP
        ...     edges = store.graph().edges()
    """
    file = Path(path)
    made = check_place(file, may_make=mode == "create", any_name=any_name)
    connection = connect(file, read_only=mode == "read")
    try:
        with translated_errors(file):
            if threads is not None:
                connection.execute(f"SET threads = {int(threads)}")
            if memory_limit is not None:
                connection.execute(f"SET memory_limit = '{int(memory_limit)}B'")
            version = stored_version(connection, file, may_be_empty=mode == "create")
            if version is None:
                create_schema(connection)
    except BaseException:
        connection.close()
        if made:
            _remove_file(file)
        raise
    if version is not None and version < SCHEMA_VERSION:
        connection = _migrated(connection, file, version, mode)
    return Store(file, connection, mode=mode, made=made and not keep_empty)


class Store:
    """An open store; made by `open_store`."""

    def __init__(self, path: Path, connection: duckdb.DuckDBPyConnection, *, mode: Mode, made: bool) -> None:
        self.path = path
        self.connection = connection
        self.mode: Mode = mode
        self._made = made
        self._closed = False
        self._size_before_failure: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. A file that `open_store` made and that got no graph and no run is removed again."""
        if self._closed:
            return
        self._closed = True
        unused = False
        if self._made:
            with contextlib.suppress(duckdb.Error):
                # Runs may be about a model that has no graph here, such as a landscape.
                used = "SELECT 1 FROM graphs UNION ALL SELECT 1 FROM runs LIMIT 1"
                unused = not self.connection.execute(used).fetchall()
        with translated_errors(self.path):
            self.connection.close()
        if unused:
            _remove_file(self.path)
        elif self._size_before_failure is not None:
            cut_back(self.path, self._size_before_failure)

    def graphs(self) -> pl.DataFrame:
        """Return the table `graphs`, oldest first."""
        with translated_errors(self.path):
            return fetch_frame(self.connection, "SELECT * FROM graphs ORDER BY id")

    def graph(self, name_or_id: str | int | None = None) -> GraphReader:
        """Return a reader of one graph, the newest by default.

        Raises:
            UsageError: There is no such graph; the message names the closest ones.
        """
        with translated_errors(self.path):
            return GraphReader(self.connection, self.path, graph_id(self.connection, name_or_id))

    def find_graph(self, sha256: str, settings: Mapping[str, object] | None = None) -> int | None:
        """Return the newest graph of a file with this checksum, and these settings if any; None for none."""
        with translated_errors(self.path):
            return find_graph(self.connection, sha256, settings)

    @contextlib.contextmanager
    def write_graph(self, header: GraphHeader) -> Iterator[GraphWriter]:
        """Write one graph in one transaction: `finish` commits it, leaving without it takes everything back.

        Raises:
            StoreError: The store is open for reading only.
            LimitError: The disk is full; the store is as it was.

        Example:
            >>> with store.write_graph(header) as writer:  # doctest: +SKIP
            ...     writer.write_matrix(block, src_units, dst_units, weights)
            ...     graph_id = writer.finish(footer)
        """
        self.require_write()
        size = self.path.stat().st_size
        with translated_errors(self.path):
            writer = GraphWriter(self.connection, header)
            try:
                yield writer
                if not writer.finished:
                    raise RuntimeError("GraphWriter.finish was not called")
            finally:
                writer.roll_back()
                self._size_before_failure = None if writer.finished else size

    def write_trace(self, graph: int, header: TraceHeader, frame: pl.DataFrame) -> int:
        """Write an activation trace of a graph; return its id.

        Args:
            graph: Id of the graph.
            header: Name and origin.
            frame: One row per unit with the columns of the table `activations` but `trace`: unit, mean,
                mean_abs, rms, std, min, max, share_positive, n, and values (lists of float, may be missing).
        """
        self.require_write()
        with translated_errors(self.path), transaction(self.connection):
            return write_trace(self.connection, graph, header, frame)

    def write_metrics(self, graph: int, metrics: Mapping[str, float]) -> None:
        """Write numbers about a graph, such as loss and accuracy; a name that exists gets the new value."""
        self.require_write()
        with translated_errors(self.path), transaction(self.connection):
            write_metrics(self.connection, graph, metrics)

    def record_run(
        self,
        graph: int | None,
        command: str,
        parameters: Mapping[str, object],
        *,
        seed: int | None = None,
        result_tables: Mapping[str, pl.DataFrame],
        duration: float | None = None,
    ) -> int:
        """Write the results of an analysis; return the id of the run.

        Args:
            graph: Id of the graph that was analysed; None when it was not about one.
            command: Name of the command.
            parameters: All parameters, kept as JSON.
            seed: Seed of random numbers.
            result_tables: Frames by the name of their result table (see `results.register`).
            duration: Wall clock in seconds.
        """
        self.require_write()
        run = Run(graph=graph, command=command, parameters=parameters, seed=seed, duration=duration)
        with translated_errors(self.path), transaction(self.connection):
            return record_run(self.connection, run, result_tables)

    def runs(self, command: str | None = None) -> pl.DataFrame:
        """Return the table `runs`, oldest first, of one command or all."""
        with translated_errors(self.path):
            return fetch_frame(
                self.connection,
                "SELECT * FROM runs WHERE ?::VARCHAR IS NULL OR command = ? ORDER BY id",
                [command, command],
            )

    def results(self, table: str, run: int | None = None) -> pl.DataFrame:
        """Return the rows of a result table, of one run or all; the column `run` comes first.

        Raises:
            UsageError: There is no such result table.
        """
        with translated_errors(self.path):
            return fetch_results(self.connection, table, run)

    def graph_name(self, wanted: str) -> str:
        """Return `wanted`, or, when a graph has that name, the first free of `wanted-2`, `wanted-3`, ..."""
        with translated_errors(self.path):
            return unique_name(self.connection, "SELECT name FROM graphs", [], wanted)

    def require_write(self) -> None:
        """Raise StoreError when the store is open for reading only."""
        if self.mode == "read":
            raise StoreError(f"{printable(str(self.path))}: opened for reading; open it with mode='write'")


def _migrated(
    connection: duckdb.DuckDBPyConnection, path: Path, version: int, mode: Mode
) -> duckdb.DuckDBPyConnection:
    """Return a connection to the store after bringing it to the current schema."""
    if mode == "read":
        connection.close()
        connection = connect(path, read_only=False)
    try:
        with translated_errors(path):
            migrate(connection, path, version=version, steps=migrations(), target=SCHEMA_VERSION)
            stored_version(connection, path)
    except BaseException:
        connection.close()
        raise
    if mode == "read":
        connection.close()
        connection = connect(path, read_only=True)
    return connection


def _remove_file(path: Path) -> None:
    for file in (path, wal_path(path)):
        file.unlink(missing_ok=True)


__all__: Sequence[str] = ("Mode", "Store", "open_store")
