"""What the units of a model did on samples: their extremes over samples and positions."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.modelruns.running import samples_of, stacked
from emergraph.errors import InvalidInputError
from emergraph.exporters.runtime.assembly import ModelSource, assemble
from emergraph.exporters.runtime.concrete import made
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import EVERYTHING, Fetched, ModelProcess
from emergraph.exporters.traces.prepare import Prepared
from emergraph.exporters.traces.targets import Target, by_tensor, recordable, targets_of

Array = NDArray[np.generic]
Floats = NDArray[np.float64]

RUN_BYTES = 512 << 20
"""Activations that are fetched in one run of the model."""


@dataclass(frozen=True, eq=False)
class Activity:
    """The extremes of every unit over all samples and positions."""

    n: int
    """Samples: independent ones, however many positions each has."""
    given: bool
    """Whether the samples are a user's."""
    low: Floats
    """(n_units,) smallest value; NaN where a value was."""
    high: Floats
    measured: NDArray[np.bool_]
    """(n_units,) whether a tensor of the model holds the unit's activation."""
    tensors: Mapping[str, tuple[float, float]]
    """Extremes of the finite values of every tensor that the model computes, by name."""


@dataclass(eq=False)
class _Seen:
    low: Floats
    high: Floats
    measured: NDArray[np.bool_]
    tensors: dict[str, tuple[float, float]]
    outputs: list[Array]
    n: int = 0


def run_samples(
    prepared: Prepared,
    source: ModelSource,
    layers: pl.DataFrame | None,
    n_units: int,
    *,
    limits: RunLimits,
    seconds: float,
    most: int,
) -> _Seen:
    """Run samples one by one, each a run of its own, and keep the extremes of units and tensors.

    Args:
        prepared: The samples.
        source: The model's values.
        layers: Of the graph; None where there is none.
        n_units: Of the graph.
        limits: Of the child process.
        seconds: After so long no other sample is begun; the first two always are.
        most: Samples at most.
    """
    flat = prepared.run.flat
    targets = _targets(layers, prepared)
    seen = _Seen(np.full(n_units, np.inf), np.full(n_units, -np.inf), np.zeros(n_units, bool), {}, [])
    fetched = _fetched(prepared)
    outputs: list[list[Array]] = [[] for _ in flat.outputs]
    begin = time.monotonic()
    size = prepared.fixed or 1
    with ModelProcess(limits) as process:
        process.load(assemble(flat, [name for group in fetched for name in group], source), many_runs=True)
        for start in range(0, min(prepared.samples.n, most), size):
            if seen.n >= 2 and time.monotonic() - begin > seconds:
                break
            indices = [min(i, prepared.samples.n - 1) for i in range(start, start + size)]
            feeds = prepared.samples.feeds(indices)
            for group in fetched:
                results = process.run(feeds, group, small=EVERYTHING)
                _take_in(seen, results, targets)
                for part, name in zip(outputs, flat.outputs, strict=True):
                    if name in results and (values := results[name].values) is not None:
                        part.append(samples_of(np.asarray(values), size, prepared.samples.n - start))
            seen.n += min(size, prepared.samples.n - start)
    seen.outputs = [stacked(part) if part else np.empty(0) for part in outputs]
    return seen


def _targets(layers: pl.DataFrame | None, prepared: Prepared) -> dict[str, list[Target]]:
    if layers is None:
        return {}
    try:
        targets, _ = recordable(targets_of(layers), prepared.run)
    except InvalidInputError:
        return {}
    return by_tensor(targets)


def _fetched(prepared: Prepared) -> list[list[str]]:
    """Tensors of numbers that the model computes, in groups of bounded size; outputs are in the first."""
    run = prepared.run
    names = list(dict.fromkeys((*run.flat.outputs, *made(run.flat))))
    groups: list[list[str]] = [[]]
    size = 0
    for name in names:
        value = run.values.get(name)
        is_output = name in run.flat.outputs
        plain = value is not None and value.kind == "tensor" and value.shape is not None
        if name not in set(made(run.flat)) or (not plain and not is_output):
            continue
        n_bytes = 0 if value is None or value.shape is None else 8 * int(np.prod(value.shape))
        if size + n_bytes > RUN_BYTES and groups[-1] and not is_output:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += n_bytes
    return groups


def _take_in(seen: _Seen, results: Mapping[str, Fetched], targets: Mapping[str, Sequence[Target]]) -> None:
    for name, fetched in results.items():
        values = fetched.values
        if values is None or values.dtype.kind not in "fiub" or not values.size:
            continue
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if values.dtype.kind == "f" and finite.size:
            old = seen.tensors.get(name, (np.inf, -np.inf))
            seen.tensors[name] = (min(old[0], float(finite.min())), max(old[1], float(finite.max())))
        for target in targets.get(name, ()):
            if any(not -values.ndim <= axis < values.ndim for axis in target.axes):
                continue
            rows = np.moveaxis(values, target.axes, range(len(target.axes)))
            rows = rows.reshape(target.n_units, -1) if rows.size % max(target.n_units, 1) == 0 else rows[:0]
            if len(rows) != target.n_units or not rows.size:
                continue
            units = slice(target.first_unit, target.first_unit + target.n_units)
            with np.errstate(invalid="ignore"):  # a NaN stays one
                seen.low[units] = np.minimum(seen.low[units], rows.min(axis=1))
                seen.high[units] = np.maximum(seen.high[units], rows.max(axis=1))
            seen.measured[units] = True
