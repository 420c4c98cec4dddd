"""The child process of `query`: one SELECT on one store, and nothing else.

Reads a request (JSON) on standard input; writes the rows as an Arrow stream to standard output and its status
as a line of JSON to standard error.
"""

import contextlib
import json
import mmap
import os
import resource
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import duckdb
import pyarrow as pa

from emergraph.errors import EmergraphError, LimitError, UsageError
from emergraph.graphstore.connection import connect, translate
from emergraph.graphstore.definitions import check_foreign, foreign_views, known_names, shipped_views
from emergraph.graphstore.schema import (
    SCHEMA_VERSION,
    migrations,
    show_as_current,
    stored_version,
)
from emergraph.graphstore.sql import compose, identifier
from emergraph.graphstore.sqltree import Names, Tree, check, names_in, one_line, parse
from emergraph.graphstore.text import printable, storable
from emergraph.memory import bound

_EDGES = "emergraph_edges_in_place"
MAX_RESULT_BYTES = 1 << 28

_AS_TEXT = (
    *("INTERVAL", "UNION", "BIT", "BIGNUM", "UHUGEINT", "VARIANT", "GEOMETRY", "TIME", "DATE", "ENUM"),
    *("MAP", "UUID", "JSON", "LAMBDA", "TYPE", "NULL"),
)
"""Types that polars lacks, or that hold values it cannot show (dates beyond the year 9999)."""

_OUT_OF_MEMORY = "the query needs more memory than its limit; simplify it or raise the memory limit"


def main() -> NoReturn:
    """Answer the request on standard input, and end the process."""
    request = json.load(sys.stdin.buffer)
    _limit_process(request["memory"])
    status = answer(request, sys.stdout.buffer)
    sys.stdout.flush()
    sys.stderr.write(f"\n{json.dumps(status)}\n")
    sys.stderr.flush()
    os._exit(0)  # without taking the libraries down, which takes longer than most queries


def answer(request: Mapping[str, Any], output: BinaryIO) -> dict[str, object]:
    """Write the rows of a query as an Arrow stream; return the status.

    Args:
        request: path (absolute), shown (the path as the user gave it), sql, time, memory, threads, rows, and
            edges: descriptor of a file with edges of the model file, -1 for none of them, None for not known.
        output: Where to write.

    Returns:
        {"truncated": bool}, {"edges": "in place"} where the edges of the model file are asked for first, or
        {"error": class, "message": line}.
    """
    try:
        return _answer(request, output)
    except EmergraphError as error:
        found = error
    except duckdb.Error as error:
        found = _sql_error(error, Path(request["path"]), request["time"])
    except MemoryError:
        found = LimitError(_OUT_OF_MEMORY)
    message = str(found).replace(request["path"], printable(request["shown"]))
    return {"error": type(found).__name__, "message": message}


def _answer(request: Mapping[str, Any], output: BinaryIO) -> dict[str, object]:
    path, sql = Path(request["path"]), storable(request["sql"])
    tree = parse(sql)
    with _lake(path, request["shown"], tree) if path.is_dir() else _store(path) as (connection, names):
        check(tree, names)
        if request.get("edges") is not None:
            _add_edges(connection, request["edges"])
        elif _may_read_edges(connection, tree) and has_edges_in_place(connection):
            return {"edges": "in place"}
        _lock(connection, request)
        sql = str(connection.extract_statements(sql)[0].query).strip().rstrip(";")
        timer = threading.Timer(request["time"], connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            return {"truncated": _write(connection, sql, request["rows"], output)}
        finally:
            timer.cancel()


@contextlib.contextmanager
def _store(path: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, Names]]:
    """A store, and the names that SQL can refer to."""
    with contextlib.closing(connect(path, read_only=True)) as connection:
        version = stored_version(connection, path)
        names = check_foreign(connection, path)
        if version is not None and version < SCHEMA_VERSION:
            show_as_current(connection, path, version=version, steps=migrations(), target=SCHEMA_VERSION)
        yield connection, names


@contextlib.contextmanager
def _lake(path: Path, shown: str, tree: Tree) -> Iterator[tuple[duckdb.DuckDBPyConnection, Names]]:
    """A lake, likewise; of its files, those of the tables that the SQL names."""
    from emergraph.graphstore.lake.reading import lake_connection, tables_of

    named = names_in(tree)
    wanted = None if named is None else tables_of(named)
    # so that views show no name of a folder above the lake
    with contextlib.chdir(path), lake_connection(Path(), wanted, shown=Path(shown)) as connection:
        yield connection, known_names(connection)


def _may_read_edges(connection: duckdb.DuckDBPyConnection, tree: Tree) -> bool:
    """Whether a statement names the edges, or a view that somebody else has made, which may read them."""
    named = names_in(tree)
    return named is None or not named.isdisjoint({"edges", "connections"} | foreign_views(connection))


def has_edges_in_place(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether edges of some graph stay in its model file."""
    asked = "SELECT 1 FROM blocks WHERE place_offset IS NOT NULL AND n_edges > 0 LIMIT 1"
    return bool(connection.execute(asked).fetchall())


def _add_edges(connection: duckdb.DuckDBPyConnection, descriptor: int) -> None:
    """Show edges out of the model file, an Arrow file, as if the store held them."""
    if descriptor < 0:
        return
    mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    edges = pa.ipc.open_file(pa.py_buffer(mapped)).read_all()
    store = identifier(str(connection.execute("SELECT current_database()").fetchall()[0][0]))
    connection.register(_EDGES, edges)
    connection.execute(
        compose(
            "CREATE TEMP VIEW connections AS SELECT * FROM {store}.main.connections UNION ALL FROM {edges}",
            store=store,
            edges=_EDGES,
        )
    )
    connection.execute(shipped_views()["edges"].replace("CREATE VIEW", "CREATE TEMP VIEW", 1))


def _limit_process(memory: int) -> None:
    """Make the system refuse memory beyond the limit, any growth of a file, and a dump of the memory."""
    bound(memory)
    for limit, value in ((resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _lock(connection: duckdb.DuckDBPyConnection, request: Mapping[str, Any]) -> None:
    """Set the limits and lock the configuration; access to files is off since the store was opened."""
    if request["threads"] is not None:
        connection.execute(f"SET threads = {int(request['threads'])}")
    connection.execute(f"SET memory_limit = '{int(request['memory'])}B'")
    connection.execute("SET max_temp_directory_size = '0B'")
    connection.execute("SET TimeZone = 'UTC'")  # not that of the machine
    connection.execute("SET lock_configuration = true")


def _write(connection: duckdb.DuckDBPyConnection, sql: str, rows: int, output: BinaryIO) -> bool:
    """Run the query and write up to `rows` rows; return whether there were more."""
    asked = connection.sql(sql)
    if asked is None:
        raise UsageError("sql: the statement returns no rows")
    positions = [f"c{i}" for i in range(len(asked.columns))]
    wrapped = compose(
        "SELECT {columns} FROM ({sql}\n) AS asked({positions}) LIMIT {rows}",
        columns=", ".join(
            f"{position}::VARCHAR AS {position}" if _is_text(str(kind)) else position
            for position, kind in zip(positions, asked.types, strict=True)
        ),
        sql=sql,
        positions=", ".join(positions),
        rows=rows + 1,
    )
    relation = connection.sql(wrapped)
    if relation is None:
        raise UsageError("sql: the statement returns no rows")
    batches = relation.to_arrow_reader(1 << 14)
    names = _distinct(asked.columns)
    schema = pa.schema([field.with_name(name) for field, name in zip(batches.schema, names, strict=True)])
    n_rows = n_bytes = 0
    with pa.ipc.new_stream(output, schema) as stream:
        for batch in batches:
            kept = batch.slice(0, rows - n_rows)
            n_rows += batch.num_rows
            n_bytes += kept.nbytes
            if n_bytes > MAX_RESULT_BYTES:
                raise LimitError(
                    f"the result is larger than {MAX_RESULT_BYTES >> 20} MiB; select fewer columns or rows"
                )
            stream.write_batch(pa.RecordBatch.from_arrays(kept.columns, schema=schema))
    return n_rows > rows


def _is_text(kind: str) -> bool:
    """Whether a column of this type is sent as text."""
    return any(word in kind.upper() for word in _AS_TEXT)


def _distinct(names: list[str]) -> list[str]:
    """Return the names, those that repeat with a number behind them."""
    result: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in result:
            number += 1
            candidate = f"{name}_{number}"
        result.append(candidate)
    return result


def _sql_error(error: duckdb.Error, path: Path, seconds: float) -> EmergraphError:
    """Return the error to report for what DuckDB said about the user's SQL."""
    if isinstance(error, duckdb.InterruptException):
        return LimitError(f"the query took more than {seconds:g} s; simplify it or raise the time limit")
    if isinstance(error, duckdb.OutOfMemoryException):
        return LimitError(_OUT_OF_MEMORY)
    if isinstance(error, (duckdb.IOException, duckdb.FatalException, duckdb.InternalException)):
        return translate(error, path)
    if isinstance(error, duckdb.PermissionException):  # what it says may name a folder of the machine
        return UsageError("sql: it uses something that is not available here; query the tables of the store")
    return UsageError(f"sql: {one_line(str(error))}")


if __name__ == "__main__":
    main()
