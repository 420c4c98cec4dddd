"""The count that arXiv 2409.01568 prints for layered networks: products of layer sizes, whatever is masked.

`sum over i < j of (n_i - a_i) a_j prod over i < k < j of n_k`, the dense closed form of interior "any". It
equals the graph's `any` where every unit of a layer is connected to every unit of the next, and only there:
pruning does not enter it except through activity.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.emergence.closedforms import layered_form
from emergraph.analysis.emergence.result import Magnitude, PrintedCount
from emergraph.analysis.paths.options import EmergenceOptions, Interior, PathUnit
from emergraph.analysis.paths.states import UnitClasses, followed_blocks
from emergraph.analysis.unitgraph import UnitBlock, UnitGraph


@dataclass(frozen=True, eq=False)
class LayerChain:
    """Layers of which each leads to the next and to no other, from the first to the last."""

    units: tuple[NDArray[np.int64], ...]
    """Units of each layer."""

    def count(self, active: NDArray[np.bool_]) -> int:
        """The printed count for (n_units,) activity."""
        return self.count_sizes([int(active[units].sum()) for units in self.units])

    def count_sizes(self, active: Sequence[int]) -> int:
        """The printed count for numbers of active units, layer by layer."""
        return layered_form([len(units) for units in self.units], active, interior=Interior.ANY)


def layer_chain(graph: UnitGraph, classes: UnitClasses, options: EmergenceOptions) -> LayerChain | str:
    """The chain of a graph's layers; the reason where it has no printed count.

    Layers whose units are all left out (`layers=hidden`) are not part of it.
    """
    if options.paths is not PathUnit.UNITS or options.unroll > 1:
        return "it is defined for paths between units, without unrolling"
    kept = [
        position
        for position, layer in enumerate(graph.layers)
        if layer.n_units and not classes.left_out[layer.units].all()
    ]
    if any(classes.transparent[graph.layers[position].units].any() for position in kept):
        return "some units are transparent"
    follows: dict[int, set[int]] = {}
    for block in followed_blocks(graph, options):
        target = graph.layer_position(block.layer)
        for source in _sources(graph, block):
            if source in kept and target in kept:
                follows.setdefault(source, set()).add(target)
    starts = set(kept) - {target for targets in follows.values() for target in targets}
    order = [min(starts, default=-1)]
    while len(following := follows.get(order[-1], set())) == 1 and len(order) <= len(kept):
        order.append(next(iter(following)))
    if len(starts) != 1 or sorted(order) != kept or len(follows) != len(kept) - 1:
        return "the layers are not a chain"
    return LayerChain(
        tuple(np.arange(graph.layers[place].units.start, graph.layers[place].units.stop) for place in order)
    )


def printed_count(
    graph: UnitGraph, active: NDArray[np.bool_], classes: UnitClasses, options: EmergenceOptions
) -> PrintedCount | str:
    """The printed count with its relative forms; the reason where there is none.

    Args:
        graph: The graph.
        active: (n_units,) activity, conventions applied.
        classes: What the units are to the count.
        options: Conventions.
    """
    chain = layer_chain(graph, classes, options)
    if isinstance(chain, str):
        return chain
    exact = chain.count(active)
    size = magnitude(exact)
    dense, now = options.dense_params or graph.n_params, graph.n_nonzero
    return PrintedCount(
        emergence=size,
        exact=exact,
        per_param=size.over(now) if now else None,
        per_dense_param=size.over(dense) if dense else None,
        per_density=size.over(now / dense) if now and dense else None,
    )


def magnitude(count: int) -> Magnitude:
    """An integer of any size.

    Example:
        >>> magnitude(1000).log10, magnitude(10**400).value
        (3.0, inf)
    """
    if count == 0:
        return Magnitude(value=0.0, log10=-math.inf)
    if count > 2**53:
        return Magnitude.of_log10(math.log10(count))
    return Magnitude(value=float(count), log10=math.log10(count))


def _sources(graph: UnitGraph, block: UnitBlock) -> list[int]:
    """Positions of the layers that a block leads from."""
    if block.src_units is not None:
        return [int(one) for one in np.unique(graph.unit_layer[block.src_units])]
    if not block.n_edges:
        return []
    (_, columns), *_ = graph.iter_edges([block], columns=("src",))
    return [int(one) for one in np.unique(graph.unit_layer[columns["src"]])]
