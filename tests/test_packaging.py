"""The wheel holds all of the project and nothing else, and works where torch is not installed."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("analysis", "cli", "exporters", "graphstore")
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def python_folders():
    for room in ROOMS:
        for folder, _, names in os.walk(ROOT / room):
            if any(name.endswith(".py") for name in names):
                yield Path(folder).relative_to(ROOT)
    yield Path("api")


def test_every_folder_of_code_is_a_listed_package():
    on_disk = {"emergraph", *("emergraph." + ".".join(folder.parts) for folder in python_folders())}
    assert sorted(on_disk) == sorted(SETUPTOOLS["packages"])
    assert all((ROOT / "src" / "emergraph" / folder / "__init__.py").is_file() for folder in python_folders())


def test_rooms_are_mapped_and_linked_into_the_namespace():
    for room in ROOMS:
        assert SETUPTOOLS["package-dir"][f"emergraph.{room}"] == room
        assert (ROOT / "src" / "emergraph" / room).readlink() == Path("../..") / room


def test_every_data_file_is_packaged():
    patterns = SETUPTOOLS["package-data"]
    packaged = {
        path.relative_to(ROOT)
        for package, globs in patterns.items()
        for pattern in globs
        for path in (ROOT / SETUPTOOLS["package-dir"][package]).glob(pattern)
    }
    rooms = [ROOT / room for room in ROOMS] + [ROOT / "src" / "emergraph" / "py.typed"]
    data = {
        path.relative_to(ROOT)
        for room in rooms
        for path in ([room] if room.is_file() else room.rglob("*"))
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert data == packaged


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    for name in (*ROOMS, "src", "third_party"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_puts_only_emergraph_into_site_packages(wheel, tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(tmp_path),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    names = {path.name for path in tmp_path.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} <= {"emergraph", "bin"}
    assert len([name for name in names if name.endswith(".dist-info")]) == 1
    installed = {
        path.relative_to(tmp_path / "emergraph").parts[0] for path in tmp_path.glob("emergraph/*/*.py")
    }
    assert installed == {*ROOMS, "api"}
    assert (tmp_path / "emergraph" / "cli" / "demo-data" / "digits.npz").is_file()
    assert (tmp_path / "emergraph" / "py.typed").is_file()


@pytest.mark.slow
def test_the_installed_wheel_runs_the_demo_without_torch(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "PYTHONPATH"))}

    def run(*command):
        return subprocess.run(
            [*map(str, command)],
            check=True,
            capture_output=True,
            text=True,
            timeout=600,
            cwd=tmp_path,
            env=environment,
        )

    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
    missing = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"
    run(python, "-c", missing)
    program = tmp_path / "venv" / "bin" / "emergraph"
    model = ROOT / "cli" / "demo-data" / "digits_conv.onnx"
    run(program, "export", model, "net.duckdb")
    result = run(program, "sql", "net.duckdb", "SELECT count(*) AS n FROM edges", "--format", "csv")
    assert int(result.stdout.split()[1]) > 500
    run(program, "demo", "--dir", tmp_path / "demo")
