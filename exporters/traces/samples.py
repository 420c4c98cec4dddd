"""Samples to run a model on: arrays that a user gives, or random ones, a mini-batch at a time."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emergraph.choices import unknown
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.runtime.flat_model import Dimension, FlatInput
from emergraph.exporters.runtime.quoting import quoted

Array = NDArray[np.generic]
Feeds = dict[str, Array]
Axes = Mapping[str, int | None]


@dataclass(frozen=True)
class RandomInputs:
    """Ask for a trace on random inputs: floats from N(0, 1), ids uniform over the rows that they pick.

    Masks, lengths, positions and deciding scalars are what the concrete run of an export would use.
    """

    n: int
    """Samples."""
    seed: int = 0
    """Sample k is drawn with the seed (seed, k), so it does not depend on the size of mini-batches."""


class Samples(Protocol):
    """Samples, addressable by number."""

    @property
    def n(self) -> int:
        """How many there are."""
        ...

    @property
    def axes(self) -> Axes:
        """By input: the axis that samples are along; None for an input that all samples share."""
        ...

    def feeds(self, indices: Sequence[int]) -> Feeds:
        """The inputs for some samples in one run."""
        ...

    def first(self, n: int) -> "Samples":
        """The first samples alone."""
        ...


def sample_axes(
    declared: Sequence[FlatInput], arrays: Mapping[str, Array], told: Axes
) -> tuple[int, dict[str, int | None]]:
    """Find the samples in the arrays that a user gave.

    Samples are along axis 0, except that an input which declares the name of another one's sample axis
    elsewhere has them there (a state [2, batch, 128]), or along its one unnamed axis of that size; scalars,
    and inputs that have just the declared fixed first size, are shared by all samples.

    Args:
        declared: The model's inputs.
        arrays: Values by input name.
        told: Axes that the user decides; None says that samples share the input.

    Returns:
        The number of samples, and the axis by input.

    Raises:
        InvalidInputError: The arrays do not agree on the number of samples.
        UsageError: A told input or axis does not exist.
    """
    for name, axis in told.items():
        if name not in arrays:
            raise UsageError(unknown("input", name, arrays))
        if axis is not None and not -arrays[name].ndim <= axis < arrays[name].ndim:
            raise UsageError(f"input {quoted(name)} has {arrays[name].ndim} axes; axis {axis} does not exist")
    by_name = {
        value.name: value.shape or (None,) * arrays[value.name].ndim
        for value in declared
        if value.name in arrays
    }
    n = _count(by_name, arrays, told)
    names = {
        shape[0]
        for name, shape in by_name.items()
        if shape and isinstance(shape[0], str) and name not in told
    }
    axes: dict[str, int | None] = {}
    for name, shape in by_name.items():
        if name in told:
            chosen = told[name]
            axes[name] = None if chosen is None else chosen % arrays[name].ndim
        else:
            axes[name] = _axis_of(name, shape, arrays[name], n, names)
    return n, axes


def _axis_of(
    name: str, shape: Sequence[Dimension], array: Array, n: int, names: Collection[Dimension]
) -> int | None:
    """The axis of one input that has the samples, by the rules of `sample_axes`."""
    if array.ndim == 0:
        return None
    named = [k for k, size in enumerate(shape) if size in names and array.shape[k] == n]
    if named:
        return named[0]
    if array.shape[0] == n:
        return 0
    unnamed = [k for k, size in enumerate(shape) if size is None and array.shape[k] == n]
    if len(unnamed) == 1:
        return unnamed[0]
    if shape[0] == array.shape[0]:
        return None
    raise InvalidInputError(
        f"input {quoted(name)} has shape {list(array.shape)}, the samples are {n}; expected {n} along axis "
        "0, or say which axis its samples are along"
    )


def _count(shapes: Mapping[str, Sequence[object]], arrays: Mapping[str, Array], told: Axes) -> int:
    for name, axis in told.items():
        if axis is not None:
            return int(arrays[name].shape[axis])
    with_axes = [name for name in shapes if arrays[name].ndim and name not in told]
    own = [name for name in with_axes if shapes[name][0] != arrays[name].shape[0]]
    first = next(iter(own or with_axes), None)
    return int(arrays[first].shape[0]) if first is not None else 1


@dataclass(frozen=True)
class GivenSamples:
    """Samples out of arrays."""

    n: int
    arrays: Mapping[str, Array]
    axes: Axes

    def feeds(self, indices: Sequence[int]) -> Feeds:
        """The inputs for some samples in one run; neighbours are a view, not a copy."""
        found: Feeds = {}
        consecutive = list(indices) == list(range(indices[0], indices[0] + len(indices)))
        for name, array in self.arrays.items():
            axis = self.axes[name]
            if axis is None:
                found[name] = array
            elif consecutive:
                where = (slice(None),) * axis
                found[name] = array[(*where, slice(indices[0], indices[0] + len(indices)))]
            else:
                found[name] = np.take(array, indices, axis)
        return found

    def first(self, n: int) -> "GivenSamples":
        """The first samples alone."""
        return replace(self, n=min(n, self.n))


@dataclass(frozen=True)
class DrawnSamples:
    """Random samples of the shapes of one legal run."""

    n: int
    seed: int
    template: Mapping[str, Array]
    """The inputs of a legal run of one sample (or of one fixed batch)."""
    axes: Axes
    fixed: frozenset[str] = frozenset()
    """Inputs that keep the template's values: given by the user, or deciding something."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """For inputs that pick rows of a table: how many rows there are."""

    def feeds(self, indices: Sequence[int]) -> Feeds:
        """The inputs for some samples in one run."""
        drawn = [self._draw(index) for index in indices]
        found: Feeds = {}
        for name, first in drawn[0].items():
            axis = self.axes[name]
            found[name] = first if axis is None else np.concatenate([one[name] for one in drawn], axis)
        return found

    def first(self, n: int) -> "DrawnSamples":
        """The first samples alone."""
        return replace(self, n=min(n, self.n))

    def _draw(self, index: int) -> Feeds:
        rng = np.random.default_rng([self.seed, index])
        batched = any(axis is not None for axis in self.axes.values())
        found: Feeds = {}
        for name, template in self.template.items():
            axis = self.axes[name]
            shape = list(template.shape)
            if axis is not None:
                shape[axis] = 1
            if axis is not None and name in self.fixed:
                found[name] = np.take(template, [0], axis)
            elif name in self.fixed or (axis is None and batched):
                found[name] = template
            elif name in self.rows:
                found[name] = rng.integers(0, self.rows[name], shape).astype(template.dtype)
            elif template.dtype.kind in "iub":
                # legal values that are known: the template's, in another order
                one = template if axis is None else np.take(template, [0], axis)
                found[name] = rng.permuted(one).reshape(shape)
            else:
                found[name] = rng.standard_normal(shape).astype(template.dtype)
        return found
