"""One DuckDB file that holds many graphs: opened, checked, and the way to its readers and writers."""

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import duckdb
import polars as pl

from emergraph.atomic import Outputs, current_outputs
from emergraph.errors import EmergraphError, LimitError, StoreError, UsageError
from emergraph.graphstore.catalog import find_graph, graph_id, unique_name
from emergraph.graphstore.connection import (
    connect,
    cut_back,
    drop_empty_log,
    transaction,
    translated_errors,
)
from emergraph.graphstore.frames import fetch_frame
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.records import GraphHeader, TraceHeader
from emergraph.graphstore.runs import Run, fetch_results, record_run
from emergraph.graphstore.schema import (
    SCHEMA_VERSION,
    create_schema,
    migrate,
    migrations,
    show_as_current,
    stored_version,
)
from emergraph.graphstore.storefile import check_place, wal_path
from emergraph.graphstore.text import printable
from emergraph.graphstore.traces import write_metrics, write_trace
from emergraph.leftovers import note_unfinished, random_name

if TYPE_CHECKING:
    from emergraph.graphstore.writer import GraphWriter

Mode = Literal["read", "write", "create"]


def open_store(
    path: str | os.PathLike[str],
    *,
    mode: Mode = "read",
    threads: int | None = None,
    memory_limit: int | None = None,
    any_name: bool = False,
    in_place: bool = False,
) -> "StoreFile":
    """Open the store at `path`. Use it in a `with` statement.

    Several processes can read a store at the same time, or one can write. A store of an older schema is
    migrated when it is opened for changes, and read as if it had been otherwise. A store that is made appears
    when it is closed, complete; in a block of `atomic.together`, with the other results at its end.

    Args:
        path: A file, by habit named `*.duckdb`.
        mode: "read"; "write" to change an existing store; "create" to change it, made when missing.
        threads: Threads that queries use; all by default.
        memory_limit: Bytes that DuckDB may take; 80 % of the machine's memory by default.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
        in_place: Make a new file under its own name at once, and keep it even when nothing gets into it: for
            a file that is a part of something unfinished itself.

    Raises:
        InvalidInputError: There is no such file or folder, or it is not a regular file.
        UsageError: A new store has another ending, or the path a question mark, or a name that is too long.
        StoreError: The file is locked by another process, from elsewhere, newer, or damaged.

    Example:
        >>> with open_store("net.duckdb") as store:  # doctest: +SKIP
        ...     edges = store.graph().edges()
    """
    place = _place(Path(path), mode=mode, any_name=any_name, in_place=in_place)
    try:
        connect_again = functools.partial(
            _connected, place, mode=mode, threads=threads, memory_limit=memory_limit
        )
        connection, version = connect_again()
        if mode == "read" and wal_path(place.file).exists():
            _absorbed(connection, place)
            connection, version = connect_again()
        if version is not None and version < SCHEMA_VERSION:
            _bring_up(connection, place, version, mode)
    except BaseException:
        place.give_up()
        raise
    return StoreFile(place, connection, mode=mode)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a store is, and what has to happen to it in the end."""

    path: Path
    """As the user named it."""
    file: Path
    """Where it is now; elsewhere than `path` until a new store is published."""
    made: bool = False
    """Whether this opening makes it, to be published by `outputs`."""
    outputs: Outputs | None = None
    owned: bool = False
    """Whether `outputs` are of this store alone, to be published with it."""
    noted: Path | None = None
    """Where DuckDB may put what does not fit in memory, in a journal; None: beside the file."""

    @property
    def spill(self) -> Path:
        """Where DuckDB may put what does not fit in memory."""
        return self.noted or Path(f"{self.file}.tmp")

    def give_up(self) -> None:
        """Remove what was made here."""
        if self.made and self.outputs is not None:
            for file in (self.file, wal_path(self.file)):
                file.unlink(missing_ok=True)
            self.outputs.drop(self.path)
        self.leave()

    def leave(self) -> None:
        """Remove what was for the moment."""
        if self.owned and self.outputs is not None:
            self.outputs.discard()


class StoreFile:
    """An open store; made by `open_store`."""

    def __init__(self, place: _Place, connection: duckdb.DuckDBPyConnection, *, mode: Mode) -> None:
        self.path = place.path
        """As the user named it; a new store is there when it is closed."""
        self.connection = connection
        self.mode: Mode = mode
        self._place = place
        self._closed = False
        self._size_before_failure: int | None = None
        self._together = False
        self._spoiled = False

    @classmethod
    def over(cls, path: Path, connection: duckdb.DuckDBPyConnection) -> Self:
        """Read what another connection shows as the tables of a store; its owner closes it."""
        return cls(_Place(path=path, file=path), connection, mode="read")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def file(self) -> Path:
        """Where the store is now: elsewhere than `path` until a new one is complete."""
        return self._place.file

    def close(self) -> None:
        """Close the file. A file that `open_store` made and that got no graph and no run is removed again.

        Raises:
            LimitError: The disk is full; a new store is not there.
        """
        if self._closed:
            return
        self._closed = True
        place = self._place
        try:
            keep = not place.made or self._used()
            if self.mode != "read":
                drop_empty_log(place.file)
            with translated_errors(self.path):
                self.connection.close()
            if not keep:
                place.give_up()
                return
            if self._size_before_failure is not None:
                cut_back(place.file, self._size_before_failure)
            if place.file != place.path:
                _check_complete(place)
            if place.owned and place.outputs is not None:
                place.outputs.publish()
        except BaseException:
            place.give_up()
            raise
        place.leave()

    def _used(self) -> bool:
        """Return whether there is anything in a new store, which is then on the disk as a whole."""
        # Runs may be about a model that has no graph here, such as a landscape.
        used = "SELECT 1 FROM graphs UNION ALL SELECT 1 FROM runs LIMIT 1"
        try:
            if not self.connection.execute(used).fetchall():
                return False
        except duckdb.Error:  # a write has failed so that nothing can be read any more
            return False
        with translated_errors(self.path):
            self.connection.execute("CHECKPOINT")
        return True

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Make all that is written in the block, graphs included, one transaction.

        Raises:
            LimitError: The disk is full; the store is as it was.
        """
        self.require_write()
        size = self._place.file.stat().st_size
        self._together, self._spoiled = True, False
        try:
            with translated_errors(self.path), transaction(self.connection):
                yield
                self._require_unspoiled()
        except BaseException:
            self._size_before_failure = size
            raise
        finally:
            self._together = False

    def _require_unspoiled(self) -> None:
        if self._spoiled:
            raise RuntimeError("a graph was abandoned, and with it all that was written together")

    def _transaction(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._together else transaction(self.connection)

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
    def write_graph(self, header: GraphHeader, *, in_place: bool = False) -> "Iterator[GraphWriter]":
        """Write one graph in one transaction: `finish` commits it, leaving without it takes everything back.

        Args:
            header: What is known before the first edge.
            in_place: Leave edges in the model file where the exporter says which entries of which tensor they
                are, and the values of large tensors, too.

        Raises:
            StoreError: The store is open for reading only.
            LimitError: The disk is full; the store is as it was.

        Example:
            >>> with store.write_graph(header) as writer:  # doctest: +SKIP
            ...     writer.write_matrix(block, src_units, dst_units, weights)
            ...     graph_id = writer.finish(footer)
        """
        from emergraph.graphstore.writer import GraphWriter

        self.require_write()
        size = self._place.file.stat().st_size
        with translated_errors(self.path):
            writer = GraphWriter(
                self.connection, header, in_place=in_place, own_transaction=not self._together
            )
            try:
                yield writer
                if not writer.finished:
                    raise RuntimeError("GraphWriter.finish was not called")
            finally:
                writer.roll_back()
                self._spoiled = not writer.finished
                self._size_before_failure = None if writer.finished else size

    def write_trace(self, graph: int, header: TraceHeader, frame: pl.DataFrame) -> int:
        """Write an activation trace of a graph; return its id.

        Args:
            graph: Id of the graph.
            header: Name and origin.
            frame: One row per unit with the columns of the table `activations` but `trace`: unit, mean,
                mean_abs, rms, std, min, max, share_positive, n, n_positions, and values, values_abs and
                values_max (lists of float, may be missing).
        """
        self.require_write()
        with translated_errors(self.path), self._transaction():
            return write_trace(self.connection, graph, header, frame)

    def write_metrics(self, graph: int, metrics: Mapping[str, float]) -> None:
        """Write numbers about a graph, such as loss and accuracy; a name that exists gets the new value."""
        self.require_write()
        with translated_errors(self.path), self._transaction():
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
            duration: Wall time in seconds.
        """
        self.require_write()
        run = Run(graph=graph, command=command, parameters=parameters, seed=seed, duration=duration)
        with translated_errors(self.path), self._transaction():
            return record_run(self.connection, run, result_tables)

    def runs(self, command: str | None = None) -> pl.DataFrame:
        """Return the table `runs`, oldest first, of one command or all."""
        with translated_errors(self.path):
            return fetch_frame(
                self.connection,
                "SELECT * FROM runs WHERE ?::VARCHAR IS NULL OR command = ? ORDER BY id",
                [command, command],
            )

    def random_traces(self) -> list[str]:
        """Return the names of the traces on random inputs, of all graphs, oldest first; each once."""
        sql = "SELECT name FROM traces WHERE kind = 'random' GROUP BY name ORDER BY min(id)"
        with translated_errors(self.path):
            return [str(name) for (name,) in self.connection.execute(sql).fetchall()]

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


def _place(path: Path, *, mode: Mode, any_name: bool, in_place: bool) -> _Place:
    """Return where a store is, or where it is made; raise when there is nothing to open."""
    together = current_outputs()
    staged = together.staged(path) if together is not None else None
    if staged is not None:
        return _Place(path=path, file=staged)
    if not check_place(path, may_make=mode == "create", any_name=any_name):
        return _Place(path=path, file=path, noted=_spill_of(path))
    if in_place:
        return _Place(path=path, file=path)
    _check_name(path)
    outputs = together or Outputs()
    try:
        file = outputs.stage(path, replace=False)
    except UsageError as error:
        raise StoreError(str(error)) from error
    return _Place(path=path, file=file, made=True, outputs=outputs, owned=together is None)


def _check_name(path: Path) -> None:
    """Refuse names that leave no room for DuckDB's log beside the store.

    Raises:
        UsageError: It is too long.
    """
    longest = os.pathconf(path.absolute().parent, "PC_NAME_MAX")
    if len(os.fsencode(wal_path(path).name)) > longest:
        most = longest - len(".wal")
        raise UsageError(f"{printable(str(path))}: name longer than {most} bytes; choose a shorter one")


def _spill_of(path: Path) -> Path:
    """Return the folder beside a store that DuckDB makes when memory is short.

    It has one name for each store, since connections of one process must agree on it.
    """
    file = Path(os.path.realpath(path))
    key = os.getpid(), file  # a process that was forked has a journal of its own
    if key not in _SPILLS:
        _SPILLS[key] = file.with_name(random_name())
        note_unfinished(file.parent, _SPILLS[key].name)
    return _SPILLS[key]


_SPILLS: dict[tuple[int, Path], Path] = {}


def _absorbed(connection: duckdb.DuckDBPyConnection, place: _Place) -> None:
    """Close a store that was opened for reading, and let DuckDB take in what a killed command has left.

    Without the right to write, or beside others who read, the log stays: readers see what is in it all the
    same.
    """
    connection.close()
    with contextlib.suppress(EmergraphError):
        connect(place.file, read_only=False, spill=place.spill).close()


def _connected(
    place: _Place, *, mode: Mode, threads: int | None, memory_limit: int | None
) -> tuple[duckdb.DuckDBPyConnection, int | None]:
    """Open the file; return the connection and the version of its schema, None for one that is made here."""
    connection = connect(place.file, read_only=mode == "read", shown=place.path, spill=place.spill)
    try:
        with translated_errors(place.path):
            if threads is not None:
                connection.execute(f"SET threads = {int(threads)}")
            if memory_limit is not None:
                connection.execute(f"SET memory_limit = '{int(memory_limit)}B'")
            version = stored_version(connection, place.path, may_be_empty=mode == "create")
            if version is None:
                create_schema(connection)
    except BaseException:
        connection.close()
        raise
    return connection, version


def _check_complete(place: _Place) -> None:
    """Refuse to publish a new store that is not in its own file as a whole.

    Raises:
        LimitError: DuckDB could not write all of it.
    """
    if wal_path(place.file).exists():
        raise LimitError(f"{printable(str(place.path))}: the disk is full; free some space and try again")


def _bring_up(connection: duckdb.DuckDBPyConnection, place: _Place, version: int, mode: Mode) -> None:
    """Migrate an older store, or, where it is only read, show it as if that had been done."""
    bring = show_as_current if mode == "read" else migrate
    try:
        with translated_errors(place.path):
            bring(connection, place.path, version=version, steps=migrations(), target=SCHEMA_VERSION)
    except BaseException:
        connection.close()
        raise


__all__: Sequence[str] = ("Mode", "StoreFile", "open_store")
