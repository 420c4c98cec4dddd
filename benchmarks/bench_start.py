"""How long commands on a store take to start, beside a bare import of the libraries that they need.

    python benchmarks/bench_start.py [STORE]

Without a store, one of the demo's small networks is exported, three times, as a training has snapshots: what
is measured is little more than the start. Figures are seconds of processor time of a whole process with its
children, the least of several runs, which a busy machine changes little. Modules are compiled once, as an
installation does.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb

DEMO = Path(__file__).resolve().parents[1] / "cli" / "demo-data"
COMMANDS: dict[str, tuple[str, ...]] = {
    "ls": (),
    "info": (),
    "sql": ("SELECT 1",),
    "emergence": ("--no-save",),
    "prune": ("--no-save",),
    "percolate": ("--no-save",),
    "topology": ("--no-save",),
    "trajectory": ("--no-save",),
}
"""The commands that are measured, with what follows the store."""
ABOVE_BARE = 0.3
"""Seconds that a command may cost above the bare import."""
BARE = "import duckdb, polars, typer"
RUNS = 7
_COMPILED = tempfile.TemporaryDirectory(prefix="compiled-")


def main() -> None:
    """Print a line for the bare import and for each command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", nargs="?", type=Path, help="a store with traces and, for trajectory, steps")
    given = parser.parse_args().store
    with tempfile.TemporaryDirectory() as folder:
        store = given or training_store(Path(folder))
        bare = bare_seconds()
        print(f"{BARE:32} {bare:6.3f} s")
        for command in COMMANDS:
            seconds = seconds_of(command, store)
            over = f", more than {ABOVE_BARE} s" if seconds - bare > ABOVE_BARE else ""
            print(f"emergraph {command:22} {seconds:6.3f} s, {seconds - bare:+.3f} s above it{over}")


def training_store(folder: Path) -> Path:
    """Export and trace the demo's dense network three times, as snapshots of a training."""
    store = folder / "net.duckdb"
    model = str(DEMO / "digits_dense.onnx")
    for name in ("first", "second", "third"):
        _run(["export", model, str(store), "--name", name, "--force"])
        _run(["trace", str(store), str(DEMO / "digits.npz"), "--model", model, "--graph", name])
    with duckdb.connect(store) as connection:
        connection.execute("UPDATE graphs SET step = id")
        connection.execute("INSERT INTO metrics SELECT id, 'accuracy', 0.5 + id / 10 FROM graphs")
    return store


def bare_seconds() -> float:
    """Return what importing the libraries costs."""
    return _least([sys.executable, "-c", BARE])


def seconds_of(command: str, store: Path) -> float:
    """Return what a command on a store costs."""
    return _least([sys.executable, "-m", "emergraph", command, str(store), *COMMANDS[command]])


def _run(words: Sequence[str]) -> None:
    subprocess.run([sys.executable, "-m", "emergraph", *words], check=True, capture_output=True)


def _least(line: Sequence[str]) -> float:
    """Return the least processor time of several runs."""
    seconds = []
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": _COMPILED.name}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(line, check=True, capture_output=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(seconds)


if __name__ == "__main__":
    main()
