"""Tables that users bring: Parquet and CSV."""

import io
import sys
from pathlib import Path

import polars as pl

from emergraph.errors import InvalidInputError
from emergraph.graphstore.text import first_line


def read_table(path: str | Path) -> pl.DataFrame:
    """Read a Parquet or CSV file; "-" is CSV from standard input.

    Raises:
        InvalidInputError: There is no such file, or it is neither.
    """
    name = str(path)
    try:
        if name == "-":
            return pl.read_csv(io.BytesIO(sys.stdin.buffer.read()), infer_schema_length=None)
        if Path(path).suffix.lower() in (".parquet", ".pq"):
            return pl.read_parquet(Path(path), glob=False)
        return pl.read_csv(Path(path), infer_schema_length=None, glob=False)
    except FileNotFoundError as error:
        raise InvalidInputError(f"{name}: no such file") from error
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InvalidInputError(
            f"{name}: neither Parquet nor CSV that can be read: {first_line(error)}"
        ) from error
