"""Synthetic inputs for a model that comes without data.

Label-free landscapes compare a model with itself on probe inputs. Real inputs are better and are asked for
first; these are drawn: floats from N(0, 1), indices into tables uniformly, everything else as the concrete
run had it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.onnxfile.reader import OnnxFile
from emergraph.exporters.runtime.assembly import ModelSource
from emergraph.exporters.runtime.concrete import ConcreteRun, concrete_run
from emergraph.exporters.runtime.feeds import input_hints
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.sources import as_source

Array = NDArray[np.generic]


@dataclass(frozen=True)
class ProbeSet:
    """Inputs to evaluate a model on, and the run that showed that it takes them."""

    run: ConcreteRun
    batches: tuple[dict[str, Array], ...]
    """One batch of n samples, or n batches where the model takes one sample at a time."""
    n: int
    """Samples, counted along the first axis of the inputs."""
    seed: int | None
    """None for given inputs."""


def given_inputs(
    file: OnnxFile | ModelSource, inputs: Mapping[str, Array], *, limits: RunLimits | None = None
) -> ProbeSet:
    """Use a user's inputs as one batch; missing inputs are synthetic."""
    run = concrete_run(file, inputs=inputs, limits=limits)
    first = next(iter(inputs.values()), None)
    n = int(first.shape[0]) if first is not None and first.ndim else 1
    return ProbeSet(run, (dict(run.inputs),), n, None)


def probe_inputs(
    file: OnnxFile | ModelSource,
    *,
    n: int = 32,
    seed: int = 0,
    inputs: Mapping[str, Array] | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    limits: RunLimits | None = None,
) -> ProbeSet:
    """Draw n samples that a model accepts, in one batch where its first axes are dynamic.

    Args:
        file: The model.
        n: Samples.
        seed: Of the draws.
        inputs: Values that are fixed, for example of an input that selects a branch.
        input_shapes: Shapes that are fixed; their first axis is not enlarged.
        limits: Of the child process that tries the inputs out.

    Returns:
        The inputs.

    Raises:
        InvalidInputError: The model refuses everything that was tried.
        UsageError: n is not positive.
    """
    if n < 1:
        raise UsageError(f"samples: expected at least 1, found {n}")
    fixed, given = dict(inputs or {}), dict(input_shapes or {})
    source = as_source(file)
    small = concrete_run(file, inputs=fixed, input_shapes=given, limits=limits, seed=seed)
    batched = {
        value.name: (n, *small.inputs[value.name].shape[1:])
        for value in small.flat.inputs
        if value.name not in (*fixed, *given) and value.shape and not isinstance(value.shape[0], int)
    }
    first = dict(list(batched.items())[:1])
    for shapes in (batched, first) if len(batched) > 1 else (batched,):
        if not shapes or n == 1:
            break
        try:
            run = concrete_run(file, inputs=fixed, input_shapes={**given, **shapes}, limits=limits, seed=seed)
        except InvalidInputError:
            continue
        return ProbeSet(run, (_drawn(run, source, fixed, seed, 0),), n, seed)
    leading = next((array.shape[0] for array in small.inputs.values() if array.ndim > 1), 1)
    count = -(-n // max(leading, 1))
    batches = tuple(_drawn(small, source, fixed, seed, i) for i in range(count))
    return ProbeSet(small, batches, count * max(leading, 1), seed)


def _drawn(
    run: ConcreteRun, source: ModelSource, fixed: Mapping[str, Array], seed: int, index: int
) -> dict[str, Array]:
    """The run's inputs with fresh floats and table indices."""
    hints = input_hints(run.flat, source)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    drawn: dict[str, Array] = {}
    for name, array in run.inputs.items():
        constant = name in fixed or array.size < 2 or np.ptp(array.astype(np.float64)) == 0
        if constant:
            drawn[name] = array
        elif array.dtype.kind == "f":
            drawn[name] = rng.standard_normal(array.shape).astype(array.dtype)
        elif array.dtype.kind in "iu" and name in hints.rows:
            drawn[name] = rng.integers(0, hints.rows[name], size=array.shape).astype(array.dtype)
        elif array.dtype.kind in "iu":
            drawn[name] = rng.integers(array.min(), array.max() + 1, size=array.shape).astype(array.dtype)
        else:
            drawn[name] = array
    return drawn
