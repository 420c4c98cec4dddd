"""Contestant of race B: the five largest Hessian eigenvalues with curvlinops and eigsh."""

import time
from typing import TYPE_CHECKING

import torch
from contestant import mlp_of, serve
from curvlinops import HessianLinearOperator
from scipy.sparse.linalg import eigsh

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np


def prepare(work: "Mapping[str, np.ndarray]") -> "Callable[[], dict[str, object]]":
    net, x, labels = mlp_of(work)
    net.eval()
    parameters = list(net.parameters())
    tolerance = float(work["rival_tolerance"])

    def run() -> dict[str, object]:
        start, cpu = time.perf_counter(), time.process_time()
        operator = HessianLinearOperator(
            net, torch.nn.CrossEntropyLoss(), parameters, [(x, labels)], check_deterministic=False
        )
        values = eigsh(operator.to_scipy(), k=5, which="LA", tol=tolerance, return_eigenvectors=False)
        return {
            "seconds": time.perf_counter() - start,
            "cpu": time.process_time() - cpu,
            "values": sorted(map(float, values), reverse=True),
        }

    return run


if __name__ == "__main__":
    serve(prepare)
