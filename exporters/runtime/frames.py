"""Messages between this process and the child that runs the model: one JSON header and raw buffers.

Layout of a message, little-endian: 4 bytes magic, uint32 length of the header, the header (JSON, UTF-8), then
the buffers one after the other; the header's "buffers" lists their lengths in bytes.
"""

import itertools
import json
import struct
from collections.abc import Callable, Sequence
from typing import IO

MAGIC = b"EMG1"
PREFIX = struct.Struct("<4sI")
MAX_HEADER = 1 << 28
"""Bytes; a header of 200 000 tensors takes about 20 MB."""

Buffer = bytes | memoryview


class FrameError(Exception):
    """The other side does not speak the protocol, or asks for more than is allowed."""


def pack(header: dict[str, object], buffers: Sequence[Buffer]) -> list[Buffer]:
    """The pieces to write, in order, for one message; the buffers are not copied."""
    views = [memoryview(buffer).cast("B") if memoryview(buffer).nbytes else b"" for buffer in buffers]
    body = json.dumps({**header, "buffers": [len(view) for view in views]}).encode()
    if len(body) > MAX_HEADER:
        raise FrameError(f"header of {len(body)} bytes; expected at most {MAX_HEADER}")
    return [PREFIX.pack(MAGIC, len(body)), body, *views]


def receive(
    read: Callable[[int], bytes | bytearray], max_bytes: int
) -> tuple[dict[str, object], list[memoryview]]:
    """Read one message.

    Args:
        read: Gives exactly as many bytes as asked for.
        max_bytes: Most bytes that all buffers together may take; checked before they are allocated.

    Raises:
        FrameError: Not a message, or one that is too large.

    Returns:
        The header, and the buffers as views of one block.
    """
    magic, length = PREFIX.unpack(read(PREFIX.size))
    if magic != MAGIC or length > MAX_HEADER:
        raise FrameError("not a message of this protocol")
    header = json.loads(bytes(read(length)))
    sizes = header.pop("buffers")
    if any(size < 0 for size in sizes) or sum(sizes) > max_bytes:
        raise FrameError(f"buffers of {sum(sizes)} bytes; expected at most {max_bytes}")
    # one read for all: a model has thousands of small tensors
    body = memoryview(read(sum(sizes)))
    ends = itertools.accumulate(sizes)
    return header, [body[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def exact_reader(source: IO[bytes]) -> Callable[[int], bytes]:
    """Return what reads for `receive` from a blocking stream, and raises EOFError at its end."""

    def read(count: int) -> bytes:
        data = source.read(count)
        if len(data) != count:
            raise EOFError
        return data

    return read
