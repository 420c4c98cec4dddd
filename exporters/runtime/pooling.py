"""One number per sample and unit from an activation tensor."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pooled(
    values: NDArray[np.generic], unit_axes: Sequence[int], sample_axis: int | None = 0
) -> NDArray[np.float64]:
    """Mean of an activation tensor over everything but samples and units.

    Args:
        values: The tensor.
        unit_axes: Axes which, raveled in C order in the order given, make the unit index.
        sample_axis: Axis of the samples; None where the tensor belongs to one sample as a whole.

    Returns:
        (samples, units) float64; samples is 1 without a sample axis. NaN where there is nothing to average.

    Example:
        >>> pooled(np.arange(8.0).reshape(1, 2, 4), (1,)).tolist()
        [[1.5, 5.5]]
    """
    rank = values.ndim
    units = [axis % rank for axis in unit_axes]
    kept = units if sample_axis is None else [sample_axis % rank, *units]
    rest = [axis for axis in range(rank) if axis not in kept]
    moved = np.transpose(values, [*kept, *rest])
    samples = 1 if sample_axis is None else moved.shape[0]
    n_units = int(np.prod([values.shape[axis] for axis in units], dtype=np.int64))
    grouped = moved.reshape(samples, n_units, -1)
    if grouped.shape[-1] == 0:
        return np.full((samples, n_units), np.nan)
    return np.asarray(grouped.mean(axis=-1, dtype=np.float64))
