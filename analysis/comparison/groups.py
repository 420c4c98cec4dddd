"""Which units of a graph could be numbered otherwise, and which of them only together.

Units that an operation joins one by one (a residual sum, the gates of a cell, a product) are renumbered
together, a head of attention and a group of a normalisation whole. What is renumbered together is an orbit;
orbits with units in the same places are a group, and any order of a group's orbits gives the same network.
Inputs and outputs keep their order.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emergraph.analysis.comparison.weights import Weight
from emergraph.graphstore.blockinfo import BlockInfo
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.records import EdgeKind

Ints = NDArray[np.int64]
FIXED = ""
"""Name of what keeps its order."""
_CARRYING = frozenset({EdgeKind.WEIGHT, EdgeKind.RECURRENT})


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """Places on an axis of a matrix whose units are of one group."""

    group: str
    places: Ints
    """(orbits, units of each on this axis) in the order in which the units are stored."""


Axis = tuple[Segment, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups:
    """The groups of a graph, as they lie on the axes of its weight tensors."""

    axes: Mapping[str, tuple[Axis, Axis]]
    """By tensor: its rows (targets) and its columns (sources)."""
    sizes: Mapping[str, int]
    """Orbits of each group."""
    wiring: str
    """traced: all joints are known; declared: inputs and outputs are; else neither."""

    @property
    def wired(self) -> bool:
        """Whether it is known which units are inputs and outputs."""
        return self.wiring in ("traced", "declared")


def fixed_axis(size: int) -> Axis:
    """Return an axis none of whose units is renumbered."""
    return (Segment(group=FIXED, places=np.arange(size)[:, None]),)


def groups_of(reader: GraphReader, weights: Sequence[Weight]) -> Groups:
    """Return which units of a graph may be renumbered.

    Args:
        reader: The graph.
        weights: Its weight tensors.
    """
    nothing = Groups(axes={}, sizes={}, wiring=str(reader.summary["wiring"]))
    if not nothing.wired:
        return nothing
    units = reader.units().sort("id")
    n = units.height
    ends = (units["role"] != "hidden").to_numpy()
    graph = _Places(reader, weights)
    src, dst = graph.ties()
    orbit = connected_components(coo_array((np.ones(src.size), (src, dst)), shape=(n, n)), directed=False)[1]
    group, number = _grouped(orbit.astype(np.int64), graph.kinds(), ends)
    sizes = {one: int(number[group == one].max()) + 1 for one in np.unique(group).tolist()}
    axes = {}
    for weight in weights:
        rows, columns = graph.sides(weight.block) if weight.block is not None else (None, None)
        if rows is not None:
            own = fixed_axis(1) if columns is None else _axis(group[columns], number[columns], sizes)
            axes[weight.name] = (_axis(group[rows], number[rows], sizes), own)
    named = {f"g{one}": n_orbits for one, n_orbits in sizes.items() if one >= 0}
    return Groups(axes=axes, sizes=named, wiring=nothing.wiring)


class _Places:
    """Where the blocks of a graph lie, and what they tie together."""

    def __init__(self, reader: GraphReader, weights: Sequence[Weight]) -> None:
        self._reader = reader
        self._blocks = reader.blocks_info()
        self._by_id = {block.id: block for block in self._blocks}
        self._shapes = {weight.name: weight.shape for weight in weights}
        rows = reader.layers().select("id", "first_unit", "n_units").iter_rows()
        self._layers = {layer: np.arange(first, first + n) for layer, first, n in rows}
        self._layer_of = reader.units().sort("id")["layer"].to_numpy().astype(np.int64)

    def sides(self, block: BlockInfo) -> tuple[Ints | None, Ints | None]:
        """Units of the rows and of the columns of a block's matrix, (targets, sources).

        No columns: each group of targets has sources of its own, in a depthwise or a grouped convolution.
        Neither: they are not known.
        """
        if block.src_units is not None and block.dst_units is not None:
            return block.dst_units, block.src_units
        shape = self._shapes.get(block.tensor or "")
        if shape is None or block.src_layer is None:
            return None, None
        targets, sources = self._layers[block.layer], self._layers[block.src_layer]
        if targets.size not in shape:
            return None, None
        return targets, (sources if sorted(shape[:2]) == sorted((targets.size, sources.size)) else None)

    def ties(self) -> tuple[Ints, Ints]:
        """Pairs of units that are renumbered together."""
        pairs = [part for block in self._blocks for part in self._ties_of(block)]
        src, dst = ([part[side] for part in pairs] for side in (0, 1))
        nothing = [np.zeros(0, dtype=np.int64)]
        return np.concatenate(src or nothing), np.concatenate(dst or nothing)

    def _ties_of(self, block: BlockInfo) -> Iterator[tuple[Ints, Ints]]:
        if block.shared_with is not None:  # one tensor, used at several places
            for ours, theirs in zip(
                self.sides(block), self.sides(self._by_id[block.shared_with]), strict=True
            ):
                if ours is not None and theirs is not None and ours.size == theirs.size:
                    yield ours, theirs
        if not block.n_edges or (block.kind in _CARRYING and self.sides(block)[1] is not None):
            return
        edges = self._reader.block_edges(block, columns=("src", "dst"))
        src, dst = edges["src"].astype(np.int64), edges["dst"].astype(np.int64)
        if block.kind not in (EdgeKind.ATTENTION, EdgeKind.OPAQUE):
            keep = ~(self._reaches_all(src, dst) | self._reaches_all(dst, src))
            src, dst = src[keep], dst[keep]
        yield src, dst

    def _reaches_all(self, ends: Ints, others: Ints) -> NDArray[np.bool_]:
        """Of each edge, whether its end is joined with all units of the other layer, in any order."""
        keys, inverse, counts = np.unique(
            np.stack([ends, self._layer_of[others]]), axis=1, return_inverse=True, return_counts=True
        )
        sizes = np.array([self._layers[int(layer)].size for layer in keys[1]], dtype=np.int64)
        return np.asarray(((counts == sizes) & (sizes > 1))[inverse.ravel()])

    def kinds(self) -> Ints:
        """A number for the layer of each unit and the blocks of weights that only a part of it has."""
        kinds = self._layer_of.copy()
        for block in self._blocks:
            for units in self.sides(block) if block.kind in _CARRYING else ():
                for layer in () if units is None else np.unique(self._layer_of[units]):
                    own = units[self._layer_of[units] == layer] if units is not None else np.zeros(0, int)
                    if np.unique(own).size < self._layers[int(layer)].size:
                        mark = np.zeros_like(kinds)
                        mark[own] = 1
                        kinds = np.unique(np.stack([kinds, mark]), axis=1, return_inverse=True)[1].ravel()
        return kinds


def _grouped(orbit: Ints, kinds: Ints, ends: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """For each unit the number of its group, and of its orbit in the group.

    Groups of inputs and outputs, which keep their order, have numbers below -1; -1 is alone.
    """
    by_orbit = np.lexsort((kinds, orbit))
    starts = np.flatnonzero(np.diff(orbit[by_orbit], prepend=-1))
    found: defaultdict[tuple[bool, bytes], list[Ints]] = defaultdict(list)
    for one in np.split(by_orbit, starts[1:]):
        found[bool(ends[one].any()), kinds[one].tobytes()].append(one)
    group, number = np.full(orbit.size, -1), np.zeros(orbit.size, dtype=np.int64)
    for keeps in (False, True):
        several = [same for (fixed, _), same in found.items() if fixed == keeps and len(same) > 1]
        for which, same in enumerate(sorted(several, key=lambda same: same[0].min())):
            for place, one in enumerate(sorted(same, key=lambda units: int(units.min()))):
                group[one], number[one] = -2 - which if keeps else which, place
    return group, number


def _axis(group: Ints, number: Ints, sizes: Mapping[int, int]) -> Axis:
    """The segments of an axis; what is not there for all orbits alike keeps its order."""
    segments, left = [], group == -1
    for one in np.unique(group[group != -1]).tolist():
        places = np.flatnonzero(group == one)
        counts = np.bincount(number[places], minlength=sizes[one])
        if counts.min() != counts.max():
            left |= group == one
            continue
        ordered = places[np.lexsort((places, number[places]))]
        name = f"g{one}" if one >= 0 else FIXED
        segments.append(Segment(group=name, places=ordered.reshape(counts.size, -1)))
    if left.any():
        segments.append(Segment(group=FIXED, places=np.flatnonzero(left)[:, None]))
    return tuple(segments)
