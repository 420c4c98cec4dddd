"""Effective complexity: how far a layer is from a linear map of its input, on the samples of a trace."""

import math
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.unitgraph import UnitBlock, UnitGraph
from emergraph.errors import UsageError
from emergraph.graphstore.records import PATH_KINDS

Floats = NDArray[np.float64]

MINIMUM_SAMPLES = 10


def effective_complexity(
    graph: UnitGraph, trace: UnitTrace, *, n_folds: int = 5, seed: int = 0
) -> pl.DataFrame:
    """Share of each layer's output variance that the best linear map of its input does not explain.

    Ridge regression from the activations of a layer's direct sources to its own, over trace samples. The
    penalty is chosen within each training part by leave-one-out error; the share is `sum of squared errors /
    sum of squares about the training mean` on the held-out parts, over all units of the layer.
    0: linear; 1: no better than the mean.

    Args:
        graph: The graph.
        trace: Activations with at least 10 kept samples.
        n_folds: Parts, at least 2; each is held out once.
        seed: Seed of the partition.

    Returns:
        One row per layer that has sources: layer, name, n_inputs, n_outputs, n_samples, unexplained (null
        where sources or units are not measured or do not vary; above 1 where the map fails on held-out
        samples), and status.

    Raises:
        UsageError: Too few samples or folds.
    """
    samples = trace.kept("effective complexity").astype(np.float64)
    if len(samples) < MINIMUM_SAMPLES or not 2 <= n_folds <= len(samples) // 2:
        raise UsageError(
            f"Effective complexity needs at least {MINIMUM_SAMPLES} samples and 2 to n/2 folds, "
            f"got {len(samples)} samples and {n_folds} folds"
        )
    measured = np.asarray(~np.isnan(samples).any(axis=0))
    fold = np.random.default_rng(seed).permutation(len(samples)) % n_folds
    rows = []
    for layer_id, sources in _sources_by_layer(graph).items():
        layer = graph.layer_of(layer_id)
        outputs = np.arange(layer.first_unit, layer.first_unit + layer.n_units)
        outputs = outputs[measured[outputs]]
        row: dict[str, Any] = {
            "layer": layer.id,
            "name": layer.name,
            "n_inputs": len(sources),
            "n_outputs": len(outputs),
            "n_samples": len(samples),
            "unexplained": None,
            "status": "ok",
        }
        if not len(outputs):
            row["status"] = "units not measured"
        elif not measured[sources].all():
            row["status"] = "sources not measured"
        else:
            row["unexplained"] = held_out_share(samples[:, sources], samples[:, outputs], fold)
            if row["unexplained"] is None:
                row["status"] = "units do not vary"
        rows.append(row)
    schema = {"layer": pl.Int64, "name": pl.String, "n_inputs": pl.Int64, "n_outputs": pl.Int64}
    return pl.DataFrame(
        rows, schema=schema | {"n_samples": pl.Int64, "unexplained": pl.Float64, "status": pl.String}
    )


def _sources_by_layer(graph: UnitGraph) -> dict[int, NDArray[np.int64]]:
    """Direct sources of each layer over the kinds that paths follow, by layer id in order."""
    blocks = [block for block in graph.blocks if block.kind in PATH_KINDS and block.n_edges]
    is_source: dict[int, NDArray[np.bool_]] = {}
    streamed: list[UnitBlock] = []
    for block in blocks:
        seen = is_source.setdefault(block.layer, np.zeros(graph.n_units, dtype=bool))
        if block.dense and block.src_units is not None:
            seen[block.src_units] = True
        else:
            streamed.append(block)
    for block, edges in graph.iter_edges(streamed, columns=("src",)):
        is_source[block.layer][edges["src"]] = True
    return {layer: np.flatnonzero(is_source[layer]) for layer in sorted(is_source)}


def held_out_share(inputs: Floats, outputs: Floats, fold: NDArray[np.int64]) -> float | None:
    """Held-out unexplained share of variance of outputs given inputs; None when the outputs do not vary.

    Args:
        inputs: (n, p).
        outputs: (n, q).
        fold: (n,) part of each sample.
    """
    error = total = 0.0
    for part in np.unique(fold):
        train, held = fold != part, fold == part
        center_in, center_out = inputs[train].mean(axis=0), outputs[train].mean(axis=0)
        target = outputs[held] - center_out
        predicted = _ridge(inputs[train] - center_in, outputs[train] - center_out, inputs[held] - center_in)
        error += float(((target - predicted) ** 2).sum())
        total += float((target**2).sum())
    scale = float((outputs**2).sum())
    return error / total if total > 1e-20 * max(scale, 1e-300) else None


def _ridge(inputs: Floats, outputs: Floats, held: Floats) -> Floats:
    """Predictions on held-out inputs with the penalty of least leave-one-out error."""
    u, s, vt = np.linalg.svd(inputs, full_matrices=False)
    keep = s > s.max(initial=0.0) * max(inputs.shape) * np.finfo(float).eps
    u, s, vt = u[:, keep], s[keep], vt[keep]
    if not len(s):
        return np.zeros((len(held), outputs.shape[1]))
    projected = u.T @ outputs
    best, choice = math.inf, s
    for penalty in float((s**2).mean()) * 10.0 ** np.arange(-10.0, 4.0):
        shrink = s**2 / (s**2 + penalty)
        # Leave-one-out residual: residual / (1 - leverage), the mean's share of the leverage included.
        leverage = (u**2) @ shrink + 1 / len(inputs)
        left = (outputs - u @ (shrink[:, None] * projected)) / np.maximum(1 - leverage, 1e-12)[:, None]
        loss = float((left**2).sum())
        if loss < best:
            best, choice = loss, shrink / s
    return np.asarray(held @ vt.T @ (choice[:, None] * projected))
