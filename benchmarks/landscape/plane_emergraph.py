"""Contestant of race A: a 41 x 41 plane and its merge tree with emergraph."""

import time
from collections.abc import Callable, Mapping

import numpy as np
from contestant import mlp_of, serve

from emergraph.analysis.landscape.engine_torch import TorchEvaluator
from emergraph.analysis.landscape.extrema import count_extrema
from emergraph.analysis.landscape.merge_tree import merge_tree, summarise
from emergraph.analysis.landscape.modelsurvey import fastest, variants
from emergraph.analysis.landscape.sweep import run_sweep
from emergraph.analysis.landscape.tasks import plane_tasks


def prepare(work: Mapping[str, np.ndarray]) -> Callable[[], dict[str, object]]:
    net, x, labels = mlp_of(work)
    evaluator = TorchEvaluator(net, x, labels)
    ways = variants(evaluator)
    choice = fastest(ways if int(work["threads"]) > 1 else ways[:1], seconds=4.0)
    positions = np.arange(-20, 21, dtype=np.float64)

    def run() -> dict[str, object]:
        start, cpu = time.perf_counter(), time.process_time()
        tasks = plane_tasks(work["d1"], work["d2"], positions)
        plane = np.array(run_sweep(evaluator, tasks, parallelism=choice.variant.parallelism))
        middle, cpu = time.perf_counter(), time.process_time() - cpu
        count_extrema(plane)
        persistence = summarise(merge_tree(plane))
        end = time.perf_counter()
        return {
            "plane": middle - start,
            "plane cpu": cpu,
            "topology": end - middle,
            "total": end - start,
            "smad": persistence.smad,
            "variant": choice.variant.name,
            "losses": plane.tolist(),
        }

    return run


if __name__ == "__main__":
    serve(prepare)
