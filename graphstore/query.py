"""SQL over a store for people and scripts: reads only, alone in a process, under limits.

DuckDB checks its own limits only between steps (`repeat('x', 3000000000)` cannot be interrupted, and long
lists are not counted against its memory limit), so a query runs in a child process that can be killed. What
the child allows is in `sandbox`.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from emergraph.commandfiles import note_input
from emergraph.errors import (
    EmergraphError,
    InvalidInputError,
    LimitError,
    StoreError,
    UnsafeInputError,
    UsageError,
)
from emergraph.graphstore.modelfiles import given_model
from emergraph.graphstore.storefile import check_place, wal_path
from emergraph.memory import mebibytes, want_of_memory
from emergraph.processes import watched_memory

GIB = 1 << 30
_MODULE = "emergraph.graphstore.sandbox"
_GRACE_SECONDS = 2.0
"""Time the child gets to stop by itself before it is killed."""
_ERRORS: Mapping[str, type[EmergraphError]] = {
    kind.__name__: kind for kind in (InvalidInputError, LimitError, StoreError, UnsafeInputError, UsageError)
}


@dataclass(frozen=True, kw_only=True)
class QueryLimits:
    """What a query may take."""

    time: float = 60.0
    """Wall time in seconds."""
    memory: int = 2 * GIB
    """Bytes that no file backs, of the process that runs the query: about 100 MiB without one."""
    threads: int | None = None
    """All by default."""
    rows: int = 10_000
    """Rows of the result; more are cut off."""
    edges: int = 20_000_000
    """Edges that are read from a model file; 16 bytes each."""


@dataclass(frozen=True, kw_only=True)
class QueryResult:
    """Rows of a query."""

    frame: pl.DataFrame
    """Columns by the names of the query, numbered where they repeat. Dates, times and types that polars does
    not have come as text."""
    truncated: bool
    """Whether there were more rows than the limit."""


def run_query(path: str | os.PathLike[str], sql: str, *, limits: QueryLimits | None = None) -> QueryResult:
    """Run one SELECT statement on a store.

    Of edges that stayed in a model file, those that the query can touch are read from the model that was
    given (`modelfiles.model_given`). The store is opened for reading only; other files, extensions, settings
    and functions that tell about the machine are out of reach.

    Raises:
        UsageError: The SQL is wrong, not one SELECT, or asks for what is not allowed.
        LimitError: The time or the memory was not enough, or the result is too large.
        InvalidInputError: There is no such file.
        StoreError: The file is locked, from elsewhere, newer or damaged.

    Example:
        >>> run_query("net.duckdb", "SELECT kind, count(*) AS n FROM edges GROUP BY kind")  # doctest: +SKIP
    """
    limits = limits or QueryLimits()
    if limits.time <= 0 or limits.memory <= 0 or limits.rows < 0:
        raise UsageError("limits of a query must be positive")
    request = {"path": str(Path(path).absolute()), "shown": str(path), "sql": sql, **asdict(limits)}
    request["edges"] = None
    file = Path(path)
    if not file.is_dir():  # else a lake, which the child looks at
        check_place(file)
        note_input(file.stat(), file)  # a child opens it
        if wal_path(file).exists():
            from emergraph.graphstore.store import open_store

            # takes in what a killed command has left in the log; the child may not write
            open_store(file).close()
    status: dict[str, object] = {"edges": "in place"}
    if given_model() is None:
        output, status = _run_child(request, limits)
    if "edges" in status:
        with _edges_of(file, sql, limits) as descriptor:
            output, status = _run_child({**request, "edges": descriptor}, limits, passed=descriptor)
    if "error" in status:
        raise _ERRORS.get(str(status["error"]), UsageError)(str(status["message"]))
    frame = pl.read_ipc_stream(output)
    return QueryResult(frame=_plain_integers(frame), truncated=bool(status["truncated"]))


@contextmanager
def _edges_of(file: Path, sql: str, limits: QueryLimits) -> Iterator[int]:
    """Make a file with the edges in place that a query can touch; yields its descriptor, -1 for none."""
    import pyarrow as pa

    from emergraph.graphstore.lake.reading import open_stored
    from emergraph.graphstore.queriededges import read_queried

    with open_stored(file) as store:
        edges = read_queried(store, sql, limit=limits.edges)
    if edges is None:
        yield -1
        return
    with tempfile.TemporaryFile() as stream:
        with pa.ipc.new_file(stream, edges.schema) as writer:
            writer.write_table(edges)
        stream.flush()
        del edges
        yield stream.fileno()


def _run_child(
    request: Mapping[str, object], limits: QueryLimits, *, passed: int = -1
) -> tuple[bytes, dict[str, object]]:
    """Return what the child wrote and its status."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(folder for folder in sys.path if folder),
    }
    command = [sys.executable, "-P", "-m", _MODULE]
    taken: list[int] = []
    # Only this interpreter and a module of this package run; the query travels on standard input.
    with subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        pass_fds=() if passed < 0 else (passed,),
    ) as child:

        def end(held: int) -> None:
            taken.append(held)
            child.kill()

        try:
            with watched_memory(child.pid, limits.memory, end):
                output, talk = child.communicate(
                    json.dumps(request).encode(), timeout=limits.time + _GRACE_SECONDS
                )
        except subprocess.TimeoutExpired as error:
            raise LimitError(
                f"the query took more than {limits.time:g} s; simplify it or raise the time limit"
            ) from error
        finally:
            child.kill()
    status = _last_status(talk)
    if status is None and taken:
        raise LimitError(
            f"the query needs more memory than its limit: {mebibytes(max(taken))} were taken of "
            f"{mebibytes(limits.memory)}; simplify it or raise the memory limit"
        )
    if status is None:
        raise LimitError(
            f"the query crashed the database engine (exit status {child.returncode}), most likely out of "
            f"memory: {want_of_memory('the memory limit of ' + mebibytes(limits.memory))}"
        )
    return output, status


def _last_status(talk: bytes) -> dict[str, object] | None:
    """The last line that is a status; the database's bindings may write complaints behind it at exit."""
    for line in reversed(talk.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return None


def _plain_integers(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with 128-bit integers (what `sum` gives in SQL) as 64-bit ones where all fit."""
    wide = [name for name, dtype in frame.schema.items() if dtype == pl.Decimal(38, 0)]
    for name in wide:
        column = frame[name].cast(pl.Int128)
        fits = column.is_between(-(2**63), 2**63 - 1).all()
        frame = frame.with_columns(column.cast(pl.Int64) if fits else column)
    return frame
