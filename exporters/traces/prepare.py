"""Samples made ready for a model: what they are, and the concrete run of the first of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from emergraph.choices import unknown
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.runtime.concrete import ConcreteRun, checked_input, concrete_run
from emergraph.exporters.runtime.feeds import input_hints, is_steering
from emergraph.exporters.runtime.flat_model import FlatInput
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.sizes import RANKS, axes_of, open_shapes
from emergraph.exporters.runtime.sources import as_source
from emergraph.exporters.traces.options import TraceOptions
from emergraph.exporters.traces.samples import (
    Axes,
    DrawnSamples,
    GivenSamples,
    RandomInputs,
    Samples,
    sample_axes,
)
from emergraph.exporters.wiredmodel import WiredModel

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Prepared:
    """Samples, and the run of the first of them."""

    run: ConcreteRun
    samples: Samples
    fixed: int | None
    """Samples that every run must have; None if one will do."""
    made_up: tuple[str, ...] = ()
    """Inputs that the user did not give."""
    open_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of random inputs that could be of other sizes."""

    def first(self, n: int) -> "Prepared":
        """The same with the first samples alone, or as many as a run must have."""
        return replace(self, samples=self.samples.first(max(n, self.fixed or 1)))


def given_samples(
    file: OnnxFile | WiredModel, arrays: Mapping[str, Array], options: TraceOptions
) -> Prepared:
    """Samples from arrays; inputs that are not given are synthetic, the same for all samples.

    Raises:
        InvalidInputError: The arrays do not fit the model or each other.
        UsageError: The options name an input that was not given.
    """
    known = {**arrays, **options.inputs}
    declared = _declared(file, known)
    names = [value.name for value in declared]
    for name in known:
        if name not in names:
            raise InvalidInputError(unknown("model input", name, names))
    known = {value.name: checked_input(value, known[value.name]) for value in declared if value.name in known}
    n, axes = sample_axes(declared, known, {**dict.fromkeys(options.inputs), **options.sample_axes})
    if n == 0:
        raise InvalidInputError("the inputs hold no samples: the axis of samples has size 0")
    run, fixed = _first_run(file, declared, GivenSamples(n, known, axes), options)
    made_up = tuple(name for name in run.inputs if name not in known)
    batch_names = _batch_names(declared, axes)
    for value in declared:
        if value.name in made_up:
            array = run.inputs[value.name]
            axis = _likely_axis(value, array, batch_names)
            if axis is not None:
                array = np.broadcast_to(np.take(array, [0], axis), _resized(array.shape, axis, n))
            known[value.name], axes[value.name] = array, axis
    return Prepared(run, GivenSamples(n, known, axes), fixed, made_up)


def random_samples(file: OnnxFile | WiredModel, wish: RandomInputs, options: TraceOptions) -> Prepared:
    """Random samples of the smallest legal shapes, or of those that the options give.

    Raises:
        UsageError: Less than one sample is asked for.
        InvalidInputError: No legal shapes are found.
    """
    if wish.n < 1:
        raise UsageError(f"{wish.n} random samples were asked for; expected at least 1")
    declared = _declared(file, options.inputs)
    run = _run(file, options.inputs, options)
    axes = {**_random_axes(declared, run.inputs), **options.sample_axes}
    decided = {**options.input_shapes, **{name: array.shape for name, array in options.inputs.items()}}
    free = open_shapes(declared, decided, {name: array.shape for name, array in run.inputs.items()})
    source = as_source(file)
    shapes = {name: value.shape for name, value in run.values.items() if value.shape is not None}
    hints = input_hints(run.flat, source, shapes)
    steering = {name for name in run.inputs if is_steering(name) or name in hints.choices}
    samples = DrawnSamples(
        n=wish.n,
        seed=wish.seed,
        template=run.inputs,
        axes=axes,
        fixed=frozenset(steering | set(options.inputs)),
        rows=hints.rows,
    )
    fixed = None
    if _fixed_size(declared, axes) is not None:
        run, fixed = _first_run(file, declared, samples, options)
    made_up = tuple(name for name in run.inputs if name not in options.inputs)
    return Prepared(run, samples, fixed, made_up, free)


def _first_run(
    file: OnnxFile | WiredModel, declared: Sequence[FlatInput], samples: Samples, options: TraceOptions
) -> tuple[ConcreteRun, int | None]:
    """Run the first sample; where the model wants the batch that it declares, the first batch."""
    try:
        return _run(file, samples.feeds([0]), options), None
    except InvalidInputError:
        fixed = _fixed_size(declared, samples.axes)
        if fixed is None:
            raise
    indices = [min(k, samples.n - 1) for k in range(fixed)]
    return _run(file, samples.feeds(indices), options), fixed


def _run(file: OnnxFile | WiredModel, inputs: Mapping[str, Array], options: TraceOptions) -> ConcreteRun:
    shapes = {name: shape for name, shape in options.input_shapes.items() if name not in inputs}
    withheld = file.withheld if isinstance(file, WiredModel) else frozenset()
    return concrete_run(
        file, inputs=inputs, input_shapes=shapes, limits=options.run_limits, withheld=withheld
    )


def _declared(file: OnnxFile | WiredModel, known: Mapping[str, Array]) -> tuple[FlatInput, ...]:
    source = as_source(file)
    return flatten(source.model, read_tensor=source.array, overridden=frozenset(known)).inputs


def _fixed_size(declared: Sequence[FlatInput], axes: Axes) -> int | None:
    """The one size, above 1, that the model declares for samples."""
    sizes = {_declared_size(value, axes.get(value.name)) for value in declared} - {None}
    fixed = next(iter(sizes)) if len(sizes) == 1 else None
    return fixed if isinstance(fixed, int) and fixed > 1 else None


def _declared_size(value: FlatInput, axis: int | None) -> int | str | None:
    return value.shape[axis] if value.shape is not None and axis is not None else None


def _batch_names(declared: Sequence[FlatInput], axes: Axes) -> set[str]:
    sizes = [_declared_size(value, axes.get(value.name)) for value in declared]
    return {size for size in sizes if isinstance(size, str)}


def _random_axes(declared: Sequence[FlatInput], template: Mapping[str, Array]) -> dict[str, int | None]:
    """Where samples go in each input: the axis that counts batches, or the first axis of a fixed size."""
    found = axes_of(declared, {}, RANKS[0])
    axes: dict[str, int | None] = {}
    for value in declared:
        shape = found.shapes[value.name]
        axes[value.name] = next((k for k, axis in enumerate(shape) if axis in found.batch), None)
        if axes[value.name] is None:
            axes[value.name] = _likely_axis(value, template[value.name], ())
    if all(axis is None for axis in axes.values()):
        first = next(
            (v for v in declared if template[v.name].ndim > 1 and template[v.name].shape[0] > 1), None
        )
        if first is not None and first == declared[0] and isinstance((first.shape or (None,))[0], int):
            axes[first.name] = 0
    return axes


def _likely_axis(value: FlatInput, array: Array, batch_names: Collection[str]) -> int | None:
    """An axis of a synthetic input with the name of the samples, or its only unnamed axis of size 1."""
    shape = value.shape or ()
    named = [k for k, size in enumerate(shape) if size in batch_names]
    unnamed = [k for k, size in enumerate(shape) if size is None and array.shape[k] == 1]
    if named:
        return named[0]
    return unnamed[0] if len(unnamed) == 1 else None


def _resized(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])
