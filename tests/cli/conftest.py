"""A store with the two demo networks, and a way to run commands."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from clifiles import DEMO

from emergraph.cli.main import main


@dataclass(frozen=True)
class Ran:
    """What a command answered."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capfd):
    """Run a command in this process."""

    def run_command(*arguments):
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Ran(code, *capfd.readouterr())

    return run_command


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A store with both networks, not to be changed."""
    path = tmp_path_factory.mktemp("exported") / "net.duckdb"
    for name in ("digits_conv", "digits_dense"):
        assert main(["export", str(DEMO / f"{name}.onnx"), str(path), "--quiet", "--out", "/dev/null"]) == 0
    return path


@pytest.fixture
def store(exported, tmp_path):
    """A copy of that store that a test may change."""
    return Path(shutil.copy(exported, tmp_path / "net.duckdb"))


@pytest.fixture(scope="session")
def traced_once(exported, tmp_path_factory):
    """The same store with a trace of each network, not to be changed."""
    path = Path(shutil.copy(exported, tmp_path_factory.mktemp("traced") / "net.duckdb"))
    for name in ("digits_conv", "digits_dense"):
        arguments = ["trace", path, DEMO / "digits.npz", "--model", DEMO / f"{name}.onnx", "--graph", name]
        assert main([*map(str, arguments), "--quiet", "--out", "/dev/null"]) == 0
    return path


@pytest.fixture
def traced(traced_once, tmp_path):
    """A copy of that store that a test may change."""
    return Path(shutil.copy(traced_once, tmp_path / "traced.duckdb"))
