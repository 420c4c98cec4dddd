"""One small concrete run of a model: the shape, type and small values of every tensor."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.choices import unknown
from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.onnxfile.dtypes import element_type_of, numpy_dtype
from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.runtime.assembly import ModelSource, assemble
from emergraph.exporters.runtime.branches import literal_conditions, take_branches
from emergraph.exporters.runtime.feeds import MAX_MADE
from emergraph.exporters.runtime.flat_model import FlatInput, FlatModel
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.inferredshapes import inferred_shapes
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.partial import (
    SEGMENT_NODES,
    Blocked,
    CannotCutError,
    Feeds,
    InputSearch,
    RunnablePart,
    runnable_part,
    segments,
    stand_in,
    stand_in_shapes,
)
from emergraph.exporters.runtime.process import Fetched, HandOver, ModelProcess
from emergraph.exporters.runtime.quoting import quoted
from emergraph.exporters.runtime.refusals import ModelRefusedError
from emergraph.exporters.runtime.sizes import Shape, declared_text
from emergraph.exporters.runtime.sources import as_source

Array = NDArray[np.generic]

MAX_ROUNDS = 64
"""Rounds of resolving Ifs; each resolves at least one level of nesting."""
GROUP_COUNTS = (1, 4, 16)
"""Into how many runs the tensors are spread when memory does not suffice for all at once."""


@dataclass(frozen=True)
class TensorValue:
    """What the run gave for one tensor."""

    shape: tuple[int, ...] | None
    """None for values that are not tensors (sequences, maps)."""
    dtype: np.dtype[np.generic] | None
    """None for text, sub-byte elements and what is not a tensor; float32 where it runs so (`widening`)."""
    value: Array | None = None
    """The elements, where there are few of them or they are integers or booleans."""
    kind: str = "tensor"
    """"tensor", "assumed" (the operation cannot run; see `ConcreteRun.not_run`), or what else it is."""


@dataclass(frozen=True)
class ConcreteRun:
    """A model with its control flow decided, and what one run gave."""

    flat: FlatModel
    values: Mapping[str, TensorValue]
    """By flat name: all inputs, and the outputs of all flat nodes that ran or got a stand-in."""
    inputs: Mapping[str, Array]
    """The inputs used."""
    attempts: int = 1
    """How many combinations of sizes and values were tried."""
    not_run: Mapping[str, str] = field(default_factory=dict)
    """Nodes that did not run, by name, and why (an operation that onnxruntime does not have)."""
    in_single: bool = False
    """Whether float64 ran as float32, since an operation has no float64 kernel."""

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
    withheld: frozenset[str] = frozenset(),
) -> ConcreteRun:
    """Run a model once on small inputs, in a child process, and keep what every tensor was.

    Inputs that are not given are made up: batches of 1, small sizes for dynamic axes (see `sizes`), likely
    values (see `feeds`). If nodes are replaced by the branch that the run takes. Where onnxruntime lacks an
    operation, its outputs are assumed to have the declared shape, or that of its first input, and the run
    goes on from there.

    Args:
        file: A checked file (`read_onnx`), or another source of a model.
        inputs: Values of inputs that the caller decides.
        input_shapes: Shapes of inputs that the caller decides.
        limits: Of time, memory and threads.
        seed: Of made-up float inputs.
        withheld: Initializers that are too large to run with. What depends on none of them runs; of the rest
            the shapes are inferred, and nothing has values.

    Raises:
        InvalidInputError: The model refuses everything that was tried, or crashes onnxruntime, or a shape
            does not follow without the values that are withheld.
        LimitError: A limit was hit.

    Example:
        >>> run = concrete_run(read_onnx("model.onnx"))  # doctest: +SKIP
        >>> run.values["output"].shape  # doctest: +SKIP
        (1, 10)
    """
    given = dict(inputs or {})
    source = as_source(file)
    flat = flatten(source.model, read_tensor=source.array, overridden=frozenset(given))
    given = {name: checked_input(declared_input(flat, name), array) for name, array in given.items()}
    for name in input_shapes or {}:
        declared_input(flat, name)
    with ModelProcess(limits or RunLimits()) as process:
        work = _Work(_with_literal_branches(flat), source, process, seed, withheld)
        attempts = work.find_inputs(given, input_shapes or {})
        work.decide_branches()
        work.fetch_all()
        in_single = process.in_single
    if withheld:
        values = _with_inferred(work.flat, work.values)
        return ConcreteRun(work.flat, values, work.feeds, attempts, in_single=in_single)
    return ConcreteRun(work.flat, work.values, work.feeds, attempts, work.left_out, in_single)


def _with_inferred(flat: FlatModel, values: Mapping[str, TensorValue]) -> dict[str, TensorValue]:
    """The values of a run, and types of all tensors that did not come out of it."""
    known = {name: one.value for name, one in values.items() if one.value is not None}
    types = {
        name: onnx.helper.make_tensor_type_proto(element_type_of(one.dtype) or 0, list(one.shape))
        for name, one in values.items()
        if one.shape is not None and one.dtype is not None
    }
    found = dict(values)
    for name, one in inferred_shapes(flat, types, known).items():
        found[name] = TensorValue(one.shape, numpy_dtype(one.element_type), one.value, one.kind)
    return found


def made(flat: FlatModel) -> list[str]:
    """Names of all tensors that top-level nodes make."""
    return [name for node in flat.nodes for name in node.output if name]


def checked_input(value: FlatInput, array: Array) -> Array:
    """A given input with the model's element type, its rank compared with the declared one.

    A single number fills an input whose declared sizes are all fixed, or 1 where they are not free.

    Raises:
        InvalidInputError: Another rank, or values that the model's type cannot hold.
    """
    name = value.name
    dtype = numpy_dtype(value.element_type)
    array = _filled(value, np.asarray(array))
    if value.shape is not None and array.ndim != len(value.shape):
        said = (
            f"input {quoted(name)} has shape {list(array.shape)}; the model declares {declared_text(value)}"
        )
        raise InvalidInputError(said if array.ndim else f"{said}: give a list, such as [{array}]")
    if dtype is None or array.dtype == dtype:
        return array
    if not np.can_cast(array.dtype, dtype, "same_kind") and not _fits(array, dtype):
        raise InvalidInputError(f"input {quoted(name)} has type {array.dtype}; the model takes {dtype}")
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if np.isfinite(cast).sum() != np.isfinite(array).sum():
        raise InvalidInputError(f"input {quoted(name)} has values beyond the range of the model's {dtype}")
    return cast


def _filled(value: FlatInput, array: Array) -> Array:
    """A single number in the declared shape, where that leaves one choice."""
    if array.ndim or not value.shape:
        return array
    fixed = [size for size in value.shape if isinstance(size, int)]
    if any(size < 1 for size in fixed) or prod(fixed) > MAX_MADE:
        return array
    if len(fixed) < len(value.shape) and prod(fixed) != 1:
        return array
    return np.full([size if isinstance(size, int) else 1 for size in value.shape], array)


class _Work:
    """The state of one concrete run."""

    def __init__(
        self,
        flat: FlatModel,
        source: ModelSource,
        process: ModelProcess,
        seed: int,
        withheld: frozenset[str] = frozenset(),
    ) -> None:
        self.flat = flat
        self.feeds: Feeds = {}
        self.values: dict[str, TensorValue] = {}
        self.left_out: Mapping[str, str] = {}
        self._source = source
        self._process = process
        self._seed = seed
        self._blocked = Blocked(withheld=withheld)
        self._stand_ins: dict[str, tuple[FlatInput, Array]] = {}
        self._found: dict[str, Fetched] = {}
        self._loaded: FlatModel | None = None

    def find_inputs(self, given: Mapping[str, Array], shapes: Mapping[str, Shape]) -> int:
        """Choose the inputs; conditions (else all tensors, if they are not too many) are fetched on the way.

        Returns:
            How many candidates were tried.
        """
        search = InputSearch(self.flat, self._source, given, shapes, self._seed)
        part = self._loadable(self._conditions_or_all)
        fetch = self._conditions_or_all(part.flat)
        if not fetch:
            self.feeds = next(search.candidates())
            return search.attempts
        try:
            self.feeds, self._found = search.run(self._process, fetch)
        except LimitError:
            if self._process.seconds_left <= 0 or self.flat.open_conditions():
                raise
            # too much at once: the outputs alone decide whether sizes are legal
            self._process.restart()
            part = self._loadable(_outputs)
            self.feeds, self._found = search.run(self._process, _outputs(part.flat))
        return search.attempts

    def decide_branches(self) -> None:
        """Take branches until no If is left whose condition is known."""
        for _ in range(MAX_ROUNDS):
            decisions = self._decisions()
            if not decisions:
                return
            self.flat = _with_literal_branches(take_branches(self.flat, decisions))
            self._found = {}
            part = self._loadable(self._open_conditions)
            fetch = self._open_conditions(part.flat)
            if fetch:
                self._found = self._process.run(self.feeds, fetch)
        raise LimitError(f"If operations are nested more than {MAX_ROUNDS} levels deep")

    def fetch_all(self) -> None:
        """Fetch every tensor; where operations cannot run, go on behind them with stand-ins."""
        self.values = {
            name: TensorValue(array.shape, array.dtype, array) for name, array in self.feeds.items()
        }
        part = runnable_part(self.flat, self._blocked)
        if any(name not in self._found for name in made(part.flat)):
            part = self._fetch(part)
        self._keep(part)
        while part.frontier and self._stand_in(part):
            try:
                part = self._fetch(runnable_part(self.flat, self._blocked, self._given_stand_ins()))
            except ModelRefusedError:
                # the assumed shape does not fit; what lies behind stays unknown
                break
            self._keep(part)

    def _open_conditions(self, flat: FlatModel) -> list[str]:
        there = set(made(flat))
        return [name for name in flat.open_conditions() if name in there]

    def _conditions_or_all(self, flat: FlatModel) -> list[str]:
        few = len(flat.nodes) <= SEGMENT_NODES
        return self._open_conditions(flat) or (made(flat) if few else _outputs(flat))

    def _decisions(self) -> dict[str, bool]:
        decisions: dict[str, bool] = {}
        for name in self.flat.open_conditions():
            fetched = self._found.get(name)
            array = self.feeds.get(name, None if fetched is None else fetched.values)
            if array is not None and array.size == 1:
                decisions[name] = bool(np.reshape(array, ())[()])
        return decisions

    def _loadable(self, wanted: Callable[[FlatModel], list[str]]) -> RunnablePart:
        """Load the part of the model that onnxruntime has all operations for, if anything is wanted of it."""
        while True:
            part = runnable_part(self.flat, self._blocked, self._given_stand_ins())
            fetch = wanted(part.flat)
            if not fetch:
                return part
            try:
                self._process.load(assemble(part.flat, fetch, self._source))
            except ModelRefusedError as error:
                if error.unsupported is None or not self._blocked.add(error.unsupported):
                    raise
            else:
                self._loaded = self.flat
                return part

    def _fetch(self, part: RunnablePart) -> RunnablePart:
        """Fetch all tensors of the part, in several runs if memory does not suffice for one."""
        if len(part.flat.nodes) > SEGMENT_NODES:
            if self._loaded is not self.flat:
                part = self._loadable(_outputs)
            with contextlib.suppress(CannotCutError):
                self._found = self._in_segments(part.flat)
                return part
        part = self._loadable(made)
        fetch = made(part.flat)
        feeds = {**self.feeds, **{name: array for name, (_, array) in self._stand_ins.items()}}
        for count in GROUP_COUNTS:
            try:
                self._found = self._in_groups(part.flat, fetch, feeds, count)
            except LimitError:
                if count == GROUP_COUNTS[-1] or self._process.seconds_left <= 0:
                    raise
                # what the failed run took may not come back
                self._process.restart()
            else:
                break
        return part

    def _in_segments(self, flat: FlatModel) -> dict[str, Fetched]:
        """Fetch all tensors of a large model piece by piece; the pieces hand values over inside the child."""
        found: dict[str, Fetched] = {}
        feeds = {**self.feeds, **{name: array for name, (_, array) in self._stand_ins.items()}}
        types = {value.name: value.element_type for value in flat.inputs}
        for segment in segments(flat, types, range(0, len(flat.nodes), SEGMENT_NODES)):
            fetch = made(segment.flat)
            self._process.load(assemble(segment.flat, fetch, self._source))
            given = {name: feeds[name] for name in segment.reads if name in feeds}
            over = HandOver(
                take=tuple(name for name in segment.reads if name not in feeds),
                keep=segment.passes_on,
                drop=segment.last_reads,
            )
            results = self._process.run(given, fetch, hand_over=over)
            types.update({name: one.element_type for name, one in results.items()})
            found.update(results)
        return found

    def _in_groups(
        self, flat: FlatModel, fetch: Sequence[str], feeds: Feeds, count: int
    ) -> dict[str, Fetched]:
        if not fetch:
            return {}
        if count == 1:
            # loaded already
            return self._process.run(feeds, fetch)
        found: dict[str, Fetched] = {}
        size = -(-len(fetch) // count)
        for start in range(0, len(fetch), size):
            group = fetch[start : start + size]
            self._process.load(assemble(flat, group, self._source))
            found.update(self._process.run(feeds, group))
        return found

    def _keep(self, part: RunnablePart) -> None:
        self.left_out = part.left_out
        for name in made(part.flat):
            one = self._found[name]
            self.values[name] = TensorValue(one.shape, numpy_dtype(one.element_type), one.values, one.kind)

    def _given_stand_ins(self) -> tuple[FlatInput, ...]:
        return tuple(declared for declared, _ in self._stand_ins.values())

    def _stand_in(self, part: RunnablePart) -> bool:
        """Assume shapes for the outputs of the frontier; False if nothing new can be assumed."""
        known = {
            name: (one.element_type, one.shape) for name, one in self._found.items() if one.shape is not None
        }
        for value in self.flat.inputs:
            known[value.name] = (value.element_type, self.feeds[value.name].shape)
        for name, (declared, values) in self._stand_ins.items():
            known[name] = (declared.element_type, values.shape)
        added = False
        for node in part.frontier:
            for name, (element_type, shape) in stand_in_shapes(node, self.flat, self.feeds, known).items():
                array = stand_in(element_type, shape, self._seed)
                if name in self._stand_ins or array is None:
                    continue
                self._stand_ins[name] = (FlatInput(name, element_type, shape), array)
                self.values[name] = TensorValue(shape, array.dtype, kind="assumed")
                added = True
        return added


def _outputs(flat: FlatModel) -> list[str]:
    there = set(made(flat))
    return [name for name in dict.fromkeys(flat.outputs) if name in there]


def _with_literal_branches(flat: FlatModel) -> FlatModel:
    while decisions := literal_conditions(flat):
        flat = take_branches(flat, decisions)
    return flat


def declared_input(flat: FlatModel, name: str) -> FlatInput:
    """The input of this name.

    Raises:
        InvalidInputError: There is none.
    """
    for value in flat.inputs:
        if value.name == name:
            return value
    raise InvalidInputError(unknown("model input", name, (value.name for value in flat.inputs)))


def _fits(array: Array, dtype: np.dtype[np.generic]) -> bool:
    """Whether every value survives the conversion (16000.0 for an integer input does)."""
    if array.dtype.kind == "c":
        return False
    with np.errstate(all="ignore"):
        return bool((array.astype(dtype).astype(array.dtype) == array).all())
