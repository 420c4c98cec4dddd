"""Degrees and strengths of units, and how much strengths fluctuate within a layer (arXiv 2110.02628)."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.topology.weightededges import Floats, chosen_blocks
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.graphstore.records import PATH_KINDS, EdgeKind


def unit_strengths(
    graph: UnitGraph, *, kinds: Sequence[EdgeKind | str] = PATH_KINDS, bias: Floats | None = None
) -> pl.DataFrame:
    """Sum weights into and out of every unit, in one pass over the edges.

    Args:
        graph: The unit graph.
        kinds: Kinds of edges; those without a parameter count in degrees only.
        bias: (n_units,) biases, NaN for none.

    Returns:
        One row per unit: unit, in_degree, out_degree, in_strength, out_strength (signed sums), in_abs,
        out_abs (sums of absolute values), strength (in + out), strength_abs (in_abs + out_abs),
        strength_with_bias.

    Example:
        >>> from emergraph.analysis.layerednets import layered_net
        >>> net = layered_net([np.array([[1.0, 3.0], [-2.0, 0.0]]), np.array([[2.0], [-1.0]])])
        >>> unit_strengths(net)["strength"].to_list()
        [4.0, -2.0, 1.0, 2.0, 1.0]
    """
    n = graph.n_units
    sums = {name: np.zeros(n) for name in ("in_strength", "out_strength", "in_abs", "out_abs")}
    degrees = {name: np.zeros(n, dtype=np.int64) for name in ("in_degree", "out_degree")}
    for _, columns in graph.iter_edges(chosen_blocks(graph, kinds), columns=("src", "dst", "weight")):
        weight = np.nan_to_num(
            np.asarray(columns["weight"], dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0
        )
        for side, units in (("out", columns["src"]), ("in", columns["dst"])):
            degrees[f"{side}_degree"] += np.bincount(units, minlength=n)
            sums[f"{side}_strength"] += np.bincount(units, weights=weight, minlength=n)
            sums[f"{side}_abs"] += np.bincount(units, weights=np.abs(weight), minlength=n)
    total = sums["in_strength"] + sums["out_strength"]
    with_bias = total + (0.0 if bias is None else np.nan_to_num(bias))
    totals = {"strength": total, "strength_abs": sums["in_abs"] + sums["out_abs"]}
    return pl.DataFrame({"unit": np.arange(n), **degrees, **sums, **totals, "strength_with_bias": with_bias})


def layer_fluctuation(graph: UnitGraph, strength: NDArray[np.floating]) -> Floats:
    """(n_layers,) standard deviation (ddof 0) of the units' strengths within each layer.

    Args:
        graph: The unit graph.
        strength: (n_units,).

    Example:
        >>> from emergraph.analysis.layerednets import layered_net
        >>> net = layered_net([np.array([[1.0, 3.0], [-2.0, 0.0]]), np.array([[2.0], [-1.0]])])
        >>> layer_fluctuation(net, np.array([4.0, -2.0, 1.0, 2.0, 1.0])).tolist()
        [3.0, 0.5, 0.0]
    """
    parts = [strength[layer.units] for layer in graph.layers]
    return np.array([part.std() if len(part) else np.nan for part in parts])
