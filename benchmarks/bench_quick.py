"""Has something become slower? CPU seconds of small runs, each over a peer or a limit on the same machine.

`python benchmarks/bench_quick.py` measures ratios, sets them beside those in `quick.json`, and ends with 1
where one is larger by more than a quarter; `--write` renews the file. Ratios of CPU seconds say nearly the
same on a slow or a busy machine; each is the least of several runs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import ml_dtypes
import numpy as np
import pyarrow as pa
from bench_percolation import random_net

from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.percolation.options import PercolationOptions
from emergraph.analysis.percolation.percolate import percolate
from emergraph.analysis.pruning.options import PruningOptions
from emergraph.analysis.pruning.whatif import prune_graph
from emergraph.analysis.topology.options import TopologyOptions
from emergraph.analysis.topology.topology import topology
from emergraph.exporters.codings import decoded
from emergraph.graphstore.inplace import Matrix, mask_times, sum_up
from emergraph.graphstore.modelfiles import Coding, WantedTensor
from emergraph.graphstore.probes import measured_write_rate

COMMITTED = Path(__file__).with_name("quick.json")
ALLOWED = 1.25
"""How many times a ratio may be what it was."""
REPEATS, ENOUGH, ENOUGH_SECONDS = 5, 2, 2.0
"""Runs; two will do where they take so long."""
EDGES = 1_000_000
_SIDE = 2048


def least(do: Callable[[], object]) -> float:
    """CPU seconds of a call, the least of several."""
    found: list[float] = []
    while len(found) < REPEATS and (len(found) < ENOUGH or sum(found) < ENOUGH_SECONDS):
        start = time.process_time()
        do()
        found.append(time.process_time() - start)
    return min(found)


def passes() -> Iterator[tuple[str, float]]:
    """Over a mapped matrix, half of whose weights are zero, beside a bare pass in NumPy."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((_SIDE, _SIDE), dtype=np.float32)
    values[rng.random(values.shape) < 0.5] = 0
    tensor, vectors = values.astype(ml_dtypes.bfloat16), rng.random((_SIDE, 2))
    codes = tensor.view(np.uint16)

    def bare() -> None:
        for row in range(0, _SIDE, 32):
            ((codes[row : row + 32] & 0x7FFF) != 0).astype(np.float64) @ vectors

    unit = least(bare)
    yield (
        "count over bfloat16 / mask @ vectors",
        least(lambda: mask_times(Matrix.over(tensor), vectors)) / unit,
    )
    packed = rng.integers(0, 256, (_SIDE, _SIDE // 32 * 34), np.uint8)
    packed.reshape(_SIDE, -1, 34)[:, :, :2] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    leaf = WantedTensor(name="w", dtype="uint8", shape=packed.shape, sha256="")
    entries = decoded(Coding("ggml", ("Q8_0",), (leaf,)), lambda _: packed).entries
    whole = Matrix(entries, slice(0, _SIDE), slice(0, _SIDE))
    yield "count over Q8_0 / mask @ vectors", least(lambda: mask_times(whole, vectors)) / unit
    yield "sums of an export / mask @ vectors", least(lambda: sum_up(Matrix.over(tensor))) / unit


def rows() -> Iterator[tuple[str, float]]:
    """Edges as rows, beside a plain copy of the same rows by DuckDB."""
    n = 2 * 1024
    weights = np.random.default_rng(0).standard_normal((n, n), dtype=np.float32)
    ends = np.arange(n, dtype=np.int32)
    table = pa.table(
        {
            "block": np.zeros(n * n, np.int32),
            "src": np.repeat(ends, n),
            "dst": np.tile(ends + n, n),
            "weight": weights.ravel(),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)

        def copy() -> None:
            (place / "copy.duckdb").unlink(missing_ok=True)
            with duckdb.connect(place / "copy.duckdb") as connection:
                connection.register("rows", table)
                connection.sql("CREATE TABLE edges AS SELECT * FROM rows")

        unit = least(copy)
        yield "edges into a store / copy by DuckDB", least(lambda: measured_write_rate(place)) / unit


def analyses() -> Iterator[tuple[str, float]]:
    """Of a million edges, beside a sort of as many keys."""
    net = random_net(EDGES, 2_000)
    keys = np.random.default_rng(0).standard_normal(EDGES)
    unit = least(lambda: np.argsort(keys))
    active = np.random.default_rng(0).random(net.n_units) < 0.5
    one_order = PercolationOptions(seeds=1, nulls=0)
    yield "emergence / sort", least(lambda: path_count_emergence(net, active)) / unit
    yield "percolate, one order / sort", least(lambda: percolate(net, options=one_order)) / unit
    yield "prune, 21 levels / sort", least(lambda: prune_graph(net, PruningOptions())) / unit
    yield "topology without spectra / sort", least(lambda: topology(net, options=TopologyOptions())) / unit


def commands() -> Iterator[tuple[str, float]]:
    """The start of Python with its largest library, and of a command that shows a page of help."""

    def child(*words: str) -> float:
        import resource

        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        # the interpreter that runs this, and fixed words
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    unit = min(child("-c", "import duckdb, numpy") for _ in range(3))
    yield (
        "emergraph --help / import duckdb, numpy",
        min(child("-m", "emergraph", "--help") for _ in range(3)) / unit,
    )


def main() -> int:
    """Measure, compare, say what fell."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--write", action="store_true", help="Renew the committed ratios.")
    given = options.parse_args()
    known = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    found: dict[str, float] = {}
    fell = 0
    for part in (passes, rows, analyses, commands):
        for name, ratio in part():
            found[name] = round(ratio, 2)
            before = known.get(name)
            slower = before is not None and ratio > ALLOWED * before
            fell += slower
            print(
                f"{name:45} {ratio:8.2f} {'' if before is None else before:>8} {'SLOWER' if slower else ''}",
                flush=True,
            )
    if given.write:
        COMMITTED.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if fell and not given.write else 0


if __name__ == "__main__":
    sys.exit(main())
