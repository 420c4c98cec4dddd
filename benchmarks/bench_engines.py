"""E of a graph in place, counted here and on each engine: the same number, and what it takes.

    python benchmarks/bench_engines.py [--weights 100000000] [--jobs 2] [--only serial,loky,dask,ray]

Layers of 4096 units, a third of whose weights are zero. Counted are, by `EngineOptions`, E at five thresholds
(floats beyond 2**53) and E as exact integers. Seconds of CPU are of this process and of the workers that have
ended; workers of clusters are started before, and their first task maps the file and imports what it needs.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.engines.cluster import tasks_on
from emergraph.analysis.engines.options import Backend, EngineOptions
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.storedgraph import read_unit_graph
from emergraph.errors import MissingExtraError
from emergraph.exporters.export import ExportOptions
from emergraph.exporters.modeltensors import open_model
from emergraph.exporters.placements import EdgePlacement
from emergraph.exporters.sources import export_any
from emergraph.graphstore.modelfiles import model_given
from emergraph.graphstore.store import open_store

sys.path[:0] = [os.fspath(Path(__file__).resolve().parents[1] / "tests" / "helpers")]
WIDTH = 4096
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of active units: cases that are counted in floats."""


def made(folder: Path, weights: int) -> tuple[Path, Path]:
    """Return a model of so many weights, and a store of its graph."""
    from inplacemodels import dense_onnx

    rng = np.random.default_rng(0)
    matrices = []
    for _ in range(max(1, round(weights / WIDTH**2))):
        values = rng.standard_normal((WIDTH, WIDTH), dtype=np.float32)
        values[rng.random(values.shape, dtype=np.float32) < 1 / 3] = 0
        matrices.append(values.astype(np.float16))
    model, store = dense_onnx(folder / "net.onnx", matrices), folder / "net.duckdb"
    with open_store(store, mode="create") as opened:
        export_any(model, opened, options=ExportOptions(edges=EdgePlacement.IN_PLACE))
    return model, store


def counted(store: Path, model: Path, engine: EngineOptions) -> tuple[list[object], float, float]:
    """Return E in all forms, and the wall and CPU seconds of the counts."""
    found: list[object] = []
    with model_given(open_model(model)), open_store(store) as opened, tasks_on(engine) as mapped:
        graph = read_unit_graph(opened.graph(), mapped=mapped)
        scores = np.random.default_rng(1).random(graph.n_units)
        begin, before = time.monotonic(), _cpu()
        for share in SHARES:
            result = path_count_emergence(graph, scores < share)
            found += [(count.emergence.value, count.emergence.to_dict()) for count in result.counts]
            found += result.layers.rows()
        exact = path_count_emergence(graph, scores < 0.5, options=EmergenceOptions(exact=True))
        found += [count.exact for count in exact.counts]
        wall = time.monotonic() - begin
    return found, wall, _cpu() - before


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=int, default=100_000_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="local,serial,threading,loky,dask,ray", help="backends")
    given = parser.parse_args()
    expected, faults = None, 0
    with tempfile.TemporaryDirectory() as folder:
        model, store = made(Path(folder), given.weights)
        for name in given.only.split(","):
            try:
                engine = EngineOptions(backend=Backend(name), jobs=given.jobs)
                found, wall, cpu = counted(store, model, engine)
            except MissingExtraError as error:
                print(f"{name:10} left out: {error}")
                continue
            expected = expected or found
            same = repr(found) == repr(expected)
            faults += not same
            print(
                f"{name:10} {len(found)} numbers, {'the same' if same else 'DIFFERENT'}, "
                f"{wall:.1f} s, CPU {cpu:.1f} s; E {found[-1]}",
                flush=True,
            )
    return faults


if __name__ == "__main__":
    sys.exit(main())
