"""Data that hides in tensors: text, programs and archives in their bytes, low bytes or lowest bits."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.subject import Subject, stored_tensors
from emergraph.analysis.audit.words import count
from emergraph.exporters.runtime.quoting import quoted
from emergraph.exporters.weightfiles.encodings.bitsandbytes import is_settings

Array = NDArray[np.generic]
Bytes = NDArray[np.uint8]

TEXT = 48
"""So many bytes in a row that read as text are no chance."""
_LETTERS = 0.5
_SPACES = 0.08
_ENCODED = 0.97
"""Shares of letters and spaces in words and code, and of the characters of base64, numbers and addresses."""
_DISTINCT = 8
_RUN = re.compile(rb"[\x20-\x7e\n\t]{%d,}" % TEXT)
_MAGIC = {
    "a program for Linux": re.compile(rb"\x7fELF[\x01\x02][\x01\x02]\x01"),
    "a program for Windows": re.compile(rb"MZ[\s\S]{58}[\s\S]\x00\x00\x00[\s\S]{0,448}?PE\x00\x00"),
    "a zip archive": re.compile(rb"PK\x03\x04[\x00-\x3f]\x00[\x00-\xff][\x00\x08][\x00\x08]\x00"),
    "a 7z archive": re.compile(rb"7z\xbc\xaf\x27\x1c"),
    "a PNG image": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "a PDF document": re.compile(rb"%PDF-1\.\d"),
    "a shell script": re.compile(rb"#! ?/(usr/)?bin/(env )?[a-z]"),
}
MIN_ELEMENTS = 4096
"""Elements from which on the lowest bits of a tensor have a distribution."""
LOST_BITS = 0.5
"""Trained float32 weights have 8 bits of entropy in their lowest byte (fewer where all were rounded), less
what few elements lose: this much is more than that."""
FULL = 0.02
"""Where the low bits of most numbers are zero (rounded to 16 bits once), those of others should be, too: a
larger share than this is odd."""


@dataclass(frozen=True)
class Hidden:
    """Something found in the bytes of a tensor."""

    id: str
    what: str
    where: str
    """"the bytes", "the lowest bytes" or "the lowest bits"."""


def hidden(subject: Subject) -> Iterator[AuditFinding]:
    """Look into the bytes of all tensors."""
    for name, dtype, values in subject.in_time(stored_tensors(subject)):
        if values.dtype == np.uint8 and is_settings(name, values.tobytes()):
            continue
        for found in hidden_in(dtype, values):
            sentence = f"Tensor {quoted(name)} holds {found.what} in {found.where} of its numbers."
            yield AuditFinding(
                id=found.id,
                sentence=sentence,
                key=(dtype, list(values.shape), found.where, found.what),
                tensors=[name],
                evidence={"what": found.what, "where": found.where},
            )


def hidden_in(dtype: str, values: Array) -> Iterator[Hidden]:
    """Yield what the bytes of a tensor hold besides numbers."""
    if values.size < TEXT // 8 or values.dtype.kind not in "fiuV":
        return
    raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    width = values.dtype.itemsize
    planes = {"the bytes": raw}
    if values.dtype.kind in "fV" and width > 1:
        planes["the lowest bytes"] = raw[::width]
    if values.dtype.kind in "fV" or width == 1:
        lowest = raw[::width] & 1
        planes["the lowest bits"] = np.packbits(lowest)
        planes["the lowest bits "] = np.packbits(lowest, bitorder="little")
    for where, plane in planes.items():
        yield from _in_bytes(plane, where.strip())
    if dtype == "float32" and values.size >= MIN_ELEMENTS:
        yield from _in_bits(np.ascontiguousarray(values).reshape(-1))


def _in_bytes(plane: Bytes, where: str) -> Iterator[Hidden]:
    data = plane.tobytes()
    for what, pattern in _MAGIC.items():
        if pattern.search(data):
            yield Hidden("HIDDEN-FILE", f"the beginning of {what}", where)
    texts = [match.group() for match in _RUN.finditer(data) if reads_as_text(match.group())]
    if texts:
        n = sum(map(len, texts))
        yield Hidden("HIDDEN-TEXT", f"{count(n, 'byte')} of text ({_shown(texts[0])})", where)


def reads_as_text(run: bytes) -> bool:
    """Whether printable bytes are words, or of an alphabet such as base64, and not few of them repeated.

    Bytes that happen to be printable, as the lowest ones of weights can be that training has hardly moved,
    have neither spaces nor an alphabet.
    """
    letters = sum(chr(byte).isalnum() for byte in run)
    spaces = sum(byte in b" \t\n" for byte in run)
    encoded = letters + sum(byte in b"+/=_-:.?&%@" for byte in run)
    words = letters + spaces >= _LETTERS * len(run) and spaces >= _SPACES * len(run)
    return len(set(run)) >= _DISTINCT and (words or encoded >= _ENCODED * len(run))


def _shown(text: bytes) -> str:
    return quoted(text[:32].decode("ascii"))


def _in_bits(values: Array) -> Iterator[Hidden]:
    words = values[np.isfinite(values) & (values != 0)].view(np.uint32)
    if len(words) < MIN_ELEMENTS:
        return
    rounded = share_of_rounded(words)
    if 0.5 <= rounded < 1:
        full = 1 - rounded
        if full <= FULL or len(np.unique(words)) < len(words) // 4:
            odd = np.flatnonzero(words & 0x1FFF)
            if len(odd) >= 8 and np.diff(odd).size and np.median(np.diff(odd)) == 1:
                yield Hidden(
                    "HIDDEN-BITS",
                    f"{count(len(odd), 'number')} in a row that were not rounded",
                    "the lowest bits",
                )
        return
    if rounded == 1 or len(np.unique(words)) < len(words) // 2:
        return
    lowest = words & 0xFF
    free = free_bits(int(np.bitwise_or.reduce(lowest)))
    bits = entropy(np.bincount(lowest, minlength=256))
    if free and bits < free - LOST_BITS:
        yield Hidden("HIDDEN-BITS", f"{bits:.2f} bits where {free} are expected", "the lowest bytes")


def free_bits(seen: int) -> int:
    """Return how many bits of a lowest byte vary, when rounding left the last ones at zero.

    Args:
        seen: All lowest bytes, or-ed.

    Example:
        >>> free_bits(0b1111_1111), free_bits(0b1000_0000), free_bits(0)
        (8, 1, 0)
    """
    return 8 - (seen & -seen).bit_length() + 1 if seen else 0


def share_of_rounded(words: NDArray[np.uint32]) -> float:
    """Share of float32 numbers whose low 13 bits are zero, as those of float16 and bfloat16 are."""
    return float(np.count_nonzero((words & 0x1FFF) == 0) / len(words))


def entropy(counts: NDArray[np.int64]) -> float:
    """Bits per symbol of a distribution."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
