"""Which files are models: told by their content, folder by folder."""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emergraph.errors import EmergraphError, InvalidInputError, UsageError
from emergraph.exporters.formats import Format, Reader, format_of
from emergraph.exporters.onnxfile.links import is_below
from emergraph.exporters.pytorch.folderconfig import CONFIG
from emergraph.exporters.weightfiles.files import map_file
from emergraph.exporters.weightfiles.sharded import parts_of
from emergraph.graphstore.text import printable
from emergraph.paths import open_file, read_file

_NOT_READ = frozenset(
    {
        *("keras", "hdf5", "tflite", "ort", "ggml", "coreml", "mlpackage", "saved_model", "graph_def"),
        *("openvino", "msgpack", "tar_torch", "distcp"),
    }
)
"""Formats of models that this program tells apart, and does not read."""
_NO_MODELS = frozenset({"zip"})
"""Formats that a reader of weights refuses: there may be anything in them."""
_MOST_LIST_BYTES = 1 << 30
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model: a file, or a folder with what belongs together."""

    path: str
    parts: tuple[str, ...]
    """The files that its checksum is about; the path itself, if it is a file, is the first."""
    size: int
    """Bytes of all parts."""
    changed: int
    """Latest time of change of the parts, in nanoseconds."""
    format: str
    title: str
    """The format in words."""
    step: str = ""
    """Of a format that is not read: what to do instead."""

    def key(self) -> str:
        """Return the SHA-256 of the file; of several parts, of their names and checksums.

        Raises:
            InvalidInputError: A part cannot be read.
        """
        if len(self.parts) == 1:
            return _sha256(self.parts[0])
        whole = hashlib.sha256()
        for part in sorted(self.parts, key=lambda part: Path(part).name):
            whole.update(f"{Path(part).name}\0{_sha256(part)}\n".encode("utf-8", "surrogateescape"))
        return whole.hexdigest()


@dataclass(kw_only=True)
class Population:
    """What was found."""

    models: list[ModelFile] = field(default_factory=list)
    """By path."""
    others: Counter[str] = field(default_factory=Counter)
    """Files that are no models, by what they are."""


def find_models(place: Path, *, root: Path | None = None) -> Population:
    """Find all models in a folder and its folders, or in a list of paths.

    A folder with a config.json and weights is one model, an index with its parts likewise; what else is a
    model is one by itself. Links are passed over, unless they lead to somewhere below `root`.

    Args:
        place: A folder, or a text file with one path per line; relative ones are taken from the working
            folder.
        root: Folder inside which files may be links.

    Raises:
        InvalidInputError: There is nothing of that name.
        UsageError: It is neither a folder nor a text.
    """
    found = Population()
    folders: dict[Path, list[Path]] = {}
    if place.is_dir():
        for folder, file in _walk(place, root, found.others):
            folders.setdefault(folder, []).append(file)
    else:
        for path in _listed(place):
            if path.is_dir():
                for folder, file in _walk(path, root, found.others):
                    folders.setdefault(folder, []).append(file)
            else:
                folders.setdefault(path.parent, []).append(path)
    for folder in sorted(folders):
        _take(folder, sorted(set(folders[folder])), found)
    found.models.sort(key=lambda model: model.path)
    return found


def _walk(place: Path, root: Path | None, others: Counter[str]) -> Iterator[tuple[Path, Path]]:
    for name, folders, files in os.walk(place, onerror=lambda _: others.update(["unreadable folders"])):
        folders[:] = sorted(one for one in folders if not one.startswith(".emergraph-"))
        for file in files:
            path = Path(name, file)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                if root is not None and is_below(path, root) and path.is_file():
                    yield path.parent, path
                else:
                    others["links"] += 1
            elif stat.S_ISREG(mode):
                yield path.parent, path
            else:
                others["no regular files"] += 1


def _listed(place: Path) -> list[Path]:
    with open_file(place) as stream:
        head = memoryview(stream.read(1 << 16))
    if format_of(place.name, head).name not in ("text", "csv", "empty", "markdown", "script"):
        raise UsageError(
            f"{printable(str(place))}: expected a folder, or a text file with one path per line; for one "
            "model there is emergraph audit"
        )
    lines = read_file(place, limit=_MOST_LIST_BYTES).decode("utf-8", "surrogateescape").splitlines()
    return [Path(line) for line in lines if line.strip()]


def _take(folder: Path, files: Sequence[Path], found: Population) -> None:
    """Sort the files of one folder into models and others."""
    kinds: dict[Path, Format | None] = {path: _format_of(path) for path in files}
    weights = [path for path, kind in kinds.items() if kind is not None and kind.reader is Reader.WEIGHTS]
    weights = [path for path in weights if (kinds[path] or UNREAD).name not in _NO_MODELS]
    taken: set[Path] = set()
    if weights and folder / CONFIG in kinds:
        parts = [folder / CONFIG, *(path for path in weights if (kinds[path] or UNREAD).name != "npz")]
        if len(parts) > 1:
            taken.update(parts)
            found.models.append(_model(folder, parts, "folder", "a folder with a config.json"))
    for path in weights:
        if path not in taken and (kinds[path] or UNREAD).name == "index":
            parts = [path, *(part for part in _parts(path) if part in kinds)]
            taken.update(parts)
            found.models.append(_model(path, parts, "index", "the index of a sharded file"))
    for path, kind in kinds.items():
        if path in taken:
            continue
        if kind is None:
            found.models.append(_model(path, [path], "unreadable", "a file that cannot be read"))
        elif kind.reader in (Reader.ONNX, Reader.WEIGHTS) and kind.name not in _NO_MODELS:
            found.models.append(_model(path, [path, *_beside(path, kinds)], kind.name, kind.title))
        elif kind.name in _NOT_READ:
            found.models.append(_model(path, [path], kind.name, kind.title, kind.step))
        else:
            found.others[kind.title] += 1


UNREAD = Format(name="unreadable", title="", step="", sniff=lambda _: False)


def _format_of(path: Path) -> Format | None:
    """What a file is; None for one that cannot be read."""
    try:
        if not path.stat().st_size:
            return format_of(path.name, memoryview(b""))
        return format_of(path.name, map_file(path, printable(path.name)).content)
    except (OSError, ValueError, EmergraphError):
        return None


def _parts(index: Path) -> list[Path]:
    try:
        return [index.parent / name for name in parts_of(map_file(index, printable(index.name)))]
    except (OSError, ValueError, EmergraphError):
        return []


def _beside(path: Path, kinds: "dict[Path, Format | None]") -> list[Path]:
    """Files that hold the values of an ONNX model, by their names."""
    return [
        other
        for other, kind in kinds.items()
        if kind is not None and kind.name == "onnx_data" and other.name.startswith(path.name)
    ]


def _model(path: Path, parts: Sequence[Path], form: str, title: str, step: str = "") -> ModelFile:
    states = []
    for part in parts:
        try:
            states.append(part.stat())
        except OSError:
            continue
    return ModelFile(
        path=os.fspath(path),
        parts=tuple(map(os.fspath, parts)),
        size=sum(state.st_size for state in states),
        changed=max((state.st_mtime_ns for state in states), default=0),
        format=form,
        title=title,
        step=step,
    )


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open_file(path, noted=False) as stream:
        try:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        except OSError as error:
            raise InvalidInputError(f"{printable(path)}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()
