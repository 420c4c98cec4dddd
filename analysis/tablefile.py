"""Tables that users bring, Parquet and CSV: the one place that reads them, and its numbers."""

import codecs
import csv
import io
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from emergraph.errors import InvalidInputError, LimitError, UsageError
from emergraph.graphstore.text import first_line, printable
from emergraph.paths import open_file

# CSV dialects: the encoding, and what separates the fields.

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


MAX_ROWS = 200_000_000
MAX_TABLE_BYTES = 4 << 30
"""What a table may take in memory, as far as it says before it is read."""
MAX_TEXT_BYTES = 1 << 30
"""Bytes of a CSV file."""

_PARQUET = b"PAR1"
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_TEXT_WIDTH = 16
"""Of a text or of bytes: where it is and how long."""
LARGEST = 1e100
"""Largest magnitude in a table: sums of squares of its numbers must not leave the doubles."""
_NOT_A_NUMBER = ("nan", "+nan", "-nan", "#n/a", "1.#qnan", "-1.#ind")
_MISSING = ("", "na", "n/a", "null", "none")


@dataclass(frozen=True, eq=False)
class UserTable:
    """A table as it was read."""

    frame: pl.DataFrame
    notes: tuple[str, ...] = ()
    """What was guessed."""


def read_table(path: str | Path, *, separator: str | None = None) -> UserTable:
    """Read a Parquet or CSV file; "-" is standard input. What the file is, its first bytes say.

    CSV may be in UTF-8 or UTF-16, with a mark or without, with the line ends of any system and a separator
    at the end of each row.

    Args:
        path: The file.
        separator: Name (comma, semicolon, tab, pipe) or character; guessed from the first rows by default.

    Raises:
        UsageError: There is no such separator.
        InvalidInputError: There is no such file, or it is neither.
        LimitError: It is larger, or says that it will be, than memory is meant for.
    """
    name = "stdin" if str(path) == "-" else printable(str(path))
    between = None if separator is None else _separator(separator)
    try:
        if str(path) == "-":
            return _from_file(io.BytesIO(_bytes_of(sys.stdin.buffer, name)), name, between)
        with open_file(path, stream=True) as file:
            if file.seekable():
                return _from_file(file, name, between)
            return _from_file(io.BytesIO(_bytes_of(file, name)), name, between)
    except (
        OSError,
        UnicodeDecodeError,
        pa.ArrowException,
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
    ) as error:
        raise InvalidInputError(
            f"{name}: neither Parquet nor CSV that can be read: {first_line(error)}"
        ) from error


def numbers(frame: pl.DataFrame, column: str) -> pl.Series:
    """Return a column as floats: "nan" in any letters is NaN; empty, "NA" and "null" are missing.

    Raises:
        InvalidInputError: An entry is not a number, or one whose square has no place in a double; the message
            names its row and column.
    """
    found = _floats(frame[column], column)
    huge = (found.abs() > LARGEST) & found.is_finite()
    if huge.any():
        row = int(huge.arg_true()[0])
        raise InvalidInputError(
            f"row {row + 1}, column '{printable(column)}': {found[row]:g}, "
            f"expected numbers between -{LARGEST:g} and {LARGEST:g}"
        )
    return found


def _floats(values: pl.Series, column: str) -> pl.Series:
    if values.dtype.is_numeric() or values.dtype == pl.Null:
        return values.cast(pl.Float64)
    if values.dtype != pl.String:
        raise InvalidInputError(f"column '{printable(column)}' holds {values.dtype}, expected numbers")
    texts = values.str.strip_chars()
    lowered = texts.str.to_lowercase()
    found = texts.cast(pl.Float64, strict=False)
    found = found.zip_with(~lowered.is_in(_NOT_A_NUMBER).fill_null(value=False), pl.Series([float("nan")]))
    wrong = found.is_null() & lowered.is_not_null() & ~lowered.is_in(_MISSING)
    if wrong.any():
        row = int(wrong.arg_true()[0])
        raise InvalidInputError(_no_number(texts[row], row + 1, column))
    return found


def _no_number(text: str, row: int, column: str) -> str:
    shown = printable(text, limit=40)
    where = f"row {row}, column '{printable(column)}': '{shown}'"
    pointed = text.replace(",", ".")
    try:
        float(pointed)
    except ValueError:
        return f"{where} is not a number"
    return f"{where} has a decimal comma; write {printable(pointed, limit=40)}"


def _separator(text: str) -> str:
    found = SEPARATORS.get(text.lower(), "\t" if text == r"\t" else text)
    if len(found.encode()) != 1 or found in '"\r\n':
        raise UsageError(
            f"--separator {printable(text, limit=20)}: expected {', '.join(SEPARATORS)}, or one character"
        )
    return found


def _bytes_of(file: BinaryIO, name: str) -> bytes:
    content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise LimitError(f"{name}: more than {MAX_TEXT_BYTES >> 20} MiB; take a part of it, or Parquet")
    return content


def _from_file(file: BinaryIO, name: str, separator: str | None) -> UserTable:
    start = file.read(len(_PARQUET))
    file.seek(0)
    if start == _PARQUET:
        _check_size(pq.ParquetFile(file).metadata, name)
        file.seek(0)
        return UserTable(pl.read_parquet(file))
    return _from_csv(utf8_text(_bytes_of(file, name), name), name, separator)


def _check_size(metadata: pq.FileMetaData, name: str) -> None:
    """Refuse by what the file says of itself: its bytes may be few, since repeated values take none."""
    if metadata.num_rows > MAX_ROWS:
        raise LimitError(f"{name}: {metadata.num_rows} rows, at most {MAX_ROWS} are read; take a part of it")
    taken = 0
    for group in range(metadata.num_row_groups):
        for k in range(metadata.num_columns):
            column = metadata.row_group(group).column(k)
            width = _WIDTHS.get(column.physical_type, _TEXT_WIDTH)
            taken += max(column.num_values * width, column.total_uncompressed_size)
    if taken > MAX_TABLE_BYTES:
        raise LimitError(
            f"{name}: takes about {taken >> 20} MiB in memory, at most {MAX_TABLE_BYTES >> 20} MiB are read; "
            "take some of its rows or columns"
        )


def _from_csv(content: bytes, name: str, separator: str | None) -> UserTable:
    if b"\0" in content[: 1 << 12]:
        raise InvalidInputError(f"{name}: neither Parquet nor CSV that can be read: it holds zero bytes")
    between = separator or guess_separator(content)
    surplus = False
    try:
        frame = _parsed(content, between)
    except pl.exceptions.ComputeError as error:
        if "more fields" not in str(error):
            raise
        row = surplus_row(content, between)
        if row is not None:
            raise InvalidInputError(
                f"{name}: row {row} has more fields than there are names of columns, separated by "
                f"{_called(between)}; --separator names another separator"
            ) from error
        surplus = True
    if surplus:
        frame = _parsed(content, between, truncate=True)
    nameless = [column for column in frame.columns if not column.strip()]
    frame = frame.drop(column for column in nameless if frame[column].is_null().all())
    frame = frame.rename({column: column.strip() for column in frame.columns}, strict=False)
    guessed = separator is None and between != ","
    note = f"{name}: read as separated by {_called(between)}; --separator names another separator"
    return UserTable(frame, (note,) if guessed else ())


def _parsed(content: bytes, separator: str, *, truncate: bool = False) -> pl.DataFrame:
    return pl.read_csv(content, separator=separator, infer_schema_length=None, truncate_ragged_lines=truncate)


def _called(separator: str) -> str:
    return next((name for name, text in SEPARATORS.items() if text == separator), repr(separator))
