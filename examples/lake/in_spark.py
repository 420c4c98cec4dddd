"""A lake in Spark, which needs Java: pip install pyspark; python in_spark.py LAKE."""

import sys

from pyspark.sql import SparkSession
from questions import TABLES, checksum


def main(lake: str) -> str:
    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    for table in TABLES:
        files = f"{lake}/graph=*/{table}/*.parquet"
        spark.read.option("basePath", lake).parquet(files).createOrReplaceTempView(table)
    return checksum(lambda sql: [tuple(row) for row in spark.sql(sql).collect()])


if __name__ == "__main__":
    print(main(sys.argv[1]))
