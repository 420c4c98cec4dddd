"""A model traced for a test: its graph in memory, the labels of every tensor, the values of one run."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime as ort
from edgesink import EdgeSink
from invariants import check_graph
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from emergraph.exporters.runtime.folding import Folder
from emergraph.exporters.summary import GraphSummary
from emergraph.exporters.tracing import tracer
from emergraph.exporters.tracing.context import TensorFacts, TraceContext, TracedModel
from emergraph.exporters.tracing.values import Value

Array = NDArray[Any]
Feeds = dict[str, Array]
_NUMPY = {
    1: np.float32,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
    2: np.uint8,
    3: np.int8,
}


@dataclass(frozen=True)
class Parameter:
    """A parameter tensor out of a proto in memory."""

    proto: onnx.TensorProto

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.proto.dims)

    @property
    def dtype_name(self) -> str:
        return str(onnx.helper.tensor_dtype_to_np_dtype(self.proto.data_type))

    def array(self) -> Array:
        return np.asarray(numpy_helper.to_array(self.proto))

    def held(self) -> Array | None:
        return None


@dataclass(frozen=True)
class Traced:
    """A traced model with all that an oracle needs."""

    model: onnx.ModelProto
    """Constants are initializers, and every tensor is an output."""
    feeds: Feeds
    values: Mapping[str, Array]
    """Every tensor in the concrete run."""
    labels: Mapping[str, NDArray[np.int64]]
    """Labels of every tensor that carries units, in the order in which they were set."""
    sink: EdgeSink
    summary: GraphSummary
    outputs: tuple[str, ...]

    def units(self, name: str) -> list[int]:
        """Distinct units of a tensor."""
        return sorted(set(self.labels[name].ravel().tolist()) - {-1})


def trace_model(model: onnx.ModelProto, feeds: Mapping[str, Array] | None = None, *, seed: int = 0) -> Traced:
    """Run and trace a model, and assert the invariants of its graph."""
    flat, outputs = with_all_outputs(model)
    given = {**random_feeds(flat, seed), **(feeds or {})}
    values = run_all(flat, given)
    facts = {name: TensorFacts(v.shape, v.dtype, v if _is_small(v) else None) for name, v in values.items()}
    parameters = {t.name: Parameter(t) for t in flat.graph.initializer}
    folder = Folder({o.domain: o.version for o in flat.opset_import}, ir_version=flat.ir_version)
    traced = TracedModel(
        nodes=list(flat.graph.node),
        initializers=parameters,
        facts=facts,
        inputs=[i.name for i in flat.graph.input],
        outputs=outputs,
        opsets={o.domain: o.version for o in flat.opset_import},
        folder=folder,
    )
    sink = EdgeSink()
    before = flat.SerializeToString(deterministic=True)
    labels: dict[str, NDArray[np.int64]] = {}
    with folder, mock.patch.object(tracer, "TraceContext", remembering(labels)):
        summary = tracer.trace(traced, sink)
    assert flat.SerializeToString(deterministic=True) == before, "tracing changed the model"
    check_graph(sink, {name: p.array() for name, p in parameters.items()}, len(flat.graph.node))
    misfits = [op.reason for op in sink.operations if "does not fit" in (op.reason or "")]
    assert not misfits, misfits
    assert summary.n_edges == sum(b.src.size for b in sink.blocks)
    assert summary.n_units == sink.n_units
    result = Traced(flat, given, values, labels, sink, summary, tuple(outputs))
    _check_labels(result)
    return result


def _is_small(array: Array) -> bool:
    return array.size <= 4096 or array.dtype.kind in "iub"


def remembering(
    labels: dict[str, NDArray[np.int64]], contexts: list[TraceContext] | None = None
) -> type[TraceContext]:
    """A context that keeps the labels of every tensor, and itself (the first is the model's)."""

    class Remembering(dict[str, Value]):
        def __setitem__(self, name: str, value: Value) -> None:
            if value.labels is not None:
                labels[name] = value.labels
            super().__setitem__(name, value)

    class RememberingContext(TraceContext):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]
            self.values = Remembering(self.values)
            if contexts is not None:
                contexts.append(self)

    return RememberingContext


def _check_labels(traced: Traced) -> None:
    """Labels have their tensors' shapes, and activation tensors show the units that their layer claims."""
    sink = traced.sink
    for name, labels in traced.labels.items():
        if name in traced.values:
            assert labels.shape == traced.values[name].shape
        assert labels.size == 0 or (labels.min() >= -1 and labels.max() < sink.n_units)
    for layer in sink.layers:
        if layer.activation_tensor is None or layer.activation_axes is None:
            continue
        labels = traced.labels[layer.activation_tensor]
        others = [k for k in range(labels.ndim) if k not in layer.activation_axes]
        moved = labels.transpose([*layer.activation_axes, *others]).reshape(layer.n_units, -1)
        expected = np.arange(layer.first_unit, layer.first_unit + layer.n_units)
        assert (moved == expected[:, None]).all(), (
            f"{layer.name}: {layer.activation_tensor} shows other units"
        )


def with_all_outputs(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """A copy in which constants are initializers and every tensor is an output; and the original outputs."""
    flat = onnx.ModelProto()
    flat.CopyFrom(model)
    graph = flat.graph
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        constant = _constant(node)
        if constant is None:
            nodes.append(node)
        else:
            graph.initializer.append(constant)
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    for position, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{position}"
    known = {t.name for t in graph.initializer}
    inputs = [
        onnx.ValueInfoProto.FromString(i.SerializeToString()) for i in graph.input if i.name not in known
    ]
    del graph.input[:]
    graph.input.extend(inputs)
    outputs = [o.name for o in graph.output]
    made = [o for node in graph.node for o in node.output if o]
    graph.output.extend(onnx.ValueInfoProto(name=o) for o in made if o not in outputs)
    return flat, outputs


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    if node.op_type != "Constant" or node.domain:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(attribute.t)
        tensor.name = node.output[0]
        return tensor
    value = onnx.helper.get_attribute_value(attribute)
    dtype = np.float32 if "float" in attribute.name else np.int64
    return numpy_helper.from_array(np.asarray(value, dtype), node.output[0])


def random_feeds(model: onnx.ModelProto, seed: int) -> Feeds:
    """Values for all inputs: floats of both signs and ordinary size, integers 0 and 1."""
    rng = np.random.default_rng(seed)
    feeds: Feeds = {}
    for given in model.graph.input:
        kind = given.type.tensor_type
        shape = [d.dim_value or 2 for d in kind.shape.dim]
        dtype = np.dtype(_NUMPY[kind.elem_type])
        if dtype.kind == "f":
            feeds[given.name] = rng.normal(size=shape).astype(dtype)
        else:
            feeds[given.name] = rng.integers(0, 2, shape).astype(dtype)
    return feeds


class Runner:
    """Runs a model with onnxruntime, or with ONNX's reference where onnxruntime refuses it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.names = [o.name for o in model.graph.output]
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self._session: ort.InferenceSession | ReferenceEvaluator
        try:
            self._session = ort.InferenceSession(model.SerializeToString(), options)
        except Exception:  # noqa: BLE001 - onnxruntime raises many kinds
            self._session = ReferenceEvaluator(model)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)
            results: Any = self._session.run(
                self.names, {name: np.asarray(value) for name, value in feeds.items()}
            )
        return {n: np.asarray(r) for n, r in zip(self.names, results, strict=True)}


def run_all(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs and outputs of a model."""
    return {**feeds, **Runner(model).run(feeds)}
