"""What the tracing rules share: the tensors known so far, the parameters and their uses, the graph so far."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError
from emergraph.exporters.codings import CodedTensor
from emergraph.exporters.filetensors import as_held
from emergraph.exporters.nodes import operation_type
from emergraph.exporters.operations import OPERATIONS, Kind, kind_of, normal_domain, operations, spec_of
from emergraph.exporters.runtime.derivations import Made, Step
from emergraph.exporters.runtime.folding import Folder
from emergraph.exporters.runtime.quantization import laid_out
from emergraph.exporters.tracing.builder import GraphBuilder, LayerDraft
from emergraph.exporters.tracing.codes import (
    CodedWeights,
    dequantized_codes,
    scaled_codes_again,
    transposed,
)
from emergraph.exporters.tracing.constants import (
    Constant,
    FoldedLoad,
    axes_order,
    keeps_codes,
    literal,
    made_of,
    permutation_of,
    scaled_codes,
    source_of,
    unmoved_of,
)
from emergraph.exporters.tracing.facts import BodyRunner, TensorFacts
from emergraph.exporters.tracing.featureaxis import feature_axis
from emergraph.exporters.tracing.labels import Labels, compress, unit_axes, units_in
from emergraph.exporters.tracing.names import operation_name, weight_layer_name
from emergraph.exporters.tracing.sums import Operand, Sum, Sums
from emergraph.exporters.tracing.tracks import PerUnit, Track
from emergraph.exporters.tracing.values import Value
from emergraph.graphstore.records import EdgeKind, LayerKind, Operation, TracedAs

Array = NDArray[np.generic]


class ParameterTensor(Protocol):
    """A tensor of the model file, read on demand."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions."""
        ...

    @property
    def dtype_name(self) -> str:
        """Numpy or ml_dtypes name."""
        ...

    def array(self) -> Array:
        """The values."""
        ...

    def held(self) -> Array | None:
        """The values as the file holds them, without a copy; None where it does not."""
        ...

    def coded(self) -> CodedTensor | None:
        """The values as they follow from what the file holds; None where they do not."""
        ...


_NO_PARAMETERS = ("int64", "uint64", "bool", "string")


@dataclass(frozen=True)
class TracedModel:
    """A flat model with the facts of one small concrete run: all that the tracer needs."""

    nodes: Sequence[onnx.NodeProto]
    """In topological order; tensor names are unique."""
    initializers: Mapping[str, ParameterTensor]
    facts: Mapping[str, TensorFacts]
    inputs: Sequence[str]
    outputs: Sequence[str]
    opsets: Mapping[str, int]
    folder: Folder
    """Computes what follows from parameters alone."""
    parameters: frozenset[str] | None = None
    """Initializers that are parameters, where that is known (of a module: not its buffers); None: all."""
    run_body: BodyRunner | None = None
    """Runs the body of a Loop, a Scan or a branch on its own; without it they are opaque."""

    def is_parameter(self, name: str) -> bool:
        """Whether an initializer counts as one: it is not a buffer, index, shape or mask."""
        if self.parameters is not None:
            return name in self.parameters
        return not self.initializers[name].dtype_name.startswith(_NO_PARAMETERS)


@dataclass
class ParameterUse:
    """What is known about one parameter tensor of the file."""

    roles: list[str] = field(default_factory=list)
    opaque: bool = False
    block: int | None = None
    """Block that restores the tensor, if one does."""
    block_transposed: bool = False
    zero_point: Callable[[], Array] | None = None
    """For quantized tensors: gives the stored values that mean zero; they broadcast to the tensor."""
    packed: tuple[int, Callable[[], int]] | None = None
    """For tensors whose elements hold several weights each: how many weights, and what counts their zeros."""


class TraceContext:
    """State of one trace; rules read their inputs from it and set their outputs in it."""

    def __init__(self, model: TracedModel, builder: GraphBuilder) -> None:
        self.model = model
        self.builder = builder
        self.values: dict[str, Value] = {}
        self.uses: dict[str, ParameterUse] = {}
        self.operations: list[Operation] = []
        self.warnings: list[str] = []
        self._warned: set[str] = set()
        self.branches: list[str] = []
        self.local_facts: dict[str, TensorFacts] = {}
        self.sequences: dict[str, list[Value]] = {}
        self.node = onnx.NodeProto()
        self.attrs: dict[str, object] = {}
        self.traced_as = TracedAs.OPAQUE
        self.reason: str | None = None
        self.sums: Sums | None = None
        """Takes in what operations sum up; None where nobody asks."""

    @property
    def name(self) -> str:
        """A readable name for the current node."""
        return operation_name(self.node)

    def layer_name(self, parameter: str | None) -> str:
        """A readable name for a layer that a parameter tensor makes."""
        return weight_layer_name(self.node, parameter)

    @property
    def op(self) -> str:
        """Operation type of the current node, with its domain if it has one."""
        return operation_type(self.node)

    def warn(self, text: str) -> None:
        """Keep a line for the export's summary, once."""
        if text not in self._warned:
            self._warned.add(text)
            self.warnings.append(text)

    def opset(self, domain: str = "") -> int:
        """Version of an operation set that the model imports."""
        return self.model.opsets.get(domain, self.model.opsets.get("ai.onnx", 1))

    def value(self, name: str) -> Value:
        """A tensor met before."""
        try:
            return self.values[name]
        except KeyError:
            raise InvalidInputError(f"{self.name}: tensor {name!r} is used before it is made") from None

    def input(self, position: int) -> Value | None:
        """Input of the current node; None when it is omitted."""
        if position >= len(self.node.input) or not self.node.input[position]:
            return None
        return self.value(self.node.input[position])

    def inputs(self) -> list[Value]:
        """All given inputs of the current node."""
        return [self.value(name) for name in self.node.input if name]

    def facts(self, name: str) -> TensorFacts:
        """What the concrete run says about a tensor."""
        known = self.known(name)
        if known is None:
            raise InvalidInputError(f"{self.name} ({self.op}): the concrete run did not reach {name!r}")
        return known

    def known(self, name: str) -> TensorFacts | None:
        """What the concrete run says about a tensor; None for sequences and what it did not reach."""
        local = self.local_facts.get(name)
        return self.model.facts.get(name) if local is None else local

    def out_shape(self, position: int = 0) -> tuple[int, ...]:
        """Shape of an output of the current node in the concrete run."""
        return self.facts(self.node.output[position]).shape

    def concrete(self, name: str) -> Array | None:
        """The value of a tensor in the concrete run or as a constant, if it is at hand."""
        value = self.values.get(name)
        if value is not None and value.constant is not None:
            return value.constant.load()
        facts = self.known(name)
        return None if facts is None else facts.value

    def attr_int(self, key: str, default: int) -> int:
        """An integer attribute of the current node."""
        return int(self.attrs.get(key, default))  # type: ignore[call-overload, no-any-return]

    def attr_ints(self, key: str) -> list[int] | None:
        """A list-of-integers attribute of the current node."""
        found = self.attrs.get(key)
        return None if found is None else [int(x) for x in found]  # type: ignore[attr-defined]

    def attr_float(self, key: str, default: float) -> float:
        """A float attribute of the current node."""
        return float(self.attrs.get(key, default))  # type: ignore[arg-type]

    def attr_str(self, key: str, default: str) -> str:
        """A string attribute of the current node."""
        return str(self.attrs.get(key, default))

    def did(self, how: TracedAs, reason: str | None = None) -> None:
        """Say how the current node was traced."""
        self.traced_as = how
        self.reason = reason

    def set(self, position: int, value: Value) -> None:
        """Set an output of the current node."""
        if position < len(self.node.output) and self.node.output[position]:
            self.values[self.node.output[position]] = value

    def set_constant(self, position: int, constant: Constant) -> None:
        """Set an output that follows from constants."""
        self.set(position, Value(constant.shape, constant=constant))

    def set_control(self, position: int) -> None:
        """Set an output that decides which or where, without carrying units."""
        if position < len(self.node.output) and self.node.output[position]:
            self.set(position, Value(self.out_shape(position)))

    def set_labels(
        self, position: int, labels: Labels, tracks: Mapping[int, Track], *, packed: bool = False
    ) -> None:
        """Set an output that carries units; without any unit it becomes a constant of unknown value."""
        if position >= len(self.node.output) or not self.node.output[position]:
            return
        name = self.node.output[position]
        facts = self.facts(name)
        if tuple(labels.shape) != tuple(facts.shape):
            raise InvalidInputError(
                f"{self.name} ({self.op}): labels of shape {tuple(labels.shape)} do not match the tensor's "
                f"{tuple(facts.shape)}"
            )
        labels = labels if packed else compress(labels)
        self.values[name] = Value(facts.shape, labels=labels, tracks=dict(tracks), dtype=facts.dtype)

    def new_layer_output(
        self,
        position: int,
        layer: LayerDraft,
        labels: Labels,
        *,
        bias: PerUnit | None = None,
        activation: str | None = None,
    ) -> None:
        """Set an output that is a new layer's own tensor, and start to follow its activation.

        Args:
            position: Which output of the current node.
            layer: The layer that the tensor shows.
            labels: Of the tensor.
            bias: Per unit, where the operation adds one.
            activation: The nonlinearity that the operation itself ends with.
        """
        name = self.node.output[position] if position < len(self.node.output) else ""
        if not name:
            return
        axes = unit_axes(labels, layer.first, layer.count)
        track = Track(
            name if axes is not None else None,
            axes,
            nonlinear=activation is not None,
            activation=activation,
            bias=bias,
        )
        layer.raw = layer.raw or track
        self.set_labels(position, labels, {layer.id: track})

    def summed(self, layer: LayerDraft, values: Sequence[Value], **how: Any) -> None:  # noqa: ANN401
        """Tell those who ask what the current node sums up into a layer, once its first output is set.

        Args:
            layer: The layer.
            values: The operands, as they are read.
            how: Further fields of `Sum`.
        """
        if self.sums is not None:
            out = self.values.get(self.node.output[0])
            operands = tuple(map(self.operand, values))
            labels = None if out is None else out.labels
            self.sums.found.append(
                Sum(layer=layer.id, node=self.node, operands=operands, labels=labels, **how)
            )

    def looked_up(self, layer: LayerDraft) -> None:
        """Tell them that a row of the table before the layer is all that there is of it."""
        out = self.node.output[0]
        if self.sums is not None and out in self.values:
            labels = self.values[out].carried
            table = np.broadcast_to(np.asarray(layer.first - 1), labels.shape)
            operands = (Operand(out, labels.shape, table),)
            self.sums.found.append(
                Sum(layer=layer.id, node=self.node, operands=operands, labels=labels, factors=(1.0,))
            )

    def operand(self, value: Value) -> Operand:
        """A value as an input of the current node."""
        places = [k for k, name in enumerate(self.node.input) if name and self.values.get(name) is value]
        name = self.node.input[places[0]] if places else ""
        codes = spec_of(self.node).codes.get(places[0]) if places and value.constant is None else None
        parts: list[Operand | None] = [None, None]
        for at, position in enumerate((codes.scale, codes.zero) if codes is not None else ()):
            given = None if position is None else self.input(position)
            if given is not None and position is not None:
                parts[at] = Operand(self.node.input[position], given.shape, None, _known(given.constant))
        return Operand(name, value.shape, value.labels, value.constant, parts[0], parts[1])

    def read(self, value: Value) -> Value:
        """Note that a consumer reads a labelled tensor: this decides which tensor shows the activation."""
        for layer_id, track in value.tracks.items():
            self.builder.layers[layer_id].seen.append(track)
        return value

    def use(self, constant: Constant | None, role: str) -> None:
        """Note that the parameters behind a constant are understood in a role."""
        if constant is None:
            return
        for root in constant.roots:
            self.uses.setdefault(root, ParameterUse()).roles.append(role)
        for name in constant.coding:
            self.uses.setdefault(name, ParameterUse()).roles.append("quantization")

    def note_zero_point(self, stored: Constant, zero: Callable[[], Array]) -> None:
        """Note which stored value of a quantized tensor means zero; it broadcasts to the constant's shape."""
        back = stored.unmoved
        if len(stored.roots) != 1 or back is None:
            return
        use = self.uses.setdefault(next(iter(stored.roots)), ParameterUse())

        def of_the_root() -> Array:
            values = zero()
            return values if values.ndim == 0 else back(np.broadcast_to(values, stored.shape))

        use.zero_point = use.zero_point or of_the_root

    def count_params(self, layer: LayerDraft, constant: Constant | None) -> None:
        """Add a constant's parameters to a layer's count; its encoding is not a parameter of the layer."""
        if constant is None:
            return
        sizes = {root: self._n_weights(root) for root in constant.roots if self.model.is_parameter(root)}
        for root in sorted(sizes, key=lambda name: (-sizes[name], name)):
            layer.n_params += sizes[root]
            layer.dtype = layer.dtype or self.model.initializers[root].dtype_name
            layer.roots.append(root)

    def _n_weights(self, root: str) -> int:
        packed = self.uses[root].packed if root in self.uses else None
        return prod(self.model.initializers[root].shape) if packed is None else packed[0]

    def fold(self) -> None:
        """Turn the current node, all of whose inputs are constants, into constants."""
        given = [self.input(k) for k in range(len(self.node.input))]
        constants = [None if v is None else v.constant for v in given]
        roots, coding = made_of(self.node, constants)
        neutral = any(c is not None and c.neutral for c in constants)
        step = Step(self.node, tuple(None if c is None else source_of(c) for c in constants))
        for position, name in enumerate(self.node.output):
            if not name:
                continue
            facts = self.known(name)
            if facts is None:
                raise InvalidInputError(
                    f"{self.name} ({self.op}): the concrete run did not reach this operation"
                )
            known = None if neutral else facts.value
            load = (
                FoldedLoad(self.model.folder.values, Made(step, position))
                if known is None
                else _giving(known)
            )
            constant = Constant(
                facts.shape,
                load,
                roots,
                permutation_of(self.node, constants),
                neutral,
                coding,
                keeps_codes(self.node, constants),
                unmoved_of(self.node, constants),
                self._codes(constants),
            )
            self.set_constant(position, constant)
        self._note_dequantization(constants)
        self.did(TracedAs.CONSTANT)

    def _codes(self, given: Sequence[Constant | None]) -> CodedWeights | None:
        """What a folded node makes of codes that can stay in the file."""
        kind, source = kind_of(self.node), given[0] if given else None
        if source is None:
            return None
        if kind is Kind.DEQUANTIZE and not self.attr_int("block_size", 0):
            scale, zero = (*given[1:], None, None)[:2]
            return self.codes_in_file(source, scale, zero, axis=self.attr_int("axis", 1))
        if kind is Kind.CAST:
            out = self.known(self.node.output[0])
            as_floats = out is not None and out.dtype == np.float32
            return self.codes_in_file(source, None, None, axis=0) if as_floats else None
        main = scaled_codes(self.node, given)
        if main is not None and len(given) == 2:
            return self._codes_written_out(given[main], given[1 - main], is_first=main == 0)
        if source.codes is None or kind is Kind.IDENTITY:
            return source.codes
        return transposed(source.codes, axes_order(self.node, source)) if kind is Kind.TRANSPOSE else None

    def _codes_written_out(
        self, stored: Constant | None, other: Constant | None, *, is_first: bool
    ) -> CodedWeights | None:
        """Codes less a zero point, or times a scale, in floats of single precision."""
        kind, out = kind_of(self.node), self.known(self.node.output[0])
        wanted = kind is Kind.PRODUCT or (kind is Kind.DIFFERENCE and is_first)
        if stored is None or other is None or out is None or out.dtype != np.float32 or not wanted:
            return None
        is_scale = kind is Kind.PRODUCT
        return scaled_codes_again(stored, other, is_scale=is_scale, held=self.builder.tensors.view)

    def codes_in_file(
        self, stored: Constant, scale: Constant | None, zero: Constant | None, *, axis: int
    ) -> CodedWeights | None:
        """(stored - zero) * scale as codes that can stay in the file; None where no edge does."""
        if not self.builder.tensors.in_place:
            return None
        where = axis % max(len(stored.shape), 1)
        return dequantized_codes(stored, scale, zero, where, self.builder.tensors.view)

    def codes_of(self, constant: Constant) -> CodedWeights | None:
        """What a constant that is a weight is of codes in the file; None where it has to be computed."""
        tensors = self.builder.tensors
        name = constant.root if constant.codes is None else constant.codes.tensor
        if not tensors.in_place or name is None or tensors.in_file(name) is None:
            return None
        if constant.codes is not None:
            return constant.codes
        found = self.model.initializers[name].coded()
        permutation = constant.permutation
        if found is None or permutation is None:
            return None
        return CodedWeights(name, found.decoded, permutation, None)

    def weights_of(self, constant: Constant) -> NDArray[np.floating]:
        """The values of a constant that is a weight: as the file holds them where they are a tensor of it.

        Their type is then that of the file, and no copy is made: a matrix of them can be told as entries of
        the tensor. Else they are computed, as floats.
        """
        if constant.root is not None and constant.permutation is not None:
            held = as_held(self.model.initializers[constant.root].held())
            if held is not None:
                return held.transpose(constant.permutation)
        return constant.floats()

    def _note_dequantization(self, constants: Sequence[Constant | None]) -> None:
        """Note the zero point of DequantizeLinear, and of one that is written out as Sub or Add."""
        kind, main = kind_of(self.node), scaled_codes(self.node, constants) or 0
        other = 1 - main if len(constants) == 2 else main
        position = {Kind.DEQUANTIZE: 2, Kind.DIFFERENCE: 1, Kind.SUM: other}.get(kind, main)
        if position >= len(constants) or position == main:
            return
        stored, zero = constants[main], constants[position]
        if stored is None or zero is None or not stored.coded:
            return
        block, axis = self.attr_int("block_size", 0), self.attr_int("axis", 1)
        if kind is Kind.DEQUANTIZE:
            self.note_zero_point(
                stored, lambda: laid_out(zero.load(), stored.shape, axis=axis, block_size=block)
            )
        else:
            self.note_zero_point(stored, lambda: zero.load() if kind is Kind.DIFFERENCE else -zero.floats())

    def make_opaque(self, reason: str) -> None:
        """Connect the node's inputs to its outputs by opaque edges, through one hub so that it costs O(n)."""
        self.did(TracedAs.OPAQUE, reason)
        sources = [self.read(v) for v in self.inputs() if v.labels is not None]
        parameters = [v.constant for v in self.inputs() if v.constant is not None]
        for name in frozenset().union(*(c.names for c in parameters)):
            self.uses.setdefault(name, ParameterUse()).opaque = True
        found = [units_in(v.carried) for v in sources]
        units = np.unique(np.concatenate([np.empty(0, np.int64), *found]))
        hub = self.builder.add_layer(f"{self.name}:opaque", self.op, LayerKind.OPAQUE, 1)
        self._opaque_edges(hub, units, np.full(units.size, hub.first, np.int64), reason)
        shapes = [c.shape for c in parameters if any(map(self.model.is_parameter, c.roots))]
        for position, name in enumerate(self.node.output):
            if not name or self.known(name) is None:
                continue
            shape = self.out_shape(position)
            axis = feature_axis(self.node.op_type, shape, [v.carried for v in sources], shapes)
            count = 1 if axis is None else shape[axis]
            layer = self.builder.add_layer(f"{self.name}:{position}", self.op, LayerKind.OPAQUE, count)
            self._opaque_edges(layer, np.full(count, hub.first, np.int64), layer.units, reason)
            spread = [count if k == axis else 1 for k in range(len(shape))]
            self.set_labels(position, np.broadcast_to(layer.units.reshape(spread), shape), {})

    def _opaque_edges(
        self, layer: LayerDraft, src: NDArray[np.int64], dst: NDArray[np.int64], reason: str
    ) -> None:
        self.builder.edges(
            layer, name=self.name, op=self.op, kind=EdgeKind.OPAQUE, src=src, dst=dst, note=reason
        )


def _known(constant: Constant | None) -> Constant | None:
    """A constant that the model really holds; None for one that stands in for what the data decides."""
    return None if constant is None or constant.neutral else constant


def _giving(values: Array) -> Callable[[], Array]:
    return lambda: values


Rule = Callable[[TraceContext], None]
_RULES: dict[tuple[str, str], Rule] = {}


def rule(*which: Kind | str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register a tracing rule for all operations of some kinds, or for single ones of a domain.

    Raises:
        ValueError: An operation is not in the table of operations, or has a rule already.
    """
    keys = [(domain, name) for name in which if not isinstance(name, Kind)]
    keys += [(spec.domain, spec.name) for spec in operations(*(k for k in which if isinstance(k, Kind)))]

    def register(function: Rule) -> Rule:
        for key in keys:
            if key not in OPERATIONS or key in _RULES:
                raise ValueError(f"{'::'.join(key)} needs one entry in exporters/operations.py and one rule")
            _RULES[key] = function
        return function

    return register


def registered_rules() -> Mapping[tuple[str, str], Rule]:
    """All rules by (domain, operation)."""
    return dict(_RULES)


def find_rule(node: onnx.NodeProto) -> Rule | None:
    """The rule for a node, if there is one."""
    return _RULES.get((normal_domain(node.domain), node.op_type))


__all__ = [
    "ParameterTensor",
    "ParameterUse",
    "TensorFacts",
    "TraceContext",
    "TracedModel",
    "literal",
    "rule",
]
