"""The parameters of a file as modules see them, and statistics of tables."""

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.weightfiles.encodings import (
    adapters,
    bitsandbytes,
    ggml,
    hqq,
    packedwords,
    reparametrised,
    scales,
    unknown,
)
from emergraph.exporters.weightfiles.encodings.parameter import Parameter
from emergraph.exporters.weightfiles.encodings.stored import Stored
from emergraph.exporters.weightfiles.weightfile import WeightFile
from emergraph.graphstore.records import MatrixKernels

FloatArray = NDArray[np.floating]

_CHUNK = 1 << 22
_SCHEMES = (ggml.find, bitsandbytes.find, packedwords.find, hqq.find, scales.find, unknown.find)
"""In the order in which they take tensors; the last one names what is left."""


def parameters(weights: WeightFile) -> dict[str, Parameter]:
    """Return the weights of a file by name, whatever they are stored as.

    Quantized tensors are decoded with their scales; then masks, norms and adapters are applied. What the file
    does not define has a `problem`.

    Args:
        weights: The file.

    Returns:
        Parameters by name, in file order; tensors that take part in others do not stand alone.
    """
    stored = Stored(weights)
    for find in _SCHEMES:
        find(stored)
    found: dict[str, Parameter] = {}
    for name, tensor in weights.tensors.items():
        made = stored.found.get(name)
        if made is not None:
            found[made.name if made.name not in weights.tensors else name] = made
        elif name not in stored.taken:
            found[name] = Parameter(name=name, tensor=tensor)
    config = weights.config.get("adapter_config")
    return adapters.apply(reparametrised.apply(found), config if isinstance(config, dict) else {})


def column_kernels(values: FloatArray) -> tuple[NDArray[np.float64], MatrixKernels]:
    """Sum the rows of a table (n, d) into one row, a part at a time, with what the sum leaves out.

    Args:
        values: (n, d) weights.

    Returns:
        (1, d) sums and the kernels' columns of the same shape.
    """
    width = values.shape[1]
    total, l1, squares, biggest = (np.zeros(width) for _ in range(4))
    count = np.zeros(width, np.int64)
    step = max(1, _CHUNK // max(width, 1))
    for start in range(0, values.shape[0], step):
        part = values[start : start + step].astype(np.float64)
        size = np.abs(part)
        total += part.sum(axis=0)
        l1 += size.sum(axis=0)
        squares += (part * part).sum(axis=0)
        biggest = np.maximum(biggest, size.max(axis=0))
        count += np.count_nonzero(part, axis=0)
    kernels = MatrixKernels(
        l1=l1[None],
        l2=np.sqrt(squares)[None],
        max_abs=biggest[None],
        n_params=count.astype(np.int32)[None],
    )
    return total[None], kernels
