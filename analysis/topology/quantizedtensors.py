"""Integer tensors in real units, where another tensor of the model holds their scale."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.restore import restore_tensor


def scaled_values(
    reader: GraphReader, record: dict[str, Any], tensors: Sequence[dict[str, Any]]
) -> tuple[NDArray[np.float64], str] | None:
    """Multiply an integer tensor by the scale that belongs to it.

    That is the one floating-point tensor whose role is to quantize others (in a weight file, the same role)
    that has one number per row, per column or in all, and whose name begins like the integer tensor's (at
    least half of it, and more than any other). An integer tensor found in the same way is the zero point.

    Args:
        reader: A graph of a store.
        record: The row of the integer tensor in `reader.tensors()`.
        tensors: All such rows.

    Returns:
        The values and the name of the scale; None where there is no such scale, or more than one.
    """
    scale = _companion(record, [other for other in tensors if "float" in other["dtype"]])
    if scale is None:
        return None
    values = restore_tensor(reader, record["name"]).astype(np.float64)
    zero = _companion(record, [other for other in tensors if "int" in other["dtype"]])
    if zero is not None:
        values -= restore_tensor(reader, zero["name"]).astype(np.float64)
    return values * restore_tensor(reader, scale["name"]).astype(np.float64), str(scale["name"])


def _companion(record: dict[str, Any], others: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The tensor of few numbers whose name is nearest, if one is."""
    name, shape = str(record["name"]), list(record["shape"])
    near = []
    for other in others:
        own = list(other["shape"])
        padded = [1] * (len(shape) - len(own)) + own
        fits = len(own) <= len(shape) and all(n in (1, m) for n, m in zip(padded, shape, strict=True))
        letters = zip(name, str(other["name"]), strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], letters))
        its = other["role"] in ("quantization", record["role"])  # a weight file does not say what a scale is
        if its and fits and own != shape and 2 * common >= len(name):
            near.append((common, other))
    near.sort(key=lambda entry: -entry[0])
    if not near or (len(near) > 1 and near[0][0] == near[1][0]):
        return None
    return near[0][1]
