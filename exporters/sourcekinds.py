"""What a user has named as a model: files are told by their content, everything else by its form."""

import contextlib
from enum import StrEnum
from pathlib import Path

from emergraph.commandfiles import note_input
from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.names import printable


class SourceKind(StrEnum):
    """What a user has named."""

    ONNX = "onnx"
    WEIGHTS = "weights"
    FOLDER = "folder"
    """With a config.json."""
    GGUF = "gguf"
    """A file of weights whose metadata says what network they are of."""
    FACTORY = "factory"


def source_kind(model: str | Path) -> SourceKind:
    """What a user has named: files are told by their content, everything else by its form."""
    from emergraph.exporters.formats import Reader, format_of
    from emergraph.exporters.pytorch.folderconfig import CONFIG
    from emergraph.exporters.weightfiles.files import map_file
    from emergraph.exporters.weightfiles.plugged import format_plugins

    path = Path(model)
    if has_config(path):
        note_input((path / CONFIG).stat(), path / CONFIG)
        return SourceKind.FOLDER
    if path.is_dir():
        return SourceKind.WEIGHTS
    if path.is_file():
        mapped = map_file(path, printable(path.name))
        found = format_of(path.name, mapped.content)
        if found.name == "gguf":
            return SourceKind.GGUF
        reader = found.reader
        weights = reader is Reader.WEIGHTS or (reader is Reader.NONE and format_plugins().found)
        return SourceKind.WEIGHTS if weights else SourceKind.ONNX
    return SourceKind.FACTORY if not path.exists() and _names_factory(str(model)) else SourceKind.ONNX


def has_config(path: Path) -> bool:
    """Whether a path is a folder that says what model is in it."""
    from emergraph.exporters.pytorch.folderconfig import CONFIG

    return path.is_dir() and (path / CONFIG).is_file()


def _names_factory(model: str) -> bool:
    """Whether it is of the form package.module:callable, or FILE.py:callable with a file that is there."""
    target, separator, attribute = model.rpartition(":")
    if not separator or not attribute.replace(".", "").isidentifier():
        return False
    if target.endswith(".py"):
        return Path(target).is_file()
    return target.replace(".", "").isidentifier()


def note_files(model: Path, *, root: Path | None = None) -> None:
    """Note as inputs of the command all files that a model lies in, those that it names included.

    For commands whose children open them. What is wrong with a model is theirs to say. Links lead to
    somewhere below `root`, as for the command.
    """
    from emergraph.exporters.onnxfile.reader import read_onnx
    from emergraph.exporters.weightfiles.reader import read_weights

    with contextlib.suppress(EmergraphError):
        kind = source_kind(model)
        if kind is SourceKind.ONNX:
            read_onnx(model, root=root)
        elif kind is not SourceKind.FACTORY:
            read_weights(model, root=root)
