"""Several samples, or one sample knocked out in several ways, in one run of a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]
Run = Callable[[Arrays], dict[str, Array]]

PLACE_TOLERANCE = 1e-4
"""Of the largest value: side by side, sums are done in another order."""


@dataclass(frozen=True)
class Layout:
    """Where the slots of a run are in each tensor."""

    axes: Mapping[str, int | None]
    """By tensor; None for what all slots share."""
    fixed: int | None
    """Slots that each run must have; None for any number."""
    sizes: Mapping[str, Array] = field(default_factory=dict)
    """Integers that say how many slots there are, such as shapes: their values in a run of so many."""

    def together(self, slots: Sequence[Arrays]) -> dict[str, Array]:
        """The tensors of several slots as one run reads them; a fixed run is filled up with its last slot."""
        if self.fixed is not None:
            slots = [*slots, *[slots[-1]] * (self.fixed - len(slots))]
        found: dict[str, Array] = {}
        for name in slots[0]:
            axis = self.axes.get(name)
            one = self.sizes.get(name, slots[0][name])
            found[name] = one if axis is None else np.concatenate([slot[name] for slot in slots], axis)
        return found

    def apart(self, arrays: Arrays, n: int) -> list[dict[str, Array]]:
        """What a run gave, slot by slot."""
        size = self.fixed or n
        parts: list[dict[str, Array]] = [{} for _ in range(n)]
        for name, array in arrays.items():
            axis = self.axes.get(name)
            split = [array] * n if axis is None else np.split(array, size, axis)
            for part, piece in zip(parts, split, strict=False):
                part[name] = piece
        return parts


def found_layout(alone: Sequence[Arrays], together: Arrays) -> tuple[Layout, list[str]] | None:
    """Where slots are, from what each gives alone and what they give side by side.

    Args:
        alone: Of each slot, all tensors.
        together: The same of all slots in one run.

    Returns:
        The layout, and the names of what depends on the number of slots alone; None where slots cannot be
        told apart in some tensor.
    """
    axes: dict[str, int | None] = {}
    sizes: list[str] = []
    for name, whole in together.items():
        parts = [one[name] for one in alone]
        if whole.shape == parts[0].shape and all(_alike(whole, part) for part in parts):
            axes[name] = None
            continue
        axis = _axis(parts, whole)
        if axis is None and whole.dtype.kind in "iu" and whole.shape == parts[0].shape:
            sizes.append(name)
        elif axis is None:
            return None
        axes[name] = axis
    return Layout(axes, None), sizes


def _axis(parts: Sequence[Array], whole: Array) -> int | None:
    for axis in range(whole.ndim):
        sizes = [part.shape[axis] if part.ndim == whole.ndim else -1 for part in parts]
        if sum(sizes) != whole.shape[axis] or len(set(sizes)) != 1:
            continue
        if whole.shape[:axis] + whole.shape[axis + 1 :] != parts[0].shape[:axis] + parts[0].shape[axis + 1 :]:
            continue
        split = np.split(whole, len(parts), axis)
        if all(_alike(one, part) for one, part in zip(split, parts, strict=True)):
            return axis
    return None


def _alike(found: Array, expected: Array) -> bool:
    return agrees(found, expected, PLACE_TOLERANCE)


def agrees(found: Array, expected: Array, tolerance: float) -> bool:
    """Whether two arrays are the same up to a share of the largest value."""
    if found.shape != expected.shape:
        return False
    if expected.dtype.kind not in "fc":
        return bool(np.array_equal(found, expected))
    finite = expected[np.isfinite(expected)]
    scale = float(np.abs(finite).max(initial=0.0))
    return bool(np.allclose(found, expected, 0.0, tolerance * scale, equal_nan=True))


def found_fixed_layout(first: Arrays, last: Arrays, mixed: Arrays, size: int) -> Layout | None:
    """Where slots are in the tensors of a model that takes just so many.

    Args:
        first: What a run gives in which all slots are one sample.
        last: The same for another sample.
        mixed: The same of a run whose first slot is the first sample, and all others the last one.
        size: Slots of each run.
    """
    axes: dict[str, int | None] = {}
    for name, whole in mixed.items():
        pair = first[name], last[name]
        if all(_alike(whole, one) for one in pair):  # also of all tensors, where there is one sample
            axes[name] = None
            continue
        candidates = [axis for axis in range(whole.ndim) if whole.shape[axis] % size == 0]
        candidates.sort(key=lambda axis, whole=whole: whole.shape[axis] != size)  # type: ignore[misc]
        for axis in candidates:
            pure, other, both = (np.split(one, size, axis) for one in (*pair, whole))
            expected = [pure[0], *other[1:]]
            if all(_alike(one, wanted) for one, wanted in zip(both, expected, strict=True)):
                axes[name] = axis
                break
        else:
            return None
    return Layout(axes, size)
