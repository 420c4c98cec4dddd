"""What-ifs of a graph in a store, with its traces and tensors."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.activity.rules import activity_scores
from emergraph.analysis.activity.scores import Activity
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.edgesets.edgetable import EdgeTable, read_edge_table
from emergraph.analysis.pruning.analysis import REMEASURED
from emergraph.analysis.pruning.criteria import UnitActivations, check_criterion
from emergraph.analysis.pruning.emergencelevels import emergence_levels
from emergraph.analysis.pruning.items import TensorValues, prunable_items
from emergraph.analysis.pruning.measures import ParameterCosts
from emergraph.analysis.pruning.options import (
    NEEDS_GRADIENTS,
    ActivityChoice,
    Criterion,
    Keeping,
    PruningOptions,
    PruningUnit,
)
from emergraph.analysis.pruning.removal import Removal
from emergraph.analysis.pruning.whatif import (
    COLUMN_NOTES,
    PruningResult,
    Surroundings,
    item_scores,
    prune_graph,
)
from emergraph.analysis.storedgraph import read_unit_graph, read_unit_trace
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.errors import LimitError, UsageError
from emergraph.graphstore.frames import element_type
from emergraph.graphstore.query import QueryLimits, run_query
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.sql import compose
from emergraph.graphstore.text import first_line, printable

if TYPE_CHECKING:
    from emergraph.analysis.modelruns.files import ModelFiles
    from emergraph.analysis.pruning.gradients import ModuleData, Scorer
    from emergraph.analysis.pruning.modelruns import PrunableModel
    from emergraph.analysis.pruning.sensitivity import SensitivityResult


# What-ifs in SQL: a predicate over edges or units says what to remove.

_UNITS = """
    (SELECT u.id AS unit, l.name AS layer, l.kind AS layer_kind, l.op AS layer_op, l.depth, u.position,
            u.role, u.neuron, u.bias, u.scale, u.shift, u.activation,
            a.mean, a.mean_abs, a.rms, a.std, a.min, a.max, a.share_positive
     FROM units AS u
     JOIN layers AS l ON l.graph = u.graph AND l.id = u.layer
     LEFT JOIN activations AS a ON a.unit = u.id AND a.trace = {trace}
     WHERE u.graph = {graph})
"""
_EDGES = """
    (SELECT e.block, e.src, e.dst, e.weight, e.l1, e.l2, e.max_abs, e.n_params, e.kind, e.tensor,
            t.name AS layer, s.name AS source_layer
     FROM edges AS e
     JOIN layers AS t ON t.graph = e.graph AND t.id = e.layer
     JOIN layers AS s ON s.graph = e.graph AND s.id = e.src_layer
     WHERE e.graph = {graph})
"""


def chosen_edges(
    store: Path, graph: int, predicate: str, *, trace: int | None = None, limits: QueryLimits | None = None
) -> NDArray[np.int64]:
    """The edges of a graph that a predicate picks.

    Columns are those of `edges` (with `layer` and `source_layer` the names of layers), and `source` and
    `target` with the columns of the units at both ends and of their activations: `source.mean < 0.02`.

    Args:
        store: The store; nothing may hold it open for writing.
        graph: Id of the graph.
        predicate: One expression in SQL.
        trace: Id of the trace whose statistics can be asked; NULL without one.
        limits: Time and memory.

    Returns:
        (n, 3) block, source and target of each edge.

    Raises:
        UsageError: The predicate is not one expression, or the SQL is wrong.
        LimitError: It took too long, or picks more than about 20 million edges.
    """
    checked = _expression(predicate)
    query = compose(
        "SELECT edges.block, edges.src, edges.dst FROM {edges} AS edges{ends} WHERE ({predicate}\n)",
        edges=compose(_EDGES, graph=graph),
        ends=_ends(checked, graph, trace),
        predicate=checked,
    )
    return _rows(store, query, limits, width=3)


def chosen_units(
    store: Path, graph: int, predicate: str, *, trace: int | None = None, limits: QueryLimits | None = None
) -> NDArray[np.int64]:
    """The units of a graph that a predicate picks; arguments and errors as in `chosen_edges`.

    Columns are those of `units` (with `layer` the layer's name, `layer_kind`, `layer_op`, `depth`) and of
    their activations: `mean < 0.02 AND layer = 'fc1'`.

    Returns:
        (n, 1) ids of units.
    """
    checked = _expression(predicate)
    query = compose(
        "SELECT units.unit FROM {units} AS units WHERE ({predicate}\n)",
        units=compose(_UNITS, graph=graph, trace=_number(trace)),
        predicate=checked,
    )
    return _rows(store, query, limits, width=1)


def edge_mask(table: EdgeTable, picked: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n_edges,) whether each edge of a table is among (block, source, target) rows."""
    chosen = np.zeros(table.n_edges, dtype=bool)
    n_units = table.graph.n_units
    order = np.argsort(picked[:, 0], kind="stable")
    picked = picked[order]
    for block in table.blocks:
        start, stop = np.searchsorted(picked[:, 0], [block.block.id, block.block.id + 1])
        keys = picked[start:stop, 1] * n_units + picked[start:stop, 2]
        if len(keys):
            chosen[block.edges] = np.isin(block.src.astype(np.int64) * n_units + block.dst, keys)
    return chosen


def _ends(predicate: str, graph: int, trace: int | None) -> str:
    """Joins of the units at both ends, where the predicate mentions them."""
    units = compose(_UNITS, graph=graph, trace=_number(trace))
    lowered = predicate.lower()
    joins = [
        compose(" JOIN {units} AS {name} ON {name}.unit = edges.{end}", units=units, name=name, end=end)
        for name, end in (("source", "src"), ("target", "dst"))
        if f"{name}." in lowered
    ]
    return "".join(joins)


def _number(trace: int | None) -> int:
    return -1 if trace is None else int(trace)


def _expression(predicate: str) -> str:
    """The predicate, if it is one expression and nothing else."""
    query = compose("SELECT ({predicate}\n)", predicate=predicate)
    try:
        with duckdb.connect(":memory:") as connection:
            tree = json.loads(connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()[0][0])
    except duckdb.Error as error:
        raise UsageError(f"--where: {printable(first_line(error), limit=200)}") from error
    if tree.get("error"):
        said = str(tree.get("error_message")).splitlines()[0]
        raise UsageError(f"--where {printable(predicate, limit=100)}: {printable(said, limit=200)}")
    statements = tree.get("statements", [])
    node = statements[0].get("node", {}) if len(statements) == 1 else {}
    plain = (
        node.get("type") == "SELECT_NODE"
        and len(node.get("select_list", [])) == 1
        and (node.get("from_table") or {}).get("type") == "EMPTY"
        and node.get("where_clause") is None
        and not node.get("modifiers")
    )
    if not plain or not predicate.strip():
        raise UsageError(
            f"--where {printable(predicate, limit=100)}: expected one condition, such as "
            "\"layer = 'fc1' AND abs(weight) < 0.01\""
        )
    return predicate


def _rows(store: Path, query: str, limits: QueryLimits | None, *, width: int) -> NDArray[np.int64]:
    asked = limits or QueryLimits(rows=1 << 25)
    try:
        result = run_query(store, query, limits=asked)
    except UsageError as error:
        raise UsageError(str(error).replace("sql: ", "--where: ", 1)) from error
    if result.truncated:
        raise LimitError(f"--where picks more than {asked.rows} rows: make it narrower")
    return np.asarray(result.frame.to_numpy(), dtype=np.int64).reshape(result.frame.height, width)


def trace_id(reader: GraphReader, trace: str | int | None) -> int | None:
    """Id of a trace by name or id, or of the newest; None where none is named and there is none.

    Raises:
        UsageError: The graph has no trace of that name.
    """
    traces = reader.traces()
    if trace is None:
        return int(traces["id"][-1]) if traces.height else None
    reader.activations(trace)  # raises where there is none
    chosen = traces.filter((traces["name"] == str(trace)) | (traces["id"].cast(pl.String) == str(trace)))
    return int(chosen["id"][-1])


def trace_name(reader: GraphReader, trace: str | int | None) -> str | None:
    """Name of the same trace, as runs keep it."""
    found = trace_id(reader, trace)
    traces = reader.traces()
    return None if found is None else str(traces.filter(traces["id"] == found)["name"][0])


def pick(store: Path, graph: int, options: PruningOptions, trace: int | None) -> np.ndarray:
    """What a predicate picks: (n, 3) block, source, target, or (n, 1) units; see `predicate`.

    Args:
        store: The store; this process must not hold it open for writing.
        graph: Id of the graph.
        options: With a predicate.
        trace: Id of the trace whose statistics the predicate can ask.

    Raises:
        UsageError: The predicate is wrong, or is meant for single parameters.
    """
    if options.pruning_unit is PruningUnit.PARAMETER:
        raise UsageError(
            "a predicate picks edges or units, not single parameters: choose --unit edge or unit"
        )
    ask = chosen_units if options.pruning_unit is PruningUnit.UNIT else chosen_edges
    return ask(store, graph, options.where or "", trace=trace)


def prune_stored(
    reader: GraphReader,
    options: PruningOptions,
    *,
    activity: ActivityChoice | None = None,
    picked: np.ndarray | None = None,
    files: "ModelFiles | None" = None,
    gradients: "ModuleData | None" = None,
) -> PruningResult:
    """Prune a stored graph in thought; see `whatif.prune_graph`.

    Args:
        reader: The graph.
        options: Criterion, levels, scope and unit.
        activity: Trace and rule.
        picked: What a predicate picked, from `predicate.chosen_edges` or `chosen_units`.
        files: Model and inputs; the pruned models are run where inputs are given.
        gradients: Module and labelled samples, for snip, taylor and gate.

    Raises:
        UsageError: An option does not make sense for this graph, or a named trace is missing.
    """
    choice = activity or ActivityChoice()
    graph = read_unit_graph(reader)
    activations, active = None, None
    if choice.trace is not None or reader.traces().height:
        activations = _activations(reader, choice, graph.n_units)
        measured = read_unit_trace(reader, choice.trace)
        active = _activity(activity_scores(choice.rule, graph, trace=measured).above(choice.threshold))
    table = read_edge_table(graph)
    model = None if files is None else _model(reader, graph, files, options.pruning_unit)
    result = prune_graph(
        graph,
        options,
        surroundings=Surroundings(
            activity=active,
            activations=activations,
            tensor_values=_tensor_values(reader),
            tensor_sizes=_tensor_sizes(reader),
            costs=_costs(reader),
            scorer=_scorer(reader, options, gradients),
            left_alone=None if model is None else model.places.unknown,
            chosen=None if picked is None else _chosen(table, options, picked),
        ),
        table=table,
    )
    if model is None:
        return result
    from emergraph.analysis.pruning.modelruns import run_levels

    ran = run_levels(
        model,
        result.removals,
        remeasure=lambda removal, level, trace: _emergence_again(removal, level, trace, choice),
    )
    notes = tuple(note for note in result.notes if note != COLUMN_NOTES["flops"])
    return replace(result, frame=result.frame.with_columns(ran), notes=notes)


def _tensor_values(reader: GraphReader) -> TensorValues:
    """The parameter tensors of the graph by name; what reads them is imported when one is asked for."""

    def values(name: str) -> "NDArray[np.generic]":
        from emergraph.graphstore.restore import restore_tensor

        return restore_tensor(reader, name)

    return values


def _model(reader: GraphReader, graph: UnitGraph, files: "ModelFiles", unit: PruningUnit) -> "PrunableModel":
    from emergraph.analysis.pruning.modelruns import open_prunable

    return open_prunable(reader, graph, files, _tensor_values(reader), unit)


def _scorer(reader: GraphReader, options: PruningOptions, gradients: "ModuleData | None") -> "Scorer | None":
    if gradients is None or options.kind not in NEEDS_GRADIENTS:
        return None
    from emergraph.analysis.pruning.gradients import scorer_of

    return scorer_of(gradients, _tensor_values(reader))


def sensitivity_stored(
    reader: GraphReader,
    options: PruningOptions,
    *,
    trace: str | int | None = None,
    files: "ModelFiles | None" = None,
    gradients: "ModuleData | None" = None,
) -> "SensitivityResult":
    """Prune each layer of a stored graph alone, in thought; see `sensitivity`.

    Args:
        reader: The graph.
        options: Criterion, levels and unit.
        trace: For activation and wanda; name or id, by default the newest.
        files: Model and inputs, to run every pruned model.
        gradients: Module and labelled samples, for snip, taylor and gate.

    Raises:
        UsageError: The criterion does not rank the items of a layer, or its trace is missing.
    """
    from emergraph.analysis.pruning.sensitivity import (
        SensitivityResult,
        check_sensitivity,
        layer_sweeps,
        sensitivity_frame,
        shown_measure,
    )

    check_sensitivity(options)
    choice = ActivityChoice(trace=trace)
    graph = read_unit_graph(reader)
    activations = None
    if trace is not None or reader.traces().height:
        activations = _activations(reader, choice, graph.n_units)
    check_criterion(options.kind, options.pruning_unit, activations)
    values = _tensor_values(reader)
    model = None
    if files is not None and files.arrays is not None:
        model = _model(reader, graph, files, options.pruning_unit)
    items = prunable_items(
        read_edge_table(graph),
        options.pruning_unit,
        tensor_values=values,
        tensor_sizes=_tensor_sizes(reader),
        left_alone=None if model is None else model.places.unknown,
    )
    around = Surroundings(activations=activations, scorer=_scorer(reader, options, gradients))
    sweeps = layer_sweeps(items, options, scored=item_scores(options.kind, items, around))
    ran = None
    if model is not None:
        from emergraph.analysis.pruning.modelruns import run_levels

        removals = [sweep.removal for sweep in sweeps]
        rows = run_levels(model, removals)
        n = len(options.levels)
        ran = [rows.slice(n * k, n).drop(*REMEASURED) for k in range(len(sweeps))]
    frame = sensitivity_frame(sweeps, ran)
    measure = shown_measure(frame)
    notes = [*items.notes, f"cells are {_MEANING[measure]}"]
    return SensitivityResult(
        graph=graph.name, options=options, frame=frame, measure=measure, notes=tuple(notes)
    )


_MEANING = {
    "accuracy_lost": "the accuracy that is lost, layer by layer, all other layers whole",
    "divergence_kl": "the KL divergence of the base model's classes from the pruned one's, in nats",
    "relative_mse": "the squared error of the outputs over their squares",
    "flow_lost": "the share of the path flow (SynFlow) that is lost; with --model and --inputs, of outputs",
}


def _tensor_sizes(reader: GraphReader) -> dict[str, int]:
    return dict(reader.tensors().select("name", "n_params").iter_rows())


def _emergence_again(
    removal: Removal, level: int, trace: UnitTrace, choice: ActivityChoice
) -> dict[str, float | None]:
    """E of a masked graph with the activity of the pruned model."""
    graph = removal.items.table.graph
    active = _activity(activity_scores(choice.rule, graph, trace=trace).above(choice.threshold))
    logs = emergence_levels(removal.at(level), active).log10[:, 0]
    return dict(zip(REMEASURED, (float(10.0**log) for log in logs), strict=True))


def _activity(activity: Activity) -> Activity:
    if activity.active.ndim != 1:
        raise UsageError(
            "rule per_sample gives an activity per sample: choose mean, mean_abs, any or majority"
        )
    return activity


def _activations(reader: GraphReader, choice: ActivityChoice, n_units: int) -> UnitActivations:
    frame = reader.activations(choice.trace)
    columns = {}
    for name in ("mean_abs", "rms"):
        columns[name] = np.full(n_units, np.nan)
        columns[name][frame["unit"].to_numpy()] = frame[name].to_numpy()
    return UnitActivations(mean_abs=columns["mean_abs"], rms=columns["rms"], name=str(choice.trace or ""))


def _costs(reader: GraphReader) -> ParameterCosts:
    units = reader.units()
    per_unit = sum(
        units[name].is_not_null().to_numpy().astype(np.int64) for name in ("bias", "scale", "shift")
    )
    sizes = {}
    total = 0.0
    for name, dtype, n_params in reader.tensors().select("name", "dtype", "n_params").iter_rows():
        found = element_type(dtype)
        sizes[name] = 0.0 if found is None else float(found.itemsize)
        total += sizes[name] * n_params
    return ParameterCosts(n_per_unit=np.asarray(per_unit), bytes_total=total, bytes_of_tensor=sizes)


def _chosen(table: EdgeTable, options: PruningOptions, picked: np.ndarray) -> np.ndarray:
    if options.pruning_unit is PruningUnit.UNIT:
        chosen = np.zeros(table.graph.n_units, dtype=bool)
        chosen[picked[:, 0]] = True
        return chosen
    return edge_mask(table, picked)


def check_keeping(keeping: Keeping, options: PruningOptions, files: "ModelFiles | None") -> None:
    """Refuse to keep what cannot be made, before anything is computed.

    Raises:
        UsageError: There are several what-ifs, no model, or nothing to keep.
    """
    if not keeping.keeps:
        if keeping.smaller is not None:
            raise UsageError(
                "smaller or masked is about a model that is written: give --write or --save-graph"
            )
        return
    check_one_what_if(options)
    if files is None:
        raise UsageError("a pruned model is made from the model: give its file with --model")


def check_one_what_if(options: PruningOptions) -> None:
    """Refuse options that give more than one pruned model, where one is to be written.

    Raises:
        UsageError: There would be several.
    """
    single = options.kind in (Criterion.NM, Criterion.WHERE)
    if options.kind is Criterion.RANDOM and options.seeds > 1:
        raise UsageError(f"one model can be written, but there are {options.seeds} seeds: give one")
    if not single and len(options.levels) != 1:
        raise UsageError(
            f"one model can be written, but there are {len(options.levels)} levels: give one, such as 0.5"
        )
