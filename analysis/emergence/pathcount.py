"""Path-count emergence of a unit graph under one activity."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.activity.contribution import contribution_scores
from emergraph.analysis.activity.options import ActivityRule
from emergraph.analysis.activity.scores import Activity
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.emergence.exact import exact_sums, small
from emergraph.analysis.emergence.printed import printed_count
from emergraph.analysis.emergence.result import EmergenceResult, Magnitude, PathCount
from emergraph.analysis.paths.grouping import group_equal_units
from emergraph.analysis.paths.options import EmergenceOptions, Interior
from emergraph.analysis.paths.reversepass import LayerSums, RowStates, Sweep, reverse_pass
from emergraph.analysis.paths.scaled import Scaled
from emergraph.analysis.paths.states import UnitClasses, classify, edges_followed, edges_left_out, plan
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.errors import UsageError

Floats = NDArray[np.float64]


def path_count_emergence(
    graph: UnitGraph,
    activity: Activity | NDArray[np.bool_],
    *,
    options: EmergenceOptions | None = None,
    removed: Floats | None = None,
) -> EmergenceResult:
    """Count the paths from inactive to active units, for both interiors in one pass over the edges.

    Interior "active" (arXiv 2409.01568, eq. 9): `p(v) = 1 + sum over active successors w of p(w)`,
    `E = sum over inactive x of the p of x's active successors`. Interior "any": paths may run through any
    unit. Structural units are transparent, see `EmergenceOptions`.

    Args:
        graph: The graph; edges are streamed once (once per time step when unrolled, and again for exact
            counts).
        activity: From `activity(...)`, or (n_units,) bool.
        options: Conventions; default: those of `EmergenceOptions`.
        removed: (n_units,) number of edges into each unit that pruning removed, from
            `removed_in_degree`; adds the edge form, the sum over removed edges u -> v of the paths that start
            at v.

    Returns:
        Counts with logarithms, shares by layer, relative variants and everything that was left out.

    Raises:
        UsageError: The activity is per sample (use `bootstrap_emergence`).
        InvalidInputError: The activity does not fit the graph.

    Example:
        >>> from emergraph.analysis.layerednets import dense_net
        >>> net = dense_net([3, 2, 2])
        >>> result = path_count_emergence(net, np.array([1, 0, 0, 1, 0, 1, 1], dtype=bool))
        >>> result.active.exact, result.any.exact
        (8, 12)
    """
    options = options or EmergenceOptions()
    if not isinstance(activity, Activity):
        activity = Activity.given(activity)
    if activity.active.ndim != 1:
        raise UsageError("The activity is per sample: use bootstrap_emergence, or choose another rule")
    classes = classify(graph, activity.known, options)
    active = classes.active(activity.active)
    sweep = plan(graph, options, in_degree=removed)
    counted = _count(graph, active, classes, sweep, options)
    n_cases = counted.sums.starts.value.shape[1] // len(options.interiors)
    counts = tuple(
        _path_count(graph, counted, interior, slice(at * n_cases, (at + 1) * n_cases), options)
        for at, interior in enumerate(options.interiors)
    )
    printed = printed_count(graph, active, classes, options)
    return EmergenceResult(
        graph=graph.name,
        counts=counts,
        printed=None if isinstance(printed, str) else printed,
        not_printed=printed if isinstance(printed, str) else None,
        layers=_layer_frame(graph, active, classes, counted, options),
        flows=_flow_frame(graph, counted, options) if options.by_end_layer else None,
        activity=activity.text,
        threshold=activity.threshold,
        options=options,
        n_units=graph.n_units,
        n_active=int(active.sum()),
        n_inactive=int((~active & ~classes.transparent).sum()),
        n_structural=int(classes.structural.sum()),
        n_left_out=int(classes.left_out.sum()),
        n_unmeasured=int(classes.unmeasured.sum()),
        n_params=options.dense_params or graph.n_params,
        n_nonzero=graph.n_nonzero,
        n_nonfinite=graph.n_nonfinite,
        edges_followed=edges_followed(graph, options),
        edges_left_out=edges_left_out(graph, options),
    )


@dataclass(frozen=True, kw_only=True)
class _Counted:
    sums: LayerSums
    exact: list[list[int]] | None
    """(n_layers, K)."""
    end_layers: NDArray[np.int64] | None


def _count(
    graph: UnitGraph, active: NDArray[np.bool_], classes: UnitClasses, sweep: Sweep, options: EmergenceOptions
) -> _Counted:
    end_layers = None
    cases = active[:, None]
    if options.by_end_layer:
        end_layers = np.unique(graph.unit_layer[active]).astype(np.int64)
        cases = np.repeat(cases, max(1, len(end_layers)), axis=1)
        end_layers = end_layers if len(end_layers) else None
    grouped = None
    if sweep.in_degree is None and sweep.steps == 1:
        grouped = group_equal_units(graph, sweep.blocks, multiplicity=sweep.multiplicity)
    rows = graph
    states = RowStates(active=cases, transparent=classes.transparent, end_layers=end_layers)
    if grouped is not None:
        rows = grouped.graph
        sweep = Sweep(blocks=rows.blocks, interiors=sweep.interiors)
        states = RowStates(
            active=np.repeat(grouped.count(active)[:, None], cases.shape[1], axis=1),
            transparent=grouped.count(classes.transparent),
            size=grouped.size,
            end_layers=end_layers,
        )
    sums = reverse_pass(rows, states, sweep)
    exact = exact_sums(rows, states, sweep, sums) if options.exact or small(sums.starts) else None
    return _Counted(sums=sums, exact=exact, end_layers=end_layers)


def _path_count(
    graph: UnitGraph, counted: _Counted, interior: Interior, columns: slice, options: EmergenceOptions
) -> PathCount:
    emergence = Magnitude.of(counted.sums.starts[:, columns].sum(axis=1).sum(axis=0))
    exact = None if counted.exact is None else sum(sum(row[columns]) for row in counted.exact)
    edge_form = counted.sums.edge_form
    dense = options.dense_params or graph.n_params
    now = graph.n_nonzero
    return PathCount(
        interior=interior,
        emergence=emergence,
        exact=exact,
        edge_form=None if edge_form is None else Magnitude.of(edge_form[:, columns].sum(axis=1).sum(axis=0)),
        per_param=emergence.over(now) if now else None,
        per_dense_param=emergence.over(dense) if dense else None,
        per_density=emergence.over(now / dense) if now and dense else None,
    )


def _layer_frame(
    graph: UnitGraph,
    active: NDArray[np.bool_],
    classes: UnitClasses,
    counted: _Counted,
    options: EmergenceOptions,
) -> pl.DataFrame:
    n_layers = len(graph.layers)
    n_active = np.bincount(graph.unit_layer[active], minlength=n_layers)
    n_clear = np.bincount(graph.unit_layer[classes.transparent], minlength=n_layers)
    sizes = np.array([layer.n_units for layer in graph.layers], dtype=np.int64)
    frame = pl.DataFrame(
        {
            "layer": [layer.id for layer in graph.layers],
            "name": [layer.name for layer in graph.layers],
            "kind": [str(layer.kind) for layer in graph.layers],
            "n_units": sizes,
            "n_active": n_active,
            "n_inactive": sizes - n_active - n_clear,
            "n_transparent": n_clear,
        },
        schema_overrides={"layer": pl.Int64, "name": pl.String, "kind": pl.String},
    )
    n_cases = counted.sums.starts.value.shape[1] // len(options.interiors)
    for at, interior in enumerate(options.interiors):
        by_layer = counted.sums.starts[:, at * n_cases : (at + 1) * n_cases].sum(axis=1)
        logs, shares = _shares(by_layer)
        frame = frame.with_columns(
            pl.Series(f"log10_start_{interior}", logs), pl.Series(f"start_{interior}", shares)
        )
    return frame


def _shares(parts: Scaled) -> tuple[pl.Series, pl.Series]:
    """Logarithms and shares of the total; null for log of zero, and for shares of nothing."""
    logs = parts.log10()
    total = float(parts.sum(axis=0).log10())
    with np.errstate(invalid="ignore", over="ignore"):
        shares = 10.0 ** (logs - total)
    logs_or_null = pl.Series(logs, dtype=pl.Float64)
    return (
        logs_or_null.set(logs_or_null.is_infinite(), None),
        pl.Series(shares, dtype=pl.Float64).fill_nan(None),
    )


def _flow_frame(graph: UnitGraph, counted: _Counted, options: EmergenceOptions) -> pl.DataFrame:
    schema = {
        "interior": pl.String,
        "start_layer": pl.Int64,
        "end_layer": pl.Int64,
        "log10": pl.Float64,
        "share": pl.Float64,
    }
    ids = np.array([layer.id for layer in graph.layers], dtype=np.int64)
    frames = [pl.DataFrame(schema=schema)]
    if counted.end_layers is not None:
        n_cases = len(counted.end_layers)
        for at, interior in enumerate(options.interiors):
            part = counted.sums.starts[:, at * n_cases : (at + 1) * n_cases]
            start, end = np.nonzero(part.value)
            logs, shares = _shares(part[start, end])
            frames.append(
                pl.DataFrame(
                    {
                        "interior": [interior.value] * len(start),
                        "start_layer": ids[start],
                        "end_layer": ids[counted.end_layers[end]],
                        "log10": logs,
                        "share": shares,
                    },
                    schema=schema,
                )
            )
    return pl.concat(frames)


BESIDE_EDGES = 20_000_000
"""Edges beyond which no second count is made unasked: its scores read all weights, twice."""


def with_scale_free(
    result: EmergenceResult, graph: UnitGraph, rule: ActivityRule, trace: UnitTrace
) -> EmergenceResult:
    """The result with the counts under rule contribution beside it, whatever scale its own rule depends on.

    Args:
        result: Counts under another rule.
        graph: The same graph.
        rule: The rule of the result.
        trace: Activations of its units.

    Returns:
        The result as it is under rule contribution, and on graphs of more than `BESIDE_EDGES` edges.
    """
    if rule is ActivityRule.CONTRIBUTION or graph.n_edges > BESIDE_EDGES:
        return result
    options = replace(result.options, exact=False, by_end_layer=False)
    other = path_count_emergence(graph, contribution_scores(graph, trace).above(), options=options)
    return replace(result, scale_free=other.counts)
