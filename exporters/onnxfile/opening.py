"""Opening untrusted paths: regular files only, mapped into memory."""

import errno
import hashlib
import mmap
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.formats import Reader, format_of
from emergraph.exporters.onnxfile.findings import refusal
from emergraph.exporters.onnxfile.names import printable
from emergraph.paths import NotRegularError, open_descriptor

MAX_PROTOBUF_BYTES = (1 << 31) - 1
"""Bytes that a protobuf message may have."""
OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of the system that a higher limit of files or address space would avoid."""
_HASH_CHUNK = 1 << 20


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
        OSError: It cannot be mapped, because descriptors or address space ran out.
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
    if status.st_size == 0:
        os.close(descriptor)
        raise refusal("FILE-EMPTY", "the file is empty; fetch it again")
    try:
        mapped = map_descriptor(descriptor, path, status)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, OSError) and error.errno in OUT_OF_RESOURCES:
            raise LimitError(f"cannot map {shown}: {reason}; raise `ulimit`") from None
        raise InvalidInputError(f"cannot map {shown}: {reason}") from None
    found = format_of(path.name, mapped.content)
    if found.reader is not Reader.ONNX:
        # what looks into files of all formats is built on this module
        from emergraph.exporters.weightfiles.wrongformat import wrong_format

        raise wrong_format(found, mapped, expected="an ONNX model")
    if mapped.size > MAX_PROTOBUF_BYTES:
        raise refusal(
            "ONNX-FILE-SIZE",
            f"{mapped.size} bytes, but an ONNX file holds at most 2 GiB; save it with external data",
        )
    return mapped
