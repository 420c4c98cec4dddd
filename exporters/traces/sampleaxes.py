"""Where samples are in the tensors that a mini-batch gives, found out by experiment.

A tensor's axis 0 need not be its samples: recurrent layers put time first, reshapes merge samples with
tokens, and some models mix the items of a batch. So a model is asked: two samples run together must give what
each gives alone (or, where the batch has a fixed size, samples in reverse order must give the results in
reverse order). What passes is recorded in mini-batches; otherwise samples run one by one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.runtime.pooling import SampleAxis
from emergraph.exporters.runtime.process import Fetched, Pooling

Floats = NDArray[np.float64]
UnitAxes = Mapping[str, tuple[int, ...]]
Run = Callable[[Sequence[int], Mapping[str, Pooling]], dict[str, Fetched]]
"""Runs the samples of these numbers together and pools the tensors; without pooling only shapes come back."""

RELATIVE_TOLERANCE = 1e-2
"""Of the largest value. Mini-batches change the order of sums; mixing samples changes results by far more."""


@dataclass(frozen=True)
class Mixed:
    """A tensor along which samples cannot be told apart."""

    tensor: str


Place = SampleAxis | None
"""None: the tensor does not depend on the samples."""


def axes_of_dynamic_batch(run: Run, units: UnitAxes, pair: tuple[int, int]) -> dict[str, Place] | Mixed:
    """Where samples are, for a model that takes any number of them.

    Args:
        run: Runs samples together.
        units: Unit axes by tensor.
        pair: Two different samples to try.
    """
    one, two = pair
    alone = [run([index], {name: Pooling(axes) for name, axes in units.items()}) for index in pair]
    together = run([one, two], {})
    expected = {name: _rows(alone[0][name], alone[1][name]) for name in units}
    candidates: dict[str, Iterator[Place]] = {}
    for name in units:
        candidates[name] = iter(_doubled(alone[0][name].shape or (), together[name].shape or ()))
    return _settle(lambda asked: run([one, two], asked), units, candidates, expected, 2)


def axes_of_fixed_batch(run: Run, units: UnitAxes, batch: Sequence[int]) -> dict[str, Place] | Mixed:
    """Where samples are, for a model that takes just as many as `batch` has."""
    size = len(batch)
    shapes = run(batch, {})
    candidates: dict[str, Iterator[Place]] = {}
    for name in units:
        shape = shapes[name].shape or ()
        places = [
            SampleAxis(axis, innermost)
            for axis, extent in sorted(enumerate(shape), key=lambda pair: pair[1] != size)
            for innermost in ((False,) if extent == size else (False, True))
            if extent and extent % size == 0
        ]
        candidates[name] = iter(places)
    found: dict[str, Place] = {}
    while len(found) < len(units):
        asked = {name: next(candidates[name], None) for name in units if name not in found}
        lost = next((name for name, place in asked.items() if place is None), None)
        if lost is not None:
            return Mixed(lost)
        pooling = {name: Pooling(units[name], place, size) for name, place in asked.items()}
        forward, backward = run(batch, pooling), run(list(reversed(batch)), pooling)
        found |= {
            name: place
            for name, place in asked.items()
            if _alike(_values(forward[name])[::-1], _values(backward[name]))
        }
    return found


def _settle(
    run: Callable[[Mapping[str, Pooling]], dict[str, Fetched]],
    units: UnitAxes,
    candidates: Mapping[str, Iterator[Place]],
    expected: Mapping[str, Floats],
    n_samples: int,
) -> dict[str, Place] | Mixed:
    """Try each tensor's places in turn until one gives the expected rows."""
    found: dict[str, Place] = {}
    while len(found) < len(units):
        asked: dict[str, Place] = {}
        for name in units:
            if name in found:
                continue
            try:
                asked[name] = next(candidates[name])
            except StopIteration:
                return Mixed(name)
        pooling = {
            name: Pooling(units[name], place, n_samples if place is not None else 1)
            for name, place in asked.items()
        }
        for name, fetched in run(pooling).items():
            rows = np.broadcast_to(_values(fetched), expected[name].shape)
            if _alike(rows, expected[name]):
                found[name] = asked[name]
    return found


def _doubled(alone: Sequence[int], together: Sequence[int]) -> list[Place]:
    """Places that fit the shapes of one sample and of two."""
    if tuple(alone) == tuple(together):
        return [None]
    changed = [axis for axis, (one, two) in enumerate(zip(alone, together, strict=False)) if one != two]
    if len(alone) != len(together) or len(changed) != 1 or together[changed[0]] != 2 * alone[changed[0]]:
        return []
    (axis,) = changed
    return [SampleAxis(axis)] if alone[axis] == 1 else [SampleAxis(axis), SampleAxis(axis, innermost=True)]


def _rows(*results: Fetched) -> Floats:
    return np.concatenate([_values(result) for result in results])


def _values(result: Fetched) -> Floats:
    if result.values is None:
        raise RuntimeError("a pooled tensor came back without values")
    return np.asarray(result.values, np.float64)


def _alike(found: Floats, expected: Floats) -> bool:
    scale = float(np.max(np.abs(expected[np.isfinite(expected)]), initial=0.0))
    return bool(np.allclose(found, expected, 0.0, RELATIVE_TOLERANCE * scale, equal_nan=True))
