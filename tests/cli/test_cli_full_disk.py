"""A disk without room: exit code 6, one line, and no result of the command, whoever writes it.

A limit on the size of files stands in for the disk in tests that anybody can run; as root, there is a small
disk in memory, too. Folders that may not be written to are tried as an ordinary user.
"""

import gc
import io
import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest
from clifiles import DEMO

from emergraph.cli.main import main

ROOT = os.geteuid() == 0


def limited(size, *words):
    """Run a command in this process while it may write files up to a size."""
    said = io.StringIO()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            code = main([*map(str, words)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return int(code), said.getvalue()


def as_user(user, *words, cwd):
    """Run a command as a user of the system."""
    done = subprocess.run(
        [sys.executable, "-m", "emergraph", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        user=user,
        env={**os.environ, "HOME": str(cwd)},
    )
    return done.returncode, done.stderr


def one_line(error):
    assert len(error.splitlines()) == 1, error
    assert "unexpected" not in error
    return error


def contents(folder):
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def size_of(path):
    return max(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))


WRITERS = {
    "graphml": ("convert traced.duckdb --graph digits_dense --to graphml --target", "out.graphml"),
    "edgelist": ("convert traced.duckdb --graph digits_dense --to edgelist --target", "out.txt"),
    "parquet": ("convert traced.duckdb --graph digits_dense --to parquet --target", "out"),
    "report": ("report traced.duckdb --out", "out.html"),
    "report in JSON": ("report traced.duckdb --out", "out.json"),
    "CSV": ("ls traced.duckdb --out", "out.csv"),
    "Parquet": ("ls traced.duckdb --out", "out.parquet"),
    "a new store": (f"export {DEMO / 'digits_dense.onnx'}", "out.duckdb"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_wherever_a_result_is_cut_off_it_is_6_and_not_there(run, traced, tmp_path, monkeypatch, writer):
    """At the first byte, in the middle, and at the last one: some libraries lose that without a word."""
    words, name = WRITERS[writer]
    monkeypatch.chdir(tmp_path)
    assert run(*words.split(), name).code == 0
    size = size_of(tmp_path / name)
    (tmp_path / name).rename(tmp_path / "whole")
    before = contents(tmp_path)
    for room in (0, size // 2, size - 1):
        code, error = limited(room, *words.split(), name)
        assert code == 6, (room, error)
        assert name in one_line(error)
        assert contents(tmp_path) == before


def test_an_old_result_stays(run, traced, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.html").write_text("old")
    before = contents(tmp_path)
    code, error = limited(1000, "report", "traced.duckdb", "--out", "out.html")
    assert code == 6, error
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "words",
    [
        f"trace traced.duckdb digits.npz --model {DEMO / 'digits_dense.onnx'} --graph digits_dense",
        "paths traced.duckdb --graph digits_dense",
    ],
)
def test_a_store_that_cannot_take_a_result_stays_alone_and_as_it_was(traced, tmp_path, monkeypatch, words):
    """DuckDB would leave an empty log beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.npz").write_bytes((DEMO / "digits.npz").read_bytes())
    before = contents(tmp_path)
    code, error = limited(5000, *words.split())
    assert code == 6, error
    assert "traced.duckdb" in one_line(error)
    assert contents(tmp_path) == before


PRUNE = "prune traced.duckdb --graph digits_dense --level 0.5 --model digits_dense.onnx".split()  # noqa: SIM905


def graphs(run, store):
    return [row["name"] for row in json.loads(run("ls", store, "--format", "json").out)]


@pytest.fixture
def pruning(traced, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits_dense.onnx").write_bytes((DEMO / "digits_dense.onnx").read_bytes())
    return tmp_path


def test_prune_writes_the_file_the_graph_and_the_table_or_none_of_them(run, pruning, monkeypatch):
    """Each of the writes fails in turn."""
    from emergraph.errors import LimitError

    before = graphs(run, "traced.duckdb")

    def full(*_, **__):
        raise LimitError("no room")

    for where in (
        "emergraph.analysis.pruning.writing.write_atomically",
        "emergraph.graphstore.writer.GraphWriter.finish",
        "emergraph.analysis.pruning.saving.save_pruning",
        "emergraph.cli.output._write",
        "emergraph.atomic._sync",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, full)
            done = run(*PRUNE, "--write", "pruned.onnx", "--save-graph", "slim", "--out", "table.csv")
        assert done.code == 6, where
        assert not (pruning / "pruned.onnx").exists(), where
        assert not (pruning / "table.csv").exists(), where
        assert graphs(run, "traced.duckdb") == before, where
        assert len(json.loads(run("sql", "traced.duckdb", "FROM runs", "--format", "json").out)) == 0, where
    done = run(*PRUNE, "--write", "pruned.onnx", "--save-graph", "slim", "--out", "table.csv")
    assert done.code == 0, done.err
    assert {"pruned.onnx", "table.csv"} <= {path.name for path in pruning.iterdir()}
    assert graphs(run, "traced.duckdb") == [*before, "slim"]


def test_a_name_as_long_as_the_file_system_allows(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = f"{'n' * (251 - len('.duckdb'))}.duckdb"
    assert run("export", DEMO / "digits_dense.onnx", name).code == 0
    assert run("compact", name).code == 0
    assert run("ls", name, "--out", f"{'t' * 251}.csv").code == 0
    assert run("convert", name, "--to", "edgelist", "--target", "e" * 255).code == 0
    done = run("export", DEMO / "digits_dense.onnx", f"n{name}")
    assert done.code == 2
    assert "longer than 251 bytes" in one_line(done.err)


@contextmanager
def small_disk(folder, size):
    """A disk in memory, mounted at a folder; only root may."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield
    finally:
        gc.collect()  # an error that was reported may still hold a file that it was about
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(not ROOT, reason="only root can mount a small disk")
@pytest.mark.parametrize("free", [0, 12 * 1024])
def test_a_small_disk(run, tmp_path, traced, free):
    disk = tmp_path / "disk"
    with small_disk(disk, "1m"):
        (disk / "filling").write_bytes(bytes((1 << 20) - free - 4096))
        before = contents(disk)
        for words in (
            ("export", DEMO / "digits_conv.onnx", disk / "new.duckdb"),
            ("convert", traced, "--to", "graphml", "--target", disk / "g.graphml"),
            ("convert", traced, "--to", "parquet", "--target", disk / "g"),
            ("report", traced, "--out", disk / "page.html"),
        ):
            done = run(*words)
            assert done.code == 6, (words, done.err)
            one_line(done.err)
            assert contents(disk) == before
            assert {path.name for path in disk.iterdir()} == set(before)


WRITING = {
    "export net.onnx new.duckdb": 5,
    "export net.onnx traced.duckdb --force": 5,
    "trace traced.duckdb --random 4 --model net.onnx --graph digits_dense": 5,
    f"{' '.join(PRUNE)} --no-save --write pruned.onnx": 2,
    "convert traced.duckdb --to graphml": 2,
    "convert traced.duckdb --to parquet": 2,
    "report traced.duckdb": 2,
    "explore traced.duckdb": 2,
    "ls traced.duckdb --out table.csv": 2,
    "compact traced.duckdb": 5,
    "merge traced.duckdb other.duckdb": 5,
    "rm traced.duckdb --graph digits_conv": 5,
    "emergence traced.duckdb": 5,
}
"""Exit codes as documented: 2 for a place that was named for a result, 5 for a store."""


def fill(folder, traced):
    for name in ("net.onnx", "digits_dense.onnx"):
        (folder / name).write_bytes((DEMO / "digits_dense.onnx").read_bytes())
    for name in ("traced.duckdb", "other.duckdb"):
        if not (folder / name).exists():
            (folder / name).write_bytes(traced.read_bytes())


@pytest.mark.skipif(not ROOT, reason="only root can mount a disk")
def test_a_disk_that_may_only_be_read(run, traced, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    with small_disk(disk, "64m"):
        fill(disk, traced)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        before = contents(disk)
        with monkeypatch.context() as patch:
            patch.chdir(disk)
            found = {words: run(*words.split()) for words in WRITING}
        assert contents(disk) == before
    assert {words: done.code for words, done in found.items()} == WRITING
    for done in found.values():
        one_line(done.err)


def test_a_folder_that_an_ordinary_user_may_only_read(traced):
    user = 65534 if ROOT else None
    try:
        subprocess.run([sys.executable, "-c", "import emergraph"], user=user, check=True, capture_output=True)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip(f"an ordinary user cannot run {sys.executable}")
    folder = traced.parent
    fill(folder, traced)
    if ROOT:
        for above in folder.parents[:3]:
            above.chmod(0o755)
    folder.chmod(0o555)
    before = contents(folder)
    found = {words: as_user(user, *words.split(), cwd=folder) for words in WRITING}
    folder.chmod(0o755)
    assert contents(folder) == before
    assert {words: code for words, (code, _) in found.items()} == WRITING
    for _, error in found.values():
        one_line(error)


def test_the_limit_on_files_is_what_the_tests_say():
    """SIGXFSZ is ignored by Python, so that a write beyond the limit fails instead of ending the process."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    assert hard == resource.RLIM_INFINITY or hard > 1 << 30
