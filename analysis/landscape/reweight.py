"""An ONNX model whose weights are inputs: the same graph, ready to be run with other weights.

Only the constants that are perturbed become inputs (they are promoted); all others stay constants, which
onnxruntime folds and pre-packs. Promotion happens in memory on the flat model of a concrete run, so control
flow is decided, local functions are inlined and every tensor name is unique.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.landscape.layout import Layout, ParameterBlock
from emergraph.analysis.landscape.quantized import FLOAT, Rewriting, cast, with_float_weights
from emergraph.errors import InvalidInputError, LimitError, UsageError
from emergraph.exporters.nodes import made_of_constants
from emergraph.exporters.onnxfile.dtypes import BY_NAME
from emergraph.exporters.operations import COPYING, DENSE, KEEPING, Kind, kind_of, spec_of
from emergraph.exporters.runtime.assembly import Assembly, ModelSource, assemble
from emergraph.exporters.runtime.concrete import ConcreteRun
from emergraph.exporters.runtime.flat_model import FlatInput, FlatModel
from emergraph.exporters.runtime.folding import Folder
from emergraph.exporters.runtime.quoting import quoted
from emergraph.exporters.runtime.widening import HALVES, HALVES_AND_DOUBLES
from emergraph.graphstore.text import printable

# Which constants of an ONNX model are parameters, and along which axes their filters lie.

FLOATING = {BY_NAME[name].code: name for name in ("float32", "float16", "bfloat16", "float64")}
"""Element types that are perturbed, in float32; only float64 values are rounded to it."""


@dataclass(frozen=True)
class Parameter:
    """A constant that an operation uses as weights."""

    name: str
    """Of the initializer."""
    layer: str
    """Name of the operation."""
    shape: tuple[int, ...]
    element_type: int
    unit_axes: tuple[int, ...]
    is_vector: bool
    is_embedding: bool = False
    """A table of which an input picks rows."""


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _filter_axes(node: onnx.NodeProto, position: int, rank: int) -> tuple[int, ...] | None:
    """Axes that count filters of a constant at input `position`; None if it is not a weight there."""
    spec = spec_of(node)
    if rank < 2 or (position not in spec.weights and spec.kind is not Kind.EINSUM):
        return None
    if spec.kind is Kind.EINSUM:
        return _einsum_axes(node, position)
    listed = spec.weights[position]
    if listed is not None or spec.plain_kind not in DENSE:
        return listed
    # Filters are the axis that is not contracted: columns of the right factor, rows of the left one.
    is_right = position == max(spec.weights)
    turned = bool(_attribute(node, "transB" if is_right else "transA", 0))
    return (*range(rank - 2), rank - 1 if is_right != turned else rank - 2)


def _einsum_axes(node: onnx.NodeProto, position: int) -> tuple[int, ...] | None:
    """Axes of an Einsum operand that appear in the result."""
    equation = next((a.s.decode() for a in node.attribute if a.name == "equation"), "").replace(" ", "")
    if "->" not in equation or "." in equation:
        return (0,)
    terms, result = equation.split("->")
    return tuple(i for i, letter in enumerate(terms.split(",")[position]) if letter in result)


def _moved(node: onnx.NodeProto, axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Axes before a mover of a constant, given the axes after it."""
    kind = kind_of(node)
    if kind is Kind.TRANSPOSE:
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(rank))[::-1])
        return tuple(sorted(order[axis] for axis in axes if axis < len(order)))
    return axes if kind in COPYING else (0,)


_MOVERS = KEEPING | {Kind.SLICE}
_SCALING = frozenset({Kind.PRODUCT, Kind.QUOTIENT})


def find_parameters(
    nodes: Iterable[onnx.NodeProto], constants: Mapping[str, onnx.TensorProto], *, vectors: bool
) -> list[Parameter]:
    """Find the constants that top-level operations use as weights, directly or moved or scaled by a constant.

    A tied weight is one parameter, named after the first contraction that uses it.

    Args:
        nodes: In data order, quantized ones rewritten.
        constants: Initializers by name.
        vectors: Also find biases, scales and shifts.

    Returns:
        The parameters in the order of their first use.
    """
    ordered = list(nodes)
    through: dict[str, tuple[str, list[onnx.NodeProto]]] = {name: (name, []) for name in constants}
    found: dict[str, Parameter] = {}
    for node in ordered:
        for position, name in enumerate(node.input):
            if name not in through:
                continue
            origin, movers = through[name]
            tensor = constants[origin]
            use = _use(node, position, tensor, movers, vectors=vectors)
            if use is not None and (origin not in found or _rank(use) < _rank(found[origin])):
                found[origin] = replace(use, name=origin)
        _follow(node, through, constants)
    return list(found.values())


def _rank(parameter: Parameter) -> int:
    """Which use of a tied tensor counts: a contraction before an embedding before a vector."""
    return 2 if parameter.is_vector else int(parameter.is_embedding)


def _use(
    node: onnx.NodeProto,
    position: int,
    tensor: onnx.TensorProto,
    movers: list[onnx.NodeProto],
    *,
    vectors: bool,
) -> Parameter | None:
    """What a constant is at one input of one operation; None if it is not a parameter there."""
    spec, shape = spec_of(node), tuple(int(d) for d in tensor.dims)
    if tensor.data_type not in FLOATING or _size(tensor) < 2:
        return None
    axes = _filter_axes(node, position, len(shape))
    if axes is not None:
        for mover in reversed(movers):
            axes = _moved(mover, axes, len(shape))
        return Parameter(
            tensor.name,
            node.name,
            shape,
            int(tensor.data_type),
            axes,
            is_vector=False,
            is_embedding=spec.kind is Kind.GATHER,
        )
    # A constant that is added or multiplied counts as a vector only where at most one axis is longer than 1.
    slender = sum(dimension > 1 for dimension in shape) <= 1 or spec.kind is Kind.RECURRENT
    if vectors and slender and position in spec.vectors:
        return Parameter(tensor.name, node.name, shape, int(tensor.data_type), (), is_vector=True)
    return None


def is_followed(node: onnx.NodeProto) -> bool:
    """Whether the output of an operation on one weight and small constants still is that weight."""
    return kind_of(node) in _MOVERS | _SCALING


def _follow(
    node: onnx.NodeProto,
    through: dict[str, tuple[str, list[onnx.NodeProto]]],
    constants: Mapping[str, onnx.TensorProto],
) -> None:
    """Remember that the output of an operation on one weight and small constants still is that weight."""
    if len(node.output) != 1:
        return
    scaled = kind_of(node) in _SCALING and all(name in through for name in node.input)
    if kind_of(node) not in _MOVERS and not scaled:
        return
    known = [name for name in node.input if name in through]
    if scaled:
        known.sort(key=lambda name: -_size(constants[through[name][0]]))
    if known and (scaled or known[0] == node.input[0]):
        origin, movers = through[known[0]]
        kept = movers if scaled else [*movers, node]
        through[node.output[0]] = (origin, kept)


def _size(tensor: onnx.TensorProto) -> int:
    return prod(int(dimension) for dimension in tensor.dims)


# Weights that a model puts together from constants (sliced, concatenated gates) as constants of their own.

Array = NDArray[np.generic]


def fold_composed_weights(model: Rewriting, flat: FlatModel) -> None:
    """Replace weights that several operations make from constants by new constants, in place.

    Args:
        model: The model; its operations are copied where an input changes.
        flat: The model before it was rewritten, for the versions of its operations.
    """
    with Folder(flat.opsets, ir_version=flat.ir_version) as folder:
        _fold_composed(model, made_of_constants(model.nodes, model.constants), folder)


def _fold_composed(model: Rewriting, producers: Mapping[str, onnx.NodeProto], folder: Folder) -> None:
    def value(name: str) -> Array:
        return model.read(model.constants[name])

    folded = 0
    for at, node in enumerate(model.nodes):
        spec = spec_of(node)
        positions = (*spec.weights, *(spec.vectors[:1] if spec.kind is Kind.RECURRENT else ()))
        composed = [
            i
            for i in positions
            if i < len(node.input) and node.input[i] in producers and _is_composed(node.input[i], producers)
        ]
        if not composed or node.output[0] in producers:
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for i in composed:
            made = folder.named(node.input[i], producers, value)
            if made.dtype.kind == "f":
                name = model.add(f"{node.input[i]}/folded", made)
                origin = _largest_root(node.input[i], producers, model)
                model.origins.setdefault(name, origin)
                copy.input[i] = name
                folded += 1
        model.nodes[at] = copy
    if folded:
        model.notes.append(f"{folded} weights put together from constants computed once")


def _is_composed(name: str, producers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether some operation behind a constant tensor is more than a mover or scale of one tensor."""
    stack, seen = [name], set[str]()
    while stack:
        current = stack.pop()
        if current in seen or current not in producers:
            continue
        seen.add(current)
        if not is_followed(producers[current]):
            return True
        stack.extend(producers[current].input)
    return False


def _largest_root(name: str, producers: Mapping[str, onnx.NodeProto], model: Rewriting) -> str:
    """The largest of the file's tensors that a constant was put together from."""
    stack, roots = [name], dict[str, int]()
    while stack:
        current = stack.pop()
        if current in producers:
            stack.extend(part for part in producers[current].input if part)
        elif current in model.constants:
            roots[current] = prod(int(d) for d in model.constants[current].dims)
    largest = max(roots, key=lambda root: roots[root])
    return model.origins.get(largest, largest)


MAX_MODEL_BYTES = (1 << 31) - 1
"""What one protobuf message may hold."""


@dataclass(frozen=True)
class ReweightableModel:
    """A model whose weights are fed like inputs."""

    model: bytes
    """Serialised ONNX, wholly in memory, with neutral names."""
    replaced: AbstractSet[int]
    """Element types that run as float32."""
    layout: Layout
    """Of the promoted weights in one flat vector."""
    base: NDArray[np.float32]
    """(n_params,) the file's own weights."""
    weight_slots: tuple[str, ...]
    """Input name in `model` of each block of the layout."""
    input_slots: dict[str, str]
    """Input name in `model` by the file's input name."""
    output_slots: tuple[str, ...]
    output_names: tuple[str, ...]
    """The file's output names, in the order of `output_slots`."""
    sigmoid: tuple[bool, ...]
    """Which outputs come out of a sigmoid."""
    notes: tuple[str, ...]
    """What was rewritten or left out, for reports."""


def reweightable(
    run: ConcreteRun,
    source: ModelSource,
    *,
    vectors: bool = False,
    embeddings: bool = False,
    outputs: Sequence[str] | None = None,
) -> ReweightableModel:
    """Promote the weights of a model to inputs.

    Args:
        run: A concrete run of the model: control flow decided.
        source: Gives the values of its tensors.
        vectors: Also promote biases, scales and shifts (needed for element-normalised directions).
        embeddings: Also promote embedding tables; of those, a few inputs read a few rows only.
        outputs: The file's output names to compute; by default all but carried states.

    Returns:
        The model with its layout and base weights.

    Raises:
        InvalidInputError: No constant of the model is used as a weight.
        UsageError: An output is not one of the model's.
        LimitError: The model without the promoted weights does not fit one protobuf message.
    """
    flat = run.flat
    rewriting = with_float_weights(flat.nodes, flat.initializers, source.array)
    fold_composed_weights(rewriting, flat)
    everything = find_parameters(rewriting.nodes, rewriting.constants, vectors=vectors)
    found = [p for p in everything if embeddings or not p.is_embedding]
    if not found:
        raise InvalidInputError(
            "no weights to perturb: no constant feeds a dense, convolution or recurrent operation"
        )
    wanted = _chosen_outputs(run, outputs, rewriting.nodes)
    casts: list[onnx.NodeProto] = []
    slots: list[str] = []
    for parameter in found:
        slot = parameter.name
        if parameter.element_type != FLOAT:
            slot = f"{parameter.name}/float32"
            casts.append(cast(slot, parameter.name, parameter.element_type))
        slots.append(slot)
    values = [_as_float32(source.array(rewriting.constants[p.name]), p.name) for p in found]
    promoted = {parameter.name for parameter in found}
    rest = {name: proto for name, proto in rewriting.constants.items() if name not in promoted}
    weights = [FlatInput(slot, FLOAT, p.shape) for slot, p in zip(slots, found, strict=True)]
    assembly = assemble(
        replace(flat, nodes=(*casts, *rewriting.nodes), initializers=rest, inputs=(*flat.inputs, *weights)),
        wanted,
        source,
        replaced=HALVES_AND_DOUBLES if run.in_single else HALVES,
    )
    return ReweightableModel(
        model=_self_contained(assembly),
        layout=_layout(found, rewriting.origins),
        base=np.concatenate([value.ravel() for value in values]),
        weight_slots=tuple(assembly.slots[slot] for slot in slots),
        replaced=assembly.replaced,
        input_slots={value.name: assembly.slots[value.name] for value in flat.inputs},
        output_slots=tuple(assembly.slots[name] for name in wanted),
        output_names=tuple(wanted),
        sigmoid=tuple(_is_sigmoid(name, rewriting.nodes) for name in wanted),
        notes=(*rewriting.notes, *_left_out(everything, found), *_of_other_types(found, run)),
    )


_SAID = {
    "float16": "weights of float16 move in float32 and are rounded to float16 for each run",
    "bfloat16": "the model is of bfloat16; it runs in float32",
    "float64": "weights of float64 move in float32",
}


def _of_other_types(found: Sequence[Parameter], run: ConcreteRun) -> list[str]:
    """What is computed in another type than the file's."""
    types = {FLOATING[parameter.element_type] for parameter in found}
    return [
        "the model is of float64, of which onnxruntime lacks operations; it runs in float32"
        if name == "float64" and run.in_single
        else said
        for name, said in _SAID.items()
        if name in types
    ]


def _as_float32(values: NDArray[np.generic], name: str) -> NDArray[np.float32]:
    array = np.asarray(values).astype(np.float32)
    if not np.all(np.isfinite(array)):
        bad = int(np.sum(~np.isfinite(array)))
        raise InvalidInputError(
            f"{bad} weights of {printable(name, limit=60)} are NaN or infinite; expected finite ones"
        )
    return array


def _left_out(everything: Sequence[Parameter], found: Sequence[Parameter]) -> list[str]:
    tables = [p for p in everything if p.is_embedding and p not in found]
    if not tables:
        return []
    count = sum(prod(p.shape) for p in tables)
    return [f"{len(tables)} embedding tables ({count} parameters) not perturbed"]


def _chosen_outputs(
    run: ConcreteRun, wanted: Sequence[str] | None, nodes: Sequence[onnx.NodeProto]
) -> list[str]:
    """The outputs to compare: those asked for, or all but states that a recurrent model carries on."""
    known = run.flat.outputs
    for name in wanted or ():
        if name not in known:
            raise UsageError(
                f"the model has no output {name!r}; its outputs are {', '.join(map(repr, known))}"
            )
    made = {name for node in nodes for name in node.output}
    chosen = [name for name in (wanted or known) if name in made]
    if not chosen:
        raise InvalidInputError("no output of the model depends on an operation")
    for name in chosen:
        if name not in run.values:
            node, why = next(iter(run.not_run.items()), ("an operation", "it did not run"))
            raise InvalidInputError(
                f"output {quoted(name)} of the model cannot be computed: {quoted(node)}: {why}; a landscape "
                "needs a model that runs as a whole"
            )
    if wanted:
        return chosen
    later_inputs = {array.shape for array in list(run.inputs.values())[1:] if array.ndim > 1}
    kept = [name for name in chosen if run.values[name].shape not in later_inputs]
    return kept or chosen


def _is_sigmoid(name: str, nodes: Sequence[onnx.NodeProto]) -> bool:
    """Whether a tensor is the result of a sigmoid, moved or averaged."""
    maker = {output: node for node in nodes for output in node.output}
    node = maker.get(name)
    while node is not None and (spec := spec_of(node)).keeps_value and spec.kind is not Kind.CONCAT:
        node = maker.get(node.input[0])
    return node is not None and node.op_type == "Sigmoid"


def _layout(found: Sequence[Parameter], origins: Mapping[str, str]) -> Layout:
    """Lay the parameters out under the names of the file's tensors."""
    blocks, offset = [], 0
    taken = {parameter.name for parameter in found}
    for parameter in found:
        name = origins.get(parameter.name, parameter.name)
        name = parameter.name if name in taken else name
        taken.add(name)
        block = ParameterBlock(
            name=name,
            shape=parameter.shape,
            offset=offset,
            unit_axes=parameter.unit_axes,
            is_vector=parameter.is_vector,
            layer=parameter.layer,
        )
        blocks.append(block)
        offset += block.size
    return Layout(tuple(blocks))


def _self_contained(assembly: Assembly) -> bytes:
    """Put the constants back into the model, so that it can travel to another process."""
    size = len(assembly.model) + sum(weight.n_bytes for weight in assembly.weights)
    if size > MAX_MODEL_BYTES:
        raise LimitError(
            f"{size} bytes of constants are not perturbed; expected at most {MAX_MODEL_BYTES} bytes"
        )
    model = onnx.ModelProto.FromString(assembly.model)
    raw = {weight.slot: weight for weight in assembly.weights}
    for tensor in model.graph.initializer:
        if tensor.name in raw:
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = bytes(raw[tensor.name].run_bytes())
    return bytes(model.SerializeToString())
