"""What pruning removed, for the edge form of path-count emergence."""

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.paths.reversepass import Sweep
from emergraph.analysis.paths.states import plan
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.errors import UsageError

Floats = NDArray[np.float64]


def removed_in_degree(
    graph: UnitGraph, reference: UnitGraph | None = None, *, options: EmergenceOptions | None = None
) -> Floats:
    """Edges into each unit that the reference has and the graph has not: what pruning removed.

    Args:
        graph: The pruned graph.
        reference: The graph before pruning, with the same units; None: every block that was written as a
            matrix, full.
        options: Conventions (`kinds`, `paths`).

    Returns:
        (n_units,) counts, weighted by parameters with `paths=weights`.

    Raises:
        UsageError: The reference has other units, or fewer edges into some unit, or `paths=weights` is asked
            of full matrices, whose kernels are not known.
    """
    options = options or EmergenceOptions()
    sweep = plan(graph, options)
    now = _in_degree(graph, sweep)
    if reference is None:
        if sweep.multiplicity and any(block.has_kernels for block in sweep.blocks):
            raise UsageError(
                "Removed parameters of kernels need the graph before pruning: give a reference graph"
            )
        before = np.zeros(graph.n_units)
        missing = [b for b in sweep.blocks if b.src_units is None or b.dst_units is None]
        before += _in_degree(graph, Sweep(blocks=tuple(missing)))
        for block in sweep.blocks:
            if block.src_units is not None and block.dst_units is not None:
                before[block.dst_units] += len(block.src_units)
    else:
        if reference.n_units != graph.n_units:
            raise UsageError(
                f"The reference has {reference.n_units} units, the graph {graph.n_units}: expected the same"
            )
        before = _in_degree(reference, plan(reference, options))
    removed = before - now
    if np.any(removed < 0):
        unit = int(np.argmin(removed))
        raise UsageError(
            f"Unit {unit} has {now[unit]:.0f} incoming edges but {before[unit]:.0f} in the reference: "
            "the reference must be the graph before pruning"
        )
    return removed


def _in_degree(graph: UnitGraph, sweep: Sweep) -> Floats:
    degree = np.zeros(graph.n_units)
    streamed = []
    for block in sweep.blocks:
        if (
            block.dense
            and block.dst_units is not None
            and block.src_units is not None
            and not sweep.multiplicity
        ):
            degree[block.dst_units] += len(block.src_units)
        elif block.n_edges:
            streamed.append(block)
    columns = ("dst", "n_params") if sweep.multiplicity else ("dst",)
    for block, edges in graph.iter_pieces(streamed, columns=columns):
        layer = graph.layer_of(block.layer)
        weights = edges["n_params"] if sweep.multiplicity else None
        degree[layer.units] += np.bincount(
            edges["dst"] - layer.first_unit, weights=weights, minlength=layer.n_units
        )
    return degree
