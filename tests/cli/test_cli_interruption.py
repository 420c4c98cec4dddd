"""What happens in the middle of an export: Ctrl-C, kill -9, limits, a full disk. The store is as it was."""

import json
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from clifiles import DEMO, chain_of_layers

SLOW_EXPORT = """
import sys, time
from emergraph.graphstore.writer import GraphWriter

write_matrix = GraphWriter.write_matrix

def slow(self, *arguments, **options):
    written = write_matrix(self, *arguments, **options)
    print("writing", flush=True)
    time.sleep(60)
    return written

GraphWriter.write_matrix = slow
from emergraph.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def graphs(run, store):
    return [row["name"] for row in json.loads(run("ls", store, "--format", "json").out)]


@pytest.fixture
def exporting(store):
    """An export into a store, stopped where it has written the first edges."""
    command_line = [sys.executable, "-c", SLOW_EXPORT, "export", DEMO / "digits_conv.onnx", store, "--force"]
    with subprocess.Popen(
        [str(part) for part in command_line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def test_ctrl_c_is_130_and_leaves_the_store_as_it_was(run, store, exporting):
    exporting.send_signal(signal.SIGINT)
    assert exporting.wait(30) == 130
    error = exporting.stderr.read()
    assert len(error.splitlines()) == 1
    assert "nterrupted" in error
    assert graphs(run, store) == ["digits_conv", "digits_dense"]


def test_kill_9_leaves_the_store_as_it_was(run, store, exporting):
    exporting.kill()
    assert exporting.wait(30) == -signal.SIGKILL
    assert graphs(run, store) == ["digits_conv", "digits_dense"]
    assert run("export", DEMO / "digits_conv.onnx", store, "--force").code == 0
    assert graphs(run, store) == ["digits_conv", "digits_dense", "digits_conv-2"]


def test_the_time_limit_is_6_and_leaves_the_store_as_it_was(run, store, monkeypatch):
    from emergraph.graphstore.writer import GraphWriter

    monkeypatch.setattr(GraphWriter, "write_matrix", lambda *_, **__: time.sleep(60))
    start = time.monotonic()
    result = run("export", DEMO / "digits_conv.onnx", store, "--force", "--time-limit", "2s")
    assert result.code == 6
    assert time.monotonic() - start < 20
    assert "--time-limit" in result.err
    assert len(result.err.splitlines()) == 1
    assert graphs(run, store) == ["digits_conv", "digits_dense"]


def test_the_memory_limit_is_6_and_leaves_the_store_as_it_was(run, store, monkeypatch):
    from emergraph.graphstore.writer import GraphWriter

    monkeypatch.setattr(GraphWriter, "write_matrix", lambda *_, **__: np.ones(10**9))
    before = resource.getrlimit(resource.RLIMIT_DATA)
    result = run("export", DEMO / "digits_conv.onnx", store, "--force", "--memory-limit", "6GB")
    assert result.code == 6
    assert "--memory-limit" in result.err
    assert len(result.err.splitlines()) == 1
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert graphs(run, store) == ["digits_conv", "digits_dense"]


def test_a_full_disk_is_6_and_leaves_the_store_as_it_was(run, store, tmp_path):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(600, 600)).astype(np.float32)
    model = chain_of_layers(*(f"fc{i}" for i in range(8)), weight=weight)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[1].dim_value = 600
    onnx.save(model, tmp_path / "m.onnx")
    # a limit on the size of files stands in for a disk without room
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6_000_000, 6_000_000))\n"
        "from emergraph.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command_line = [sys.executable, "-c", program, "export", str(tmp_path / "m.onnx"), str(store)]
    result = subprocess.run(command_line, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 6, result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert graphs(run, store) == ["digits_conv", "digits_dense"]


def test_an_export_into_a_store_in_use_says_who_holds_it(run, store, exporting):
    result = run("export", DEMO / "digits_dense.onnx", store, "--force")
    assert result.code == 5
    assert "locked" in result.err
    assert len(result.err.splitlines()) == 1
