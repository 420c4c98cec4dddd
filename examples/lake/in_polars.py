"""A lake in Polars: python in_polars.py LAKE."""

import sys

import polars as pl
from questions import TABLES, checksum


def main(lake: str) -> str:
    frames = {
        table: pl.scan_parquet(
            f"{lake}/graph=*/{table}/*.parquet",
            hive_partitioning=True,
            hive_schema={"graph": pl.String},
        )
        for table in TABLES
    }
    context = pl.SQLContext(frames)
    return checksum(lambda sql: context.execute(sql, eager=True).rows())


if __name__ == "__main__":
    print(main(sys.argv[1]))
