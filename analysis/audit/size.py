"""What a model takes: parameters, bytes by type, multiplications and memory of activations."""

from collections import Counter

import numpy as np

from emergraph.analysis.audit.result import Size
from emergraph.analysis.audit.subject import Subject, stored_tensors
from emergraph.exporters.onnxfile.dtypes import BY_NAME

_SHOWN = 5


def size_of(subject: Subject) -> Size:
    """Measure what a model takes."""
    stored: Counter[str] = Counter()
    values = 0
    for _, dtype, array in stored_tensors(subject):
        stored[dtype] += -(-array.size * BY_NAME[dtype].bits // 8) if dtype in BY_NAME else array.nbytes
        values += int(array.size)
    network = subject.network
    layers: dict[str, int] = {}
    if network is not None:
        ranked = sorted(network.graph.layers, key=lambda layer: -layer.n_params)
        layers = {layer.name: layer.n_params for layer in ranked[:_SHOWN] if layer.n_params}
    made = _activations(subject)
    return Size(
        parameters=None if network is None else network.graph.n_params,
        zeros=None if network is None else network.graph.n_params - network.graph.n_nonzero,
        values=values,
        bytes_by_dtype=dict(stored.most_common()),
        flops=flops_of(subject),
        activation_bytes=sum(made) if made else None,
        largest_activation_bytes=max(made, default=None),
        layers=layers,
    )


def _activations(subject: Subject) -> list[int]:
    if subject.onnx is None:
        return []
    run = subject.onnx.run
    found = []
    for node in run.flat.nodes:
        for name in node.output:
            value = run.values.get(name)
            if name and name not in subject.onnx.makers and value is not None and value.shape is not None:
                width = 1 if value.dtype is None else value.dtype.itemsize
                found.append(int(np.prod(value.shape)) * width)
    return found


def flops_of(subject: Subject) -> float | None:
    """Two for every multiply-add of a contraction's weights that are not zero."""
    if subject.onnx is None:
        return None
    from emergraph.analysis.pruning.smaller import Shrinker

    shrinker = Shrinker(subject.onnx.run, subject.onnx.source)
    return float(shrinker.costs({}).flops)
