"""Where in a lake lies what: `KEY=VALUE/TABLE/PART.parquet`, and nothing else is ever opened.

A folder `graph=ID` holds one graph, `file=SHA256` what a survey found out about one model file, `survey=ID`
where a survey found which. Each file, and each such folder when it is made, is there as a whole or not at
all.
"""

import os
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from emergraph.errors import InvalidInputError, UnsafeInputError
from emergraph.graphstore.text import printable
from emergraph.paths import kind_of

GRAPH, FILE, SURVEY = "graph", "file", "survey"
"""Keys of partitions."""
NO_GRAPH = "__HIVE_DEFAULT_PARTITION__"
"""The value of rows without a graph, as Hive, Spark and DuckDB write NULL: runs about a model alone."""
SUFFIX = ".parquet"
IN_PLACE = f"in-place{SUFFIX}"
"""Connections of a graph whose blocks are in place, where they were asked for."""

_PARTITION = re.compile(rf"(?:{GRAPH}|{FILE}|{SURVEY})=[\w.\-]{{1,128}}", re.ASCII)
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,62}")

Files = dict[tuple[str, str], list[str]]
"""Paths below a lake, by key of the partition and table."""


def partition(key: str, value: str) -> str:
    """Return the name of a folder.

    Example:
        >>> partition(GRAPH, "3fb1")
        'graph=3fb1'
    """
    return f"{key}={value}"


def is_lake(folder: Path) -> bool:
    """Whether a folder holds at least one partition of a lake."""
    try:
        with os.scandir(folder) as entries:
            return any(_PARTITION.fullmatch(entry.name) for entry in entries)
    except (OSError, ValueError):
        return False


def lake_files(folder: Path, wanted: Collection[str] | None = None, *, shown: Path | None = None) -> Files:
    """List the files of a lake; only regular ones, which no link leads to.

    Args:
        folder: The lake.
        wanted: Tables whose files are listed; all by default.
        shown: What errors call the lake; `folder` by default.

    Raises:
        InvalidInputError: It is no lake.
        UnsafeInputError: A partition, a table or a file is a link, or no regular file.
    """
    name = printable(str(shown or folder))
    if not is_lake(folder):
        raise InvalidInputError(
            f"{name}: a folder, but no lake; `emergraph convert STORE --to lake --out FOLDER` makes one"
        )
    found: Files = {}
    for part in _entries(folder, _PARTITION, folder, name):
        key = part.name.partition("=")[0]
        for table in _entries(Path(part.path), _TABLE, folder, name):
            if wanted is not None and table.name not in wanted:
                continue
            for file in _listed(table.path):
                if file.name.startswith((".", "_")) or not file.name.endswith(SUFFIX):
                    continue
                _require(file, folder, name, is_folder=False)
                found.setdefault((key, table.name), []).append(os.path.relpath(file.path, folder))
    return found


def _entries(folder: Path, pattern: re.Pattern[str], lake: Path, shown: str) -> Iterator["os.DirEntry[str]"]:
    """The folders in a folder whose names are those of partitions or tables, by name."""
    for entry in _listed(folder):
        if pattern.fullmatch(entry.name):
            _require(entry, lake, shown, is_folder=True)
            yield entry


def _listed(folder: "str | Path") -> "list[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _require(entry: "os.DirEntry[str]", lake: Path, shown: str, *, is_folder: bool) -> None:
    mode = entry.stat(follow_symlinks=False).st_mode
    if not (stat.S_ISDIR(mode) if is_folder else stat.S_ISREG(mode)):
        name = printable(os.path.relpath(entry.path, lake))
        expected = "a folder" if is_folder else "a regular file"
        raise UnsafeInputError(
            f"{shown}: {name} is {kind_of(mode)}, expected {expected}; copy the lake without it"
        )
