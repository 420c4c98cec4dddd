"""What surveys of very many models and path counts over very many edges would take, from rates measured here.

    python benchmarks/simulate_scale.py [--models 1000000] [--edges 1e11] [--workers 64] [--price 0.05]

Measured in a minute, in CPU seconds: what a survey takes for a tiny file and for one of four million
parameters, how fast tensors are hashed and passed over, and what edges take in a lake. Sizes of models are
drawn (lognormal, median and spread as given), files are handed to workers one by one, and a path count goes
tile by tile, each with its part of the vectors of all cases. Nothing else is modelled: no network that is
slower than the disks, no queue of a cluster.
"""

import argparse
import hashlib
import heapq
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from emergraph.graphstore.inplace import TILES

sys.path[:0] = [os.fspath(Path(__file__).resolve().parents[1] / "tests" / "helpers")]

BYTES = 2
"""Per parameter: most files hold 16-bit weights."""
EDGE_BYTES = 3.7
"""In a lake, of dense random float32 weights (bench_lake.py)."""
LAKE_FILES = 13
"""Files of a graph, and of what a survey found."""


def measured(cases: int) -> dict[str, float]:
    """CPU seconds of a tiny file, further ones per parameter, and rates of passes."""
    from inplacemodels import write_safetensors
    from populations import tiny_weights

    from emergraph.analysis.engines.options import EngineOptions
    from emergraph.analysis.survey.survey import survey
    from emergraph.graphstore.inplace import Matrix, mask_times, sum_up

    rng = np.random.default_rng(0)
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, n in (("tiny", 4), ("large", 2)):
            models = Path(folder, name)
            models.mkdir()
            for k in range(n):
                if name == "tiny":
                    tiny_weights(models / f"{k}.safetensors", k)
                else:
                    weights = rng.standard_normal((2048, 2048)).astype(np.float32)
                    write_safetensors(models / f"{k}.safetensors", {"fc.weight": weights})
            before = _cpu()
            found = survey(models, Path(folder, f"{name}-lake"), engine=EngineOptions(jobs=1))
            assert set(found.models["status"]) == {"done"}, found.models["reason"].to_list()
            seconds[name] = (_cpu() - before) / n
    matrix, vectors = Matrix.over(rng.standard_normal((2048, 2048), dtype=np.float32)), np.ones((2048, cases))
    return {
        "seconds per file": seconds["tiny"],
        "parameters audited per second": 2048**2 / max(seconds["large"] - seconds["tiny"], 1e-9),
        "bytes hashed per second": (1 << 26) / _seconds(lambda: hashlib.sha256(bytes(1 << 26))),
        "weights summed per second": 2048**2 / _seconds(lambda: sum_up(matrix)),
        f"weights counted per second, {cases} cases": 2048**2 / _seconds(lambda: mask_times(matrix, vectors)),
    }


def _seconds(do: Callable[[], object]) -> float:
    """CPU seconds of a call, the least of three."""
    found = []
    for _ in range(3):
        before = _cpu()
        do()
        found.append(_cpu() - before)
    return max(min(found), 1e-9)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def finish(costs: np.ndarray, workers: int) -> float:
    """Wall time until the last of the tasks is done, each taken by the first worker that is free."""
    free = [0.0] * workers
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=1_000_000)
    parser.add_argument("--median", type=float, default=5e6, help="parameters of the median model")
    parser.add_argument("--spread", type=float, default=2.0, help="standard deviation of ln(parameters)")
    parser.add_argument("--budget", type=float, default=60, help="CPU seconds of an audit, at most")
    parser.add_argument("--edges", type=float, default=1e11, help="edges of one graph in place")
    parser.add_argument("--layers", type=int, default=100, help="layers of that graph")
    parser.add_argument("--cases", type=int, default=42, help="thresholds times interiors of a count")
    parser.add_argument("--workers", type=int, default=64, help="cores")
    parser.add_argument("--price", type=float, default=0.05, help="of a core and hour")
    given = parser.parse_args()
    rates = measured(given.cases)
    print("measured here, per CPU second:")
    for name, rate in rates.items():
        print(f"  {name:40} {rate:,.4g}")
    rng = np.random.default_rng(0)
    sizes = given.median * np.exp(given.spread * rng.standard_normal(given.models))
    audit = np.minimum(sizes / rates["parameters audited per second"], given.budget)
    passes = BYTES / rates["bytes hashed per second"] + 1 / rates["weights summed per second"]
    costs = rates["seconds per file"] + audit + sizes * passes
    hours, wall = costs.sum() / 3600, finish(costs, given.workers) / 3600
    print(f"survey of {given.models:,} models, {sizes.sum():.3g} parameters:")
    _say("bytes read", f"{2 * BYTES * sizes.sum() / 1e12:,.1f} TB (twice: checksum and audit)")
    _say(
        "CPU hours",
        f"{hours:,.0f}, of which starts of children {rates['seconds per file'] * given.models / 3600:,.0f}",
    )
    _say("wall", f"{wall:,.1f} h on {given.workers} cores; {hours / given.workers:,.1f} h if nothing waited")
    _say("largest single file", f"{costs.max() / 3600:,.2f} h")
    edges = EDGE_BYTES * sizes.sum() / 1e12
    _say("lake", f"{LAKE_FILES * given.models:,} files; edges {edges:,.2f} TB if all are rows")
    _say("shuffle", "none: each file is one task, each result one folder")
    _say("money", f"{hours * given.price:,.0f}")
    *_, counted = rates.values()
    hours = given.edges / counted / 3600
    width = np.sqrt(given.edges / given.layers)
    sent = given.layers * width * given.cases * 8 * (TILES + 1)
    print(f"path count over {given.edges:.3g} edges in place, {given.cases} cases:")
    _say("bytes read", f"{BYTES * given.edges / 1e12:,.2f} TB, once for all cases")
    _say("CPU minutes", f"{60 * hours:,.1f}; reading at 1 GB per second: {BYTES * given.edges / 6e10:,.1f}")
    _say("wall", f"{hours / given.workers * 3600:,.0f} s on {given.workers} cores")
    _say("vectors", f"{sent / 1e9:,.1f} GB sent and returned: at most {TILES} tiles of a matrix")
    _say("money", f"{hours * given.price:,.3f}")


def _say(name: str, value: str) -> None:
    print(f"  {name:20} {value}")


if __name__ == "__main__":
    main()
