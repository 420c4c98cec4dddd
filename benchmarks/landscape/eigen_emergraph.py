"""Contestant of race B: the five largest Hessian eigenvalues with emergraph."""

import time
from collections.abc import Callable, Mapping

import numpy as np
from contestant import mlp_of, serve

from emergraph.analysis.landscape.engine_torch import TorchEvaluator
from emergraph.analysis.landscape.spectrum import extreme_eigenvalues


def prepare(work: Mapping[str, np.ndarray]) -> Callable[[], dict[str, object]]:
    net, x, labels = mlp_of(work)
    evaluator = TorchEvaluator(net, x, labels)

    def run() -> dict[str, object]:
        start, cpu = time.perf_counter(), time.process_time()
        operator = evaluator.hessian()
        found = extreme_eigenvalues(
            operator.product, operator.n, k=5, both_ends=False, tolerance=float(work["tolerance"])
        )
        return {
            "seconds": time.perf_counter() - start,
            "cpu": time.process_time() - cpu,
            "values": list(found.largest),
            "products": found.products,
            "residual": max(found.residuals),
        }

    return run


if __name__ == "__main__":
    serve(prepare)
