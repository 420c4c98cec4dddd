"""Groups of units that are equal in every edge: nets of dense blocks counted without their units.

Units of one layer that belong to the same dense blocks, as sources and as targets, have the same successors
and the same predecessors. A path count then needs only how many units of each group are active, so a sweep
over thresholds costs one sort of the activities, whatever the width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.paths.reversepass import closed
from emergraph.analysis.unitgraph import ArrayEdges, UnitBlock, UnitGraph, matrix_units
from emergraph.graphstore.arrays import IntArray


@dataclass(frozen=True, kw_only=True)
class Grouped:
    """A graph whose rows are groups of units; layers keep their ids."""

    graph: UnitGraph
    group: IntArray
    """(n_units,) group of each unit of the original graph."""
    size: IntArray
    """(n_groups,) units per group."""

    def count(self, members: NDArray[np.bool_]) -> IntArray:
        """How many units of each group are members, (n_units,) or (n_units, C) with groups for units."""
        if members.ndim == 1:
            return np.bincount(self.group[members], minlength=len(self.size))
        counts = [np.bincount(self.group[column], minlength=len(self.size)) for column in members.T]
        return np.stack(counts, axis=1) if counts else np.zeros((len(self.size), 0), dtype=np.int64)

    def count_above(self, values: NDArray[np.floating], thresholds: NDArray[np.float64]) -> IntArray:
        """How many units of each group have a value above each threshold (increasing); NaN is above none.

        Returns:
            (n_groups, n_thresholds).
        """
        n = len(thresholds)
        known = ~np.isnan(values)
        # A value above the first k thresholds falls into bin k; bins from k+1 on are above threshold k.
        bins = np.searchsorted(thresholds, values[known], side="left")
        cells = np.bincount(self.group[known] * (n + 1) + bins, minlength=len(self.size) * (n + 1))
        cells = cells.reshape(len(self.size), n + 1)
        return np.cumsum(cells[:, ::-1], axis=1)[:, ::-1][:, 1:]


def group_equal_units(graph: UnitGraph, blocks: Sequence[UnitBlock], *, multiplicity: bool) -> Grouped | None:
    """Group the units of a graph, or None when some block is not dense.

    Args:
        graph: Any graph.
        blocks: The blocks that paths follow.
        multiplicity: Whether edges count their parameters, which makes kernels differ.
    """
    if not all(closed(block, multiplicity=multiplicity) for block in blocks if block.n_edges):
        return None
    used = [block for block in blocks if block.n_edges]
    group = graph.unit_layer.astype(np.int64)
    n_groups = len(graph.layers)
    for block in used:
        for units in matrix_units(block):
            group, n_groups = _split(graph, group, n_groups, units)
    return _as_graph(graph, used, group, n_groups)


def _split(graph: UnitGraph, group: IntArray, n_groups: int, units: IntArray) -> tuple[IntArray, int]:
    """Separate members of `units` from the rest of their groups."""
    if _whole_layers(graph, units):
        return group, n_groups
    touched, inverse = np.unique(group[units], return_inverse=True)
    group[units] = n_groups + inverse
    return group, n_groups + len(touched)


def _whole_layers(graph: UnitGraph, units: IntArray) -> bool:
    layer = graph.layers[graph.unit_layer[units[0]]]
    return len(units) == layer.n_units and bool(np.all(graph.unit_layer[units] == graph.unit_layer[units[0]]))


def _as_graph(graph: UnitGraph, blocks: Sequence[UnitBlock], group: IntArray, n_groups: int) -> Grouped:
    size = np.bincount(group, minlength=n_groups)
    layer_of = np.zeros(n_groups, dtype=np.int64)
    layer_of[group] = graph.unit_layer
    # Splitting can leave a group without members.
    order = np.lexsort((np.arange(n_groups), layer_of, size == 0))[: np.count_nonzero(size)]
    number = np.zeros(n_groups, dtype=np.int64)
    number[order] = np.arange(len(order))
    group, layer_of, size = number[group], layer_of[order], size[order]
    per_layer = np.bincount(layer_of, minlength=len(graph.layers))
    firsts = np.cumsum(per_layer) - per_layer
    layers = tuple(
        replace(layer, first_unit=int(first), n_units=int(n))
        for layer, first, n in zip(graph.layers, firsts, per_layer, strict=True)
    )
    grouped_blocks = []
    for block in blocks:
        sources, targets = (np.flatnonzero(np.bincount(group[units])) for units in matrix_units(block))
        # A target group stands for all its members: the pass sums g over a group before blocks see it.
        grouped_blocks.append(
            replace(block, src_units=sources, dst_units=targets, n_edges=len(sources) * len(targets))
        )
    rows = UnitGraph(
        layers=layers,
        blocks=tuple(grouped_blocks),
        unit_layer=layer_of.astype(np.int32),
        neuron=np.ones(len(size), dtype=bool),
        role=np.zeros(len(size), dtype=np.uint8),
        n_params=graph.n_params,
        n_nonzero=graph.n_nonzero,
        edges=ArrayEdges(),
        name=graph.name,
    )
    return Grouped(graph=rows, group=group, size=size)
