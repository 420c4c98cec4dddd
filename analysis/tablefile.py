"""Tables that users bring: Parquet and CSV."""

import io
import sys
from pathlib import Path

import polars as pl

from emergraph.errors import InvalidInputError
from emergraph.graphstore.text import first_line
from emergraph.paths import open_file


def read_table(path: str | Path) -> pl.DataFrame:
    """Read a Parquet or CSV file; "-" is CSV from standard input.

    Raises:
        InvalidInputError: There is no such file, or it is neither.
    """
    name = str(path)
    try:
        if name == "-":
            return pl.read_csv(io.BytesIO(sys.stdin.buffer.read()), infer_schema_length=None)
        with open_file(path, stream=True) as file:
            if Path(path).suffix.lower() in (".parquet", ".pq"):
                return pl.read_parquet(file)
            return pl.read_csv(file, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InvalidInputError(
            f"{name}: neither Parquet nor CSV that can be read: {first_line(error)}"
        ) from error
