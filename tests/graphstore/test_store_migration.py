"""Older stores are brought to the current schema, in one transaction, or left alone."""

import re

import duckdb
import pytest
from storegraphs import make_store, random_chain, write_chain

from emergraph.errors import StoreError
from emergraph.graphstore import query, schema, store
from emergraph.graphstore.schema import Migration, base_tables, migrations, schema_sql
from emergraph.graphstore.store import open_store

OLD = schema.SCHEMA_VERSION
STEPS = (
    Migration(OLD + 1, "ALTER TABLE graphs ADD COLUMN colour VARCHAR; UPDATE graphs SET colour = 'red';"),
    Migration(
        OLD + 2,
        "CREATE TABLE notes (graph INTEGER, note VARCHAR); INSERT INTO notes SELECT id, name FROM graphs;",
    ),
)


@pytest.fixture
def older_store(tmp_path, monkeypatch):
    """A store of the current schema, and a program that is two versions ahead."""
    path = make_store(tmp_path / "net.duckdb")

    def pretend(steps, version):
        for module in (schema, store):
            monkeypatch.setattr(module, "SCHEMA_VERSION", version)
            monkeypatch.setattr(module, "migrations", lambda: steps)

    return path, pretend


@pytest.mark.parametrize("mode", ["read", "write", "create"])
def test_older_store_is_migrated_in_any_mode(older_store, mode):
    path, pretend = older_store
    with open_store(path) as opened:
        edges = opened.graph().edges()
    pretend(STEPS, OLD + 2)
    with open_store(path, mode=mode) as opened:
        assert opened.graphs()["colour"].to_list() == ["red"]
        assert opened.connection.execute("SELECT * FROM notes").fetchall() == [(0, "net")]
        assert opened.connection.execute("SELECT schema_version FROM store_info").fetchall() == [(OLD + 2,)]
        assert opened.graph().edges().equals(edges)
        if mode == "read":
            with pytest.raises(StoreError):
                opened.write_metrics(0, {"loss": 1.0})


def test_failing_migration_changes_nothing(older_store):
    path, pretend = older_store
    pretend((STEPS[0], Migration(OLD + 2, "SELECT * FROM no_such_table")), OLD + 2)
    with pytest.raises(StoreError, match="no_such_table"):
        open_store(path)
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.execute("SELECT schema_version FROM store_info").fetchall() == [(OLD,)]
        columns = [row[0] for row in connection.execute("DESCRIBE graphs").fetchall()]
    assert "colour" not in columns


def test_too_old_to_migrate(older_store):
    path, pretend = older_store
    pretend(STEPS[1:], OLD + 2)
    with pytest.raises(StoreError, match=r"net\.duckdb.*cannot be migrated to \d; export the model again"):
        open_store(path)


def test_migrated_store_is_refused_by_the_older_program(older_store, monkeypatch):
    path, pretend = older_store
    pretend(STEPS, OLD + 2)
    open_store(path).close()
    pretend((), OLD)
    with pytest.raises(StoreError, match="update emergraph"):
        open_store(path)


def test_query_of_an_older_store_migrates_it_first(older_store, monkeypatch):
    """The child process that runs SQL may not write; its parent migrates and asks again."""
    path, _ = older_store
    with duckdb.connect(path) as connection:
        connection.execute("UPDATE store_info SET schema_version = ?", [OLD - 1])
    monkeypatch.setattr(
        store, "migrations", lambda: (Migration(OLD, "DROP TABLE metrics; " + _table("metrics")),)
    )
    assert query.run_query(path, "SELECT count(*) AS n FROM metrics").frame["n"].to_list() == [0]


def _table(name):
    return re.search(rf"CREATE TABLE {name} \(.*?\);", schema_sql(), re.DOTALL)[0]


def test_migrations_are_numbered_files(tmp_path, monkeypatch):
    for name in (
        "migration_0003_b.sql",
        "migration_0002_a.sql",
        "schema.sql",
        "migration_2.sql",
        "notes.txt",
    ):
        (tmp_path / name).write_text(f"-- {name}")
    monkeypatch.setattr(schema.resources, "files", lambda _: tmp_path)
    assert migrations() == (
        Migration(2, "-- migration_0002_a.sql"),
        Migration(3, "-- migration_0003_b.sql"),
    )


def test_shipped_migrations_lead_to_the_current_version():
    versions = [step.version for step in migrations()]
    assert versions == list(range(2, schema.SCHEMA_VERSION + 1))


def test_every_column_of_the_schema_has_a_comment():
    with duckdb.connect() as connection:
        connection.execute(schema_sql())
        missing = connection.execute(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL"
            " AND database_name = current_database() AND schema_name = 'main'"
            " AND (table_name IN (SELECT table_name FROM duckdb_tables())"
            "      OR table_name IN (SELECT view_name FROM duckdb_views() WHERE NOT internal))"
        ).fetchall()
        tables = {row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    assert missing == []
    assert tables == base_tables()


def test_comments_reach_the_file(tmp_path):
    with open_store(tmp_path / "net.duckdb", mode="create") as opened:
        write_chain(opened, random_chain([2, 1]))
        comment = opened.connection.execute(
            "SELECT comment FROM duckdb_columns() WHERE table_name = 'edges' AND column_name = 'n_params'"
        ).fetchall()
    assert comment == [("Non-zero parameters behind the edge, at least 1.",)]
