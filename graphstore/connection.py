"""DuckDB connections that reach nothing but their own file, and DuckDB's errors in this project's words."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb

from emergraph.commandfiles import note_input
from emergraph.errors import EmergraphError, LimitError, StoreError
from emergraph.graphstore.storefile import check_opened, wal_path
from emergraph.graphstore.text import first_line, printable
from emergraph.memory import OUT_OF_MEMORY, allowance, want_of_memory

_CONFIGURATION: dict[str, str | bool | int | float | list[str]] = {
    # Of new files. Edges take 15 to 25 % less room than with DuckDB's 256 KiB, as each block of values is
    # compressed by itself, at the same speed; a store of a small model takes a sixth.
    "default_block_size": 32768,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "enable_external_access": False,
}

_SHARE_OF_PROCESS = 0.6
"""Of the memory that the process may take, DuckDB's."""

_HEADER_BYTES = 3 * 4096
"""Before the first block of a DuckDB file."""

_INTERRUPTED = re.compile(r"Arrow source failed: KeyboardInterrupt\b")
_LOCKED = re.compile(r"could not set lock.*?(?:PID (\d+)|$)", re.IGNORECASE | re.DOTALL)

_SAYINGS: tuple[tuple[str, type[EmergraphError], str], ...] = (
    (
        "different configuration",
        StoreError,
        "already open in this process in another mode; close it there first",
    ),
    (
        "permission denied|read-only file system",
        StoreError,
        "permission denied; make it and its folder writable or use a copy; analyses with --no-save only read",
    ),
    (
        "no space left|file too large|disk quota|could not write|max_temp_directory_size",
        LimitError,
        "the disk is full or the file reached its size limit; nothing was changed; free some space and retry",
    ),
    (
        "version number|storage version|newer version of duckdb",
        StoreError,
        f"written by a DuckDB version that {duckdb.__version__} cannot read; update emergraph",
    ),
    (
        "corrupt|checksum|read enough bytes|invalidated|serializ|internal error",
        StoreError,
        "damaged; restore it from a copy or export the model again",
    ),
)
"""What DuckDB says (a pattern), what to raise, and the rest of the line."""


def connect(
    path: Path,
    *,
    read_only: bool,
    shown: Path | None = None,
    spill: Path | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB file with extensions and access to other files switched off.

    The caller has looked at the place with `storefile.check_place`.

    Args:
        path: The file.
        read_only: Whether others can read it meanwhile, and nobody can write.
        shown: What errors call it; `path` by default.
        spill: The folder that DuckDB may make where memory is short, which a process that is killed leaves;
            None: it makes none.

    Raises:
        StoreError: The file is locked, not a DuckDB file, damaged, or of a newer DuckDB.
    """
    more = {"temp_directory": "" if spill is None else os.fspath(spill)}
    name = shown or path
    with translated_errors(name):
        # a relative path could begin like the name of a protocol or an extension (`md:`, `sqlite:`)
        connection = duckdb.connect(
            os.fspath(path.absolute()), read_only=read_only, config={**_CONFIGURATION, **more}
        )
        try:
            check_opened(connection, path)
            _hold_to_process(connection)
        except BaseException:
            connection.close()
            raise
    note_input(path.stat(), name)
    return connection


def _hold_to_process(connection: duckdb.DuckDBPyConnection) -> None:
    """Leave the rest of the process its share of a limit of memory: DuckDB goes by that of the machine."""
    limit = allowance()
    if limit is not None:
        connection.execute(f"SET memory_limit = '{int(limit * _SHARE_OF_PROCESS)}B'")


def cut_back(path: Path, size: int) -> None:
    """Cut a closed store back to the size that it had before a failed write.

    DuckDB leaves what it had written behind the end of its contents, which on a full disk would keep the disk
    full. Nothing happens unless the file itself says that its contents end within `size` bytes.
    """
    if wal_path(path).exists() or path.stat().st_size <= size:
        return
    with contextlib.suppress(EmergraphError), contextlib.closing(connect(path, read_only=True)) as connection:
        sql = "SELECT block_size, total_blocks FROM pragma_database_size()"
        block_size, n_blocks = connection.execute(sql).fetchall()[0]
        if _HEADER_BYTES + block_size * n_blocks <= size:
            os.truncate(path, size)


def drop_empty_log(path: Path) -> None:
    """Remove the log of a store that is about to be closed after a write that failed: it holds nothing.

    The connection is still open, so that nobody else can have begun to write.
    """
    log = wal_path(path)
    with contextlib.suppress(OSError):
        if log.stat().st_size == 0:
            log.unlink()


def database_path(connection: duckdb.DuckDBPyConnection) -> Path:
    """Return the file that a connection has open, for messages."""
    with contextlib.suppress(duckdb.Error):
        found = connection.execute(
            "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
        ).fetchall()
        return Path(str(found[0][0])) if found and found[0][0] else Path("the store")
    return Path("the store")


@contextlib.contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turn what DuckDB raises about the store at `path` into this project's errors or KeyboardInterrupt."""
    try:
        yield
    except (duckdb.Error, RuntimeError) as error:
        # The client swallows Ctrl-C during a statement, or while it reads our rows, and raises these instead.
        if str(error) == "Query interrupted" or _INTERRUPTED.search(str(error)):
            raise KeyboardInterrupt from error
        if isinstance(error, duckdb.Error):
            raise translate(error, path) from error
        raise


def translate(error: duckdb.Error, path: Path) -> EmergraphError:
    """Return the error to raise for what DuckDB said about the store at `path`, in one line."""
    text = str(error)
    name = printable(os.fspath(path))
    if locked := _LOCKED.search(text):
        holder = f" (pid {locked[1]})" if locked[1] else ""
        return StoreError(f"{name}: locked by another process{holder}; wait until it is done and try again")
    if OUT_OF_MEMORY.search(text):
        return LimitError(f"{name}: out of memory; nothing was changed; {want_of_memory()}")
    for pattern, kind, meaning in _SAYINGS:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(f"{name}: {meaning}")
    return StoreError(f"{name}: {printable(first_line(error))}")


@contextlib.contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Run a block in one transaction: committed at its end, rolled back when it raises anything."""
    connection.execute("BEGIN TRANSACTION")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # The transaction may be gone already (disk full, failed commit): the first error is the one to show.
        with contextlib.suppress(duckdb.Error):
            connection.execute("ROLLBACK")
        raise
