"""Opening files that somebody else named: regular files only, mapped into memory."""

import errno
import hashlib
import mmap
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.onnxfile.findings import refusal
from emergraph.exporters.onnxfile.names import printable
from emergraph.paths import NotRegularError, open_descriptor

MAX_PROTOBUF_BYTES = (1 << 31) - 1
"""Bytes that a protobuf message may have."""
OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of the system that a higher limit of files or address space would avoid."""
_HASH_CHUNK = 1 << 20

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive (a PyTorch file or an .npz?)"),
    (0, b"\x1f\x8b", "gzip-compressed; unpack it first"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"DUCK", "a DuckDB file"),
    (8, b"DUCK", "a DuckDB file"),
    (4, b"ORTM", "an ORT-format model; convert it back to .onnx"),
    (4, b"TFL3", "a TFLite model"),
    (0, b"version https://git-lfs", "a Git LFS pointer; run `git lfs pull`"),
    (0, b"\x80\x02", "a pickle (a PyTorch file?)"),
    (0, b"\x80\x04", "a pickle (a PyTorch file?)"),
    (8, b'{"', "a safetensors file"),
)


@dataclass(frozen=True)
class MappedFile:
    """A regular file, mapped read-only. The mapping lives as long as anything refers to its bytes."""

    path: Path
    size: int
    content: memoryview = field(repr=False, compare=False)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the content as hexadecimal digits, computed on first use, streamed."""
        digest = hashlib.sha256()
        for at in range(0, self.size, _HASH_CHUNK):
            digest.update(self.content[at : at + _HASH_CHUNK])
        return digest.hexdigest()


def map_descriptor(descriptor: int, path: Path, status: os.stat_result) -> MappedFile:
    """Map an open regular file and close the descriptor.

    Raises:
        OSError: It cannot be mapped, for lack of descriptors or address space.
    """
    try:
        if status.st_size == 0:
            return MappedFile(path, 0, memoryview(b""))
        mapping = mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ)
        return MappedFile(path, status.st_size, memoryview(mapping))
    finally:
        os.close(descriptor)


def map_model(path: Path) -> MappedFile:
    """Open and map the file that a user named.

    Raises:
        InvalidInputError: No such file, no permission, a folder, a pipe or a device, empty, larger than
            protobuf allows, or visibly another format.
        LimitError: The process may not map or open that much.
    """
    shown = printable(str(path), 200)
    try:
        descriptor, status = open_descriptor(path)
    except NotRegularError as error:
        raise InvalidInputError(f"{shown} is {error.kind}; expected a model file") from None
    except FileNotFoundError:
        raise InvalidInputError(f"no such file: {shown}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInputError(f"cannot open {shown}: {reason}") from None
    if not 0 < status.st_size <= MAX_PROTOBUF_BYTES:
        os.close(descriptor)
        if status.st_size == 0:
            raise refusal("ONNX-FILE-EMPTY", "the file is empty; fetch it again")
        raise refusal(
            "ONNX-FILE-SIZE",
            f"{status.st_size} bytes, but an ONNX file holds at most 2 GiB; save it with external data",
        )
    try:
        mapped = map_descriptor(descriptor, path, status)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, OSError) and error.errno in OUT_OF_RESOURCES:
            raise LimitError(f"cannot map {shown}: {reason}; raise `ulimit`") from None
        raise InvalidInputError(f"cannot map {shown}: {reason}") from None
    refuse_other_formats(mapped.content)
    return mapped


def refuse_other_formats(content: memoryview) -> None:
    """Name the format of a file that starts like something other than a protobuf message.

    Raises:
        InvalidInputError: The file is visibly something else.
    """
    head = bytes(content[:512])
    for at, signature, name in _SIGNATURES:
        if head[at : at + len(signature)] == signature:
            raise refusal("ONNX-FILE-FORMAT", f"not an ONNX model but {name}")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        raise refusal(
            "ONNX-FILE-FORMAT", "not an ONNX model but a web page or XML; was the download a login page?"
        )
    if text.startswith(b"{") and b'"' in text:
        raise refusal("ONNX-FILE-FORMAT", "not an ONNX model but JSON text")
