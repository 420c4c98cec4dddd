"""A module exported once: later weights make new graphs and traces without another export."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError
from emergraph.exporters.counting import CountingSink
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.pytorch.checking import compare, feeds_of
from emergraph.exporters.pytorch.onnxexport import save_onnx
from emergraph.exporters.pytorch.tensors import array_of, evaluating, outputs_of
from emergraph.exporters.pytorch.usedparameters import parameters_in
from emergraph.exporters.runtime.assembly import ModelSource, StoredTensor, stored_array
from emergraph.exporters.runtime.concrete import ConcreteRun, concrete_run
from emergraph.exporters.runtime.folding import folder_of
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.sources import as_source
from emergraph.exporters.summary import GraphSummary
from emergraph.exporters.tracing.bodies import body_runner
from emergraph.exporters.tracing.prepare import FileParameter, traced_model
from emergraph.exporters.tracing.tracer import trace
from emergraph.graphstore.records import GraphSink, Layer

if TYPE_CHECKING:
    import torch

Array = NDArray[np.generic]


@dataclass(frozen=True)
class CurrentWeights:
    """A model whose parameters are those of a module now; everything else is as it was exported."""

    base: ModelSource
    values: Mapping[str, Array] = field(repr=False)
    """By initializer name, of the shape and type of the initializer."""

    @property
    def model(self) -> onnx.ModelProto:
        """The weightless model."""
        return self.base.model

    def stored(self, tensor: onnx.TensorProto) -> StoredTensor:
        """The values of a tensor as raw bytes."""
        values = self.values.get(tensor.name)
        if values is None:
            return self.base.stored(tensor)
        return stored_array(values, int(tensor.data_type))

    def array(self, tensor: onnx.TensorProto) -> Array:
        """The values of a tensor."""
        values = self.values.get(tensor.name)
        return self.base.array(tensor) if values is None else values

    def sha256(self) -> str:
        """Checksum of names and values."""
        digest = hashlib.sha256()
        for name in sorted(self.values):
            digest.update(name.encode() + b"\0")
            digest.update(np.ascontiguousarray(self.values[name]).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class ModuleStructure:
    """What does not change while a module is trained."""

    label: str
    """Class of the module."""
    base: ModelSource
    """The export, with the weights of then."""
    run: ConcreteRun
    """The run of the export, without values that follow from weights."""
    feeds: Mapping[str, Array]
    """The inputs of that run."""
    replaced: tuple[str, ...]
    """Parameters and buffers of the module that the export has under the same name."""
    parameters: frozenset[str]
    """Those of them that are parameters."""
    layers: tuple[Layer, ...]
    producer: str
    limits: RunLimits

    def current(self, module: "torch.nn.Module") -> CurrentWeights:
        """The model with the module's parameters and buffers of now; they are not copied.

        Raises:
            InvalidInputError: The module has lost a parameter or changed its shape.
        """
        tensors = _tensors_of(module)
        values = {name: array_of(tensors[name]) for name in self.replaced if name in tensors}
        for tensor in self.base.model.graph.initializer:
            if tensor.name in self.replaced:
                shape = values[tensor.name].shape if tensor.name in values else None
                if shape != tuple(tensor.dims):
                    raise InvalidInputError(
                        f"parameter {tensor.name} of {self.label} had shape {list(tensor.dims)} when "
                        f"recording began and now has {shape and list(shape)}; a module must keep its shape"
                    )
        return CurrentWeights(self.base, values)

    def write(self, source: CurrentWeights, sink: GraphSink) -> GraphSummary:
        """Trace the graph with these weights into a sink."""

        def parameter(proto: onnx.TensorProto) -> FileParameter:
            dtype = str(onnx.helper.tensor_dtype_to_np_dtype(proto.data_type))
            return FileParameter(tuple(proto.dims), dtype, lambda: source.array(proto))

        bodies = body_runner(self.run.flat, source, limits=self.limits, seed=0)
        with folder_of(self.run.flat, source, self.limits) as folder:
            model = traced_model(
                self.run, parameter, folder=folder, run_body=bodies, parameters=self.parameters
            )
            return trace(model, sink)


def export_structure(
    module: "torch.nn.Module",
    args: Sequence[Any],
    *,
    folder: Path,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,  # noqa: ANN401 - as torch.export takes it
    limits: RunLimits | None = None,
) -> ModuleStructure:
    """Export a module once, compare it with itself, run it, and find its layers.

    Args:
        module: Left as it was.
        args: Example inputs, positional.
        folder: Where the ONNX file stays as long as the structure is used.
        kwargs: Example inputs by name.
        dynamic_shapes: Which axes may vary, as for `torch.export.export`.
        limits: Of the runs.

    Raises:
        InvalidInputError: torch cannot export the module, or the export computes something else.
        MissingExtraError: torch or onnxscript is not installed.
    """
    label, limits, named = type(module).__name__, limits or RunLimits(), dict(kwargs or {})
    path = folder / "model.onnx"
    with evaluating(module):
        expected = outputs_of(module, args, named)
        save_onnx(module, tuple(args), named, dynamic_shapes, path, label)
    file = read_onnx(path)
    base = as_source(file)
    feeds = feeds_of(base, args, named)
    with ModelProcess(limits) as process:
        compare(base, feeds, expected, label, process)
    replaced = _same_tensors(base, module)
    run = concrete_run(base, inputs=feeds, limits=limits)
    structure = ModuleStructure(
        label=label,
        base=base,
        run=replace(run, values=_without_weights(run, frozenset(replaced))),
        feeds=feeds,
        replaced=replaced,
        parameters=parameters_in(base, module)[0],
        layers=(),
        producer=f"{file.model.producer_name} {file.model.producer_version}".strip(),
        limits=limits,
    )
    sink = CountingSink()
    structure.write(structure.current(module), sink)
    return replace(structure, layers=sink.layers)


def _tensors_of(module: "torch.nn.Module") -> "dict[str, torch.Tensor]":
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(module.named_buffers(remove_duplicate=False))}


def _same_tensors(base: ModelSource, module: "torch.nn.Module") -> tuple[str, ...]:
    """Initializers that are tensors of the module, by name and by value."""
    tensors = _tensors_of(module)
    names = []
    for initializer in base.model.graph.initializer:
        if initializer.name not in tensors:
            continue
        ours, theirs = array_of(tensors[initializer.name]), base.array(initializer)
        if ours.shape != theirs.shape or ours.tobytes() != np.ascontiguousarray(theirs).tobytes():
            raise InvalidInputError(
                f"torch exported {initializer.name} of {type(module).__name__} with other values than the "
                "module has, so its weights cannot be followed; export each checkpoint with emergraph.export"
            )
        names.append(initializer.name)
    return tuple(names)


def _without_weights(run: ConcreteRun, replaced: frozenset[str]) -> "dict[str, Any]":
    """The values of a run, less those that follow from weights and would be out of date.

    They are recomputed when they are asked for. What depends on inputs too and is not a number (indices that
    a router picks) stays: the graph has its shape.
    """
    weighted, fed = set(replaced), set(run.inputs)
    values = dict(run.values)
    for node in run.flat.nodes:
        from_weights = any(name in weighted for name in node.input)
        from_inputs = any(name in fed for name in node.input)
        for name in node.output:
            weighted.update([name] if from_weights else [])
            fed.update([name] if from_inputs else [])
            one = values.get(name)
            if one is None or one.value is None or not from_weights:
                continue
            if not from_inputs or one.value.dtype.kind not in "iub":
                values[name] = replace(one, value=None)
    return values
