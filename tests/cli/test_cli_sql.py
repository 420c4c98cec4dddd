"""`emergraph sql`: reads only, alone with one store, under limits."""

import json
import subprocess
import sys
import time

import pytest
from clifiles import DEMO

from emergraph.errors import ExitCode, chain_of


def test_rows_come_back_in_every_format(run, exported):
    query = "SELECT name, n_edges FROM graphs ORDER BY id"
    rows = json.loads(run("sql", exported, query, "--format", "json").out)
    assert rows == [{"name": "digits_conv", "n_edges": 620}, {"name": "digits_dense", "n_edges": 1478}]
    assert run("sql", exported, query, "--format", "csv").out.splitlines()[1] == "digits_conv,620"


def test_the_query_can_come_from_standard_input(exported):
    command_line = [sys.executable, "-m", "emergraph", "sql", str(exported), "-", "--format", "csv"]
    result = subprocess.run(
        command_line, input="SELECT 1 AS one;", capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == "one\n1\n"


def test_a_result_table_that_is_not_there_yet_names_its_command(run, exported):
    said = run("sql", exported, "--recipe", "emergence")
    assert said.code == 2
    assert "no table emergence_thresholds yet: it holds results of `emergraph emergence`" in said.err
    said = run("sql", exported, "FROM egdes")
    assert 'Did you mean "edges"?' in said.err


def test_values_that_json_lacks_become_null(run, exported):
    query = "SELECT 'nan'::DOUBLE AS a, 'inf'::DOUBLE AS b, NULL AS c, 1.5 AS d"
    (row,) = json.loads(run("sql", exported, query, "--format", "json").out)
    assert row == {"a": None, "b": None, "c": None, "d": 1.5}


def test_more_rows_than_asked_for_are_cut_off_and_said(run, exported):
    result = run("sql", exported, "FROM range(100)", "--rows", "10", "--format", "csv")
    assert len(result.out.splitlines()) == 11
    assert "first 10 rows" in result.err


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM edges",
        "DROP TABLE connections",
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO metrics VALUES (0, 'a', 1)",
        "UPDATE graphs SET name = 'x'",
        "ATTACH 'other.duckdb'",
        "COPY graphs TO 'out.csv'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '1TB'",
        "PRAGMA database_list",
        "EXPORT DATABASE 'out'",
        "CALL pragma_version()",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM duckdb_settings()",
        "SELECT 1; DROP TABLE connections",
        "SELECT 1; SELECT 2",
        "SELEC 1",
        "SELECT * FROM nowhere",
        "",
        "'; DROP TABLE edges;--",
    ],
)
def test_all_but_one_reading_statement_is_refused_in_one_line(run, exported, query, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = exported.read_bytes()
    result = run("sql", exported, query)
    assert result.code == 2, result
    assert result.out == ""
    assert len(result.err.splitlines()) == 1
    assert exported.read_bytes() == before
    assert list(tmp_path.iterdir()) == []


def test_the_last_good_name_is_suggested_for_a_wrong_one(run, exported):
    assert "edges" in run("sql", exported, "SELECT * FROM edgess").err


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM range(100000000000)",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
    ],
)
def test_a_query_without_end_stops_at_the_time_limit(run, exported, query):
    start = time.monotonic()
    result = run("sql", exported, query, "--time-limit", "1s")
    assert result.code == 6
    assert time.monotonic() - start < 15
    assert len(result.err.splitlines()) == 1
    assert "--time-limit" in result.err


def test_a_query_that_takes_too_much_memory_stops(run, exported):
    query = "SELECT list(i) FROM range(2000000000) AS t(i)"
    result = run("sql", exported, query, "--memory-limit", "200MB", "--time-limit", "30s")
    assert result.code == 6
    assert len(result.err.splitlines()) == 1


def test_a_store_that_another_process_writes_to_is_locked(run, store):
    program = (
        "import sys, duckdb\n"
        "connection = duckdb.connect(sys.argv[1])\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "open\n"
        for command_line in (["sql", store, "SELECT 1"], ["ls", store], ["info", store]):
            result = run(*command_line)
            assert result.code == 5
            assert len(result.err.splitlines()) == 1
            assert "locked" in result.err
            assert str(holder.pid) in result.err
        holder.stdin.close()
    assert run("ls", store).code == 0


def test_an_error_of_the_query_is_what_it_is_and_nothing_behind_it(run, exported, monkeypatch):
    """An error that was its own cause made whoever walks along causes walk for ever."""
    ended = []
    monkeypatch.setattr(
        "emergraph.cli.main._report", lambda error: ended.append(list(chain_of(error))) or ExitCode.USAGE
    )
    assert run("sql", exported, "SELECT nothing_of_the_kind FROM layers").code == ExitCode.USAGE
    assert [error.__cause__ for error in ended[0]] == [None]


def test_random_inputs_are_named_where_activity_is_used(run, store):
    dense = DEMO / "digits_dense.onnx"
    assert "random" not in run("sql", store, "SELECT count(*) FROM activations").err
    assert run("trace", store, "--model", dense, "--random", "5", "--graph", "digits_dense").code == 0
    asked = run("sql", store, "SELECT count(*) FROM unit_activations")
    assert "random-n5-seed0 is that on random inputs" in asked.err
    assert "random inputs" not in run("sql", store, "SELECT count(*) FROM units").err
    assert "random inputs" in run("sql", store, "--recipe", "silent-units").err
    counted = run("emergence", store, "--graph", "digits_dense", "--no-save")
    assert "trace real ones" in counted.out.splitlines()[0]
    assert "5 random samples" in counted.out
