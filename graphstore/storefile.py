"""What may be opened as a store: a DuckDB file by its content, or a new file under a name for stores.

DuckDB itself goes by names: it opens an existing `.csv`, `.json` or `.parquet` as a database in memory over
that file, so that all that is written is lost, and takes what follows a `?` for options. So the file is
looked at before, and DuckDB is asked afterwards which file it has open.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from emergraph.errors import InvalidInputError, NotAStoreError, StoreError, UsageError
from emergraph.graphstore.text import printable
from emergraph.paths import DUCKDB_MAGIC, LOG_SUFFIXES, NotRegularError, kind_of, read_head

if TYPE_CHECKING:
    import duckdb

SUFFIXES = (".duckdb", ".db")
"""Endings of new stores, unless any name is asked for."""
_MISREAD = ("?", "\\")
"""In a path, DuckDB takes what follows the first for options, and the second for a folder's end."""


def check_place(path: Path, *, may_make: bool = False, any_name: bool = False) -> bool:
    """Look at the place of a store before DuckDB does.

    Args:
        path: The store.
        may_make: Whether it may be missing.
        any_name: Whether a new one may have another ending than those of `SUFFIXES`.

    Returns:
        Whether opening will make the file.

    Raises:
        UsageError: The path has a sign in it that DuckDB misreads, or a new store another ending.
        InvalidInputError: There is nothing to open, or a folder, FIFO, socket or device.
        StoreError: The file is not a DuckDB file; it is untouched.
    """
    name = printable(str(path))
    for sign in _MISREAD:
        if sign in str(path.absolute()):
            raise UsageError(
                f"{name}: DuckDB misreads a path with a {sign} in it; rename the store or its folder"
            )
    if path.exists():
        _check_content(path, name)
        return False
    if path.is_symlink():
        raise InvalidInputError(f"{name}: a link that leads nowhere; name the file itself")
    if not may_make:
        raise InvalidInputError(f"{name}: no such store; `emergraph export MODEL {name}` creates one")
    if not path.absolute().parent.is_dir():
        raise InvalidInputError(f"{name}: its folder does not exist; create the folder first")
    if not any_name and path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{name}: a new store is named *.duckdb or *.db; give such a name, or --any-name to keep this one"
        )
    _check_logs(path, name)
    return True


def check_opened(connection: "duckdb.DuckDBPyConnection", path: Path) -> None:
    """Ask DuckDB which file it has open.

    Raises:
        StoreError: Another one than `path`, or none.
    """
    sql = "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
    opened = connection.execute(sql).fetchall()
    file = opened[0][0] if opened else None
    if file is None or not Path(file).exists() or not path.samefile(file):
        found = printable(str(file or "a database in memory"))
        raise StoreError(
            f"{printable(str(path))}: DuckDB would open {found} instead; rename the store to *.duckdb"
        )


def wal_path(path: Path) -> Path:
    """Return the file in which DuckDB keeps what is committed but not yet in the store's own file."""
    return path.with_name(f"{path.name}.wal")


def _check_content(path: Path, name: str) -> None:
    at, magic = DUCKDB_MAGIC
    try:
        head = read_head(path, at + len(magic))
    except NotRegularError as error:
        raise InvalidInputError(
            f"{name}: {error.kind}, not a store; give a file such as net.duckdb"
        ) from None
    except OSError as error:
        raise StoreError(f"{name}: cannot be read: {error.strerror}; use a copy that you can read") from error
    if not head:
        raise StoreError(f"{name}: an empty file, not an emergraph store; remove it and export again")
    if head[at:] != magic:
        raise NotAStoreError(
            f"{name}: not an emergraph store, and not a DuckDB file; give one that `emergraph export` "
            "created",
            path=path,
        )
    _check_logs(path, name)


def _check_logs(path: Path, name: str) -> None:
    """Refuse what DuckDB would open beside the store and wait for."""
    for suffix in LOG_SUFFIXES:
        try:
            mode = path.with_name(path.name + suffix).stat().st_mode
        except OSError:
            continue
        if (kind := kind_of(mode)) != "a regular file":
            raise StoreError(f"{name}: the file {name}{suffix} beside it is {kind}; remove it")
