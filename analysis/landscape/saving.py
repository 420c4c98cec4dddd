"""A survey as rows of a store: result tables that SQL can join with layers, strengths and emergence."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import igraph
import numpy as np
import polars as pl

from emergraph.analysis.landscape.analysis import (
    CURVES,
    LANDSCAPE,
    LAYERS,
    LON,
    MASK_GROUPS,
    MASKS,
    MERGE_TREES,
    OPTIMA,
    POINTS,
    STATISTICS,
)
from emergraph.analysis.landscape.extras import Extras
from emergraph.analysis.landscape.hypercube import (
    attractors,
    exact_autocorrelation,
    hypercube_lon,
    main_effects,
    pair_effects,
)
from emergraph.analysis.landscape.lon import compressed, compressed_membership, monotonic, sinks
from emergraph.analysis.landscape.modelsurvey import ModelSurvey
from emergraph.analysis.landscape.options import ModelOptions
from emergraph.analysis.landscape.surveyresult import Masks, Plane, Survey
from emergraph.analysis.modelruns.samples import IN_MEMORY, kept_name
from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.statistics.estimate import Estimate
from emergraph.errors import UsageError
from emergraph.graphstore.store import StoreFile, open_store
from emergraph.options import text_of

# Local-optima networks of a survey as rows: full, monotonic and compressed.


@dataclass(frozen=True)
class Network:
    """One form of one network."""

    network: str
    """masks or descents."""
    form: str
    """full, monotonic or compressed."""
    graph: igraph.Graph
    """Vertex attribute loss, edge attribute weight."""
    part_of: list[int]
    """Node of the compressed form, per node."""


def survey_networks(survey: Survey) -> list[Network]:
    """Return all forms of the networks that a survey holds."""
    found: list[Network] = []
    if survey.masks is not None:
        found += network_forms("masks", hypercube_lon(survey.masks.losses), precision=survey.noise_floor)
    optima = survey.extras.optima
    if optima is not None:
        found += network_forms("descents", optima.sampled.graph, precision=optima.precision)
    return found


def network_forms(name: str, lon: igraph.Graph, *, precision: float) -> list[Network]:
    """Return a network with its monotonic and compressed forms.

    Args:
        name: Of the network.
        lon: From `lon.build_lon`.
        precision: Losses at most this far apart are equal.

    Example:
        >>> from emergraph.analysis.landscape.lon import build_lon
        >>> forms = network_forms("masks", build_lon([1.0, 0.0], [0], [1]), precision=0.0)
        >>> [(form.form, form.graph.vcount()) for form in forms]
        [('full', 2), ('monotonic', 2), ('compressed', 2)]
    """
    downhill = monotonic(lon, precision=precision)
    parts = compressed_membership(downhill, precision=precision)
    small = compressed(downhill, precision=precision)
    return [
        Network(name, "full", lon, parts),
        Network(name, "monotonic", downhill, parts),
        Network(name, "compressed", small, list(range(small.vcount()))),
    ]


def node_rows(network: Network) -> Iterator[dict[str, object]]:
    """Yield the rows of `landscape_optima`."""
    graph = network.graph
    weights = "weight" if graph.ecount() else None
    inward = graph.strength(mode="in", weights=weights)
    outward = graph.strength(mode="out", weights=weights)
    bottom = set(sinks(graph).tolist())
    squeezed = network.form == "compressed"
    for vertex in graph.vs:
        known = {} if squeezed else vertex.attributes()
        yield {
            "network": network.network,
            "form": network.form,
            "node": vertex.index,
            "loss": vertex["loss"],
            "state": known.get("state"),
            "basin": known.get("basin"),
            "optima": vertex["optima"] if squeezed else 1,
            "part_of": network.part_of[vertex.index],
            "sink": vertex.index in bottom,
            "in_strength": float(inward[vertex.index]),
            "out_strength": float(outward[vertex.index]),
        }


def edge_rows(network: Network) -> Iterator[dict[str, object]]:
    """Yield the rows of `landscape_lon`."""
    for edge in network.graph.es:
        yield {
            "network": network.network,
            "form": network.form,
            "source": edge.source,
            "target": edge.target,
            "weight": edge["weight"],
        }


# The curves behind a survey's statistics, point by point.

CurvePoint = tuple[str, int, float, float | None]
"""Curve, number, x, y."""


def curve_points(survey: Survey) -> Iterator[CurvePoint]:
    """Yield all points of all curves of a survey; y is None where it is not defined."""
    yield from _numbered("rho", survey.autocorrelation.rho, first=0)
    if survey.masks is not None:
        masks = survey.masks
        exact = exact_autocorrelation(masks.losses, max_lag=2 * masks.summary.m)
        yield from _numbered("mask_rho", exact, first=0)
        yield from _numbered("mask_spectrum", masks.summary.spectrum, first=1)
    if survey.extras.trajectory is not None:
        yield from _numbered("run_residual", survey.extras.trajectory.pca.residual, first=0)
    curvature = survey.extras.curvature
    if curvature is not None:
        yield from _numbered("hessian_largest", curvature.extremes.largest, first=1)
        yield from _numbered("hessian_smallest", curvature.extremes.smallest, first=1)
        yield from _numbered("hessian_residual", curvature.extremes.residuals, first=1)
        density = curvature.density
        for probe, (nodes, weights) in enumerate(zip(density.nodes, density.weights, strict=True)):
            for node, weight in zip(nodes, weights, strict=True):
                yield "hessian_density", probe, float(node), float(weight)


def _numbered(curve: str, values: Iterable[float], *, first: int) -> Iterator[CurvePoint]:
    for x, y in enumerate(values, start=first):
        yield curve, 0, float(x), finite_or_none(float(y))


def statistics_frame(survey: Survey) -> pl.DataFrame:
    """Return the rows of `landscape`."""
    rows = [
        {
            "statistic": name,
            "mean": finite_or_none(e.mean),
            "low": finite_or_none(e.low),
            "high": finite_or_none(e.high),
            "sd": finite_or_none(e.sd),
            "n": e.n,
            "n_undefined": e.n_undefined,
            "level": e.level,
            "null_value": finite_or_none(e.null),
            "loss": survey.loss_name,
        }
        for name, e in survey.estimates().items()
    ]
    return pl.DataFrame(rows, schema=STATISTICS.schema)


def layers_frame(survey: Survey, layer_ids: Mapping[str, int] | None = None) -> pl.DataFrame:
    """Return the rows of `landscape_layers`.

    Args:
        survey: The survey.
        layer_ids: `layers.id` by the name of the tensor or of the operation that uses it.
    """
    known = layer_ids or {}
    rows = [
        {
            "tensor": layer.tensor,
            "operation": layer.layer,
            "n_params": layer.n_params,
            "layer": known.get(layer.tensor, known.get(layer.layer or "")),
            **_fields(layer.rise, rise="mean", low="low", high="high", n="n"),
            **_fields(layer.rho_1, rho_1="mean"),
            **_fields(
                layer.excess, excess_ruggedness="mean", excess_low="low", excess_high="high", n_walks="n"
            ),
        }
        for layer in survey.layers
    ]
    return pl.DataFrame(rows, schema=LAYERS.schema)


def _fields(estimate: Estimate | None, **names: str) -> dict[str, float | None]:
    """Fields of an estimate under the names of columns; NULL where there is no estimate."""
    return {
        column: None if estimate is None else finite_or_none(getattr(estimate, field))
        for column, field in names.items()
    }


def points_frame(survey: Survey) -> pl.DataFrame:
    """Return the rows of `landscape_points`."""
    frames = [
        _points("slice", i, survey.positions, None, losses) for i, losses in enumerate(survey.slice_losses)
    ]
    for i, plane in enumerate(survey.planes):
        x, y = np.meshgrid(*_axes(plane, survey.options.radius), indexing="ij")
        frames.append(_points("plane", i, x.ravel(), y.ravel(), plane.losses.ravel()))
    for i, losses in enumerate(survey.walk_losses):
        frames.append(_points("walk", i, np.arange(losses.size, dtype=np.float64), None, losses))
    return pl.concat([*frames, *_extra_points(survey.extras)])


def _extra_points(extras: Extras) -> list[pl.DataFrame]:
    frames = []
    if extras.line is not None:
        frames.append(_points("line", 0, extras.line.positions, None, extras.line.losses))
    if extras.curvature is not None and extras.curvature.plane is not None:
        axis = extras.curvature.positions
        frames.append(_grid("hessian_plane", axis, axis, extras.curvature.plane))
    if extras.trajectory is not None:
        run = extras.trajectory
        for i, (point, loss) in enumerate(zip(run.pca.coordinates, run.path_losses, strict=True)):
            frames.append(_points("run", i, point[:1], point[1:2], np.array([loss])))
        frames.append(_grid("run_plane", run.rows, run.columns, run.losses))
    return frames


def _grid(kind: str, rows: np.ndarray, columns: np.ndarray, losses: np.ndarray) -> pl.DataFrame:
    x, y = np.meshgrid(rows, columns, indexing="ij")
    return _points(kind, 0, x.ravel(), y.ravel(), losses.ravel())


def _points(kind: str, number: int, x: np.ndarray, y: np.ndarray | None, losses: np.ndarray) -> pl.DataFrame:
    data = {
        "kind": [kind] * losses.size,
        "number": [number] * losses.size,
        "x": x,
        "y": y if y is not None else [None] * losses.size,
        "loss": np.where(np.isfinite(losses), losses, np.nan),
    }
    return pl.DataFrame(data, schema=POINTS.schema).with_columns(pl.col("loss").fill_nan(None))


def _axes(plane: Plane, radius: float) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = plane.losses.shape
    return np.linspace(-radius, radius, rows), np.linspace(-radius, radius, columns)


def trees_frame(survey: Survey) -> pl.DataFrame:
    """Return the rows of `landscape_trees`."""
    frames = []
    for number, plane in enumerate(survey.planes):
        tree, (rows, columns) = plane.tree, _axes(plane, survey.options.radius)
        cells = np.concatenate([tree.minima, tree.saddles])
        n_minima, n_saddles = tree.n_minima, len(tree.saddles)
        data = {
            "plane": [number] * cells.size,
            "node": np.arange(cells.size),
            "kind": ["minimum"] * n_minima + ["saddle"] * n_saddles,
            "x": rows[cells // tree.shape[1]],
            "y": columns[cells % tree.shape[1]],
            "loss": np.concatenate([tree.minimum_values, tree.saddle_values]),
            "parent": [int(p) if p >= 0 else None for p in tree.parent],
            "persistence": [finite_or_none(float(p)) for p in tree.persistence] + [None] * n_saddles,
            "basin_cells": [*tree.basin_cells().tolist(), *([0] * n_saddles)],
        }
        frames.append(pl.DataFrame(data, schema=MERGE_TREES.schema))
    return pl.concat(frames) if frames else pl.DataFrame(schema=MERGE_TREES.schema)


def mask_frames(masks: Masks) -> dict[str, pl.DataFrame]:
    """Return the rows of the mask tables by table name."""
    states = np.arange(masks.losses.size)
    table = {
        "state": states,
        "n_removed": np.bitwise_count(states.astype(np.uint64)).astype(np.int64),
        "loss": masks.losses,
        "attractor": attractors(masks.losses),
    }
    effects = pair_effects(masks.losses) + np.diag(main_effects(masks.losses))
    pairs = [(a, b) for a in range(len(masks.groups)) for b in range(a, len(masks.groups))]
    groups = [
        {
            "group_a": a,
            "group_b": b,
            "name_a": masks.groups[a],
            "name_b": masks.groups[b],
            "effect": float(effects[a, b]),
        }
        for a, b in pairs
    ]
    return {
        MASKS.name: pl.DataFrame(table, schema=MASKS.schema),
        MASK_GROUPS.name: pl.DataFrame(groups, schema=MASK_GROUPS.schema),
    }


def survey_frames(survey: Survey, layer_ids: Mapping[str, int] | None = None) -> dict[str, pl.DataFrame]:
    """Return all rows of a survey by result table; `layer_ids` as for `layers_frame`."""
    frames = {
        STATISTICS.name: statistics_frame(survey),
        LAYERS.name: layers_frame(survey, layer_ids),
        POINTS.name: points_frame(survey),
        MERGE_TREES.name: trees_frame(survey),
        CURVES.name: pl.DataFrame(list(curve_points(survey)), schema=CURVES.schema, orient="row"),
    }
    networks = survey_networks(survey)
    if networks:
        frames[OPTIMA.name] = pl.DataFrame(
            [row for network in networks for row in node_rows(network)], schema=OPTIMA.schema
        )
        frames[LON.name] = pl.DataFrame(
            [row for network in networks for row in edge_rows(network)], schema=LON.schema
        )
    return frames | (mask_frames(survey.masks) if survey.masks is not None else {})


def save_survey(
    store: StoreFile, survey: Survey, *, graph: int | None, duration: float | None = None, **about: object
) -> int:
    """Write a survey to a store; return the id of the run.

    Args:
        store: Open for writing.
        survey: The survey.
        graph: Id of the model's graph in the store; None when it is not there.
        duration: Seconds that it took.
        about: Parameters of the run beside the options, such as the model's name and checksum.
    """
    return store.record_run(
        graph,
        LANDSCAPE.name,
        {**survey.options.kept(), "notes": list(survey.notes), **about},
        seed=survey.options.seed,
        duration=duration,
        result_tables=survey_frames(survey, {} if graph is None else tensor_layers(store, graph)),
    )


def tensor_layers(store: StoreFile, graph: int) -> dict[str, int]:
    """Return the layer that each tensor, and each operation, of a stored graph leads into: its first use."""
    blocks = store.graph(graph).blocks().select("tensor", "name", "layer")
    found: dict[str, int] = {}
    for tensor, operation, layer in blocks.iter_rows():
        for name in (tensor, operation):
            if name is not None:
                found.setdefault(str(name), int(layer))
    return found


def save_model_survey(
    path: str | Path, result: ModelSurvey, *, graph: str | int | None = None, any_name: bool = False
) -> int:
    """Write the survey of a model to a store, beside the model's graph if it is there.

    Args:
        path: The store; made when missing.
        result: The survey.
        graph: The model's graph in the store; by default the newest one of the same file.
        any_name: Let a new store have a name that does not end in .duckdb or .db.

    Returns:
        Id of the run.

    Raises:
        UsageError: The store has no such graph, or it has none of the tensors that were perturbed.
    """
    with open_store(path, mode="create", any_name=any_name) as store:
        return save_survey(
            store,
            result.survey,
            graph=_graph_of(store, result, graph),
            duration=result.seconds,
            **{
                **_kept(result.how),
                "model": result.source,
                "sha256": result.sha256,
                "samples": result.samples,
                "probes_seed": result.probes_seed,
                "variant": result.variant,
            },
        )


def _kept(how: ModelOptions) -> dict[str, Any]:
    """What a run keeps of how a model was evaluated; its options are those that are left after any cut."""
    kept: dict[str, Any] = {**how.kept(), "budget": None, **how.source}
    if how.parallelism is not None:
        kept |= {"backend": str(how.parallelism.backend), "jobs": how.parallelism.n_jobs}
    if not how.source:
        kept |= {"inputs": IN_MEMORY if how.inputs else None, "target": kept_name(how.targets)}
        kept["input_shape"] = [f"{name}={text_of(shape)}" for name, shape in how.input_shapes.items()]
    return kept


def _graph_of(store: StoreFile, result: ModelSurvey, wanted: str | int | None) -> int | None:
    """The graph that the results belong to; None when the store has none."""
    if wanted is None and result.sha256 is not None:
        return store.find_graph(result.sha256)
    if wanted is None:
        return _graph_of_module(store, result)
    graph = store.graph(wanted).id
    moved = [layer.tensor for layer in result.survey.layers]
    if moved and not tensor_layers(store, graph).keys() & set(moved):
        raise UsageError(
            f"graph {wanted}: has none of the {len(moved)} tensors that were perturbed, such as {moved[0]}; "
            "expected the graph of the same model"
        )
    return graph


def has_graph(path: str | Path, run: int) -> bool:
    """Return whether a run of a store belongs to a graph."""
    with open_store(path) as store:
        return bool(store.runs().filter(pl.col("id") == run)["graph"].is_not_null().all())


def _graph_of_module(store: StoreFile, result: ModelSurvey) -> int | None:
    """The newest graph of the same factory that has the tensors that were perturbed: there is no checksum."""
    moved = {layer.tensor for layer in result.survey.layers}
    graphs = store.graphs().filter(pl.col("source").is_in([result.source, Path(result.source).name]))
    for graph in reversed(graphs["id"].to_list()):
        if moved & tensor_layers(store, graph).keys():
            return int(graph)
    return None


def check_store(path: str | Path, graph: str | int | None = None) -> None:
    """Open a store for a moment, so that a long survey does not end in an error.

    Args:
        path: The store; it may be missing when no graph is named.
        graph: A graph that it must have.

    Raises:
        StoreError: The store is locked, foreign or damaged.
        UsageError: It has no such graph.
    """
    if graph is not None or Path(path).exists():
        with open_store(path, mode="write") as store:
            if graph is not None:
                store.graph(graph)
