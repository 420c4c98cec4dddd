"""Files of all commands: nothing hangs on what is no file, no output destroys what is read, or a store."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from clifiles import DEMO, chain_of_layers
from onnx.external_data_helper import convert_model_to_external_data
from pathmatrix import BASES, command_names, path_parameters, special_files, word_parameters

PARAMETERS = path_parameters()
OUTPUTS = [parameter for parameter in PARAMETERS if parameter.role == "WRITES"]
STORES = [parameter for parameter in PARAMETERS if parameter.role == "STORES"]
INPUTS = [parameter for parameter in PARAMETERS if parameter.role in ("READS", "MODEL")]
SECONDS = 20


@pytest.fixture
def files(exported, tmp_path, monkeypatch):
    """Files with which the lines of `BASES` work, for this test alone; the working folder is empty."""
    new = tmp_path / "new"
    new.mkdir()
    monkeypatch.chdir(new)
    (tmp_path / "table.csv").write_text("entity,property\na,b\n")
    return {
        "model": shutil.copy(DEMO / "digits_dense.onnx", tmp_path),
        "store": str(shutil.copy(exported, tmp_path / "net.duckdb")),
        "table": str(tmp_path / "table.csv"),
        "inputs": shutil.copy(DEMO / "digits.npz", tmp_path),
        "new": str(new),
    }


@contextlib.contextmanager
def soon(fifo):
    """End what waits for the other end of a FIFO, or reads without end, with an error of the test."""

    def ring(*_):
        with contextlib.suppress(OSError):
            os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))
        raise TimeoutError(f"still waiting after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def state(path):
    """What must not change."""
    return Path(path).read_bytes(), Path(path).stat().st_mtime_ns


def assert_refused(ran, *codes):
    assert ran.code in codes, ran.err
    assert ran.err.startswith("Error: "), ran.err
    assert ran.err.count("\n") == 1, ran.err
    assert "unexpected" not in ran.err


def test_every_command_has_a_line():
    assert sorted(command_names()) == sorted(BASES)


def test_every_parameter_that_speaks_of_a_file_has_a_role():
    names = ("FILE", "STORE", "FOLDER", "MODEL", "OTHER", "INPUTS", "DIR")
    have = {(parameter.command, parameter.name) for parameter in PARAMETERS}
    speaking = {
        (command, parameter.name)
        for command, parameter in word_parameters()
        if (parameter.metavar or "").startswith(names)
    }
    assert speaking <= have
    assert len(have) > 70
    roles = {(p.command, p.name): p.role for p in PARAMETERS}
    written = {role for (_, name), role in roles.items() if name in {"out", "write", "keep_onnx", "resume"}}
    assert written == {"WRITES", "MAKES"}
    assert {command for (command, name), role in roles.items() if (name, role) == ("out", "MAKES")} == {
        "convert",
        "survey",
    }
    models = {"model", "weights", "to", "run", "source", "a", "b"}
    reading = {role for (_, name), role in roles.items() if name in models}
    assert reading == {"MODEL"}
    assert roles["check", "file"] == "MODEL"
    assert roles["export", "store"] == roles["report", "store"] == roles["skills fit", "store"] == "STORES"


@pytest.mark.parametrize("kind", ["FIFO", "link to FIFO", "socket", "device"])
def test_nothing_waits_for_what_is_no_file(run, files, tmp_path, kind):
    special = special_files(tmp_path)
    for parameter in PARAMETERS if kind in ("FIFO", "device") else PARAMETERS[::5]:
        with soon(special["FIFO"]):
            ran = run(*parameter.line(special[kind], files))
        assert_refused(ran, 2, 3)
        assert kind.split()[-1] in ran.err or parameter.role == "MAKES", (parameter, ran.err)
    assert not list(Path(files["new"]).iterdir())


def test_a_folder_is_refused_or_meant(run, files, tmp_path):
    folder = special_files(tmp_path)["folder"]
    meant = {
        ("audit", "model"),
        ("check", "file"),
        ("demo", "folder"),
        ("mcp", "folder"),
        ("survey", "models"),
        ("report", "inputs"),
        ("explore", "inputs"),
    }
    for parameter in PARAMETERS:
        if parameter.name == "root" or (parameter.command, parameter.name) in meant | {
            *(
                ("landscape", "to"),
                ("report", "source"),
                ("explore", "source"),
            )  # refused by the library, after some work
        }:
            continue
        with soon(tmp_path / "fifo"):
            ran = run(*parameter.line(folder, files))
        assert_refused(ran, 2, 3)


def test_an_empty_path_is_not_the_working_folder(run, files):
    """`check "$MODEL"` with an unset variable said that nothing was found in the working folder."""
    for parameter in PARAMETERS:
        ran = run(*parameter.line("", files))
        assert_refused(ran, 2, 3)
        assert not list(Path(files["new"]).iterdir()), parameter
    assert "is empty" in run("check", "").err
    assert "is empty" in run("export", files["model"], "new.duckdb", "--root=").err
    assert "empty folder" in run("check", ".").out


@pytest.mark.parametrize("words", [["ls"], ["info"], ["sql", "SELECT 1"], ["compact"]])
@pytest.mark.parametrize("suffix", [".wal", ".wal.checkpoint", ".wal.recovery"])
def test_nothing_waits_for_a_pipe_beside_a_store(run, files, words, suffix):
    fifo = Path(files["store"] + suffix)
    os.mkfifo(fifo)
    with soon(fifo):
        ran = run(words[0], files["store"], *words[1:])
    assert_refused(ran, 5)
    assert "FIFO" in ran.err


def test_a_process_of_its_own_does_not_wait_either(files, tmp_path):
    fifo = special_files(tmp_path)["FIFO"]
    for words in (["ls", fifo], ["merge", files["store"], fifo], ["concepts", fifo]):
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "emergraph", *map(str, words)],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.count("\n") == 1
        assert time.monotonic() - begin < 60


def other_names(path, folder):
    """A file under its own name and others."""
    path, folder = Path(path), Path(folder)
    (folder / "soft").symlink_to(path)
    (folder / "hard").hardlink_to(path)
    return [
        path,
        folder / "soft",
        folder / "hard",
        Path(os.path.relpath(path)),
        path.parent / "." / path.name,
    ]


@pytest.mark.parametrize("read", sorted({parameter.name for parameter in INPUTS}))
def test_no_output_is_an_input(run, files, tmp_path, read):
    """Whatever a command reads cannot be replaced by any of its outputs, by whatever name."""
    precious = tmp_path / "precious.csv"
    precious.write_bytes(b"entity,property\na,b\n")
    before = state(precious)
    names = other_names(precious, tmp_path)
    tried = 0
    for source in INPUTS:
        if source.name != read:
            continue
        for target in [*OUTPUTS, *STORES]:
            if target.command != source.command:
                continue
            for name in names[: len(names) if tried < 4 else 2]:
                line = source.line(precious, files)
                ran = run(*target.add_to(line, name))
                assert_refused(ran, 2)
                assert name.name in ran.err
                assert precious.name in ran.err
                assert state(precious) == before
                tried += 1
    assert tried or read in {"folder"}  # a folder to write into


@pytest.mark.parametrize("beside", ["", ".wal"])
def test_no_output_replaces_a_store(run, files, exported, tmp_path, beside):
    """Also one that the command does not read, and its file of changes, there already or not."""
    other = Path(shutil.copy(exported, tmp_path / "other.duckdb"))
    before = state(other)
    target = other.with_name(other.name + beside)
    for parameter in OUTPUTS:
        ran = run(*parameter.line(target, files))
        assert_refused(ran, 2)
        assert "store" in ran.err
        assert state(other) == before
        assert target.exists() == (not beside)


def test_two_outputs_are_two_files(run, files):
    ran = run("report", files["model"], "--store", "a.duckdb", "--out", "./a.duckdb")
    assert_refused(ran, 2)
    assert "two outputs are one file" in ran.err
    ran = run(
        "prune", files["store"], "--model", files["model"], "--level", "0.5", "--write", "p", "--out", "p"
    )
    assert_refused(ran, 2)
    assert not list(Path(files["new"]).iterdir())


def test_ordinary_files_are_replaced_as_a_whole(run, files, tmp_path):
    out = tmp_path / "out.json"
    out.write_text("x" * 100_000)
    assert run("ls", files["store"], "--out", out).code == 0
    assert len(json.loads(out.read_text())) == 2


def model_with_values_outside(folder):
    folder.mkdir()
    model = chain_of_layers("a", "b", weight=np.arange(4, dtype=np.float32).reshape(2, 2))
    convert_model_to_external_data(model, location="values.bin", size_threshold=0)
    onnx.save_model(model, folder / "m.onnx")
    return folder / "m.onnx", folder / "values.bin"


@pytest.mark.parametrize(
    "words",
    [["check"], ["landscape"], ["report"], ["export", "S"], ["diff", "M"], ["export", "S", "--dry-run"]],
)
def test_files_that_a_model_names_are_inputs(run, files, tmp_path, words):
    model, values = model_with_values_outside(tmp_path / "model")
    before = state(values)
    rest = [{"S": "net.duckdb", "M": str(model)}.get(word, word) for word in words[1:]]
    ran = run(words[0], model, *rest, "--out", values)
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("Error: ")
    assert "values.bin is a file that this command reads" in ran.err
    assert state(values) == before


def test_what_links_of_a_model_lead_to_is_an_input(run, files, tmp_path):
    model, values = model_with_values_outside(tmp_path / "model")
    blob = values.rename(tmp_path / "blob")
    values.symlink_to(blob)
    before = state(blob)
    ran = run("export", model, "net.duckdb", "--root", tmp_path, "--out", blob)
    assert_refused(ran, 2)
    assert "blob is a file that this command reads" in ran.err
    assert state(blob) == before
    assert not Path("net.duckdb").exists()


def test_parts_of_sharded_weights_are_inputs(run, tmp_path):
    from safetensors.numpy import save_file

    part, index = tmp_path / "part.safetensors", tmp_path / "model.safetensors.index.json"
    save_file({"fc.weight": np.ones((2, 2), np.float32)}, part)
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"fc.weight": part.name}}))
    (tmp_path / "config.json").write_text('{"model_type": "none"}')
    for path in (part, index, tmp_path / "config.json"):
        before = state(path)
        ran = run("export", tmp_path, tmp_path / "s.duckdb", "--wire", "none", "--out", path)
        assert_refused(ran, 2)
        assert state(path) == before


def piped(words, **streams):
    return subprocess.run(
        [sys.executable, "-m", "emergraph", *map(str, words)], timeout=60, check=True, **streams
    )


def test_the_callers_own_streams_are_allowed(files, tmp_path):
    words = ["ls", files["store"], "--format", "csv", "--quiet", "--out"]
    done = piped([*words, "/dev/stdout"], stdout=subprocess.PIPE)
    assert done.stdout.startswith(b"id,name")
    assert piped([*words, "/dev/stderr"], stderr=subprocess.PIPE).stderr == done.stdout
    log = tmp_path / "log"
    log.write_bytes(b"kept\n")
    with log.open("ab") as stream:
        piped([*words, "/dev/stdout"], stdout=stream)
    assert log.read_bytes() == b"kept\n" + done.stdout
    command = f"{sys.executable} -m emergraph ls {files['store']} --format csv --out >(cat > got; touch done)"
    subprocess.run(["bash", "-c", command], check=True, timeout=60)
    until = time.monotonic() + 20
    while not Path("done").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert Path("got").read_bytes() == done.stdout


def test_tables_come_from_the_callers_own_stdin(files):
    found = [
        piped(
            ["concepts", name, "--format", "json"],
            input=b"entity,property\na,b\na,c\n",
            stdout=subprocess.PIPE,
        )
        for name in ("-", "/dev/stdin")
    ]
    assert found[0].stdout == found[1].stdout != b""
