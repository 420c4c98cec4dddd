"""Running the body of a Loop, a Scan or a branch once, on its own, for the shapes of its tensors."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError
from emergraph.exporters.runtime.assembly import ModelSource, StoredTensor
from emergraph.exporters.runtime.concrete import concrete_run
from emergraph.exporters.runtime.flat_model import FlatModel, inner_names, names_used
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.quoting import quoted
from emergraph.exporters.tracing.facts import BodyRun, BodyRunner, TensorFacts

Array = NDArray[np.generic]
_OBJECT = np.dtype(object)


@dataclass(frozen=True)
class _BodySource:
    """A body as a model, its weights where the model's are."""

    model: onnx.ModelProto
    base: ModelSource

    def stored(self, tensor: onnx.TensorProto) -> StoredTensor:
        """The values of a tensor as raw bytes."""
        return self.base.stored(tensor)

    def array(self, tensor: onnx.TensorProto) -> Array:
        """The values of a tensor."""
        return self.base.array(tensor)


def body_runner(flat: FlatModel, base: ModelSource, *, limits: RunLimits, seed: int = 0) -> BodyRunner:
    """A runner for the bodies in a flat model.

    It raises `InvalidInputError` for a body that reads a tensor of which nothing is known.
    """
    known: dict[tuple[str, ...], BodyRun] = {}

    def run(graph: onnx.GraphProto, given: Mapping[str, TensorFacts]) -> BodyRun:
        # Tensor names are unique over all bodies, and one run of a body is enough.
        key = tuple(name for node in graph.node for name in node.output)
        if key not in known:
            known[key] = run_once(graph, given)
        return known[key]

    def run_once(graph: onnx.GraphProto, given: Mapping[str, TensorFacts]) -> BodyRun:
        own = {value.name for value in graph.input}
        nodes = tuple(graph.node)
        made = {name for node in nodes for name in node.output} | inner_names(nodes)
        wanted = names_used(nodes) | {value.name for value in graph.output}
        captured = sorted(name for name in wanted if name and name not in made and name not in own)
        model = onnx.ModelProto(ir_version=flat.ir_version)
        for domain, version in flat.opsets.items():
            model.opset_import.append(onnx.OperatorSetIdProto(domain=domain, version=version))
        model.graph.name = graph.name or "body"
        model.graph.node.extend(graph.node)
        feeds: dict[str, Array] = {}
        for name in (*(value.name for value in graph.input), *captured):
            if name in flat.initializers:
                continue
            facts = given.get(name)
            if facts is None:
                raise InvalidInputError(f"the body reads {quoted(name)}, of which nothing is known")
            feeds[name] = _values(facts, seed)
            element = onnx.helper.np_dtype_to_tensor_dtype(facts.dtype)
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, element, list(facts.shape)))
        weights = [name for name in captured if name in flat.initializers]
        model.graph.initializer.extend(_named(flat.initializers[name], name) for name in weights)
        model.graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in graph.output)
        result = concrete_run(_BodySource(model, base), inputs=feeds, limits=limits, seed=seed)
        found = {
            name: TensorFacts(value.shape, value.dtype if value.dtype is not None else _OBJECT, value.value)
            for name, value in result.values.items()
            if value.shape is not None
        }
        return BodyRun(result.flat.nodes, found, result.branches)

    return run


def _named(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    if tensor.name == name:
        return tensor
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def _values(facts: TensorFacts, seed: int) -> Array:
    """The value itself where it is at hand, else random floats of its shape."""
    if facts.value is not None:
        return facts.value
    noise = np.random.default_rng(seed).normal(size=facts.shape)
    return np.asarray(noise).astype(facts.dtype)
