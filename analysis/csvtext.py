"""CSV dialects: the encoding, and what separates the fields."""

import codecs
import csv
import itertools
from collections.abc import Iterator

from emergraph.errors import InvalidInputError

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
"""By the names that they have on the command line."""

_SAMPLE_CHARACTERS = 1 << 16
_SAMPLE_ROWS = 50
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def utf8_text(content: bytes, source: str) -> bytes:
    """Return a table's text as UTF-8 with the line ends of Unix, without a mark of its encoding.

    Args:
        content: UTF-8, or UTF-16 and UTF-32 as spreadsheets write them, with a mark or without.
        source: For messages.

    Raises:
        InvalidInputError: It is in another encoding.
    """
    encoding = next((name for bom, name in _BOMS if content.startswith(bom)), None) or _unmarked(content)
    if encoding is not None:
        try:
            content = content.decode(encoding).encode()
        except UnicodeError as error:
            raise InvalidInputError(f"{source}: begins as {encoding.upper()}, but is not: {error}") from error
    if b"\n" not in content and b"\r" in content:
        return content.replace(b"\r", b"\n")
    return content.replace(b"\r\n", b"\n")


def _unmarked(content: bytes) -> str | None:
    """UTF-16 without a mark: every other byte of Latin text is zero."""
    head = content[:1024]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if len(head) < 4 or max(even, odd) <= len(head) // 4:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def guess_separator(content: bytes) -> str:
    r"""Return the separator that cuts the first rows into equally many fields, most of them; else a comma.

    The first row, the names of the columns, counts most: it has no decimal commas.

    Example:
        >>> guess_separator(b"a;b\n1,5;2\n"), guess_separator(b"a\n1,5\n")
        (';', ',')
    """
    text = content[:_SAMPLE_CHARACTERS].decode("utf-8", "replace")
    best, most = ",", (False, 1)
    for separator in SEPARATORS.values():
        counts = [len(row) for row in itertools.islice(_rows(text, separator), _SAMPLE_ROWS)]
        if not counts or counts[0] < 2:
            continue
        found = (all(count == counts[0] for count in counts[:-1]), counts[0])
        if found > most:
            best, most = separator, found
    return best


def surplus_row(content: bytes, separator: str) -> int | None:
    """Return the first row, from 1 below the names, with more in it than there are names; None for none.

    Empty fields at its end, as from a separator behind the last field, are not more.
    """
    rows = _rows(content.decode("utf-8", "replace"), separator)
    width = len(next(rows, []))
    for number, row in enumerate(rows, start=1):
        if any(field.strip() for field in row[width:]):
            return number
    return None


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    rows = csv.reader(text.splitlines(keepends=True), delimiter=separator)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error:  # a field that is larger than a field is ever
            return
        if row:
            yield row
