"""What commands on a store load; `benchmarks/bench_start.py` measures what that costs."""

import functools
import json
import subprocess
import sys

import pytest

from benchmarks import bench_start
from benchmarks.bench_start import COMMANDS, training_store
from emergraph.cli.main import main

FOREIGN = {
    "onnx",
    "onnxruntime",
    "torch",
    "scipy",
    "igraph",
    "altair",
    "jinja2",
    "pydantic",
    "pyarrow.compute",
}
PROGRAM = """
import json, sys
from emergraph.cli.main import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """Three snapshots of one network, as a recorded training has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_start, "_run", lambda words: main([*words, "--quiet"]))  # in this process
        return training_store(tmp_path_factory.mktemp("training"))


@functools.cache
def loaded(*words):
    """The modules after a command that worked."""
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True
    )
    code, modules = json.loads(found.stdout.splitlines()[-1])
    assert code == 0, found.stderr
    return set(modules)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_on_a_store_loads_no_library_for_models(training, command):
    modules = loaded(command, str(training), *COMMANDS[command])
    needed = {"igraph"} if command == "topology" else set()
    assert not (FOREIGN - needed) & modules
    assert not [name for name in modules if name.startswith("emergraph.exporters.onnxfile")]


def test_a_count_loads_no_null_models(training):
    modules = loaded("emergence", str(training), *COMMANDS["emergence"])
    for name in ("nulls", "rewiring", "resampled_weights", "remeasure", "fullreport", "positionrun"):
        assert f"emergraph.analysis.emergence.{name}" not in modules


@pytest.mark.parametrize("command", ["emergence", "prune", "percolate", "trajectory"])
def test_a_count_needs_no_arrow(training, command):
    assert not {"pyarrow", "ml_dtypes"} & loaded(command, str(training), *COMMANDS[command])


@pytest.mark.parametrize("command", ["ls", "info", "sql"])
def test_tables_are_shown_without_numpy_and_arrow(training, command):
    assert not {"numpy", "pyarrow"} & loaded(command, str(training), *COMMANDS[command])
