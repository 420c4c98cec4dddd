"""Position-level counts of a stored graph: the model runs on the inputs of a trace."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.activity.options import ActivityRule
from emergraph.analysis.activity.rules import activity_scores
from emergraph.analysis.activity.scores import DEFAULT_THRESHOLD, rule_named
from emergraph.analysis.emergence.closedforms import layered_form
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.emergence.positionops import PASSING, WEIGHTED, Tensors, carried_back
from emergraph.analysis.emergence.remeasure import trace_row, trace_samples
from emergraph.analysis.emergence.result import EmergenceResult, Magnitude
from emergraph.analysis.modelruns.files import ModelFiles, model_of
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.paths.options import Interior
from emergraph.analysis.storedgraph import read_unit_graph, read_unit_trace
from emergraph.errors import InvalidInputError, LimitError, UsageError
from emergraph.exporters.nodes import depends_on
from emergraph.exporters.operations import ARITHMETIC, LINEAR, kind_of
from emergraph.exporters.runtime.assembly import ModelSource, assemble
from emergraph.exporters.runtime.process import EVERYTHING, ModelProcess
from emergraph.exporters.runtime.sources import as_source
from emergraph.exporters.traces.prepare import Prepared
from emergraph.graphstore.reader import GraphReader

Bools = NDArray[np.bool_]

# Path counts between all positions of a convolutional network, without unrolling its graph.

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NeuronTensor:
    """A tensor whose elements are neurons, and the one that holds their activations."""

    name: str
    activation: str
    layer: str
    """Name of the operation, or of the input."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PositionCount:
    """Path-count emergence between positions."""

    active: Magnitude
    """E with interior "active"."""
    any: Magnitude
    """E with interior "any"."""
    n_active: int
    n_inactive: int
    layers: pl.DataFrame
    """One row per neuron tensor: layer, tensor, shape, n_positions, n_active, log10_start_active and
    log10_start_any (paths that start there; null for none)."""

    def of(self, interior: Interior | str) -> Magnitude:
        """E with this interior."""
        return self.active if interior == Interior.ACTIVE else self.any

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "counts": {str(i): self.of(i).to_dict() for i in (Interior.ACTIVE, Interior.ANY)},
            "n_active": self.n_active,
            "n_inactive": self.n_inactive,
            "layers": self.layers.to_dicts(),
        }


def neuron_tensors(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[str], tensors: Tensors
) -> tuple[NeuronTensor, ...]:
    """The inputs, and what every operation with weights produces, with where activations are read.

    A neuron's activation is read after the element-wise operations that follow its own, up to the first
    nonlinearity, as long as each has one reader; scales and shifts by constants are among them.

    Args:
        nodes: The model's operations in order.
        inputs: Names of its inputs.
        tensors: Shapes and constants.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for reader, name in ((n, name) for n in nodes for name in n.input):
        readers.setdefault(name, []).append(reader)
    made = [n for n in nodes if kind_of(n) in WEIGHTED and _has_weights(n, tensors)]
    return (
        *(NeuronTensor(name, name, name) for name in inputs),
        *(NeuronTensor(n.output[0], _read_at(n.output[0], readers, tensors), n.name) for n in made),
    )


def _has_weights(node: onnx.NodeProto, tensors: Tensors) -> bool:
    return any(tensors.constant(name) is not None for name in node.input[:2])


def _read_at(name: str, readers: Mapping[str, list[onnx.NodeProto]], tensors: Tensors) -> str:
    while len(readers.get(name, [])) == 1:
        (node,) = readers[name]
        alone = sum(tensors.constant(other) is None for other in node.input if other) == 1
        same = node.output[0] and tensors.shape(node.output[0]) == tensors.shape(name)
        kind = kind_of(node)
        passes = kind in PASSING and node.input[0] == name
        if not (passes or (kind in ARITHMETIC and alone)) or not same:
            return name
        name = node.output[0]
        if kind in PASSING - LINEAR:
            return name
    return name


def position_count(
    nodes: Sequence[onnx.NodeProto],
    neurons: Sequence[NeuronTensor],
    active: Mapping[str, Bools],
    tensors: Tensors,
) -> PositionCount:
    """Count the paths from inactive to active positions, for both interiors.

    With T(v) the sum over what v leads to: `p(v) = h(v) (1 + T(v))`, `E = sum (1 - h) T` for interior
    "active"; `q(v) = h(v) + T(v)` for "any"; other elements hand T on. Exact below 2**53.

    Args:
        nodes: The model's operations, each after what it reads.
        neurons: From `neuron_tensors`.
        active: By the name of the neuron tensor, like it in shape, the axis of samples included with size 1.
        tensors: Shapes and constants.

    Raises:
        UsageError: Positions cannot be followed through an operation.
        LimitError: Counts are beyond float64.
    """
    counting = _Counting({neuron.name for neuron in neurons}, active, tensors)
    for node in reversed(nodes):
        for output, name in enumerate(node.output):
            if name and counting.reached(name):
                counting.carry_back(node, output)
    for neuron in neurons:
        counting.end(neuron.name)
    return _result(neurons, active, counting.starts)


class _Counting:
    """Sums at every tensor of what its elements lead to, and the paths that start at each neuron tensor."""

    def __init__(self, neurons: Collection[str], active: Mapping[str, Bools], tensors: Tensors) -> None:
        self._neurons, self._active, self._tensors = neurons, active, tensors
        self._onward: dict[str, list[Floats]] = {}
        self.starts: dict[str, list[float]] = {}

    def reached(self, name: str) -> bool:
        """Whether paths can start at a tensor or lead on from it."""
        return name in self._onward or name in self._neurons

    def carry_back(self, node: onnx.NodeProto, output: int) -> None:
        """Hand what an output of a node leads to on to the node's inputs."""
        name = node.output[output]
        sums = self.end(name) if name in self._neurons else self._onward.pop(name)
        backs = [carried_back(node, part, self._tensors, output) for part in sums]
        for source in backs[0]:
            if self._tensors.constant(source) is None:
                parts = [back[source] for back in backs]
                before = self._onward.get(source)
                self._onward[source] = (
                    parts if before is None else [a + b for a, b in zip(before, parts, strict=True)]
                )

    def end(self, name: str) -> list[Floats]:
        """Let paths start and end at a neuron tensor, once; return what arrives at its targets."""
        if name in self.starts:
            return []
        h = self._active[name].astype(np.float64)
        zero = np.zeros(self._tensors.shape(name))
        sums = self._onward.pop(name, [zero, zero])
        if h.shape != zero.shape:
            raise UsageError(f"activity of '{name}' has shape {list(h.shape)}, expected {list(zero.shape)}")
        self.starts[name] = [float(np.sum((1 - h) * part)) for part in sums]
        return [h * (1 + sums[0]), h + sums[1]]


def _result(
    neurons: Sequence[NeuronTensor], active: Mapping[str, Bools], starts: Mapping[str, list[float]]
) -> PositionCount:
    totals = [math.fsum(start[i] for start in starts.values()) for i in range(2)]
    if not all(map(math.isfinite, totals)):
        raise LimitError("the counts between positions are beyond 1.8e308; count channels instead")
    rows = [
        {
            "layer": neuron.layer,
            "tensor": neuron.activation,
            "shape": list(active[neuron.name].shape),
            "n_positions": active[neuron.name].size,
            "n_active": int(active[neuron.name].sum()),
            "log10_start_active": _log10(starts[neuron.name][0]),
            "log10_start_any": _log10(starts[neuron.name][1]),
        }
        for neuron in neurons
    ]
    n_active = sum(int(h.sum()) for h in active.values())
    return PositionCount(
        active=_magnitude(totals[0]),
        any=_magnitude(totals[1]),
        n_active=n_active,
        n_inactive=sum(h.size for h in active.values()) - n_active,
        layers=pl.DataFrame(rows),
    )


def _log10(value: float) -> float | None:
    return math.log10(value) if value > 0 else None


def _magnitude(value: float) -> Magnitude:
    return Magnitude(value=value, log10=math.log10(value) if value > 0 else -math.inf)


Array = NDArray[np.generic]

POSITION_RULES = (ActivityRule.MEAN, ActivityRule.MEAN_ABS, ActivityRule.ANY, ActivityRule.MAJORITY)


@dataclass(frozen=True, kw_only=True, eq=False)
class PositionReport(ShownInNotebooks):
    """E between positions, beside E between channels and the form that the paper prints."""

    positions: PositionCount
    channels: EmergenceResult
    """The count on the stored graph: a channel is one unit, its activity the mean over positions."""
    filters: int | None
    """`sum over i < j of (n_i - a_i) a_j prod m_k` on channels, m_k filters in layer k (arXiv 2409.01568);
    None where layers of neurons do not form one chain."""
    rule: ActivityRule
    threshold: float
    n_samples: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "positions": self.positions.to_dict(),
            "channels": self.channels.to_dict(),
            "filters": self.filters,
            "rule": self.rule.value,
            "threshold": self.threshold,
            "n_samples": self.n_samples,
        }


def position_report(
    reader: GraphReader,
    files: ModelFiles,
    *,
    rule: ActivityRule | str = ActivityRule.MEAN,
    threshold: float | None = None,
    trace: str | int | None = None,
) -> PositionReport:
    """Count paths between positions; activity is that of each position over the samples of a trace.

    Args:
        reader: The graph.
        files: Its model, and the inputs of the trace; a trace of random inputs needs none.
        rule: mean, mean_abs, any or majority.
        threshold: Default 0.05.
        trace: Name or id; default: the newest.

    Raises:
        InvalidInputError: The file is not the graph's model.
        UsageError: Positions cannot be followed through the model, or the rule needs more than activations.
        LimitError: Counts are beyond float64.
    """
    rule = rule_named(rule)
    if rule not in POSITION_RULES:
        raise UsageError(f"positions are active by {', '.join(POSITION_RULES)}, not by rule '{rule}'")
    limit = DEFAULT_THRESHOLD if threshold is None else threshold
    file = model_of(reader, files.model, root=files.root)
    prepared = trace_samples(file, files, trace_row(reader, trace))
    if prepared.fixed is not None:
        raise UsageError(f"positions need runs of one sample, but the model takes {prepared.fixed} at once")
    source = as_source(file)
    tensors = _tensors(prepared, source)
    flat = prepared.run.flat
    names = _followed_inputs(prepared)
    neurons = neuron_tensors(flat.nodes, names, tensors)
    with ModelProcess(files.limits) as process:
        active = _activity(process, prepared, source, neurons, rule, limit)
    counted = position_count(flat.nodes, neurons, active, tensors)
    graph = read_unit_graph(reader)
    scores = activity_scores(rule, graph, trace=read_unit_trace(reader, trace))
    channels = path_count_emergence(graph, scores.above(limit))
    return PositionReport(
        positions=counted,
        channels=channels,
        filters=_filters(channels),
        rule=rule,
        threshold=limit,
        n_samples=prepared.samples.n,
    )


def _followed_inputs(prepared: Prepared) -> list[str]:
    """Inputs of real numbers; whole numbers (lengths, rates, ids) decide, and have no positions."""
    inputs = prepared.run.inputs
    return [i.name for i in prepared.run.flat.inputs if inputs[i.name].dtype.kind == "f"]


def _tensors(prepared: Prepared, source: ModelSource) -> Tensors:
    flat, values = prepared.run.flat, prepared.run.values
    held = {name: source.array(proto) for name, proto in flat.initializers.items()}
    dependent = depends_on(flat.nodes, _followed_inputs(prepared), shapes=False)

    def shape(name: str) -> tuple[int, ...]:
        if name in held:
            return held[name].shape
        found = values[name].shape if name in values else None
        if found is None:
            raise UsageError(f"'{name}' is not a tensor with a shape: positions need arrays of numbers")
        return found

    def constant(name: str) -> Array | None:
        if name in held:
            return held[name]
        return None if name in dependent or name not in values else values[name].value

    return Tensors(shape=shape, constant=constant, opset=flat.opsets.get("", 21))


def _activity(
    process: ModelProcess,
    prepared: Prepared,
    source: ModelSource,
    neurons: Sequence[NeuronTensor],
    rule: ActivityRule,
    threshold: float,
) -> dict[str, Bools]:
    """Which positions are active, by the name of the neuron tensor; one sample at a time in memory."""
    flat = prepared.run.flat
    given = {value.name for value in flat.inputs}
    fetched = [n.activation for n in neurons if n.activation not in given]
    process.load(assemble(flat, list(dict.fromkeys(fetched)), source), many_runs=True)
    totals: dict[str, NDArray[np.float64]] = {}
    n = prepared.samples.n
    for sample in range(n):
        feeds = prepared.samples.feeds([sample])
        found = process.run(feeds, list(dict.fromkeys(fetched)), small=EVERYTHING)
        for neuron in neurons:
            tensor = feeds.get(neuron.activation)
            values = found[neuron.activation].values if tensor is None else tensor
            if values is None or values.dtype.kind not in "fiu":
                raise InvalidInputError(f"'{neuron.activation}' holds no numbers: it cannot be an activation")
            one = _summand(np.asarray(values, dtype=np.float64), rule, threshold)
            before = totals.get(neuron.name)
            totals[neuron.name] = one if before is None else before + one
    share = {ActivityRule.MAJORITY: 0.5 * n, ActivityRule.ANY: 0.0}.get(rule, threshold * n)
    return {name: np.asarray(total > share) for name, total in totals.items()}


def _summand(values: NDArray[np.float64], rule: ActivityRule, threshold: float) -> NDArray[np.float64]:
    if rule is ActivityRule.MEAN:
        return values
    if rule is ActivityRule.MEAN_ABS:
        return np.abs(values)
    return np.asarray(values > threshold, dtype=np.float64)


def _filters(channels: EmergenceResult) -> int | None:
    """The paper's form on the channels of a chain of layers."""
    rows = channels.layers.filter(channels.layers["n_active"] + channels.layers["n_inactive"] > 0)
    sizes = (rows["n_active"] + rows["n_inactive"]).to_list()
    if sum(sizes) + channels.n_structural + channels.n_left_out != channels.n_units or channels.n_structural:
        return None
    return layered_form(sizes, rows["n_active"].to_list(), filters=sizes)


def by_form(report: PositionReport) -> list[Mapping[str, object]]:
    """One row per form and interior: form, interior, emergence, log10, n_active, n_units."""
    rows: list[Mapping[str, object]] = []
    for interior in ("active", "any"):
        for form, counted in (("positions", report.positions), ("channels", report.channels)):
            size = (
                counted.of(interior)
                if isinstance(counted, PositionCount)
                else counted.count(interior).emergence
            )
            rows.append(
                {
                    "form": form,
                    "interior": interior,
                    "emergence": size.value,
                    "log10": size.to_dict()["log10"],
                    "n_active": counted.n_active,
                    "n_units": counted.n_active + counted.n_inactive,
                }
            )
    if report.filters is not None:
        channels = report.channels
        rows.append(
            {
                "form": "filters, as printed",
                "interior": "-",
                "emergence": float(report.filters),
                "log10": float(np.log10(float(report.filters))) if report.filters else None,
                "n_active": channels.n_active,
                "n_units": channels.n_active + channels.n_inactive,
            }
        )
    return rows
