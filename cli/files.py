"""What the paths of a command line are for, and the look at all of them before the command begins.

Every parameter that is a path is an input, unless its annotation says otherwise. Inputs are noted
(`emergraph.commandfiles`), so that no output can be one of them, under whatever name.
"""

import contextlib
import os
import stat
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from emergraph.cli.links import has_empty_word
from emergraph.commandfiles import note_input, noted_as, one_command
from emergraph.errors import UsageError
from emergraph.options import FileRole
from emergraph.outputs import check_output, holds_database
from emergraph.paths import NotRegularError, kind_of, own_descriptor
from emergraph.safetext import escape_controls


def role_of(annotation: object) -> FileRole | None:
    """Return what a parameter with this annotation is for; None for one that names no file."""
    kind, *notes = (
        typing.get_args(annotation) if typing.get_origin(annotation) is typing.Annotated else [annotation]
    )
    for note in notes:
        if isinstance(note, FileRole):
            return note
    return FileRole.READS if _has_path(kind) else None


@contextlib.contextmanager
def checked_files(values: Mapping[str, object], roles: Mapping[str, FileRole]) -> Iterator[None]:
    """Run a command: its inputs are noted, and an output that would destroy something is refused before.

    Args:
        values: What was given, by parameter.
        roles: What the paths among them are for.

    Raises:
        UsageError: An output is an input, a store, another output, or no regular file; or a new store has a
            name of something else.
        InvalidInputError: An input or a store is a FIFO, socket or device.
        StoreError: A store is not a DuckDB file.
    """
    named = {role: list(_paths(values, roles, role)) for role in FileRole}
    # an empty word would be the working folder, about which nobody asked
    if has_empty_word() and any(path == Path() for paths in named.values() for path in paths):
        raise UsageError(
            "a path on the command line is empty; expected the name of a file or folder (is a shell variable "
            'unset?); the working folder is "."'
        )
    with one_command(joining=False):
        for path in (*named[FileRole.READS], *named[FileRole.MODEL]):
            _look_at(path)
        root = values.get("root")
        _look_into(named[FileRole.MODEL], named[FileRole.WRITES], root if isinstance(root, Path) else None)
        for path in named[FileRole.STORES]:
            _check_store(path, any_name=bool(values.get("any_name")))
        for path in named[FileRole.WRITES]:
            check_output(path)
        _check_distinct([*named[FileRole.STORES], *named[FileRole.WRITES], *named[FileRole.MAKES]])
        yield


def _has_path(kind: object) -> bool:
    return kind is Path or any(_has_path(part) for part in typing.get_args(kind))


def _paths(values: Mapping[str, object], roles: Mapping[str, FileRole], wanted: FileRole) -> Iterator[Path]:
    for name, role in roles.items():
        if role is not wanted:
            continue
        value = values.get(name)
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, Path):
                yield one
            elif isinstance(one, str):
                yield Path(one)
                if ":" in one:
                    yield Path(one.rpartition(":")[0])


def _look_at(path: Path) -> None:
    """Note a file as an input; the command says whether it must be there and be no folder."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return
    if stat.S_ISREG(status.st_mode):
        note_input(status, path)
    elif not stat.S_ISDIR(status.st_mode) and own_descriptor(path) is None:
        raise NotRegularError(path, kind_of(status.st_mode))


def _look_into(models: Iterable[Path], outputs: Iterable[Path], root: Path | None) -> None:
    """Note the files that models name, all below their folders, where one of them could be an output."""
    there = [Path(os.path.realpath(path)) for path in outputs if path.is_file()]
    for model in models if there else ():
        folders = [Path(os.path.realpath(model if model.is_dir() else model.parent))]
        folders += [] if root is None else [Path(os.path.realpath(root))]
        if any(path.is_relative_to(folder) for path in there for folder in folders):
            from emergraph.exporters.sourcekinds import note_files

            note_files(model, root=root)


def _check_store(path: Path, *, any_name: bool) -> None:
    from emergraph.graphstore.storefile import check_place

    with contextlib.suppress(OSError, ValueError):
        source = noted_as(path.stat())
        if source is not None and not holds_database(path):  # what reads a store may keep results there
            shown = escape_controls(str(path))
            raise UsageError(f"{shown} is a file that this command reads ({source}): give another store")
    check_place(path, may_make=True, any_name=any_name)
    _look_at(path)


def _check_distinct(paths: Iterable[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        if str(path) == "/dev/null":
            continue
        first = seen.setdefault(str(path.resolve()), path)
        if first is not path:
            shown = " and ".join(escape_controls(str(one)) for one in (first, path))
            raise UsageError(f"two outputs are one file, {shown}: give each a name of its own")
