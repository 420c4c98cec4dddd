"""What is opened as a store: a DuckDB file by its content, never by its name; and nothing else is touched."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest
from storegraphs import make_store

import emergraph
from emergraph.errors import InvalidInputError, StoreError, UsageError
from emergraph.graphstore.connection import connect
from emergraph.graphstore.maintain import compact, merge
from emergraph.graphstore.query import run_query
from emergraph.graphstore.store import open_store
from emergraph.graphstore.storefile import check_opened, check_place
from emergraph.outputs import holds_database

READ_BY_DUCKDB = (
    "csv",
    "tsv",
    "json",
    "ndjson",
    "jsonl",
    "parquet",
    "xlsx",
    "csv.gz",
    "json.gz",
    "arrow",
    "sqlite",
)
OTHERS = ("duckdb", "db", "onnx", "npz", "txt", "gz", "zip", "")
CONTENTS = {
    "table": b"a,b\n1,2\n",
    "json": b'[{"a": 1}]\n',
    "empty": b"",
    "one byte short of the magic": b"\0" * 8 + b"DUC",
    "the magic elsewhere": b"DUCK" + b"\0" * 40,
    "text": b"x" * 100_000,
}


def state(path):
    return path.read_bytes(), path.stat().st_mtime_ns


def parquet(path):
    pl.DataFrame({"a": [1, 2]}).write_parquet(path)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("stored") / "net.duckdb")


@pytest.mark.parametrize("suffix", [*READ_BY_DUCKDB, *OTHERS])
@pytest.mark.parametrize("mode", ["read", "write", "create"])
def test_an_existing_file_of_something_else_is_refused_untouched(tmp_path, suffix, mode):
    path = tmp_path / (f"precious.{suffix}" if suffix else "precious")
    for content in CONTENTS.values():
        path.write_bytes(content)
        before = state(path)
        with pytest.raises(StoreError, match="not an emergraph store") as caught:
            open_store(path, mode=mode, any_name=True)
        assert "\n" not in str(caught.value)
        assert state(path) == before
        assert list(tmp_path.iterdir()) == [path]


def test_a_real_parquet_file_is_refused_untouched(tmp_path):
    path = tmp_path / "t.parquet"
    parquet(path)
    before = state(path)
    for mode in ("read", "write", "create"):
        with pytest.raises(StoreError):
            open_store(path, mode=mode)
    assert state(path) == before


WAYS = {
    "emergraph.open": lambda path, good: emergraph.open(path),
    "sql": lambda path, good: run_query(path, "SELECT 1"),
    "compact": lambda path, good: compact(path),
    "merge from": lambda path, good: _merge(good, path),
    "export": lambda path, good: emergraph.export("none.onnx", path),
    "landscape": lambda path, good: emergraph.landscape("none.onnx", store=path),
    "information": lambda path, good: emergraph.information("none.onnx", None, store=path),
}


def _merge(good, path):
    with open_store(good, mode="write") as store:
        return merge(store, path)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_a_store_looks_at_the_file(tmp_path, stored, way):
    good = Path(shutil.copy(stored, tmp_path / "good.duckdb"))
    path = tmp_path / "precious.csv"
    path.write_bytes(CONTENTS["table"])
    before = state(path), state(good)
    with pytest.raises(StoreError, match=r"precious\.csv: not an emergraph store"):
        WAYS[way](path, good)
    assert (state(path), state(good)) == before


def test_the_recorder_looks_at_the_place_before_anything_else(tmp_path):
    torch = pytest.importorskip("torch")
    from emergraph.exporters.pytorch.recorder import RecorderOptions, record

    path = tmp_path / "precious.csv"
    path.write_bytes(CONTENTS["table"])
    module, probe = torch.nn.Linear(2, 1), torch.zeros(3, 2)
    with pytest.raises(StoreError, match="not an emergraph store"):
        record(module, path, inputs=probe).__enter__()
    with pytest.raises(UsageError, match="--any-name"):
        record(module, tmp_path / "new.csv", inputs=probe).__enter__()
    with record(
        module, tmp_path / "new.csv", inputs=probe, options=RecorderOptions(any_name=True)
    ) as recorder:
        recorder.step(0)
    assert emergraph.open(tmp_path / "new.csv").graphs.height == 1
    assert path.read_bytes() == CONTENTS["table"]


@pytest.mark.parametrize(
    "name", ["new.csv", "new.json", "new.parquet", "new.onnx", "new", "new.duckdb.csv", ".duckdb"]
)
def test_a_new_store_has_the_name_of_one_or_any_that_is_asked_for(tmp_path, stored, name):
    path = tmp_path / name
    with pytest.raises(UsageError, match="--any-name"):
        open_store(path, mode="create")
    assert list(tmp_path.iterdir()) == []
    with open_store(path, mode="create", any_name=True) as store:
        assert merge(store, stored)
    assert holds_database(path)
    # from now on it is a store by its content
    assert emergraph.open(path).graphs.height == emergraph.open(stored).graphs.height
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["net.duckdb", "net.db", "NET.DUCKDB", "a.b.Db"])
def test_names_of_new_stores(tmp_path, stored, name):
    with open_store(tmp_path / name, mode="create") as store:
        merge(store, stored)
    assert holds_database(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["net.csv", "net.json", "net.parquet", "net.xlsx", "net.gz", "net", "net.onnx"]
)
def test_a_store_is_one_by_its_content(tmp_path, stored, name):
    path = Path(shutil.copy(stored, tmp_path / name))
    with open_store(path) as opened:
        assert opened.graphs().height
    with open_store(path, mode="create") as opened:
        assert opened.graphs().height
    (tmp_path / "link.csv").symlink_to(path)
    assert run_query(tmp_path / "link.csv", "SELECT count(*) AS n FROM graphs").frame["n"][0]


MAGIC_NAMES = (
    *(":memory:", ":memory:x", "md:net", "motherduck:net", "sqlite:net.db", "postgres:net", "mysql:net"),
    *("ducklake:net", "duckdb:net", "http:net.duckdb", "s3:net.duckdb", "file:net.duckdb"),
    *("memory", "temp", "system", "main", "net*.duckdb", "net[1].duckdb", "net#1.duckdb", "net%20.duckdb"),
    *("net'.duckdb", 'net".duckdb', "net;.duckdb", "net.duckdb ", " net.duckdb", "-net.duckdb", "~", "$HOME"),
    *("ne\tt.duckdb", "né.duckdb"),
)


@pytest.mark.parametrize("name", MAGIC_NAMES)
def test_names_mean_files_of_that_name(tmp_path, monkeypatch, stored, name):
    """Whatever such a name means to DuckDB, here it is a file of the working folder."""
    monkeypatch.chdir(tmp_path)
    with open_store(name, mode="create", any_name=True) as store:
        merge(store, stored)
    assert holds_database(tmp_path / name)
    compact(name)
    assert [file.name for file in Path().iterdir()] == [name]
    assert emergraph.open(name).graphs.height == 1


def test_names_mean_files_of_that_name_for_sql(tmp_path, monkeypatch, stored):
    monkeypatch.chdir(tmp_path)
    shutil.copy(stored, ":memory:")
    assert run_query(":memory:", "SELECT count(*) AS n FROM graphs").frame["n"][0] == 1


@pytest.mark.parametrize("url", ["http://localhost/net.duckdb", "s3://bucket/net.duckdb", "gs://b/n.duckdb"])
def test_addresses_are_paths_to_nowhere(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="no such store"):
        open_store(url)
    with pytest.raises(InvalidInputError, match="does not exist"):
        open_store(url, mode="create")


@pytest.mark.parametrize("name", ["a?b.duckdb", "net.duckdb?x=1", "a?/net.duckdb", "a\\net.duckdb"])
def test_what_duckdb_misreads_is_refused_by_name(tmp_path, stored, name):
    """The last would be a file of another folder."""
    (tmp_path / "a?").mkdir()
    (tmp_path / "a").mkdir()
    path = tmp_path / name
    for mode in ("read", "create"):
        with pytest.raises(UsageError, match=r"with a [?\\] in it; rename"):
            open_store(path, mode=mode)
    shutil.copy(stored, path)
    with pytest.raises(UsageError, match=r"with a [?\\] in it; rename"):
        open_store(path)


def test_duckdb_is_asked_which_file_it_has_open(tmp_path, stored):
    """The look at the content comes first; this is what remains when the file is swapped in between."""
    table = tmp_path / "t.csv"
    table.write_bytes(CONTENTS["table"])
    with pytest.raises(StoreError, match="a database in memory instead"):
        connect(table, read_only=False)
    assert table.read_bytes() == CONTENTS["table"]
    with duckdb.connect(str(shutil.copy(stored, tmp_path / "other.duckdb"))) as other:
        check_opened(other, tmp_path / "other.duckdb")
        with pytest.raises(StoreError, match=r"other\.duckdb instead"):
            check_opened(other, stored)


@pytest.mark.parametrize("mode", ["read", "write", "create"])
def test_what_is_no_regular_file(tmp_path, mode):
    os.mkfifo(tmp_path / "fifo.duckdb")
    (tmp_path / "nowhere.duckdb").symlink_to("none")
    for name, said in (("fifo.duckdb", "a FIFO"), ("nowhere.duckdb", "leads nowhere")):
        with pytest.raises(InvalidInputError, match=said):
            open_store(tmp_path / name, mode=mode)
    with pytest.raises(InvalidInputError, match="a device, not a store"):
        open_store("/dev/zero", mode=mode)


TRY_TO_WRITE = """
import sys
from emergraph.errors import StoreError
from emergraph.graphstore.store import open_store
try:
    open_store(sys.argv[1], mode="write").close()
    print("opened")
except StoreError as error:
    print("locked" if "locked by another process" in str(error) else error)
"""


def test_to_look_at_a_store_that_is_open_leaves_its_lock(tmp_path, stored):
    """Closing any descriptor of a file gives up the locks that the process has on it."""
    path = Path(shutil.copy(stored, tmp_path / "net.duckdb"))

    def other_process():
        words = [sys.executable, "-c", TRY_TO_WRITE, str(path)]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    with open_store(path, mode="write") as store:
        assert other_process() == "locked"
        assert holds_database(path)
        assert not check_place(path)
        with open_store(path, mode="write") as again:
            assert again.graphs().height
        assert other_process() == "locked"
        assert store.graphs().height
    assert other_process() == "opened"
