"""Older stores are brought to the current schema, in one transaction, or left alone."""

from pathlib import Path

import duckdb
import pytest
from storegraphs import make_store, random_chain, write_chain

from emergraph.errors import StoreError
from emergraph.graphstore import query, schema, store
from emergraph.graphstore.maintain import merge
from emergraph.graphstore.schema import Migration, base_tables, migrations, schema_sql
from emergraph.graphstore.store import open_store

OLD = schema.SCHEMA_VERSION
STEPS = (
    Migration(
        OLD + 1,
        "ALTER TABLE graphs ADD COLUMN colour VARCHAR; UPDATE graphs SET colour = 'red';",
        "CREATE TEMP VIEW graphs AS SELECT *, 'red' AS colour FROM {store}.main.graphs;",
    ),
    Migration(
        OLD + 2,
        "CREATE TABLE notes (graph INTEGER, note VARCHAR); INSERT INTO notes SELECT id, name FROM graphs;",
        "CREATE TEMP VIEW notes AS SELECT id AS graph, name AS note FROM graphs;",
    ),
)
VERSION_1 = Path(__file__).with_name("schemas") / "version_1.sql"
"""What versions before the first migration made."""


@pytest.fixture
def older_store(tmp_path, monkeypatch):
    """A store of the current schema, and a program that is two versions ahead."""
    path = make_store(tmp_path / "net.duckdb")

    def pretend(steps, version):
        for module in (schema, store):
            monkeypatch.setattr(module, "SCHEMA_VERSION", version)
            monkeypatch.setattr(module, "migrations", lambda: steps)

    return path, pretend


@pytest.fixture
def version_1(tmp_path):
    """A store of the first schema, made by its own SQL, and one of today's with the same graph."""
    today, path = make_store(tmp_path / "today.duckdb"), tmp_path / "old.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(VERSION_1.read_text(encoding="utf-8"))
        connection.execute("INSERT INTO store_info VALUES ('emergraph', 1, '0.1.0', now()::TIMESTAMP)")
        connection.execute(f"ATTACH '{today}' AS today (READ_ONLY)")
        names = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'old'"
        for table in {row[0] for row in connection.execute(names).fetchall()} - {"store_info"}:
            columns = [row[0] for row in connection.execute(f"DESCRIBE old.{table}").fetchall()]
            chosen = ", ".join(f'"{column}"' for column in columns)
            connection.execute(f"INSERT INTO old.{table} SELECT {chosen} FROM today.{table}")
    return path, today


def test_a_store_of_version_1_is_read_as_it_is(version_1):
    path, today = version_1
    before = path.read_bytes()
    path.chmod(0o444)
    with open_store(path) as old, open_store(path) as again, open_store(today) as new:
        assert old.graph().layers().equals(new.graph().layers())
        assert old.graph().layers()["split_by"].to_list() == [None] * old.graph().layers().height
        assert again.graph().edges().equals(new.graph().edges())
    asked = query.run_query(path, "SELECT name, split_by FROM layers WHERE split_by IS NULL ORDER BY id")
    assert asked.frame["name"].to_list() == ["layer0", "layer1", "layer2"]
    assert path.read_bytes() == before


@pytest.fixture(params=["version_1.sql", "version_2.sql"])
def older_trace(request, tmp_path):
    """A store from before version 3, with a trace."""
    path = tmp_path / "old.duckdb"
    version = int(request.param[8])
    with duckdb.connect(path) as connection:
        connection.execute(VERSION_1.with_name(request.param).read_text(encoding="utf-8"))
        connection.execute(
            f"INSERT INTO store_info VALUES ('emergraph', {version}, '0.1.0', now()::TIMESTAMP)"
        )
        connection.execute("INSERT INTO activations VALUES (0, 3, .1, .2, .3, .4, .5, .6, .7, 2, [.1, .2])")
    return path


@pytest.mark.parametrize("mode", ["read", "write"])
def test_an_older_trace_has_no_positions(older_trace, mode):
    with open_store(older_trace, mode=mode) as old:
        row = old.connection.execute("SELECT * EXCLUDE (values) FROM activations").fetchone()
    assert row == (0, 3, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 2, None, None, None)


@pytest.mark.parametrize("mode", ["read", "write"])
def test_an_older_graph_has_no_edges_in_place(version_1, tmp_path, mode):
    path, today = tmp_path / "version_3.duckdb", version_1[1]
    with duckdb.connect(path) as connection:
        connection.execute(VERSION_1.with_name("version_3.sql").read_text(encoding="utf-8"))
        connection.execute("INSERT INTO store_info VALUES ('emergraph', 3, '0.1.0', now()::TIMESTAMP)")
        connection.execute(f"ATTACH '{today}' AS today (READ_ONLY)")
        for table in ("graphs", "layers", "units", "connections"):
            connection.execute(f"INSERT INTO version_3.{table} SELECT * FROM today.{table}")
        columns = [row[0] for row in connection.execute("DESCRIBE version_3.blocks").fetchall()]
        connection.execute(f"INSERT INTO version_3.blocks SELECT {', '.join(columns)} FROM today.blocks")
    asked = "SELECT * FROM unit_strengths ORDER BY ALL"
    with open_store(path, mode=mode) as old, open_store(today) as new:
        assert all(block.place is None for block in old.graph().blocks_info())
        assert old.connection.execute(asked).fetchall() == new.connection.execute(asked).fetchall()
        assert old.graph().edges().equals(new.graph().edges())


@pytest.mark.parametrize("mode", ["write", "create"])
def test_a_store_of_version_1_that_is_changed_becomes_one_of_today(version_1, mode):
    path, today = version_1
    with open_store(path, mode=mode) as old, open_store(today) as new:
        columns = "table_name, column_name, data_type, is_nullable, comment"
        described = f"SELECT {columns} FROM duckdb_columns() ORDER BY ALL"
        assert old.connection.execute(described).fetchall() == new.connection.execute(described).fetchall()
        assert old.connection.execute("SELECT schema_version FROM store_info").fetchall() == [(OLD,)]
        write_chain(old, random_chain([2, 1]), name="later")
        assert old.graph("net").edges().equals(new.graph().edges())


def test_merging_a_store_of_version_1_leaves_it_as_it_is(version_1):
    path, today = version_1
    before = path.read_bytes()
    with open_store(today, mode="write") as target:
        assert merge(target, path) == {0: 1}
        assert target.graph(1).layers().equals(target.graph(0).layers())
        copied, kept = (target.graph(k).edges().drop("block") for k in (1, 0))
        assert copied.equals(kept)
    assert path.read_bytes() == before


def test_a_damaged_store_of_version_1_is_no_store_of_today(version_1):
    path, _ = version_1
    with duckdb.connect(path) as connection:
        connection.execute("DROP VIEW unit_activations; ALTER TABLE units DROP COLUMN neuron")
    for mode in ("read", "write"):
        with pytest.raises(StoreError, match=r"damaged, column units\.neuron is missing"):
            open_store(path, mode=mode)
    with duckdb.connect(path) as connection:
        assert connection.execute("SELECT schema_version FROM store_info").fetchall() == [(1,)]


@pytest.mark.parametrize("mode", ["read", "write", "create"])
def test_older_store_shows_what_a_migration_makes(older_store, mode):
    path, pretend = older_store
    with open_store(path) as opened:
        edges = opened.graph().edges()
    pretend(STEPS, OLD + 2)
    with open_store(path, mode=mode) as opened:
        assert opened.graphs()["colour"].to_list() == ["red"]
        assert opened.connection.execute("SELECT * FROM notes").fetchall() == [(0, "net")]
        stored = OLD if mode == "read" else OLD + 2
        assert opened.connection.execute("SELECT schema_version FROM store_info").fetchall() == [(stored,)]
        assert opened.graph().edges().equals(edges)
        if mode == "read":
            with pytest.raises(StoreError):
                opened.write_metrics(0, {"loss": 1.0})


def test_failing_migration_changes_nothing(older_store):
    path, pretend = older_store
    pretend((STEPS[0], Migration(OLD + 2, "SELECT * FROM no_such_table")), OLD + 2)
    with pytest.raises(StoreError, match="no_such_table"):
        open_store(path, mode="write")
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
    open_store(path, mode="write").close()
    pretend((), OLD)
    with pytest.raises(StoreError, match="update emergraph"):
        open_store(path)


def test_migrations_are_numbered_files(tmp_path, monkeypatch):
    for name in (
        "migration_0003_b.sql",
        "migration_0002_a.sql",
        "migration_0002_a.view.sql",
        "schema.sql",
        "migration_2.sql",
        "notes.txt",
    ):
        (tmp_path / name).write_text(f"-- {name}")
    monkeypatch.setattr(schema.resources, "files", lambda _: tmp_path)
    assert migrations() == (
        Migration(2, "-- migration_0002_a.sql", "-- migration_0002_a.view.sql"),
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


def test_every_version_has_one_migration_and_a_schema_to_start_from():
    folder = Path(schema.__file__).parent
    steps = sorted(path.name[10:14] for path in folder.glob("migration_*.sql") if ".view." not in path.name)
    assert steps == [f"{version:04}" for version in range(2, schema.SCHEMA_VERSION + 1)]
    older = {path.name for path in VERSION_1.parent.glob("version_*.sql")}
    assert older == {f"version_{version}.sql" for version in range(1, schema.SCHEMA_VERSION)}


@pytest.mark.parametrize("version", range(1, schema.SCHEMA_VERSION))
def test_a_store_of_each_older_version_becomes_one_of_today(version, tmp_path):
    path, today = tmp_path / "old.duckdb", tmp_path / "new.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(VERSION_1.with_name(f"version_{version}.sql").read_text(encoding="utf-8"))
        connection.execute(
            "INSERT INTO store_info VALUES ('emergraph', ?, '0.1.0', now()::TIMESTAMP)", [version]
        )
    described = "SELECT table_name, column_name, data_type FROM duckdb_columns() ORDER BY ALL"
    with open_store(path, mode="write") as old, open_store(today, mode="create") as new:
        assert old.connection.execute(described).fetchall() == new.connection.execute(described).fetchall()
