"""Position-level counts of a stored graph: the model runs on the inputs of a trace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.activity.options import ActivityRule
from emergraph.analysis.activity.rules import activity_scores
from emergraph.analysis.activity.scores import DEFAULT_THRESHOLD, rule_named
from emergraph.analysis.emergence.closedforms import layered_form
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.emergence.positionops import Tensors
from emergraph.analysis.emergence.positions import NeuronTensor, PositionCount, neuron_tensors, position_count
from emergraph.analysis.emergence.remeasure import trace_row, trace_samples
from emergraph.analysis.emergence.result import EmergenceResult
from emergraph.analysis.modelruns.files import ModelFiles, model_of
from emergraph.analysis.storedgraph import read_unit_graph, read_unit_trace
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.nodes import depends_on
from emergraph.exporters.runtime.assembly import ModelSource, assemble
from emergraph.exporters.runtime.process import EVERYTHING, ModelProcess
from emergraph.exporters.runtime.sources import as_source
from emergraph.exporters.traces.prepare import Prepared
from emergraph.graphstore.reader import GraphReader

Array = NDArray[np.generic]
Bools = NDArray[np.bool_]

POSITION_RULES = (ActivityRule.MEAN, ActivityRule.MEAN_ABS, ActivityRule.ANY, ActivityRule.MAJORITY)


@dataclass(frozen=True, kw_only=True, eq=False)
class PositionReport:
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
