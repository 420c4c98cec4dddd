"""Many graphs as Parquet files in folders, for this program and for every engine that reads such files."""
