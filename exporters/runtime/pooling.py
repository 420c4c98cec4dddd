"""What the units of an activation tensor do in each sample, over all positions that carry them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLOCK = 1 << 17
"""Values that are looked at together: as float64 they stay in a processor's cache."""


@dataclass(frozen=True)
class SampleAxis:
    """Where in a tensor the samples are.

    A model may have merged samples with something else into one axis: of size samples x k, either with the
    samples slowest (`innermost=False`, as a reshape of [N, k] gives) or fastest.
    """

    axis: int
    innermost: bool = False


@dataclass(frozen=True)
class Codes:
    """What codes stand for: (code - zero) * scale; the scale is positive."""

    scale: float = 1.0
    zero: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """Statistics of every unit in every sample, over positions; (samples, units) float64 each.

    NaN where there is no position; a NaN among the values makes all but `share_positive` NaN.
    """

    mean: Floats
    mean_abs: Floats
    variance: Floats
    """Mean squared distance from the mean of the same sample."""
    min: Floats
    max: Floats
    share_positive: Floats
    n_positions: int
    """Values behind each number."""

    @classmethod
    def single(cls, values: Floats) -> "Pooled":
        """Of units with one position in each sample.

        Args:
            values: (samples, units).
        """
        return cls(
            mean=values,
            mean_abs=np.abs(values),
            variance=np.where(np.isfinite(values), 0.0, np.nan),
            min=values,
            max=values,
            share_positive=(values > 0).astype(np.float64),
            n_positions=1,
        )

    @classmethod
    def unpacked(cls, numbers: Floats, n_positions: int) -> "Pooled":
        """What `packed` was made of."""
        if len(numbers) == 1:
            return cls.single(numbers[0])
        return cls(**dict(zip(MOMENTS, numbers, strict=True)), n_positions=n_positions)

    def packed(self) -> Floats:
        """All numbers as one array, (statistics, samples, units); with one position the values alone."""
        if self.n_positions == 1:
            return self.mean[None]
        return np.stack([getattr(self, name) for name in MOMENTS])

    def rows(self, count: int) -> "Pooled":
        """The first samples; a tensor that all samples share counts for each of them."""
        if len(self.mean) >= count:
            return self._each(lambda found: found[:count])
        return self._each(lambda found: np.broadcast_to(found, (count, found.shape[1])))

    def _each(self, change: Callable[[Floats], Floats]) -> "Pooled":
        changed = {name: change(getattr(self, name)) for name in MOMENTS}
        return Pooled(**changed, n_positions=self.n_positions)


MOMENTS = ("mean", "mean_abs", "variance", "min", "max", "share_positive")
"""The statistics of `Pooled`, as they are packed."""


def pooled(
    values: NDArray[np.generic],
    unit_axes: Sequence[int],
    sample_axis: SampleAxis | None = None,
    n_samples: int = 1,
    codes: Codes | None = None,
) -> Pooled:
    """Statistics of an activation tensor over everything but samples and units.

    Args:
        values: The tensor.
        unit_axes: Axes which, raveled in C order in the order given, make the unit index.
        sample_axis: Where the samples are; None where the tensor belongs to one sample as a whole.
        n_samples: How many samples are along that axis.
        codes: What the values stand for, where they are codes.

    Returns:
        Of one sample without a sample axis.

    Raises:
        ValueError: The samples do not divide their axis.

    Example:
        >>> found = pooled(np.array([[[-1.0, 3.0], [4.0, 6.0]]]), (1,), SampleAxis(0), 1)
        >>> found.mean.tolist(), found.mean_abs.tolist(), found.max.tolist()
        ([[1.0, 5.0]], [[2.0, 5.0]], [[3.0, 6.0]])
    """
    laid, kept = _laid_out(values, unit_axes, sample_axis, n_samples)
    samples = 1 if sample_axis is None else n_samples
    rest = tuple(axis for axis in range(laid.ndim) if axis not in kept)
    n_positions = math.prod(laid.shape[axis] for axis in rest)
    codes = codes or Codes()
    found = _moments(laid, rest, codes) if n_positions > 1 else {"mean": _floats(laid, codes).copy()}
    # results have the kept axes in the tensor's order; samples go first, then units as they were given
    order = np.argsort(np.argsort(kept))
    n_units = math.prod(laid.shape[axis] for axis in kept) // samples if samples else 0
    if n_positions == 0:
        return Pooled(**dict.fromkeys(MOMENTS, np.full((samples, n_units), np.nan)), n_positions=0)
    if n_positions == 1:
        return Pooled.single(found["mean"].squeeze(rest).transpose(order).reshape(samples, n_units))
    rows = {name: numbers.transpose(order).reshape(samples, n_units) for name, numbers in found.items()}
    return Pooled(**rows, n_positions=n_positions)


def _laid_out(
    values: NDArray[np.generic], unit_axes: Sequence[int], sample_axis: SampleAxis | None, n_samples: int
) -> tuple[NDArray[np.generic], list[int]]:
    """The tensor with samples along an axis of their own, and its axes that are kept: samples, then units."""
    units = [axis % values.ndim for axis in unit_axes]
    if sample_axis is None:
        return values, units
    shape = list(values.shape)
    axis = sample_axis.axis % values.ndim
    if shape[axis] % n_samples:
        raise ValueError(f"{n_samples} samples do not divide axis {axis} of size {shape[axis]}")
    share = shape[axis] // n_samples
    # the axis becomes two neighbours, and a unit axis that holds samples too is the other one of them
    shape[axis : axis + 1] = [share, n_samples] if sample_axis.innermost else [n_samples, share]
    units = [unit + (unit > axis or (unit == axis and not sample_axis.innermost)) for unit in units]
    return values.reshape(shape), [axis + sample_axis.innermost, *units]


def _moments(laid: NDArray[np.generic], rest: tuple[int, ...], codes: Codes) -> dict[str, Floats]:
    """The statistics over some axes, by name, the other axes in the tensor's order."""
    kept = [axis for axis in range(laid.ndim) if axis not in rest]
    if rest[-1] - rest[0] + 1 > len(rest):  # positions lie together in nearly all tensors
        laid, rest = laid.transpose(*kept, *rest), tuple(range(len(kept), laid.ndim))
    sizes = laid.shape[: rest[0]], laid.shape[rest[0] : rest[-1] + 1], laid.shape[rest[-1] + 1 :]
    before, positions, after = (math.prod(part) for part in sizes)
    middle = laid.reshape(before, positions, after)
    found = {name: np.empty((before, after)) for name in MOMENTS}
    step = max(1, BLOCK // (positions * after))
    width = after if step > 1 else max(1, BLOCK // positions)
    for start in range(0, before, step):
        for first in range(0, after, width):
            where = slice(start, start + step), slice(first, first + width)
            _fill(found, where, middle[where[0], :, where[1]], codes)
    return {name: numbers.reshape((*sizes[0], *sizes[2])) for name, numbers in found.items()}


def _floats(values: NDArray[np.generic], codes: Codes) -> Floats:
    """A copy as float64, codes as what they stand for."""
    floats = values.astype(np.float64)
    return floats if codes == Codes() else (floats - codes.zero) * codes.scale


def _fill(
    found: dict[str, Floats], where: tuple[slice, slice], values: NDArray[np.generic], codes: Codes
) -> None:
    """The statistics of one block, (before, positions, after)."""
    numbers = None
    if codes == Codes() and values.dtype == np.float32 and values.shape[1] <= MOST_IN_SINGLE:
        numbers = _in_single(values.view(np.float32))
    for name, rows in (numbers or _in_double(_floats(values, codes))).items():
        found[name][where] = rows


MOST_IN_SINGLE = 1 << 16
"""Positions whose sums keep enough digits in float32, the type of most tensors."""


def _in_single(block: NDArray[np.float32]) -> dict[str, NDArray[np.floating]] | None:
    """The statistics of a block without a copy as float64; None where numbers are too large or not finite.

    Only the mean is summed in float64. The spread is that of what is left when it is taken off, so that no
    digits are lost where it is large.
    """
    n = block.shape[1]
    with np.errstate(invalid="ignore", over="ignore"):
        mean = block.mean(axis=1, dtype=np.float64)
        left = block - mean.astype(np.float32)[:, None, :]
        np.square(left, out=left)
        variance = _sum(left).astype(np.float64) / n
        sizes = _sum(np.abs(block)).astype(np.float64) / n if block.min() < 0 else mean
    if not (np.isfinite(mean).all() and np.isfinite(variance).all() and np.isfinite(sizes).all()):
        return None
    return {
        "mean": mean,
        "mean_abs": sizes,
        "variance": variance,
        "min": block.min(axis=1),
        "max": block.max(axis=1),
        "share_positive": _sum((block > 0).astype(np.float32)).astype(np.float64) / n,
    }


def _in_double(block: Floats) -> dict[str, NDArray[np.floating]]:
    """The statistics of a block, which is used up."""
    n = block.shape[1]
    low = block.min(axis=1)
    found: dict[str, NDArray[np.floating]] = {
        "min": low,
        "max": block.max(axis=1),
        "share_positive": _sum((block > 0).astype(np.float64)) / n,
    }
    with np.errstate(invalid="ignore", over="ignore"):
        mean = _sum(block) / n
        found["mean"] = mean
        # what is never negative, as after a Relu, is its own absolute value
        found["mean_abs"] = mean if low.size and low.min() >= 0 else _sum(np.abs(block)) / n
        block -= mean[:, None, :]
        np.square(block, out=block)
        found["variance"] = _sum(block) / n
    return found


def _sum(block: NDArray[np.floating]) -> NDArray[np.floating]:
    """Over the middle axis: a product with ones is several times as fast as numpy's sum."""
    n = block.shape[1]
    if block.shape[2] == 1:
        return np.asarray(block[:, :, 0] @ np.ones(n, block.dtype))[:, None]
    return np.asarray(np.ones((1, n), block.dtype) @ block)[:, 0, :]
