"""Regular files mapped into memory, read-only."""

import errno
import hashlib
import mmap
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

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
