"""Operations that pick or place by an index: along which axes."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def values_into_places(op: str) -> tuple[int, int]:
    """Inputs of a scatter operation: what is there before, and what is put there."""
    return (0, 1) if op == "TensorScatter" else (0, 2)


def indexed_axes(
    op: str, attrs: Mapping[str, object], rank: int, index: tuple[int, ...], axes: NDArray[np.generic] | None
) -> tuple[int, ...]:
    """The axes of an operation's data along which its index picks or places.

    Args:
        op: An operation with inputs that say which or where.
        attrs: Its attributes.
        rank: Axes of the data.
        index: Shape of input 1.
        axes: Value of the input that lists axes (`Slice`).
    """
    if op in ("GatherND", "ScatterND"):
        batch = int(str(attrs.get("batch_dims", 0)))
        return tuple(range(batch, batch + index[-1]))
    if op == "Slice":
        listed = range(index[0]) if axes is None else np.ravel(axes).tolist()
        return tuple(int(a) % rank for a in listed)
    if op == "ReverseSequence":
        return (int(str(attrs.get("time_axis", 0))),)
    if op == "Compress" and "axis" not in attrs:
        return tuple(range(rank))
    axis = int(str(attrs.get("axis", -2 if op == "TensorScatter" else 0)))
    return (axis % rank,) if rank else ()
