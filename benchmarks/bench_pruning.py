"""How long a pruning sweep takes: 21 levels of magnitude, all measures of the graph, without model runs.

    python benchmarks/bench_pruning.py                 a random dense net of 1 M edges
    python benchmarks/bench_pruning.py net.duckdb      the newest graph of a store

Targets on two cores: 1 M edges in 10 s; MiniLM (10.5 M edges) in 60 s and 4 GB.
"""

import argparse
import resource
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from emergraph.analysis.activity.scores import Activity
from emergraph.analysis.layerednets import layered_net
from emergraph.analysis.pruning.options import PruningOptions
from emergraph.analysis.pruning.storedwhatif import prune_stored
from emergraph.analysis.pruning.whatif import PruningResult, Surroundings, prune_graph
from emergraph.graphstore.store import open_store


def random_net() -> PruningResult:
    random = np.random.default_rng(0)
    sizes = (700, 700, 600, 150)
    matrices = [random.standard_normal(pair) for pair in pairwise(sizes)]
    net = layered_net(matrices)
    activity = Activity.given(random.random(net.n_units) < 0.5)
    return prune_graph(net, PruningOptions(), surroundings=Surroundings(activity=activity))


def stored_net(path: Path) -> PruningResult:
    with open_store(path) as store:
        return prune_stored(store.graph(), PruningOptions())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, nargs="?")
    store = parser.parse_args().store
    begin, used = time.perf_counter(), time.process_time()
    result = random_net() if store is None else stored_net(store)
    seconds, used = time.perf_counter() - begin, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    edges = result.removals[0].items.table.n_edges
    counted = result.frame["log10_emergence_any"].null_count() < result.frame.height
    emergence = "E counted" if counted else "E not counted"
    print(f"{result.graph or 'random net'}: {edges:,} edges, {result.frame.height} levels, {emergence}")
    print(f"{seconds:.1f} s, process time {used:.1f} s, peak memory {peak / 1e9:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
