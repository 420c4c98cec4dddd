"""A model of a billion weights whose edges stay in its file: export, path counts, one question in SQL.

`python benchmarks/bench_large.py [--weights 1.1e9] [--zeros 0.5] [--folder FOLDER]` makes shards of random
bfloat16 weights of a chain of dense layers, runs each command in a process of its own, prints CPU seconds and
peak anonymous memory beside a bare pass in NumPy, and removes everything again. Disk space is checked first.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np

WIDTH = 4096
SHARD_LAYERS = 16
QUESTION = "SELECT count(*) AS n, sum(l1) AS l1 FROM edges WHERE block = 3"


def make_model(folder: Path, n_layers: int, zeros: float) -> Path:
    """Write shards of random bfloat16 matrices, and their index."""
    rng = np.random.default_rng(0)
    placed: dict[str, str] = {}
    n_shards = -(-n_layers // SHARD_LAYERS)
    for shard in range(n_shards):
        numbers = range(shard * SHARD_LAYERS, min(n_layers, (shard + 1) * SHARD_LAYERS))
        names = [f"layers.{k:03}.weight" for k in numbers]
        file = f"model-{shard + 1:05}-of-{n_shards:05}.safetensors"
        size = WIDTH * WIDTH * 2
        header = {
            name: {"dtype": "BF16", "shape": [WIDTH, WIDTH], "data_offsets": [k * size, (k + 1) * size]}
            for k, name in enumerate(names)
        }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for _ in names:
                values = rng.standard_normal((WIDTH, WIDTH), dtype=np.float32) * np.float32(0.02)
                if zeros:
                    values[rng.random((WIDTH, WIDTH), dtype=np.float32) < zeros] = 0
                stream.write(values.astype(ml_dtypes.bfloat16).tobytes())
        placed |= dict.fromkeys(names, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return index


def bare_pass(index: Path) -> float:
    """CPU seconds of `mask @ vectors` over the same mapped codes."""
    shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    vectors = np.random.default_rng(0).random((WIDTH, 2))
    begin = time.process_time()
    for shard in shards:
        data = np.memmap(index.parent / shard, dtype=np.uint8, mode="r")
        first = 8 + int.from_bytes(data[:8].tobytes(), "little")
        codes = data[first:].view(np.uint16).reshape(-1, WIDTH)
        for row in range(0, len(codes), 16):
            ((codes[row : row + 16] & 0x7FFF) != 0).astype(np.float64) @ vectors
    return time.process_time() - begin


def measured(words: Sequence[str]) -> tuple[float, float, int, str]:
    """CPU seconds, wall seconds and peak anonymous bytes of a command, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    peak = 0
    # the interpreter that runs this, and a module of this package
    with subprocess.Popen(
        [sys.executable, "-m", "emergraph", *words], stdout=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            peak = max(peak, sum(_anonymous(process.pid)))
            time.sleep(0.05)
        printed = process.stdout.read() if process.stdout else ""
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"emergraph {' '.join(words)}: exit status {process.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - start, peak, printed


def _anonymous(process: int) -> Iterator[int]:
    from emergraph.processes import held_memory

    yield held_memory(process)


def main() -> None:
    """Make, measure, remove."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--weights", type=float, default=1.1e9)
    options.add_argument("--zeros", type=float, default=0.0)
    options.add_argument("--folder", type=Path, default=None)
    options.add_argument("--analyses", action="store_true", help="Also percolate, topology and prune.")
    given = options.parse_args()
    n_layers = max(2, round(given.weights / WIDTH**2))
    needed = int(2.2 * n_layers * WIDTH**2) + (1 << 30)
    place = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        free = shutil.disk_usage(place).free
        if free < needed:
            raise SystemExit(
                f"{needed / 1e9:.1f} GB are needed in {place.parent}, {free / 1e9:.1f} GB are free"
            )
        index = make_model(place, n_layers, given.zeros)
        _run(place, index, n_layers, analyses=given.analyses)
    finally:
        shutil.rmtree(place)


def _run(place: Path, index: Path, n_layers: int, *, analyses: bool) -> None:
    store, units = place / "net.duckdb", (n_layers + 1) * WIDTH
    export = ["export", str(index), str(store), "--wire", "sequential", "--edges", "in-place", "-q"]
    activity = place / "activity.npz"
    rng = np.random.default_rng(1)
    np.savez(activity, **{f"layers.{k:03}": rng.random((4, WIDTH), np.float32) for k in range(n_layers)})
    from_file = ["--model", str(index), "-q"]
    commands = {
        "export --dry-run": [*export, "--dry-run"],
        "export": export,
        "trace --import": ["trace", str(store), "--import", str(activity), "-q"],
        "emergence --dry-run": ["emergence", str(store), "--dry-run", "-q"],
        "emergence": [
            "emergence",
            str(store),
            "--model",
            str(index),
            "--no-save",
            "--threshold",
            "0.5",
            "-q",
        ],
        "sql, one block": ["sql", str(store), QUESTION, *from_file],
    }
    for name, more in (("percolate", []), ("topology", ["--no-spectra"]), ("prune", [])) if analyses else ():
        commands[name] = [name, str(store), *from_file, "--no-save", *more]
    print(f"{n_layers} layers of {WIDTH} units, {n_layers * WIDTH**2 / 1e9:.2f} G weights, {units} units")
    print(f"{'bare mask @ vectors':24} {bare_pass(index):8.1f} CPU s")
    for name, words in commands.items():
        cpu, wall, peak, printed = measured(words)
        print(f"{name:24} {cpu:8.1f} CPU s {wall:8.1f} s {peak / 2**20:8.0f} MiB", flush=True)
        if "dry-run" in name:
            told = [line for line in printed.splitlines() if "second" in line or "size" in line]
            print("    " + "; ".join(told))
    size = sum(file.stat().st_size for file in place.glob("*.safetensors"))
    print(f"store {store.stat().st_size / 1e6:.1f} MB, files {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
