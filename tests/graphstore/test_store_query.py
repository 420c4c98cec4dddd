"""SQL from strangers on a store: what is answered, and every way out of the sandbox that is closed."""

import json
import time

import duckdb
import numpy as np
import polars as pl
import pytest
from lockedsql import ask, refusal
from storegraphs import make_store, random_chain, write_chain

from emergraph.errors import ExitCode, InvalidInputError, LimitError, StoreError, UsageError
from emergraph.graphstore import sandbox
from emergraph.graphstore.query import QueryLimits, run_query
from emergraph.graphstore.store import open_store

MIB = 1 << 20


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("query") / "net.duckdb")


FILES = {
    "read_csv": "SELECT * FROM read_csv('{other}')",
    "read_text": "SELECT * FROM read_text('{other}')",
    "read_blob": "SELECT * FROM read_blob('/etc/passwd')",
    "read_parquet": "SELECT * FROM read_parquet('{other}')",
    "read_json": "SELECT * FROM read_json('{other}')",
    "read_duckdb": "SELECT * FROM read_duckdb('{other}', table_name = 'graphs')",
    "glob": "SELECT * FROM glob('/*')",
    "sniff_csv": "SELECT * FROM sniff_csv('{other}')",
    "parquet_metadata": "SELECT * FROM parquet_metadata('{other}')",
    "replacement scan of a file": "SELECT * FROM '{other}'",
    "replacement scan in a subquery": "SELECT (SELECT count(*) FROM '{other}')",
    "network": "SELECT * FROM read_csv('https://example.org/a.csv')",
    "replacement scan of a frame": "SELECT * FROM frame_in_the_caller",
    "SQL from a text": "SELECT * FROM query('SELECT * FROM read_text(''{other}'')')",
    "table named by a text": "SELECT * FROM query_table('graphs')",
    "environment": "SELECT getenv('HOME')",
}

STATEMENTS = {
    "copy to": "COPY (SELECT 1) TO '{folder}/written.csv'",
    "copy from": "COPY graphs FROM '{other}'",
    "copy database": "COPY FROM DATABASE net TO memory",
    "attach": "ATTACH '{folder}/written.duckdb'",
    "detach": "DETACH net",
    "use": "USE memory",
    "install": "INSTALL httpfs",
    "load": "LOAD httpfs",
    "export": "EXPORT DATABASE '{folder}/written'",
    "import": "IMPORT DATABASE '{folder}'",
    "set": "SET enable_external_access = true",
    "set threads": "SET threads = 64",
    "set memory": "SET memory_limit = '100GB'",
    "set a variable": "SET VARIABLE a = 1",
    "reset": "RESET lock_configuration",
    "profiling": "PRAGMA enable_profiling = 'json'",
    "profile to a file": "SET profile_output = '{folder}/written.json'",
    "log": "CALL enable_logging(storage_path = '{folder}/written')",
    "insert": "INSERT INTO graphs SELECT * FROM graphs",
    "update": "UPDATE graphs SET name = 'x'",
    "delete": "DELETE FROM graphs",
    "drop": "DROP TABLE graphs",
    "create": "CREATE TABLE written (a INTEGER)",
    "create as": "CREATE TABLE written AS SELECT 1",
    "temporary table": "CREATE TEMP TABLE written AS SELECT 1",
    "temporary view": "CREATE TEMP VIEW graphs AS SELECT 1",
    "macro": "CREATE TEMP MACRO abs(a) AS 1",
    "secret": "CREATE SECRET (TYPE s3)",
    "alter": "ALTER TABLE graphs RENAME TO written",
    "truncate": "TRUNCATE graphs",
    "comment": "COMMENT ON TABLE graphs IS 'written'",
    "checkpoint": "FORCE CHECKPOINT",
    "vacuum": "VACUUM",
    "transaction": "BEGIN TRANSACTION",
    "prepare": "PREPARE a AS SELECT 1",
    "pragma": "PRAGMA database_list",
    "call": "CALL pragma_version()",
    "explain": "EXPLAIN ANALYZE SELECT 1",
    "pivot": "PIVOT graphs ON name USING count(*)",
    "two statements": "SELECT 1; SELECT 2",
    "a second statement behind a comment": "SELECT 1 -- ;\n; DROP TABLE graphs",
    "nothing": "",
    "only a comment": "-- SELECT 1",
    "shell": "!ls",
}

REVEALING = {
    "paths of databases": "SELECT * FROM duckdb_databases()",
    "in upper case": "SELECT * FROM DUCKDB_DATABASES()",
    "quoted": 'SELECT * FROM "duckdb_databases"()',
    "as a view": "SELECT * FROM duckdb_databases",
    "with a schema": "SELECT * FROM system.main.duckdb_databases()",
    "in a subquery": "SELECT (SELECT path FROM duckdb_databases() LIMIT 1)",
    "in a WITH": "WITH a AS (SELECT * FROM duckdb_databases()) SELECT * FROM a",
    "in a union": "SELECT 'a' UNION ALL SELECT path FROM duckdb_databases()",
    "in a lateral join": "SELECT * FROM graphs, LATERAL (SELECT path FROM duckdb_databases())",
    "database_list": "SELECT * FROM pragma_database_list",
    "settings": "SELECT * FROM duckdb_settings()",
    "one setting": "SELECT current_setting('allowed_paths')",
    "postgres settings": "SELECT * FROM pg_settings",
    "catalogued settings": "SELECT * FROM pg_catalog.pg_settings",
    "secrets": "SELECT * FROM duckdb_secrets()",
    "logs": "SELECT * FROM duckdb_logs()",
    "extensions": "SELECT * FROM duckdb_extensions()",
    "open files": "SELECT * FROM duckdb_external_file_cache()",
}


def fill(sql, path):
    other = path.parent / "other.csv"
    other.write_text("a,b\nSECRET,2\n")
    return sql.format(other=other, folder=path.parent)


@pytest.mark.parametrize("case", FILES)
def test_other_files_are_out_of_reach(path, case):
    frame_in_the_caller = pl.DataFrame({"a": [1]})
    error, message = refusal(path, fill(FILES[case], path))
    assert error == "UsageError"
    assert "SECRET" not in message
    assert frame_in_the_caller.height == 1


@pytest.mark.parametrize("case", STATEMENTS)
def test_only_one_select(path, case):
    before = path.read_bytes()
    error, message = refusal(path, fill(STATEMENTS[case], path))
    assert error == "UsageError"
    assert message.startswith("sql: ")
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} <= {path.name, "other.csv"}


@pytest.mark.parametrize("case", REVEALING)
def test_what_tells_about_the_machine_is_hidden(path, case):
    error, message = refusal(path, REVEALING[case])
    assert error == "UsageError"
    assert "not available here" in message


def test_a_select_that_writes(path):
    before = path.read_bytes()
    sql = "WITH a AS (INSERT INTO graphs SELECT * FROM graphs RETURNING *) SELECT * FROM a"
    assert refusal(path, sql)[0] == "UsageError"
    assert path.read_bytes() == before


def test_views_of_a_hostile_store_reach_nothing(tmp_path):
    path = make_store(tmp_path / "net.duckdb")
    (tmp_path / "other.csv").write_text("a\nSECRET\n")
    with duckdb.connect(path) as connection:
        connection.execute(f"CREATE VIEW leak AS SELECT * FROM read_text('{tmp_path}/other.csv')")
        connection.execute(f"CREATE MACRO leaking() AS TABLE SELECT * FROM read_text('{tmp_path}/other.csv')")
    for sql in ("SELECT * FROM leak", "SELECT * FROM leaking()"):
        assert "SECRET" not in refusal(path, sql)[1]


ANSWERED = {
    "values": ("VALUES (1), (2)", [(1,), (2,)]),
    "from first": ("FROM graphs SELECT name", [("net",)]),
    "with": ("WITH a AS (SELECT 1 AS x) SELECT x + 1 FROM a", [(2,)]),
    "trailing semicolon": ("SELECT 1;", [(1,)]),
    "trailing comment": ("SELECT 1 -- one", [(1,)]),
    "leading comment": ("/* two */ SELECT 2", [(2,)]),
    "describe": ("SELECT column_name FROM (DESCRIBE metrics)", [("graph",), ("name",), ("value",)]),
    "show": ("SELECT count(*) > 10 FROM (SHOW TABLES)", [(True,)]),
    "order": ("SELECT x FROM range(50000) AS t(x) ORDER BY hash(x), x LIMIT 3", None),
    "null": ("SELECT NULL", [(None,)]),
    "nan": ("SELECT 'nan'::FLOAT IS NULL, 'inf'::DOUBLE", [(False, float("inf"))]),
    "list": ("SELECT src_units FROM blocks ORDER BY id LIMIT 1", [([0, 1, 2],)]),
    "struct": ("SELECT {'a': 1, 'b': [1.5::DOUBLE]}", [({"a": 1, "b": [1.5]},)]),
    "sum": ("SELECT sum(n_units) FROM layers", [(9,)]),
    "beyond 64 bits": ("SELECT 2::HUGEINT ** 0 * 170141183460469231731687303715884105727", None),
    "decimal": ("SELECT 1.25::DECIMAL(5, 2)::VARCHAR", [("1.25",)]),
    "date": ("SELECT DATE '2020-02-29', DATE 'infinity'", [("2020-02-29", "infinity")]),
    "far timestamp": ("SELECT TIMESTAMP '290000-01-01 00:00:00'", [("290000-01-01 00:00:00",)]),
    "interval": ("SELECT INTERVAL 3 DAY", [("3 days",)]),
    "union": ("SELECT union_value(a := 1)", [("1",)]),
    "map": ("SELECT MAP {'a': 1}", [("{a=1}",)]),
    "unsigned 128 bits": ("SELECT 340282366920938463463374607431768211455::UHUGEINT", [(str(2**128 - 1),)]),
    "bits": ("SELECT '101'::BIT", [("101",)]),
    "NUL": ("SELECT 'a' || chr(0) || 'b'", [("a\0b",)]),
    "no rows": ("SELECT name FROM graphs WHERE false", []),
}


@pytest.mark.parametrize("case", ANSWERED)
def test_answers(path, case):
    sql, expected = ANSWERED[case]
    frame = ask(path, sql)
    assert isinstance(frame, pl.DataFrame), frame
    if expected is not None:
        assert frame.rows() == expected


def test_columns_with_the_same_name(path):
    assert ask(path, 'SELECT 1 AS a, 2 AS a, 3 AS a_2, 4 AS "x\ny"').columns == ["a", "a_2", "a_2_2", "x\ny"]


def test_order_survives_the_limit(path):
    sql = "SELECT x, hash(x) AS h FROM range(300000) AS t(x) ORDER BY h DESC"
    frame = ask(path, sql, threads=2, rows=5000)
    assert frame["h"].is_sorted(descending=True)
    assert frame.height == 5000


@pytest.mark.parametrize(
    ("sql", "part"),
    [
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT nam FROM graphs", 'Candidate bindings: "name"'),
        ("SELECT * FROM graph", 'Did you mean "graphs"'),
        ("SELECT ?", "Values were not provided"),
        ("SELECT 1 + 'a'", "Could not choose a best candidate function"),
        ('SELECT "\x1b[2J\u202e" FROM graphs', "\\x1b[2J\\u202e"),
        ("SELECT '\ud800'::INTEGER", "Could not convert string '?'"),
        ("SELECT error('SECRET')", "SECRET"),
    ],
)
def test_wrong_sql_is_one_line(path, sql, part):
    error, message = refusal(path, sql)
    assert error == "UsageError"
    assert part in message


def test_result_of_the_child_process(path):
    result = run_query(path, "SELECT id, name, 3::HUGEINT AS big FROM graphs", limits=QueryLimits(rows=1))
    assert result.frame.rows() == [(0, "net", 3)]
    assert result.frame.schema["big"] == pl.Int64
    assert not result.truncated


@pytest.mark.parametrize(("n", "truncated"), [(4, True), (5, False)])
def test_rows_are_capped(path, n, truncated):
    result = run_query(path, "SELECT x FROM range(5) AS t(x)", limits=QueryLimits(rows=n))
    assert result.frame["x"].to_list() == list(range(n))
    assert result.truncated == truncated


def test_integers_of_128_bits(path):
    result = run_query(path, "SELECT 170141183460469231731687303715884105727 AS a, -3::HUGEINT AS b")
    assert result.frame.rows() == [(2**127 - 1, -3)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sum(a.range * b.range) FROM range(1000000) AS a, range(1000000) AS b",
        "WITH RECURSIVE t AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM t) SELECT max(x) FROM t",
        "SELECT count(*) FROM range(100000000000)",
        "SELECT * FROM range(100000000000) AS t(x) WHERE x < 0",
    ],
    ids=["product", "recursion", "counting", "filter"],
)
def test_time_limit(path, sql):
    start = time.monotonic()
    with pytest.raises(LimitError, match=r"more than 0\.5 s") as caught:
        run_query(path, sql, limits=QueryLimits(time=0.5))
    assert time.monotonic() - start < 15
    assert caught.value.exit_code == ExitCode.LIMIT


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT len(repeat('x', 4000000000))",
        "SELECT range(1000000000)[1]",
        "SELECT len(list(x)) FROM range(1000000000) AS t(x)",
        "SELECT len(string_agg(repeat('x', 1000000), '')) FROM range(4000)",
        "SELECT * FROM range(300000000) AS t(x) ORDER BY hash(x) DESC OFFSET 1000000",
    ],
    ids=["one string", "one list", "aggregated list", "aggregated string", "sort"],
)
def test_memory_limit(path, sql):
    """Memory ends the query even where DuckDB does not count it, and nothing is spilled to the disk."""
    before = set(path.parent.iterdir())
    with pytest.raises(LimitError):
        run_query(path, sql, limits=QueryLimits(time=20, memory=128 * MIB, rows=10))
    assert set(path.parent.iterdir()) == before


def test_large_result(path, monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_RESULT_BYTES", 100_000)
    error, message = refusal(path, "SELECT repeat('x', 1000) FROM range(1000)", rows=1000)
    assert error == "LimitError"
    assert "larger than" in message


@pytest.mark.parametrize("depth", [2_000, 200_000])
@pytest.mark.parametrize("shape", ["(", "1+", "NOT ", "-", "[", "CASE WHEN 1 THEN "])
def test_deeply_nested_sql(path, shape, depth):
    closing = {"(": ")", "[": "]", "CASE WHEN 1 THEN ": " END"}.get(shape, "")
    sql = "SELECT " + shape * depth + "1" + closing * depth
    with pytest.raises((UsageError, LimitError)) as caught:
        run_query(path, sql, limits=QueryLimits(time=10, memory=256 * MIB))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limits", [{"time": 0}, {"time": -1}, {"memory": 0}, {"rows": -1}])
def test_limits_must_make_sense(path, limits):
    with pytest.raises(UsageError, match="limits of a query"):
        run_query(path, "SELECT 1", limits=QueryLimits(**limits))


def test_errors_of_the_store(tmp_path):
    with pytest.raises(InvalidInputError, match="no such store"):
        run_query(tmp_path / "none.duckdb", "SELECT 1")
    foreign = tmp_path / "foreign.duckdb"
    foreign.write_bytes(b"hello")
    with pytest.raises(StoreError, match="not an emergraph store"):
        run_query(foreign, "SELECT 1")
    path = make_store(tmp_path / "net.duckdb")
    with open_store(path, mode="write"), pytest.raises(StoreError, match="locked by another process"):
        run_query(path, "SELECT 1")
    with open_store(path):
        assert run_query(path, "SELECT 1").frame.height == 1


def test_a_crash_of_the_engine_is_an_error_line(path, monkeypatch):
    monkeypatch.setattr("emergraph.graphstore.query._MODULE", "emergraph.graphstore.no_such_module")
    with pytest.raises(LimitError, match="crashed the database engine") as caught:
        run_query(path, "SELECT 1")
    assert "\n" not in str(caught.value)


def test_module_of_the_child_is_found_without_the_current_folder(path, tmp_path, monkeypatch):
    """A folder with a file named duckdb.py must not get to run it."""
    (tmp_path / "duckdb.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(tmp_path)
    assert run_query(path, "SELECT 1").frame.height == 1


def test_strengths_of_ten_million_edges_are_quick(tmp_path):
    """The share of a second that the design asks for is measured by the benchmark; here a generous bound."""
    path = tmp_path / "net.duckdb"
    with open_store(path, mode="create") as store:
        write_chain(store, random_chain([1000, 1000, 1000]))
    start = time.perf_counter()
    sql = "SELECT src, sum(abs(weight)) AS s FROM edges WHERE graph = 0 GROUP BY src ORDER BY src"
    frame = run_query(path, sql).frame
    assert time.perf_counter() - start < 10
    weights = random_chain([1000, 1000, 1000])
    expected = np.concatenate([np.abs(matrix).astype(np.float64).sum(1) for matrix in weights])
    np.testing.assert_allclose(frame["s"].to_numpy(), expected, rtol=1e-6)


def test_request_is_plain_json(path):
    """The child reads one JSON object; what it answers is one JSON line."""
    assert json.loads(json.dumps(ask(path, "SELEC"))) == ask(path, "SELEC")
