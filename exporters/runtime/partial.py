"""The part of a model that onnxruntime can run, and stand-ins for what it cannot."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError
from emergraph.exporters.onnxfile.dtypes import element_type_of, numpy_dtype
from emergraph.exporters.runtime.assembly import ModelSource
from emergraph.exporters.runtime.feeds import MAX_MADE, STYLES, input_hints, make_feeds, scalar_choices
from emergraph.exporters.runtime.flat_model import FlatInput, FlatModel, names_used, walk_nodes
from emergraph.exporters.runtime.inference import inferred_types
from emergraph.exporters.runtime.ordering import outer_names_read
from emergraph.exporters.runtime.process import Fetched, ModelProcess
from emergraph.exporters.runtime.quoting import plain, quoted
from emergraph.exporters.runtime.refusals import ModelRefusedError, Unsupported
from emergraph.exporters.runtime.sizes import RANKS, Shape, axes_of, candidate_sizes, declared_text

Array = NDArray[np.generic]

# Looking for sizes and values of the inputs that a model accepts.

Feeds = dict[str, Array]


class InputSearch:
    """Candidates for the inputs of one model, and the search through them."""

    def __init__(
        self,
        flat: FlatModel,
        source: ModelSource,
        given: Mapping[str, Array],
        shapes: Mapping[str, Shape],
        seed: int,
    ) -> None:
        """Prepare a search.

        Args:
            flat: The model.
            source: Its tensors.
            given: Inputs that the caller decides.
            shapes: Shapes that the caller decides.
            seed: Of made-up float values.
        """
        self.attempts = 0
        self._inputs = flat.inputs
        self._hints = input_hints(flat, source)
        self._given = given
        self._decided: dict[str, Shape] = {**shapes, **{name: array.shape for name, array in given.items()}}
        self._seed = seed

    def candidates(self) -> Iterator[Feeds]:
        """Feeds in the order to try: deciding scalars slowest, then ranks, sizes, ways to fill integers."""
        open_inputs = [value for value in self._inputs if value.name not in self._given]
        no_rank = any(v.shape is None and v.name not in self._decided for v in open_inputs)
        integers = any(_is_integer(v) and v.shape != () for v in open_inputs)
        choices = scalar_choices(open_inputs, self._hints, self._given)
        for scalars, rank in itertools.product(choices, RANKS if no_rank else RANKS[:1]):
            axes = axes_of(self._inputs, self._decided, rank)
            for sizes in candidate_sizes(axes):
                shapes = axes.filled(sizes)
                for style in STYLES if integers else STYLES[:1]:
                    made_up = make_feeds(
                        open_inputs, shapes, self._hints, scalars=scalars, style=style, seed=self._seed
                    )
                    yield {v.name: {**self._given, **made_up}[v.name] for v in self._inputs}

    def run(self, process: ModelProcess, fetch: Sequence[str]) -> tuple[Feeds, dict[str, Fetched]]:
        """The first feeds that the loaded model accepts, and what it gave for `fetch`.

        Raises:
            InvalidInputError: It accepts none of them.
            LimitError: A limit was hit.
        """
        first: tuple[Feeds, ModelRefusedError] | None = None
        last: Feeds = {}
        for feeds in self.candidates():
            self.attempts += 1
            try:
                return feeds, process.run(feeds, fetch)
            except ModelRefusedError as error:
                first = first or (feeds, error)
                last = feeds
        if first is None:
            raise InvalidInputError(
                "the model's inputs cannot be chosen automatically; give them with --input"
            )
        raise self._nothing_works(*first, last)

    def _nothing_works(self, first: Feeds, error: ModelRefusedError, last: Feeds) -> InvalidInputError:
        open_inputs = [v for v in self._inputs if v.name not in self._decided]
        if not open_inputs:
            return InvalidInputError(f"the model refuses the inputs {_shapes_text(first)}: {error}")
        declared = ", ".join(f"{quoted(v.name)} {declared_text(v)}" for v in open_inputs)
        return InvalidInputError(
            f"no sizes were found that the model accepts for {declared}: {self.attempts} tried, from "
            f"{_shapes_text(first)} to {_shapes_text(last)}; first refusal: {error}; "
            f"give sizes with --input-shape {plain(open_inputs[0].name)}=1,..."
        )


def _is_integer(value: FlatInput) -> bool:
    dtype = numpy_dtype(value.element_type)
    return dtype is not None and dtype.kind in "iu"


def _shapes_text(feeds: Feeds) -> str:
    return ", ".join(f"{plain(name)}={list(array.shape)}" for name, array in feeds.items())


# Large models in pieces: onnxruntime's time to load grows with nodes times outputs.

SEGMENT_NODES = 4096
"""Nodes of one piece. A chain of 100 000 nodes takes 250 s at once and 20 s in pieces (2 cores)."""


class CannotCutError(Exception):
    """A value that is not a tensor would have to pass from one piece to another."""


@dataclass(frozen=True)
class Segment:
    """Some consecutive nodes of a model."""

    flat: FlatModel
    """The nodes and the initializers that they read; everything else that they read is an input."""
    reads: tuple[str, ...]
    """The inputs."""
    passes_on: tuple[str, ...]
    """Tensors of this segment that later ones read."""
    last_reads: tuple[str, ...]
    """Of the tensors that it reads: those that no later segment reads."""


def segments(flat: FlatModel, types: Mapping[str, int], starts: Sequence[int]) -> Iterator[Segment]:
    """Cut a model into pieces that can run one after the other.

    Args:
        flat: The model, in data order.
        types: Element types by tensor; filled in by the caller with the outputs of each segment before it
            asks for the next one.
        starts: Positions of the first nodes of the pieces, in order, from 0 on.

    Raises:
        CannotCutError: A sequence or map would cross a cut; run the model as a whole.
    """
    pieces = [
        flat.nodes[start:end] for start, end in zip(starts, (*starts[1:], len(flat.nodes)), strict=True)
    ]
    last_use: dict[str, int] = {}
    outer_reads = []
    for index, nodes in enumerate(pieces):
        read: dict[str, None] = {}
        for node in nodes:
            read.update(dict.fromkeys(sorted(outer_names_read(node))))
        outer_reads.append(read)
        last_use.update(dict.fromkeys(read, index))
    for index, nodes in enumerate(pieces):
        made = {name for node in nodes for name in node.output if name}
        reads = tuple(
            name for name in outer_reads[index] if name not in made and name not in flat.initializers
        )
        if any(not types[name] for name in reads):
            raise CannotCutError
        used = names_used(nodes)
        piece = replace(
            flat,
            nodes=nodes,
            inputs=tuple(FlatInput(name, types[name], None) for name in reads),
            outputs=(),
            initializers={name: flat.initializers[name] for name in used if name in flat.initializers},
        )
        passes_on = tuple(sorted(name for name in made if last_use.get(name, -1) > index))
        yield Segment(piece, reads, passes_on, tuple(name for name in reads if last_use[name] == index))


FLOAT = int(onnx.TensorProto.FLOAT)


@dataclass
class Blocked:
    """What onnxruntime turned out not to have, and what it is not given."""

    operations: set[tuple[str, str]] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    withheld: frozenset[str] = frozenset()
    """Initializers that are not read: what depends on them does not run, and has no stand-ins."""

    def add(self, found: Unsupported) -> bool:
        """Remember one more; False if it was known already, so that trying again is useless."""
        if found.operation is not None and found.operation not in self.operations:
            self.operations.add(found.operation)
            return True
        if found.node is not None and found.node not in self.nodes:
            self.nodes.add(found.node)
            return True
        return False

    def holds(self, node: onnx.NodeProto) -> bool:
        """Whether a node, or one inside its subgraphs, cannot run."""
        return any(
            (inner.domain, inner.op_type) in self.operations or inner.name in self.nodes
            for inner in walk_nodes((node,))
        )


@dataclass(frozen=True)
class RunnablePart:
    """What of a model can run."""

    flat: FlatModel
    """Only the nodes that can run; stand-ins are inputs."""
    frontier: tuple[onnx.NodeProto, ...]
    """Nodes that cannot run although everything they read is there, and that have no stand-ins yet."""
    left_out: Mapping[str, str]
    """Why, by name, for every node that does not run."""


def runnable_part(flat: FlatModel, blocked: Blocked, stand_ins: Sequence[FlatInput] = ()) -> RunnablePart:
    """Leave out what cannot run and what depends on it; tensors with a stand-in count as there."""
    given = {value.name for value in stand_ins}
    constants = flat.initializers.keys() - blocked.withheld
    there = {"", *given, *constants, *(value.name for value in flat.inputs)}
    nodes: list[onnx.NodeProto] = []
    frontier: list[onnx.NodeProto] = []
    left_out: dict[str, str] = {}
    for node in flat.nodes:
        missing = sorted(outer_names_read(node) - there)
        if missing:
            left_out[node.name] = f"reads {quoted(missing[0])}, which was not computed"
        elif blocked.holds(node):
            left_out[node.name] = (
                f"onnxruntime cannot run {plain(node.domain or 'ai.onnx')}:{plain(node.op_type)}"
            )
            if not given.issuperset(name for name in node.output if name):
                frontier.append(node)
        else:
            nodes.append(node)
            there.update(node.output)
    outputs = tuple(name for name in flat.outputs if name in there)
    part = replace(flat, nodes=tuple(nodes), inputs=(*flat.inputs, *stand_ins), outputs=outputs)
    return RunnablePart(part, tuple(frontier), left_out)


def stand_in_shapes(
    node: onnx.NodeProto,
    flat: FlatModel,
    feeds: Mapping[str, Array],
    known: Mapping[str, tuple[int, tuple[int, ...]]],
) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Element types and shapes to assume for the outputs of a node that cannot run.

    What the file declares, its named axes bound by the inputs; else what ONNX itself infers for the
    operation; else those of the node's first input.

    Args:
        node: The node.
        flat: The model, for what it declares.
        feeds: The inputs used.
        known: Element type and shape of the tensors that were computed or assumed.

    Returns:
        By output name; outputs for which nothing can be assumed are left out.
    """
    sizes = {
        axis: size
        for value in flat.inputs
        if value.shape is not None and value.name in feeds
        for axis, size in zip(value.shape, feeds[value.name].shape, strict=True)
        if isinstance(axis, str)
    }
    types = {name: onnx.helper.make_tensor_type_proto(*one) for name, one in known.items()}
    for name in node.input:
        if name in flat.initializers:
            proto = flat.initializers[name]
            types[name] = onnx.helper.make_tensor_type_proto(proto.data_type, list(proto.dims))
    inferred = inferred_types(node, flat.opsets, types)
    first = next((known[name] for name in node.input if name in known), None)
    found: dict[str, tuple[int, tuple[int, ...]]] = {}
    for name in node.output:
        if not name:
            continue
        assumed = (
            declared_type(flat.declared.get(name), sizes) or declared_type(inferred.get(name), sizes) or first
        )
        if assumed is not None:
            found[name] = assumed
    return found


def declared_type(
    declared: onnx.TypeProto | None, sizes: Mapping[str, int]
) -> tuple[int, tuple[int, ...]] | None:
    """Element type and shape that a type says; None where a size is open.

    Args:
        declared: The type.
        sizes: Sizes of axes that have names.
    """
    if declared is None or not declared.tensor_type.HasField("shape"):
        return None
    shape: list[int] = []
    for axis in declared.tensor_type.shape.dim:
        size = axis.dim_value if axis.HasField("dim_value") else sizes.get(axis.dim_param)
        if size is None or size < 0:
            return None
        shape.append(int(size))
    return declared.tensor_type.elem_type or FLOAT, tuple(shape)


def stand_in(element_type: int, shape: tuple[int, ...], seed: int) -> Array | None:
    """Values to go on with, N(0, 1) or zeros; None for types without arrays and for what is too large."""
    dtype = numpy_dtype(element_type)
    if dtype is None or element_type_of(dtype) is None or prod(shape) > MAX_MADE:
        return None
    if dtype.kind in "iub":
        return np.zeros(shape, dtype)
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
