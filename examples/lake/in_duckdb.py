"""A lake in DuckDB: python in_duckdb.py LAKE."""

import sys

import duckdb
from questions import TABLES, checksum


def main(lake: str) -> str:
    connection = duckdb.connect()
    for table in TABLES:
        files = f"{lake}/graph=*/{table}/*.parquet"
        connection.read_parquet(files, hive_partitioning=True).create_view(table)
    return checksum(lambda sql: connection.sql(sql).fetchall())


if __name__ == "__main__":
    print(main(sys.argv[1]))
