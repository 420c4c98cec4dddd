"""A lake in DataFusion: pip install datafusion; python in_datafusion.py LAKE."""

import sys
from pathlib import Path

import pyarrow as pa
from datafusion import SessionConfig, SessionContext
from questions import TABLES, checksum


def main(lake: str) -> str:
    # tables are folders within partitions
    config = SessionConfig({"datafusion.execution.listing_table_ignore_subdirectory": "false"})
    context = SessionContext(config)
    for table in TABLES:
        files = f"{Path(lake).absolute()}/**/{table}/*.parquet"
        context.register_parquet(table, files, table_partition_cols=[("graph", pa.string())])
    return checksum(lambda sql: zip(*(context.sql(sql).to_pydict().values()), strict=True))


if __name__ == "__main__":
    print(main(sys.argv[1]))
