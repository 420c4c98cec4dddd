"""An ONNX model whose weights are inputs: the same graph, ready to be run with other weights.

Only the constants that are perturbed become inputs (they are promoted); all others stay constants, which
onnxruntime folds and pre-packs. Promotion happens in memory on the flat model of a concrete run, so control
flow is decided, local functions are inlined and every tensor name is unique.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.landscape.folding import fold_composed_weights
from emergraph.analysis.landscape.layout import Layout, ParameterBlock
from emergraph.analysis.landscape.parameters import FLOATING, Parameter, find_parameters
from emergraph.analysis.landscape.quantized import FLOAT, cast, with_float_weights
from emergraph.errors import InvalidInputError, LimitError, UsageError
from emergraph.exporters.operations import Kind, spec_of
from emergraph.exporters.runtime.assembly import Assembly, ModelSource, assemble
from emergraph.exporters.runtime.concrete import ConcreteRun
from emergraph.exporters.runtime.flat_model import FlatInput
from emergraph.graphstore.text import printable

MAX_MODEL_BYTES = (1 << 31) - 1
"""What one protobuf message may hold."""


@dataclass(frozen=True)
class ReweightableModel:
    """A model whose weights are fed like inputs."""

    model: bytes
    """Serialised ONNX, wholly in memory, with neutral names."""
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
    )
    return ReweightableModel(
        model=_self_contained(assembly),
        layout=_layout(found, rewriting.origins),
        base=np.concatenate([value.ravel() for value in values]),
        weight_slots=tuple(assembly.slots[slot] for slot in slots),
        input_slots={value.name: assembly.slots[value.name] for value in flat.inputs},
        output_slots=tuple(assembly.slots[name] for name in wanted),
        output_names=tuple(wanted),
        sigmoid=tuple(_is_sigmoid(name, rewriting.nodes) for name in wanted),
        notes=(*rewriting.notes, *_left_out(everything, found), *_of_other_types(found)),
    )


_SAID = {
    "float16": "weights of float16 move in float32 and are rounded to float16 for each run",
    "bfloat16": "the model is of bfloat16; it runs in float32",
    "float64": "weights of float64 move in float32",
}


def _of_other_types(found: Sequence[Parameter]) -> list[str]:
    """What is computed in another type than the file's."""
    types = {FLOATING[parameter.element_type] for parameter in found}
    return [said for name, said in _SAID.items() if name in types]


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
    size = len(assembly.model) + sum(memoryview(w.tensor.raw).nbytes for w in assembly.weights)
    if size > MAX_MODEL_BYTES:
        raise LimitError(
            f"{size} bytes of constants are not perturbed; expected at most {MAX_MODEL_BYTES} bytes"
        )
    model = onnx.ModelProto.FromString(assembly.model)
    raw = {weight.slot: weight.tensor.raw for weight in assembly.weights}
    for tensor in model.graph.initializer:
        if tensor.name in raw:
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = bytes(raw[tensor.name])
    return bytes(model.SerializeToString())
