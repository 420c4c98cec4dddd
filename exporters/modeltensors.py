"""The tensors of a model that a user names, for graphs whose weights stayed in it.

A store knows a tensor by its name, type, shape and checksum, and only the values have to fit: a model may
have been moved, renamed, or cut into other shards since. Nothing is opened but what the user named.
"""

import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from emergraph.errors import InvalidInputError
from emergraph.exporters.codings import decoded
from emergraph.exporters.counts import bytes_of
from emergraph.exporters.filetensors import blank
from emergraph.exporters.onnxfile.dtypes import BY_NAME
from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.onnxfile.traverse import bodies, body_tensors
from emergraph.exporters.sourcekinds import SourceKind, source_kind
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.exporters.weightfiles.weightfile import WeightFile
from emergraph.graphstore.inplace import Entries
from emergraph.graphstore.modelfiles import Coding, WantedTensor

Array = NDArray[np.generic]
Stamps = tuple[tuple[str, int, int], ...]
"""Of each file of a model: path, bytes, and time of the last change in nanoseconds."""
_DIGITS = 12


@dataclass(eq=False)
class _Candidate:
    """A tensor of the model."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    held: Callable[[], Array | None] = field(repr=False)
    read: Callable[[], Array] = field(repr=False)
    sha256: str | None = None
    """Computed when the values are first read."""

    def values(self) -> Array:
        """The values in C order; no copy of what the file holds as such."""
        found = self.held()
        return np.ascontiguousarray(self.read()) if found is None else found

    def digest(self) -> str:
        """The checksum of the values."""
        if self.sha256 is None:
            self.sha256 = hashlib.sha256(bytes_of(self.values())).hexdigest()
        return self.sha256


class ModelTensors:
    """The tensors of an opened model, found by checksum; made by `open_model`. It is a `TensorFiles`.

    What is sent to another process is where it lies: that opens the files itself, and computes no checksum
    again where they are the same as here.
    """

    def __init__(self, paths: Sequence[Path], root: Path | None, *, verify: bool) -> None:
        self._paths, self._root = tuple(path.absolute() for path in paths), root
        opened = [_opened(path, root) for path in paths]
        candidates = [one for found, _ in opened for one in found]
        self._stamps = tuple(_stamp(file) for _, files in opened for file in files)
        self._shown = printable(", ".join(map(str, paths)), 100)
        self._verify = verify
        self._by_name = {one.name: one for one in reversed(candidates)}
        self._by_kind: dict[tuple[str, tuple[int, ...]], list[_Candidate]] = defaultdict(list)
        for one in candidates:
            self._by_kind[one.dtype, one.shape].append(one)
        self._found: dict[str, _Candidate] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Callable[..., "ModelTensors"], tuple[object, ...]]:
        """Travel as paths, and as names of the tensors that were found."""
        known = tuple((one.name, sha256) for sha256, one in list(self._found.items()))
        return _opened_elsewhere, (self._paths, self._root, self._stamps, known)

    def expect(self, wanted: Sequence[WantedTensor]) -> None:
        """Check that there is a tensor of the type and shape of each; with `verify`, their values, too.

        Raises:
            InvalidInputError: One is missing or differs.
        """
        for one in wanted:
            if not self._by_kind.get((one.dtype, one.shape)):
                raise self._missing(one)
        for one in wanted if self._verify else ():
            self.values(one)

    def values(self, wanted: WantedTensor) -> Array:
        """Return the values of a tensor; its checksum is computed when it is read for the first time.

        Raises:
            InvalidInputError: The model has no such tensor, or one with other values.
            ValueError: How they are made is not defined.
        """
        if wanted.made is not None:
            made = decoded(wanted.made, self.values).array()
            return made.astype(BY_NAME[wanted.dtype].dtype, copy=False).reshape(wanted.shape)
        with self._lock:
            found = self._found.get(wanted.sha256)
            if found is None:
                found = self._found[wanted.sha256] = self._find(wanted)
        return found.values()

    def entries(self, coding: Coding) -> Entries:
        """Return numbers that follow from tensors, computed when they are asked for; see `TensorFiles`.

        Raises:
            InvalidInputError: The model has no such tensor, or one with other values.
            ValueError: The coding is not defined, or does not fit the tensors.
        """
        return decoded(coding, self.values).entries

    def believe(self, known: Sequence[tuple[str, str]], stamps: Stamps) -> None:
        """Take checksums from another process, if it has read the same files.

        Args:
            known: Names and checksums of tensors.
            stamps: Of the files that it has read.
        """
        for name, sha256 in known if stamps == self._stamps else ():
            self._by_name[name].sha256 = sha256

    def _find(self, wanted: WantedTensor) -> _Candidate:
        alike = self._by_kind.get((wanted.dtype, wanted.shape), [])
        for one in sorted(alike, key=lambda one: one.name != wanted.name):
            if one.digest() == wanted.sha256:
                return one
        raise self._missing(wanted)

    def _missing(self, wanted: WantedTensor) -> InvalidInputError:
        name, shape = printable(wanted.name, 60), list(wanted.shape)
        named = self._by_name.get(wanted.name)
        expected = f"{printable(wanted.dtype)} {shape} with SHA-256 {wanted.sha256[:_DIGITS]}..."
        if named is None:
            found = "it has no tensor of that name, and none with these values"
        elif (named.dtype, named.shape) != (wanted.dtype, wanted.shape):
            found = f"found {printable(named.dtype)} {list(named.shape)}"
        else:
            found = f"found SHA-256 {named.digest()[:_DIGITS]}..., so other values"
        return InvalidInputError(
            f"{self._shown}: tensor {name} of the graph is {expected}; {found}; give the model "
            "that was exported, or export this one"
        )


class BlankTensors:
    """A model of zeros, for probes of how long a pass over the real one takes. It is a `TensorFiles`."""

    def expect(self, wanted: Sequence[WantedTensor]) -> None:
        """Any tensor will do."""

    def values(self, wanted: WantedTensor) -> Array:
        """Return zeros, which take no memory as long as they are not all read.

        Raises:
            ValueError: There is no such type, or no such size.
        """
        if wanted.dtype not in BY_NAME:
            raise ValueError(f"a tensor of type {wanted.dtype!r}")
        return blank(wanted.shape, np.dtype(BY_NAME[wanted.dtype].dtype))

    def entries(self, coding: Coding) -> Entries:
        """Return what follows from zeros.

        Raises:
            ValueError: The coding is not defined, or does not fit its tensors.
        """
        return decoded(coding, self.values).entries


def open_model(*paths: str | Path, root: Path | None = None, verify: bool = False) -> ModelTensors:
    """Open a model, or several, for graphs whose weights stayed in it; no value is read yet.

    Args:
        paths: ONNX files, weight files, indexes of shards, or folders.
        root: Folder inside which files of the model may be links.
        verify: Check all tensors of a graph before the first is used, instead of each when it is read.

    Raises:
        InvalidInputError: It is no model.
        UnsafeInputError: It asks for something that is refused.
    """
    return ModelTensors([Path(path) for path in paths], root, verify=verify)


@lru_cache(maxsize=2)
def _opened_once(paths: tuple[Path, ...], root: Path | None, _stamps: Stamps) -> ModelTensors:
    return ModelTensors(paths, root, verify=False)


def _opened_elsewhere(
    paths: tuple[Path, ...], root: Path | None, stamps: Stamps, known: Sequence[tuple[str, str]]
) -> ModelTensors:
    """Open, once in each process, what another process has opened and found tensors in."""
    files = _opened_once(paths, root, stamps)
    files.believe(known, stamps)
    return files


def _opened(path: Path, root: Path | None) -> tuple[list[_Candidate], list[Path]]:
    """The tensors of a model, and the files that they are in."""
    if source_kind(path) is SourceKind.ONNX:
        file = read_onnx(path, root=root)
        return list(_of_onnx(file)), [path, *(one.path for one in file.external_files.values())]
    weights = read_weights(path, root=root)
    folder = path if path.is_dir() else path.parent
    return list(_of_weights(weights)), [folder / name for name in weights.files]


def _stamp(file: Path) -> tuple[str, int, int]:
    """What tells a file from another one in its place; of one that is gone, nothing that is found again."""
    try:
        status = file.stat()
    except OSError:
        return str(file.absolute()), -1, time.monotonic_ns()
    return str(file.absolute()), status.st_size, status.st_mtime_ns


def _of_weights(weights: WeightFile) -> Iterator[_Candidate]:
    for name, tensor in weights.tensors.items():
        if tensor.alias_of is None:
            yield _Candidate(name, tensor.dtype, tensor.shape, tensor.held, tensor.array)


def _of_onnx(file: OnnxFile) -> Iterator[_Candidate]:
    for body in bodies(file.model):
        for proto in body_tensors(body):
            if isinstance(proto, TensorProto):
                tensor = file.tensor_of(proto)
                yield _Candidate(tensor.name, tensor.dtype, tensor.shape, tensor.held, tensor.array)
