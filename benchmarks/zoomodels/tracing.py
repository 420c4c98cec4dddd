"""A module through emergraph's own path, with what the oracle needs: labels, values, edges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from scipy import sparse
from tracedmodel import Array, Feeds, Runner, remembering
from zoomodels.spec import Built

from emergraph.exporters.counting import CountingSink
from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.pytorch.checking import compare
from emergraph.exporters.pytorch.modules import capture
from emergraph.exporters.runtime.concrete import ConcreteRun, concrete_run
from emergraph.exporters.runtime.folding import folder_of
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.sources import as_source
from emergraph.exporters.summary import GraphSummary
from emergraph.exporters.tracing import tracer
from emergraph.exporters.tracing.bodies import body_runner
from emergraph.exporters.tracing.prepare import FileParameter, traced_model
from emergraph.exporters.tracing.tracer import trace
from emergraph.graphstore.arrays import FloatArray, IntArray
from emergraph.graphstore.records import (
    Block,
    EdgeKind,
    Kernels,
    Layer,
    MatrixKernels,
    Place,
    UnitColumns,
)


@dataclass(frozen=True)
class Edges:
    """The edges of one block."""

    block: Block
    src: NDArray[np.int32]
    dst: NDArray[np.int32]


class KeepingSink(CountingSink):
    """Counts, and keeps which unit leads to which."""

    def __init__(self) -> None:
        super().__init__()
        self.edges: list[Edges] = []
        self.columns: Sequence[UnitColumns] = ()

    @property
    def n_units(self) -> int:
        """Units of all layers."""
        return sum(layer.n_units for layer in self.layers)

    def write_matrix(
        self,
        block: Block,
        src_units: IntArray,
        dst_units: IntArray,
        weights: FloatArray,
        kernels: MatrixKernels | None = None,
        place: Place | None = None,
    ) -> int:
        """Keep the entries that are edges."""
        i, j = np.nonzero(weights if kernels is None else kernels.n_params)
        src, dst = np.asarray(src_units)[i], np.asarray(dst_units)[j]
        self.edges.append(Edges(block, src.astype(np.int32), dst.astype(np.int32)))
        return super().write_matrix(block, src_units, dst_units, weights, kernels, place)

    def write_edges(
        self,
        block: Block,
        src: IntArray,
        dst: IntArray,
        weight: FloatArray | None = None,
        kernels: Kernels | None = None,
    ) -> int:
        """Keep the edges."""
        self.edges.append(Edges(block, np.asarray(src, np.int32), np.asarray(dst, np.int32)))
        return super().write_edges(block, src, dst, weight, kernels)

    def write_units(self, columns: Sequence[UnitColumns]) -> None:
        """Keep the columns."""
        self.columns = list(columns)
        super().write_units(columns)

    def activation(self, layer: int) -> str | None:
        """The nonlinearity of a layer."""
        return self.columns[layer].activation

    def steps(self, kinds: Sequence[EdgeKind]) -> sparse.csr_matrix:
        """(units, units): 1 where an edge of these kinds is."""
        chosen = [edges for edges in self.edges if edges.block.kind in kinds]
        none = np.zeros(0, np.int32)
        src = np.concatenate([none, *(edges.src for edges in chosen)])
        dst = np.concatenate([none, *(edges.dst for edges in chosen)])
        ones = np.ones(src.size, np.float32)
        return sparse.csr_matrix((ones, (src, dst)), shape=(self.n_units, self.n_units))


@dataclass
class ZooTrace:
    """A traced module."""

    model: onnx.ModelProto
    """Flat; every tensor is an output."""
    feeds: Feeds
    values: dict[str, Array]
    labels: dict[str, NDArray[np.int64]]
    sink: KeepingSink
    summary: GraphSummary
    outputs_of_layers: dict[int, int] = field(default_factory=dict)
    """By layer: outputs of its weight, as the tracer counted them."""
    roots_of_layers: dict[int, Sequence[str]] = field(default_factory=dict)
    """By layer: the parameters that its weight and bias are made of."""
    unused: tuple[str, ...] = ()
    """Parameters of the module that its export leaves out."""

    def layer_of(self, unit: int) -> Layer:
        """The layer that a unit is in."""
        firsts = [layer.first_unit for layer in self.sink.layers]
        k = int(np.searchsorted(firsts, unit, side="right")) - 1
        while not self.sink.layers[k].n_units:
            k -= 1
        return self.sink.layers[k]

    def named(self, unit: int) -> str:
        """A unit as a reader finds it."""
        if unit >= self.sink.n_units:
            return "an element that carries no unit"
        layer = self.layer_of(unit)
        return f"{layer.name}[{unit - layer.first_unit}]"


def traced_module(built: Built, folder: Path) -> ZooTrace:
    """Export a module, check that the export computes what the module does, and trace it."""
    path = folder / "model.onnx"
    captured = capture(built.module, built.args, path, kwargs=built.kwargs)
    file = read_onnx(path)
    with ModelProcess(RunLimits()) as process:
        compare(as_source(file), captured.feeds, captured.expected, captured.label, process)
    return replace(traced_file(file, captured.feeds, used=captured.used), unused=captured.unused)


def traced_file(
    file: OnnxFile,
    inputs: Mapping[str, Array] | None = None,
    *,
    used: frozenset[str] | None = None,
) -> ZooTrace:
    """Trace a file on some inputs, or on those that an export runs it on."""
    source, limits = as_source(file), RunLimits()
    run = concrete_run(source, inputs=inputs or {}, limits=limits)

    def parameter(proto: onnx.TensorProto) -> FileParameter:
        lazy = file.tensor_of(proto)
        return FileParameter(lazy.shape, lazy.dtype, lazy.array)

    sink, labels, contexts = KeepingSink(), {}, []
    bodies = body_runner(run.flat, source, limits=limits, seed=0)
    with (
        folder_of(run.flat, source, limits) as folded,
        mock.patch.object(tracer, "TraceContext", remembering(labels, contexts)),
    ):
        model = traced_model(run, parameter, folder=folded, run_body=bodies, parameters=used)
        summary = trace(model, sink)
    feeds = {value.name: np.asarray(run.inputs[value.name]) for value in run.flat.inputs}
    initializers = {name: source.array(proto) for name, proto in run.flat.initializers.items()}
    flat = _runnable(run, initializers, feeds)
    values = {**feeds, **Runner(flat).run(feeds)}
    for name, found in labels.items():
        if name in values and values[name].shape != found.shape:
            raise AssertionError(f"{name} has shape {values[name].shape}, its labels {found.shape}")
    drafts = contexts[0].builder.layers
    return ZooTrace(
        flat,
        feeds,
        values,
        labels,
        sink,
        summary,
        {draft.id: draft.n_outputs for draft in drafts if draft.n_outputs is not None},
        {draft.id: draft.roots for draft in drafts},
    )


def _runnable(
    run: ConcreteRun, initializers: Mapping[str, Array], feeds: Mapping[str, Array]
) -> onnx.ModelProto:
    """A model of the run's operations in which everything that is a tensor is an output."""
    made = [output for node in run.flat.nodes for output in node.output if output]
    graph = helper.make_graph(
        [onnx.NodeProto.FromString(node.SerializeToString()) for node in run.flat.nodes],
        "flat",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in feeds.items()
        ],
        [
            onnx.ValueInfoProto(name=name)
            for name in made
            if name in run.values and run.values[name].shape is not None
        ],
        [numpy_helper.from_array(np.asarray(array, order="C"), name) for name, array in initializers.items()],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in run.flat.opsets.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=run.flat.ir_version)
