"""Values outside the model file: plain relative paths, below the model's folder, regular files only.

The path is walked one component at a time, each opened below the one before it without following links, so
that what is checked is what is read.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emergraph.errors import EmergraphError
from emergraph.exporters.mappedfile import OUT_OF_RESOURCES, MappedFile, map_descriptor
from emergraph.exporters.onnxfile.findings import refusal
from emergraph.exporters.onnxfile.links import refuse_link
from emergraph.exporters.onnxfile.names import printable
from emergraph.paths import NotRegularError, open_descriptor

KNOWN_KEYS = frozenset({"location", "offset", "length", "checksum", "basepath"})
"""Keys of external data that ONNX defines, and the one that its writers add."""
_MAX_PATH = 4096
_MAX_DIGITS = 19
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True)
class ExternalFiles:
    """The files beside a model; each is opened and mapped once."""

    folder: Path
    """The model's folder; locations are relative to it."""
    root: Path | None = None
    """If given, links may be followed as long as they stay below this folder."""
    opened: dict[str, MappedFile] = field(default_factory=dict, compare=False)
    """Mapped files by their path below the folder."""

    def values(self, entries: Mapping[str, str], n_bytes: int, where: str) -> memoryview:
        """Return the bytes that an `external_data` entry names.

        Args:
            entries: `location`, and optionally `offset` and `length`, as text.
            n_bytes: Bytes that the tensor's shape and type need.
            where: The tensor, for messages.

        Raises:
            UnsafeInputError: The location leads outside, or to something that is not a regular file.
            InvalidInputError: The file is missing, or the range does not fit it or the tensor.
        """
        location = entries.get("location", "")
        offset = _number(entries, "offset", where) or 0
        length = _number(entries, "length", where)
        parts = _checked_parts(location, where)
        path = "/".join(parts)
        mapped = self.opened.get(path)
        if mapped is None:
            mapped = self.opened[path] = self._open(parts, where)
        available = mapped.size - offset
        shown = printable(location)
        if available < 0 or (length is not None and length > available):
            raise refusal(
                "ONNX-EXT-RANGE",
                f"bytes {offset} .. {offset + (length or 0)} of {shown}, which has {mapped.size}",
                where,
            )
        found = available if length is None else length
        if found != n_bytes:
            raise refusal(
                "ONNX-EXT-RANGE", f"{found} bytes in {shown} where shape and type need {n_bytes}", where
            )
        return mapped.content[offset : offset + found]

    def _open(self, parts: tuple[str, ...], where: str) -> MappedFile:
        folder, shown = self.folder, printable("/".join(parts))
        if self.root is not None:
            folder, parts = self._below_root(parts, where)
        path = folder.joinpath(*parts)
        try:
            descriptor, status = _open_below(folder, parts)
            return self._map_checked(descriptor, status, path, shown, where)
        except NotRegularError as error:
            message = f"{shown} is {error.kind}, not a regular file"
            raise refusal("ONNX-EXT-SPECIAL", message, where) from None
        except (OSError, ValueError) as error:
            raise self._cannot_open(error, folder, parts, where) from None

    def _cannot_open(
        self, error: Exception, folder: Path, parts: tuple[str, ...], where: str
    ) -> EmergraphError:
        shown = printable("/".join(parts))
        if isinstance(error, OSError) and error.errno in OUT_OF_RESOURCES:
            message = f"cannot map {shown} beside {len(self.opened)} others: {error.strerror}; raise `ulimit`"
            return refusal("ONNX-EXT-COUNT", message, where)
        links = (folder.joinpath(*parts[:n]) for n in range(1, len(parts) + 1))
        link = next((path for path in links if _is_link(path)), None)
        if link is not None:
            return refuse_link("ONNX-EXT-SYMLINK", link, where)
        reason = getattr(error, "strerror", None) or str(error)
        return refusal("ONNX-EXT-MISSING", f"cannot open {shown}: {reason}", where)

    def _below_root(self, parts: tuple[str, ...], where: str) -> tuple[Path, tuple[str, ...]]:
        root = Path(os.path.realpath(self.root or self.folder))
        target = Path(os.path.realpath(self.folder.joinpath(*parts)))
        if not target.is_relative_to(root) or target == root:
            raise refuse_link("ONNX-EXT-OUTSIDE", self.folder.joinpath(*parts), where)
        return root, target.relative_to(root).parts

    def _map_checked(
        self, descriptor: int, status: os.stat_result, path: Path, shown: str, where: str
    ) -> MappedFile:
        if status.st_nlink > 1:
            os.close(descriptor)
            raise refusal(
                "ONNX-EXT-HARDLINK",
                f"{shown} has {status.st_nlink} hard links, so it may be a file from elsewhere; copy it",
                where,
            )
        return map_descriptor(descriptor, path, status)


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:  # a name that is too long
        return False


def _open_below(folder: Path, parts: tuple[str, ...]) -> tuple[int, os.stat_result]:
    """Open a file below a folder, one component at a time, without following links."""
    descriptor = os.open(folder, _FOLDER)
    try:
        for part in parts[:-1]:
            parent = descriptor
            descriptor = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
            os.close(parent)
        return open_descriptor(parts[-1], follow=False, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _checked_parts(location: str, where: str) -> tuple[str, ...]:
    """Return the components of a plain relative path.

    Raises:
        UnsafeInputError: The location is anything else.
    """
    problem = None
    if not location or len(location) > _MAX_PATH:
        problem = "is empty" if not location else f"has {len(location)} characters"
    elif "\0" in location or "\\" in location:
        problem = "has a NUL or a backslash"
    elif location.startswith("/") or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", location):
        problem = "is absolute or a URL"
    parts = tuple(part for part in location.split("/") if part not in {"", "."})
    if problem is None and ".." in parts:
        raise refusal("ONNX-EXT-OUTSIDE", f"{printable(location)} leads outside the model's folder", where)
    if problem is None and not parts:
        problem = "names no file"
    if problem is not None:
        raise refusal(
            "ONNX-EXT-LOCATION",
            f"location {printable(location)!r} {problem}; expected a path below the model",
            where,
        )
    return parts


def _number(entries: Mapping[str, str], key: str, where: str) -> int | None:
    text = entries.get(key)
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise refusal("ONNX-EXT-RANGE", f"{key} {printable(text)!r} is not a size in bytes", where)
    return int(text)
