"""Opening stores: what is refused, with one line each, and what that leaves on the disk."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import duckdb
import polars as pl
import pytest
from storegraphs import header, make_store, random_chain, write_chain

from emergraph.errors import ExitCode, InvalidInputError, StoreError
from emergraph.graphstore import results, schema
from emergraph.graphstore.connection import translate
from emergraph.graphstore.definitions import shipped_views
from emergraph.graphstore.results import Column, ResultTable
from emergraph.graphstore.schema import check_layout, expected_layout, schema_sql, view_columns
from emergraph.graphstore.store import open_store


def assert_one_line(error, *parts):
    text = str(error)
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_a_store_without_permission_says_what_to_do():
    error = duckdb.IOException('IO Error: Cannot open file "/a/net.duckdb": Permission denied')
    found = translate(error, Path("net.duckdb"))
    assert isinstance(found, StoreError)
    assert_one_line(found, "net.duckdb: permission denied;", "use a copy", "--no-save")


@pytest.fixture
def store_file(tmp_path):
    return make_store(tmp_path / "net.duckdb")


@pytest.fixture
def in_other_process():
    """Run Python code in another process until it prints a line; leave it running until the test ends."""
    processes = []

    def start(code):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline().strip() == "ready"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


HOLD = """
import time
from emergraph.graphstore.store import open_store
with open_store({path!r}, mode={mode!r}) as store:
    store.graphs()
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("mode", ["read", "write"])
def test_missing_file(tmp_path, mode):
    with pytest.raises(InvalidInputError) as caught:
        open_store(tmp_path / "none.duckdb", mode=mode)
    assert_one_line(caught.value, "none.duckdb", "no such store", "emergraph export")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["read", "write", "create"])
def test_folder_is_no_store(tmp_path, mode):
    with pytest.raises(InvalidInputError) as caught:
        open_store(tmp_path, mode=mode)
    assert_one_line(caught.value, "a folder, not a store")


def test_folder_of_a_new_store_must_exist(tmp_path):
    with pytest.raises(InvalidInputError) as caught:
        open_store(tmp_path / "none" / "net.duckdb", mode="create")
    assert_one_line(caught.value, "create the folder first")


@pytest.mark.parametrize("mode", ["read", "write", "create"])
@pytest.mark.parametrize("content", [b"", b"hello\n" * 2000, b"<html>", os.urandom(100_000)])
def test_file_that_is_no_database(tmp_path, mode, content):
    path = tmp_path / "foreign.duckdb"
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        open_store(path, mode=mode)
    assert caught.value.exit_code == ExitCode.STORE
    assert_one_line(caught.value, "foreign.duckdb", "not an emergraph store")
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", ["read", "write", "create"])
@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE customers (id INTEGER)",
        "CREATE TABLE store_info (x INTEGER)",
        "CREATE TABLE store_info (application VARCHAR, schema_version INTEGER)",
        "CREATE TABLE store_info AS SELECT 'other' AS application, 1 AS schema_version",
        "CREATE TABLE store_info AS SELECT 'emergraph' AS application, 'one' AS schema_version",
        "CREATE TABLE store_info AS SELECT 'emergraph' AS application, 0 AS schema_version FROM range(2)",
    ],
)
def test_database_from_elsewhere(tmp_path, mode, sql):
    path = tmp_path / "foreign.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(sql)
    before = path.read_bytes()
    with pytest.raises(StoreError) as caught:
        open_store(path, mode=mode)
    assert_one_line(caught.value, "not an emergraph store")
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", ["read", "write"])
def test_empty_database_is_a_store_only_for_create(tmp_path, mode):
    path = tmp_path / "empty.duckdb"
    duckdb.connect(path).close()
    with pytest.raises(StoreError) as caught:
        open_store(path, mode=mode)
    assert_one_line(caught.value, "not an emergraph store")
    with open_store(path, mode="create") as store:
        write_chain(store, random_chain([2, 1]))
    with open_store(path) as store:
        assert store.graphs().height == 1


@pytest.mark.parametrize("mode", ["read", "write", "create"])
def test_store_of_a_newer_version(store_file, mode):
    with duckdb.connect(store_file) as connection:
        connection.execute("UPDATE store_info SET schema_version = 99")
    with pytest.raises(StoreError) as caught:
        open_store(store_file, mode=mode)
    assert_one_line(caught.value, "schema version 99", "update emergraph")


def tampered_with(statement):
    """Run statements on a store behind the tool's back, and open it."""

    def open_after(path, mode="read"):
        with duckdb.connect(path) as connection:
            connection.execute(statement)
        with pytest.raises(StoreError) as caught:
            open_store(path, mode=mode)
        return caught.value

    return open_after


@pytest.mark.parametrize("table", sorted(set(expected_layout()) - {"store_info"}))
def test_store_that_lacks_a_table(store_file, table):
    assert_one_line(tampered_with(f"DROP TABLE {table} CASCADE")(store_file), "damaged", table, "is missing")


@pytest.mark.parametrize("table", sorted(expected_layout()))
def test_every_missing_or_mistyped_column_is_named(table):
    for name, kind, _ in expected_layout()[table]:
        drop = f'ALTER TABLE {table} DROP COLUMN "{name}"'
        other = "DATE" if kind in ("BLOB", "TIMESTAMP") else "BLOB"
        for statement, words in (
            (drop, "is missing"),
            (f'{drop}; ALTER TABLE {table} ADD COLUMN "{name}" {other}', f"is {other}, expected {kind}"),
        ):
            with duckdb.connect() as connection:
                connection.execute(schema_sql())
                check_layout(connection, Path("net.duckdb"))
                for view in view_columns():
                    connection.execute(f"DROP VIEW {view}")
                connection.execute(statement)
                with pytest.raises(StoreError) as caught:
                    check_layout(connection, Path("net.duckdb"))
            assert_one_line(caught.value, "net.duckdb: damaged", f"column {table}.{name} ", words)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("ALTER TABLE graphs ALTER COLUMN name DROP NOT NULL", "column graphs.name may be NULL"),
        ("ALTER TABLE units ALTER COLUMN layer TYPE VARCHAR", "units.layer is VARCHAR, expected INTEGER"),
        ("CREATE OR REPLACE TABLE metrics AS SELECT value, name, graph FROM metrics", "graph may be NULL"),
        (
            (
                "CREATE OR REPLACE TABLE tags (value DOUBLE, name VARCHAR NOT NULL, graph INTEGER NOT NULL);"
                "DROP TABLE metrics; ALTER TABLE tags RENAME TO metrics"
            ),
            "table metrics are in another order than graph, name, value",
        ),
        ("DROP VIEW edges", "view edges is missing"),
        ("DROP VIEW edges; CREATE VIEW edges AS SELECT 1 AS graph", "column edges.layer is missing"),
        ("DROP TABLE metrics; CREATE VIEW metrics AS SELECT 1 AS graph", "column metrics.graph may be NULL"),
        ("CREATE TABLE probes (run VARCHAR, score DOUBLE)", "column probes.run is VARCHAR, expected INTEGER"),
        ("CREATE TABLE probes (run INTEGER NOT NULL, score VARCHAR)", "column probes.score is VARCHAR"),
    ],
)
def test_store_that_was_tampered_with_names_the_place(store_file, statement, words, monkeypatch):
    table = ResultTable("probes", "One row per probe.", (Column("score", "DOUBLE", "Any."),))
    monkeypatch.setitem(results._registered, "probes", table)
    assert_one_line(tampered_with(statement)(store_file), "damaged", words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("n_parameters = 4", "graphs.n_parameters 4"),
        ("n_parameters_understood = -1", "n_parameters_understood holds -1, a count"),
        ("n_operations_understood = n_operations + 1", "graphs.n_operations_understood"),
    ],
)
def test_counts_that_cannot_be_are_damage(store_file, change, words):
    with duckdb.connect(store_file) as connection:
        connection.execute("UPDATE graphs SET n_parameters_understood = 5, n_parameters = 5")
    with open_store(store_file) as store:
        assert store.graph(0).summary["n_parameters"] == 5
    with duckdb.connect(store_file) as connection:
        connection.execute(f"UPDATE graphs SET {change}")
    with open_store(store_file) as store, pytest.raises(StoreError, match=f"damaged.*{re.escape(words)}"):
        _ = store.graph(0).summary


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO units FROM units",
        "DELETE FROM units WHERE id = 1",
        "DELETE FROM units",
        "UPDATE units SET id = 99 WHERE id = 0",
        "UPDATE layers SET n_units = n_units + 1",
    ],
)
def test_other_units_than_the_layers_have_are_damage(store_file, statement):
    with open_store(store_file) as store:
        assert store.graph(0).units().height > 1
    with duckdb.connect(store_file) as connection:
        connection.execute(statement)
    with open_store(store_file) as store, pytest.raises(StoreError, match="damaged, the layers have units"):
        store.graph(0).units()


def test_a_store_without_the_results_that_a_run_names(store_file):
    with open_store(store_file, mode="write") as store:
        frame = pl.DataFrame({"score": [0.5]})
        table = ResultTable("probes", "One row per probe.", (Column("score", "DOUBLE", "Any."),))
        with mock.patch.dict(results._registered, probes=table):
            store.record_run(0, "probe", {}, result_tables={"probes": frame})
    with open_store(store_file) as store:
        assert store.results("probes").height == 1
    assert_one_line(tampered_with("DROP TABLE probes")(store_file), "damaged", "table probes is missing")


def test_what_others_add_to_a_store_and_results_of_older_versions_are_left_alone(store_file, monkeypatch):
    table = ResultTable("probes", "One row per probe.", (Column("score", "DOUBLE", "Any."),))
    monkeypatch.setitem(results._registered, "probes", table)
    with duckdb.connect(store_file) as connection:
        connection.execute("ALTER TABLE graphs ADD COLUMN mine VARCHAR; CREATE TABLE own (x INTEGER)")
        connection.execute("CREATE TABLE probes (run INTEGER NOT NULL)")
    with open_store(store_file) as store:
        assert store.graph().name == "net"


@pytest.mark.parametrize("share", [0.0001, 0.1, 0.5])
def test_truncated_store(store_file, share):
    content = store_file.read_bytes()
    store_file.write_bytes(content[: max(1, int(len(content) * share))])
    with pytest.raises(StoreError) as caught, open_store(store_file) as store:
        store.graph().edges()
    assert_one_line(caught.value, "net.duckdb")


def test_damaged_store_is_read_right_or_refused(store_file):
    """Damage is found by DuckDB's checksums: never a wrong answer, never another kind of error."""
    content = store_file.read_bytes()
    with open_store(store_file) as store:
        truth = store.graph().edges()
    n_refused = 0
    flipped = [
        content[:position]
        + bytes(255 - byte for byte in content[position : position + 64])
        + content[position + 64 :]
        for position in range(0, len(content), len(content) // 24)
    ]
    cut = [content[:size] for size in range(0, len(content), len(content) // 12)]
    for damaged in (*flipped, *cut):
        store_file.write_bytes(damaged)
        try:
            with open_store(store_file) as store:
                assert store.graph().edges().equals(truth)
        except StoreError as error:
            assert_one_line(error, "net.duckdb")
            n_refused += 1
    assert n_refused > 12


def test_locked_by_a_writer(store_file, in_other_process):
    process = in_other_process(HOLD.format(path=str(store_file), mode="write"))
    for mode in ("read", "write", "create"):
        with pytest.raises(StoreError) as caught:
            open_store(store_file, mode=mode)
        assert caught.value.exit_code == ExitCode.STORE
        assert_one_line(caught.value, "locked by another process", f"(pid {process.pid})")


def test_readers_share_and_keep_writers_out(store_file, in_other_process):
    in_other_process(HOLD.format(path=str(store_file), mode="read"))
    with open_store(store_file) as store:
        assert store.graphs().height == 1
    with pytest.raises(StoreError) as caught:
        open_store(store_file, mode="write")
    assert_one_line(caught.value, "locked by another process")


def test_same_process_opens_in_one_mode(store_file):
    with open_store(store_file) as first, open_store(store_file) as second:
        assert first.graphs().equals(second.graphs())
        with pytest.raises(StoreError) as caught:
            open_store(store_file, mode="write")
        assert_one_line(caught.value, "already open in this process")
    with open_store(store_file, mode="write") as store:
        assert store.graphs().height == 1


def test_writing_needs_a_writing_mode(store_file):
    with open_store(store_file) as store:
        with pytest.raises(StoreError) as caught, store.write_graph(header()):
            raise AssertionError("the block must not run")
        assert_one_line(caught.value, "opened for reading")
        with pytest.raises(StoreError):
            store.write_metrics(0, {"loss": 1.0})
        with pytest.raises(StoreError):
            store.record_run(0, "x", {}, result_tables={})


def test_new_file_without_a_graph_is_removed(tmp_path):
    path = tmp_path / "net.duckdb"
    with open_store(path, mode="create") as store:
        store.close()
        store.close()
    assert list(tmp_path.iterdir()) == []
    with open_store(path, mode="create", in_place=True):
        pass
    assert list(tmp_path.iterdir()) == [path]
    with open_store(path, mode="create"):
        pass
    assert path.exists(), "only a file that this very opening made is removed"


def test_limits_are_set(store_file):
    with open_store(store_file, threads=1, memory_limit=300_000_000) as store:
        settings = dict(
            store.connection.execute(
                "SELECT name, value FROM duckdb_settings() WHERE name IN ('threads', 'memory_limit')"
            ).fetchall()
        )
    assert settings == {"threads": "1", "memory_limit": "286.1 MiB"}


def test_store_reaches_no_other_file(store_file, tmp_path):
    """Whatever a stranger's store holds, such as a view over a file, stays inside the store."""
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with duckdb.connect(store_file) as connection:
        connection.execute(f"CREATE VIEW leak AS SELECT * FROM read_csv('{tmp_path}/secret.csv')")
    with open_store(store_file) as store, pytest.raises(duckdb.PermissionException):
        store.connection.execute("SELECT * FROM leak")


def test_names_of_stores_are_printed_safely(tmp_path):
    path = tmp_path / "a\x1b[2J\nb.duckdb"
    with pytest.raises(InvalidInputError) as caught:
        open_store(path)
    assert_one_line(caught.value, "a\\x1b[2J\\x0ab.duckdb")


def test_opening_a_store_is_quick(store_file):
    start = time.perf_counter()
    for _ in range(5):
        with open_store(store_file) as store:
            assert store.graph().name == "net"
    assert time.perf_counter() - start < 5


@pytest.fixture
def counted_checks(monkeypatch):
    """How often what a store defines was looked through."""
    calls = []
    monkeypatch.setattr(schema, "check_definitions", lambda *_: calls.append(1))
    return calls


def later(*, seconds=10.0):
    """Let so much time pass after what has been written."""
    now = time.time_ns()
    return mock.patch.object(schema.time, "time_ns", return_value=now + int(seconds * 1e9))


def opened(file):
    open_store(file).close()


def test_a_store_that_nobody_has_changed_is_checked_once(store_file, counted_checks):
    with later():
        opened(store_file)
        opened(store_file)
    assert len(counted_checks) == 1


@pytest.mark.parametrize(("seconds", "times"), [(1.0, 2), (3.0, 1)])
def test_a_store_that_has_just_been_changed_is_checked_again(store_file, counted_checks, seconds, times):
    with later(seconds=seconds):
        opened(store_file)
        opened(store_file)
    assert len(counted_checks) == times


def test_a_table_of_results_that_becomes_known_later_is_looked_at(store_file, monkeypatch):
    with duckdb.connect(store_file) as connection:
        connection.execute("CREATE TABLE later_results (run VARCHAR, n INTEGER)")
    with later():
        opened(store_file)
        table = ResultTable("later_results", "Later.", (Column("n", "INTEGER", "A number."),))
        monkeypatch.setattr(results, "registered_tables", lambda: (table,))
        with pytest.raises(StoreError, match=r"later_results\.run"):
            opened(store_file)


def test_what_another_program_adds_to_a_checked_store_is_found(store_file):
    with later():
        opened(store_file)
        with duckdb.connect(store_file) as connection:
            connection.execute("CREATE MACRO twice(x) AS x + x")
        with pytest.raises(StoreError, match="macro twice"):
            opened(store_file)


def test_the_views_are_those_that_the_schema_makes():
    """The file is what DuckDB shows of them, a line for each; write it anew after a change of the schema."""
    with duckdb.connect(":memory:") as connection:
        connection.execute(schema_sql())
        shown = connection.execute("SELECT view_name, trim(sql) FROM duckdb_views() WHERE NOT internal")
        assert shipped_views() == dict(shown.fetchall())
