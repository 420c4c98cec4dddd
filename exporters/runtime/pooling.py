"""One number per sample and unit from an activation tensor."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SampleAxis:
    """Where in a tensor the samples are.

    A model may have merged samples with something else into one axis: of size samples x k, either with the
    samples slowest (`innermost=False`, as a reshape of [N, k] gives) or fastest.
    """

    axis: int
    innermost: bool = False


def pooled(
    values: NDArray[np.generic],
    unit_axes: Sequence[int],
    sample_axis: SampleAxis | None = None,
    n_samples: int = 1,
) -> NDArray[np.float64]:
    """Mean of an activation tensor over everything but samples and units.

    Args:
        values: The tensor.
        unit_axes: Axes which, raveled in C order in the order given, make the unit index.
        sample_axis: Where the samples are; None where the tensor belongs to one sample as a whole.
        n_samples: How many samples are along that axis.

    Returns:
        (samples, units) float64; samples is 1 without a sample axis. NaN where there is nothing to average.

    Raises:
        ValueError: The samples do not divide their axis.

    Example:
        >>> pooled(np.arange(8.0).reshape(2, 2, 2), (1,), SampleAxis(0), 2).tolist()
        [[0.5, 2.5], [4.5, 6.5]]
    """
    units = [axis % values.ndim for axis in unit_axes]
    shape = list(values.shape)
    kept: list[int] = []
    if sample_axis is not None:
        axis = sample_axis.axis % values.ndim
        if shape[axis] % n_samples:
            raise ValueError(f"{n_samples} samples do not divide axis {axis} of size {shape[axis]}")
        share = shape[axis] // n_samples
        # the axis becomes two neighbours, and a unit axis that holds samples too is the other one of them
        shape[axis : axis + 1] = [share, n_samples] if sample_axis.innermost else [n_samples, share]
        units = [unit + (unit > axis or (unit == axis and not sample_axis.innermost)) for unit in units]
        kept = [axis + sample_axis.innermost]
    kept += units
    rest = [axis for axis in range(len(shape)) if axis not in kept]
    n_units = int(np.prod([shape[axis] for axis in units], dtype=np.int64))
    samples = 1 if sample_axis is None else n_samples
    grouped = values.reshape(shape).transpose([*kept, *rest]).reshape(samples, n_units, -1)
    if grouped.shape[-1] == 0:
        return np.full((samples, n_units), np.nan)
    return np.asarray(grouped.mean(axis=-1, dtype=np.float64))
