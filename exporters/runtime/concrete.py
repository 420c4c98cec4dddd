"""One small concrete run of a model: the shape, type and small values of every tensor."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.onnxfile.reader import OnnxFile
from emergraph.exporters.runtime.assembly import ModelSource, assemble
from emergraph.exporters.runtime.branches import literal_conditions, take_branches
from emergraph.exporters.runtime.element_types import numpy_dtype
from emergraph.exporters.runtime.feeds import STYLES, InputHints, input_hints, make_feeds, scalar_choices
from emergraph.exporters.runtime.flat_model import FlatModel
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import Fetched, ModelProcess, ModelRefusedError
from emergraph.exporters.runtime.sizes import RANKS, Shape, axes_of, candidate_sizes, declared_text
from emergraph.exporters.runtime.sources import as_source

Array = NDArray[np.generic]
Feeds = dict[str, Array]

MAX_ROUNDS = 64
"""Rounds of resolving Ifs; each resolves at least one level of nesting."""
GROUP_COUNTS = (1, 4, 16)
"""Into how many runs the tensors are spread when memory does not suffice for all at once."""


@dataclass(frozen=True)
class TensorValue:
    """What the run gave for one tensor."""

    shape: tuple[int, ...] | None
    """None for values that are no tensors (sequences, maps)."""
    dtype: np.dtype[np.generic] | None
    """None for text, sub-byte elements, and what is no tensor."""
    value: Array | None = None
    """The elements, where there are few of them or they are integers or booleans."""
    kind: str = "tensor"


@dataclass(frozen=True)
class ConcreteRun:
    """A model with its control flow decided, and what one run gave."""

    flat: FlatModel
    values: Mapping[str, TensorValue]
    """By flat name: all inputs, and all outputs of the flat nodes."""
    inputs: Mapping[str, Array]
    """The inputs used."""
    attempts: int = 1
    """How many combinations of sizes and values were tried."""
    notes: tuple[str, ...] = field(default=())

    @property
    def branches(self) -> tuple[str, ...]:
        """Branches of If nodes that were taken, e.g. "If_0:then"."""
        return self.flat.branches


def concrete_run(
    file: OnnxFile | ModelSource,
    *,
    inputs: Mapping[str, Array] | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    limits: RunLimits | None = None,
    seed: int = 0,
) -> ConcreteRun:
    """Run a model once on small inputs, in a child process, and keep what every tensor was.

    Inputs that are not given are made up: batches of 1, small sizes for dynamic axes (see `sizes`), likely
    values (see `feeds`). If nodes are replaced by the branch that the run takes.

    Args:
        file: A checked file (`read_onnx`), or another source of a model.
        inputs: Values of inputs that the caller decides.
        input_shapes: Shapes of inputs that the caller decides.
        limits: Of time, memory and threads.
        seed: Of made-up float inputs.

    Raises:
        InvalidInputError: The model refuses everything that was tried, or crashes onnxruntime.
        LimitError: A limit was hit.
    """
    given = dict(inputs or {})
    shapes = dict(input_shapes or {})
    limits = limits or RunLimits()
    source = as_source(file)
    flat = flatten(source.model, read_tensor=source.array, overridden=frozenset(given))
    _check_names(flat, (*given, *shapes))
    given = {name: _checked(flat, name, array) for name, array in given.items()}
    flat = _with_literal_branches(flat)
    with ModelProcess(limits) as process:
        conditions = [name for name in flat.open_conditions() if name not in {v.name for v in flat.inputs}]
        fetch = list(dict.fromkeys((*conditions, *made(flat)))) if not flat.open_conditions() else conditions
        search = _Search(flat, source, process, seed)
        feeds, first = search.run(fetch, given, shapes)
        flat, found = _decide(flat, source, process, feeds, first)
        values = _all_values(flat, source, process, feeds, found)
    return ConcreteRun(flat, values, feeds, search.attempts)


def made(flat: FlatModel) -> list[str]:
    """Names of all tensors that top-level nodes make."""
    return [name for node in flat.nodes for name in node.output if name]


def _with_literal_branches(flat: FlatModel) -> FlatModel:
    while decisions := literal_conditions(flat):
        flat = take_branches(flat, decisions)
    return flat


def _check_names(flat: FlatModel, names: Sequence[str]) -> None:
    known = [value.name for value in flat.inputs]
    for name in names:
        if name not in known:
            raise InvalidInputError(
                f"the model has no input {name!r}; its inputs are {', '.join(map(repr, known))}"
            )


def _checked(flat: FlatModel, name: str, array: Array) -> Array:
    """A given input with the model's element type, shape compared with the declared one."""
    value = next(v for v in flat.inputs if v.name == name)
    dtype = numpy_dtype(value.element_type)
    array = np.asarray(array)
    if value.shape is not None and array.ndim != len(value.shape):
        raise InvalidInputError(
            f"input {name!r} has shape {list(array.shape)}; the model declares {declared_text(value)}"
        )
    if dtype is None or array.dtype == dtype:
        return array
    if not np.can_cast(array.dtype, dtype, "same_kind") and not _fits(array, dtype):
        raise InvalidInputError(f"input {name!r} has type {array.dtype}; the model takes {dtype}")
    return array.astype(dtype)


def _fits(array: Array, dtype: np.dtype[np.generic]) -> bool:
    """Whether every value survives the conversion (16000.0 for an integer input does)."""
    with np.errstate(all="ignore"):
        return bool((array.astype(dtype).astype(array.dtype) == array).all())


class _Search:
    """Looks for sizes and values that the model accepts."""

    def __init__(self, flat: FlatModel, file: ModelSource, process: ModelProcess, seed: int) -> None:
        self.flat = flat
        self.file = file
        self.process = process
        self.seed = seed
        self.attempts = 0
        self._first: tuple[dict[str, Shape], ModelRefusedError] | None = None
        self._last: tuple[dict[str, Shape], ModelRefusedError] | None = None

    def run(
        self, fetch: Sequence[str], given: Mapping[str, Array], shapes: Mapping[str, Shape]
    ) -> tuple[Feeds, dict[str, Fetched]]:
        """The first feeds that the model accepts, and what it gave for `fetch`."""
        self.process.load(assemble(self.flat, fetch, self.file))
        hints = input_hints(self.flat, self.file)
        for feeds in self._candidates(given, shapes, hints):
            self.attempts += 1
            try:
                return feeds, self.process.run(feeds, fetch)
            except ModelRefusedError as error:
                tried = ({name: array.shape for name, array in feeds.items()}, error)
                self._first = self._first or tried
                self._last = tried
        raise self._nothing_works(given, shapes)

    def _candidates(
        self, given: Mapping[str, Array], shapes: Mapping[str, Shape], hints: InputHints
    ) -> Iterator[Feeds]:
        decided = {**shapes, **{name: array.shape for name, array in given.items()}}
        open_inputs = [value for value in self.flat.inputs if value.name not in given]
        ranks = RANKS if any(v.shape is None and v.name not in decided for v in open_inputs) else RANKS[:1]
        styles = (
            STYLES if any(_is_integer(v.element_type) and v.shape != () for v in open_inputs) else STYLES[:1]
        )
        choices = list(scalar_choices(open_inputs, hints, given))
        for scalars, rank in itertools.product(choices, ranks):
            axes = axes_of(self.flat.inputs, decided, rank)
            for sizes in candidate_sizes(axes):
                filled = axes.filled(sizes)
                for style in styles:
                    made_up = make_feeds(
                        open_inputs, filled, hints, scalars=scalars, style=style, seed=self.seed
                    )
                    yield {
                        v.name: given[v.name] if v.name in given else made_up[v.name]
                        for v in self.flat.inputs
                    }

    def _nothing_works(self, given: Mapping[str, Array], shapes: Mapping[str, Shape]) -> InvalidInputError:
        if self._first is None or self._last is None:
            return InvalidInputError("the model has no inputs that could be tried")
        open_names = [v for v in self.flat.inputs if v.name not in given and v.name not in shapes]
        tried, error = self._first
        if not open_names:
            return InvalidInputError(f"the model refuses the given inputs {_shapes_text(tried)}: {error}")
        declared = ", ".join(f"{v.name!r} {declared_text(v)}" for v in open_names)
        return InvalidInputError(
            f"no sizes were found that the model accepts for {declared}: {self.attempts} tried, from "
            f"{_shapes_text(tried)} to {_shapes_text(self._last[0])}; first refusal: {error}; "
            f"give sizes with --input-shape {open_names[0].name}=1,..."
        )


def _decide(
    flat: FlatModel, file: ModelSource, process: ModelProcess, feeds: Feeds, found: dict[str, Fetched]
) -> tuple[FlatModel, dict[str, Fetched] | None]:
    """Take branches until no If with a known condition is left; `found` survives if none had to be taken."""
    if not flat.open_conditions():
        return flat, found
    for _ in range(MAX_ROUNDS):
        decisions = {
            name: bool(np.reshape(array, ())[()])
            for name in flat.open_conditions()
            if (array := feeds[name] if name in feeds else found[name].values) is not None and array.size == 1
        }
        if not decisions:
            return flat, None
        flat = _with_literal_branches(take_branches(flat, decisions))
        fetch = [name for name in flat.open_conditions() if name not in feeds]
        if not flat.open_conditions():
            return flat, None
        process.load(assemble(flat, fetch, file))
        found = process.run(feeds, fetch)
    raise LimitError(f"If operations are nested more than {MAX_ROUNDS} levels deep")


def _all_values(
    flat: FlatModel, file: ModelSource, process: ModelProcess, feeds: Feeds, found: dict[str, Fetched] | None
) -> dict[str, TensorValue]:
    values = {name: TensorValue(array.shape, array.dtype, array) for name, array in feeds.items()}
    fetch = made(flat)
    if found is None or any(name not in found for name in fetch):
        found = _in_groups(flat, file, process, feeds, fetch)
    for name in fetch:
        one = found[name]
        values[name] = TensorValue(one.shape, numpy_dtype(one.element_type), one.values, one.kind)
    return values


def _in_groups(
    flat: FlatModel, file: ModelSource, process: ModelProcess, feeds: Feeds, fetch: Sequence[str]
) -> dict[str, Fetched]:
    """Fetch all tensors, in several runs if memory does not suffice for one."""
    for count in GROUP_COUNTS:
        size = -(-len(fetch) // count)
        found: dict[str, Fetched] = {}
        try:
            for start in range(0, len(fetch), size):
                group = fetch[start : start + size]
                process.load(assemble(flat, group, file))
                found.update(process.run(feeds, group))
        except LimitError:
            if count == GROUP_COUNTS[-1] or process.seconds_left <= 0:
                raise
        else:
            return found
    raise AssertionError("the last group count either returns or raises")


def _is_integer(element_type: int) -> bool:
    dtype = numpy_dtype(element_type)
    return dtype is not None and dtype.kind in "iu"


def _shapes_text(shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name}={list(shape)}" for name, shape in shapes.items())
