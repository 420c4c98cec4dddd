"""The store: many unit graphs in one DuckDB file, written in bulk and read as frames, arrays or SQL."""
