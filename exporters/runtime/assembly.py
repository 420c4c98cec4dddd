"""What the child process loads: a weightless model with neutral names, and where its weights are."""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.nodes import subgraphs
from emergraph.exporters.onnxfile.decoding import codes_from_elements, pack_bits
from emergraph.exporters.onnxfile.dtypes import BY_NAME, ELEMENT_TYPES, INTEGERS, PLAIN
from emergraph.exporters.runtime.flat_model import FlatModel, names_used
from emergraph.exporters.runtime.frames import Buffer
from emergraph.exporters.runtime.singles import DOUBLE, single_bytes
from emergraph.exporters.runtime.widening import HALVES, HALVES_AND_DOUBLES, replace_types, run_type

INLINE_BYTES = 1024
INLINE_INTEGER_BYTES = 65_536
"""Tensors up to these sizes travel inside the model: shapes and axes, which onnxruntime wants to see."""

PLACEHOLDER = "placeholder"
"""Name of the empty file in the child's folder that external tensors are said to be in.

onnxruntime looks whether it exists; the values come from the child, and reading them from it would fail.
"""

MIN_IR_VERSION = 10


@dataclass(frozen=True)
class Place:
    """Where in a regular file the little-endian C-order bytes of a tensor are."""

    path: Path
    offset: int


@dataclass(frozen=True)
class StoredTensor:
    """The values of an initializer."""

    shape: tuple[int, ...]
    element_type: int
    raw: Buffer
    place: Place | None = None
    """Set where the child can map the values itself; `raw` is then not read here."""


def stored_array(values: NDArray[np.generic], element_type: int | None = None) -> StoredTensor:
    """An array as the values of a tensor; elements of less than a byte are packed as a file has them.

    Args:
        values: The elements.
        element_type: ONNX element type, where the array's own does not tell.
    """
    element = BY_NAME[values.dtype.name] if element_type is None else ELEMENT_TYPES[element_type]
    flat = np.ascontiguousarray(values).reshape(-1)
    raw = flat.view(np.uint8)
    if element.bits < 8:
        raw = pack_bits(codes_from_elements(flat, element), element.bits)
    return StoredTensor(values.shape, element.code, raw.data)


class ModelSource(Protocol):
    """A model file: its weightless proto and the values of its tensors."""

    @property
    def model(self) -> onnx.ModelProto:
        """The model, large values possibly left out."""
        ...

    def stored(self, tensor: onnx.TensorProto) -> StoredTensor:
        """The values of one of the tensors of `model`."""
        ...

    def array(self, tensor: onnx.TensorProto) -> NDArray[np.generic]:
        """The same as an array."""
        ...


@dataclass(frozen=True)
class WeightInput:
    """A large initializer of the weightless model."""

    slot: str
    tensor: StoredTensor
    is_replaced: bool = False
    """Whether the child makes float32 of it."""

    @property
    def n_bytes(self) -> int:
        """How many bytes that are."""
        return 4 * prod(self.tensor.shape) if self.is_replaced else memoryview(self.tensor.raw).nbytes

    def run_bytes(self) -> Buffer:
        """Its bytes as the model runs on them."""
        return _run_bytes(self.tensor) if self.is_replaced else self.tensor.raw


@dataclass(frozen=True)
class Assembly:
    """A model made ready for the child."""

    model: bytes
    weights: tuple[WeightInput, ...]
    slots: Mapping[str, str] = field(repr=False)
    """Neutral name by flat tensor name."""
    nodes: Mapping[str, str] = field(repr=False)
    """Flat node name by neutral name, for error messages."""
    replaced: AbstractSet[int] = HALVES
    """Element types that run as float32."""
    in_single: "Callable[[], Assembly] | None" = field(default=None, repr=False)
    """The same with float64 as float32, where there is any float64 in it."""


def assemble(
    flat: FlatModel, fetch: Iterable[str], source: ModelSource, *, replaced: AbstractSet[int] = HALVES
) -> Assembly:
    """Make a model that onnxruntime can load from memory, without a path in it.

    Every tensor and node gets a neutral name (`emt7`, `emn3`): names from a file may hold anything. All axes
    of the inputs are declared dynamic, since declarations may lie; the tensors of `fetch` are the outputs.
    Large tensors are declared as external data without a real location; the child supplies each. Initializers
    that nothing reads are left out.

    Args:
        flat: The model to run.
        fetch: Flat names of the tensors to give out; each must be made by a top-level node.
        source: Gives the values of the initializers.
        replaced: Element types that become float32 (see `widening`).
    """
    fetch = list(fetch)
    slots: dict[str, str] = {"": ""}
    graph = onnx.GraphProto(name="model")
    for flat_input in flat.inputs:
        value = graph.input.add(name=_slot(flat_input.name, slots))
        value.type.tensor_type.elem_type = run_type(flat_input.element_type, replaced)
        if flat_input.shape is not None:
            value.type.tensor_type.shape.SetInParent()
            for _ in flat_input.shape:
                value.type.tensor_type.shape.dim.add()
    weights = _add_initializers(flat, graph, slots, source, replaced)
    nodes: dict[str, str] = {}
    has_doubles = any(value.element_type == DOUBLE for value in flat.inputs)
    has_doubles |= any(tensor.data_type == DOUBLE for tensor in flat.initializers.values())
    for node in flat.nodes:
        copy = graph.node.add()
        copy.CopyFrom(node)
        _neutralise(copy, slots, nodes)
        _fill_attributes(copy, source)
        has_doubles |= replace_types(copy, replaced)
    graph.output.extend(onnx.ValueInfoProto(name=_slot(name, slots)) for name in fetch)
    model = onnx.ModelProto(ir_version=max(flat.ir_version, MIN_IR_VERSION))
    used = _domains(graph)
    for domain, version in flat.opsets.items():
        if domain in used:
            model.opset_import.add(domain=domain, version=version)
    model.graph.CopyFrom(graph)
    in_single = None
    if has_doubles and DOUBLE not in replaced:
        in_single = partial(assemble, flat, fetch, source, replaced=HALVES_AND_DOUBLES)
    return Assembly(model.SerializeToString(), tuple(weights), slots, nodes, replaced, in_single)


def _add_initializers(
    flat: FlatModel,
    graph: onnx.GraphProto,
    slots: dict[str, str],
    source: ModelSource,
    replaced: AbstractSet[int],
) -> list[WeightInput]:
    weights: list[WeightInput] = []
    used = names_used(flat.nodes)
    for name, tensor in flat.initializers.items():
        if name not in used:
            continue
        slot = _slot(name, slots)
        if tensor.data_type == onnx.TensorProto.STRING:
            text = graph.initializer.add()
            text.CopyFrom(tensor)
            text.name = slot
            continue
        stored = source.stored(tensor)
        light = graph.initializer.add(
            name=slot, data_type=run_type(stored.element_type, replaced), dims=stored.shape
        )
        weight = WeightInput(slot, stored, is_replaced=stored.element_type in replaced)
        size = memoryview(stored.raw).nbytes
        integer = stored.element_type in INTEGERS
        if size <= (INLINE_INTEGER_BYTES if integer else INLINE_BYTES):
            light.raw_data = bytes(weight.run_bytes())
            continue
        light.data_location = onnx.TensorProto.EXTERNAL
        location = PLACEHOLDER if weight.is_replaced or stored.element_type in PLAIN else slot
        for key, text_value in (("location", location), ("offset", "0"), ("length", str(weight.n_bytes))):
            light.external_data.add(key=key, value=text_value)
        weights.append(weight)
    return weights


def _run_bytes(stored: StoredTensor) -> bytes:
    return single_bytes(np.frombuffer(stored.raw, np.uint8), stored.element_type).tobytes()


def weight_messages(
    weights: Iterable[WeightInput], first_buffer: int
) -> tuple[list[dict[str, object]], list[Buffer]]:
    """The weights as the child is told of them, and the buffers for those that it cannot map itself."""
    messages: list[dict[str, object]] = []
    buffers: list[Buffer] = []
    for weight in weights:
        tensor = weight.tensor
        message: dict[str, object] = {
            "name": weight.slot,
            "type": tensor.element_type,
            "replaced": weight.is_replaced,
            "dtype": PLAIN.get(tensor.element_type),
            "shape": list(tensor.shape),
            "nbytes": memoryview(tensor.raw).nbytes,
            "path": None,
        }
        if tensor.place is not None:
            message["path"] = str(tensor.place.path)
            message["offset"] = tensor.place.offset
        else:
            message["buffer"] = first_buffer + len(buffers)
            buffers.append(tensor.raw)
        messages.append(message)
    return messages, buffers


def _slot(name: str, slots: dict[str, str]) -> str:
    if name not in slots:
        slots[name] = f"emt{len(slots)}"
    return slots[name]


def _neutralise(node: onnx.NodeProto, slots: dict[str, str], nodes: dict[str, str]) -> None:
    """Give a node, its tensors and those of its subgraphs neutral names, in place."""
    stack = [node]
    while stack:
        current = stack.pop()
        neutral = f"emn{len(nodes)}"
        nodes[neutral] = current.name
        current.name = neutral
        current.doc_string = ""
        del current.metadata_props[:]
        for names in (current.input, current.output):
            for position, name in enumerate(names):
                names[position] = _slot(name, slots)
        for graph in subgraphs(current):
            graph.name = "body"
            for value in (*graph.input, *graph.output):
                value.name = _slot(value.name, slots)
            stack.extend(graph.node)


def _fill_attributes(node: onnx.NodeProto, source: ModelSource) -> None:
    """Put the values of large attribute tensors, which the weightless model leaves out, back in, in place."""
    stack = [node]
    while stack:
        current = stack.pop()
        for attribute in current.attribute:
            for tensor in (attribute.t, *attribute.tensors):
                if tensor.data_location == onnx.TensorProto.EXTERNAL:
                    raw = bytes(source.stored(tensor).raw)
                    del tensor.external_data[:]
                    tensor.ClearField("data_location")
                    tensor.raw_data = raw
        for graph in subgraphs(current):
            stack.extend(graph.node)


def _domains(graph: onnx.GraphProto) -> set[str]:
    domains = {""}
    stack = list(graph.node)
    while stack:
        node = stack.pop()
        domains.add(node.domain)
        for inner in subgraphs(node):
            stack.extend(inner.node)
    return domains
