"""What a pruning removes: edges, single parameters, or units; shared weights once.

Prunable are the weights that lead into neurons: blocks of kind `weight` or `recurrent` with a parameter
tensor, embedding tables left out. A weight that is exactly zero is not an edge and cannot be removed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.blockmatrix import positions_in
from emergraph.analysis.edgesets.edgetable import BlockTable, EdgeTable, Floats, Levels
from emergraph.analysis.edgesets.kernel_parameters import Taps, kernel_taps
from emergraph.analysis.pruning.options import PruningUnit
from emergraph.analysis.unitgraph import ROLES
from emergraph.errors import UsageError
from emergraph.graphstore.records import EdgeKind, LayerKind, Role
from emergraph.graphstore.text import listed
from emergraph.options import member

TensorValues = Callable[[str], NDArray[np.generic]]
"""Gives a parameter tensor of the model by name."""
LeftAlone = Callable[[Iterable[BlockTable]], Mapping[int, str]]
"""Says which of some blocks cannot be pruned in the model: block id -> why."""


@dataclass(frozen=True, eq=False)
class Items:
    """The things that can be removed, in the order that breaks ties."""

    table: EdgeTable
    unit: PruningUnit
    blocks: tuple[BlockTable, ...]
    """Prunable blocks that hold weights of their own."""
    copies: Mapping[int, tuple[BlockTable, NDArray[np.intp]]]
    """Block id of a further use of a tensor -> (block of the first use, which of its edges each edge is)."""
    edge: NDArray[np.signedinteger]
    """(n_items,) edge of each item; the unit itself where units are removed."""
    magnitude: NDArray[np.floating]
    """(n_items,) absolute value of the parameter, or l1 of the edge; for units l1 of the incoming edges."""
    parameters: NDArray[np.int64]
    """(n_items,) non-zero parameters that go with the item."""
    group: Mapping[str, NDArray[np.int64]]
    """Scope of comparison -> (n_items,) number of the group that each item is in."""
    n_params: int
    """Parameters of the prunable tensors, exact zeros included."""
    taps: Mapping[int, Taps]
    """Block id -> parameters of its kernels, where single parameters are removed."""
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Number of items."""
        return len(self.edge)

    @property
    def n_nonzero(self) -> int:
        """Non-zero parameters of the prunable blocks, shared ones once."""
        return int(sum(int(block.parameters.sum()) for block in self.blocks))

    def spread(self, gone: Levels, *, n_levels: int) -> tuple[Levels, Levels]:
        """From items to edges and units.

        Args:
            gone: (n_items,) first level index at which each item is gone; n_levels for never.
            n_levels: Number of levels.

        Returns:
            (n_edges,) and (n_units,) the same for edges and units.
        """
        units = np.full(self.table.graph.n_units, n_levels, dtype=np.uint8)
        edges = np.full(self.table.n_edges, n_levels, dtype=np.uint8)
        if self.unit is PruningUnit.UNIT:
            units[self.edge] = gone
            for block in self.table.blocks:
                edges[block.edges] = np.minimum(units[block.src], units[block.dst])
            return edges, units
        edges[self.edge] = 0
        if self.taps:
            np.maximum.at(edges, self.edge, gone)
        else:
            edges[self.edge] = gone
        for number, (leader, order) in self.copies.items():
            own = next(b for b in self.table.blocks if b.block.id == number)
            edges[own.edges] = edges[leader.edges][order]
        return edges, units


def prunable_items(
    table: EdgeTable,
    unit: PruningUnit | str,
    *,
    tensor_values: TensorValues | None = None,
    tensor_sizes: Mapping[str, int] | None = None,
    left_alone: LeftAlone | None = None,
) -> Items:
    """List what can be removed.

    Args:
        table: The edges.
        unit: What is removed as one.
        tensor_values: Raw parameter tensors, for the taps of kernels with `parameter`; None: kernels are
            removed as wholes, and the notes say so.
        tensor_sizes: Parameters per tensor, exact zeros included; None: what the blocks' matrices hold.
        left_alone: Says of prunable blocks which ones stay as they are, and why; the notes name them.

    Raises:
        UsageError: The graph has nothing of the kind, or the unit is unknown.
    """
    unit = member(PruningUnit, unit, "unit")
    everything = [block for block in table.blocks if _is_prunable(table, block)]
    leaders, copies, notes = _shared(everything)
    alone = {} if left_alone is None else dict(left_alone(leaders))
    stay = [block for block in leaders if block.block.id in alone]
    notes += _said(stay, alone)
    leaders = [block for block in leaders if block.block.id not in alone]
    copies = {number: one for number, one in copies.items() if one[0].block.id not in alone}
    n_params = sum(_size(block, tensor_sizes) for block in leaders)
    if unit is PruningUnit.UNIT:
        return _unit_items(table, everything, leaders, copies, n_params, notes, stay)
    parts, taps, whole = [], {}, []
    for block in leaders:
        found = None
        if unit is PruningUnit.PARAMETER and block.n_params is not None:
            found = kernel_taps(block, table.graph, tensor_values)
            if found is None:
                whole.append(str(block.block.name or block.block.id))
            else:
                taps[block.block.id] = found
        parts.append(_Part.of(block, found))
    if whole:
        notes.append(
            f"kernels of {listed(whole)} are removed as wholes: the layout of a kernel's tensor is not known "
            "from the graph"
        )
    if not parts:
        raise UsageError("; ".join(["the graph has no weights that could be pruned", *notes]))
    magnitude = np.concatenate([part.magnitude for part in parts])
    sizes = [len(part.edge) for part in parts]
    return Items(
        table=table,
        unit=unit,
        blocks=tuple(leaders),
        copies=copies,
        edge=np.concatenate([part.edge for part in parts]),
        magnitude=magnitude,
        parameters=_joined_parameters(parts),
        group=_Groups(leaders, taps, sizes),
        n_params=n_params,
        taps=taps,
        notes=(*notes, *_not_finite(magnitude)),
    )


class _Groups(Mapping[str, NDArray[np.int64]]):
    """The groups of each scope, put together when a scope is asked for."""

    def __init__(self, blocks: Sequence[BlockTable], taps: Mapping[int, Taps], sizes: Sequence[int]) -> None:
        self._blocks, self._taps, self._sizes = blocks, taps, sizes

    def __getitem__(self, scope: str) -> NDArray[np.int64]:
        if scope == "global":
            return np.broadcast_to(np.int64(0), sum(self._sizes))
        if scope == "unit":
            return np.concatenate([self._targets(block) for block in self._blocks]).astype(np.int64)
        numbers = {
            "layer": [block.target for block in self._blocks],
            "block": [block.block.id for block in self._blocks],
        }
        return np.repeat(numbers[scope], self._sizes)

    def __iter__(self) -> Iterator[str]:
        return iter(("global", "layer", "block", "unit"))

    def __len__(self) -> int:
        return len(tuple(self))

    def _targets(self, block: BlockTable) -> NDArray[np.int32]:
        taps = self._taps.get(block.block.id)
        return block.dst if taps is None else block.dst[taps.edge]


def _joined_parameters(parts: Sequence["_Part"]) -> NDArray[np.int64]:
    if all(part.parameters.strides == (0,) for part in parts):  # one each
        return np.broadcast_to(np.int64(1), sum(len(part.edge) for part in parts))
    return np.concatenate([part.parameters for part in parts])


@dataclass(frozen=True)
class _Part:
    """Items of one block."""

    edge: NDArray[np.signedinteger]
    magnitude: NDArray[np.floating]
    parameters: NDArray[np.int64]

    @classmethod
    def of(cls, block: BlockTable, taps: Taps | None) -> "_Part":
        if taps is None:
            edges = np.arange(block.edges.start, block.edges.stop, dtype=np.int32)
            plain = block.kernels is None and block.block.tensor is not None
            return cls(edges, np.abs(block.weight) if plain else block.l1, block.parameters)
        return cls(taps.edge + block.first, taps.magnitude, np.ones(len(taps.edge), np.int64))


def _not_finite(magnitude: Floats) -> list[str]:
    """A note on items with weights that are NaN or infinite."""
    count = int((~np.isfinite(magnitude)).sum())
    if not count:
        return []
    what = f"{count} of {len(magnitude)} items have weights that are NaN or infinite"
    return [f"{what}: path norms and flows leave those weights out"]


def _said(blocks: Sequence[BlockTable], why: Mapping[int, str]) -> list[str]:
    """One note for each reason why blocks are left alone."""
    by_reason: dict[str, list[str]] = {}
    for block in blocks:
        by_reason.setdefault(why[block.block.id], []).append(str(block.block.name or block.block.id))
    return [f"left alone: {listed(names)} ({reason})" for reason, names in by_reason.items()]


def _is_prunable(table: EdgeTable, block: BlockTable) -> bool:
    about = block.block
    if about.kind not in (EdgeKind.WEIGHT, EdgeKind.RECURRENT) or np.isnan(block.weight).all():
        return False
    if about.kind is EdgeKind.RECURRENT and about.tensor is None:
        return False
    first_layer = table.graph.layers[int(table.graph.unit_layer[block.src[0]])]
    return first_layer.kind != LayerKind.EMBEDDING


def _size(block: BlockTable, sizes: Mapping[str, int] | None) -> int:
    """Parameters of the block, exact zeros included where they are known."""
    about = block.block
    held = int(block.parameters.sum())
    if sizes is not None and about.tensor is not None and about.tensor in sizes and about.has_kernels:
        return max(held, sizes[about.tensor])
    if about.src_units is not None and about.dst_units is not None and not about.has_kernels:
        return max(held, len(about.src_units) * len(about.dst_units))
    return held


def _shared(
    blocks: list[BlockTable],
) -> tuple[list[BlockTable], dict[int, tuple[BlockTable, NDArray[np.intp]]], list[str]]:
    """Split blocks into first uses of tensors and further uses, with the edges matched."""
    by_id = {block.block.id: block for block in blocks}
    leaders, copies, notes = [], {}, []
    for block in blocks:
        leader = by_id.get(block.block.shared_with) if block.block.shared_with is not None else None
        if leader is None or leader is block:
            leaders.append(block)
            continue
        order = _matched(block, leader)
        if order is None:
            leaders.append(block)
            notes.append(
                f"{block.block.name or block.block.id} uses a tensor that other operations use, too, in "
                "another layout or in other parts: each use is pruned by itself"
            )
        else:
            copies[block.block.id] = leader, order
    return leaders, copies, list(dict.fromkeys(notes))


def _matched(block: BlockTable, leader: BlockTable) -> NDArray[np.intp] | None:
    """Which edge of the first use each edge is, as the matrices say; None where the weights disagree."""
    if len(block.src) != len(leader.src):
        return None
    own, theirs = _positions(block), _positions(leader)
    if own is None or theirs is None:
        return None
    for i, j in ((0, 1), (1, 0)):
        a, b = np.lexsort((own[1], own[0])), np.lexsort((theirs[j], theirs[i]))
        same = (own[0][a] == theirs[i][b]).all() and (own[1][a] == theirs[j][b]).all()
        if same and np.array_equal(block.l1[a], leader.l1[b], equal_nan=True):
            order = np.empty(len(a), dtype=np.intp)
            order[a] = b
            return order
    return None


def _positions(block: BlockTable) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
    """Row and column of each edge in the block's matrix."""
    about = block.block
    if about.src_units is None or about.dst_units is None:
        return np.searchsorted(block.rows, block.src), np.searchsorted(block.columns, block.dst)
    return positions_in(about.src_units, block.src), positions_in(about.dst_units, block.dst)


def _unit_items(
    table: EdgeTable,
    everything: list[BlockTable],
    leaders: list[BlockTable],
    copies: dict[int, tuple[BlockTable, NDArray[np.intp]]],
    n_params: int,
    notes: list[str],
    stay: list[BlockTable],
) -> Items:
    graph = table.graph
    l1, count = np.zeros(graph.n_units), np.zeros(graph.n_units, dtype=np.int64)
    for block in everything:
        l1 += np.bincount(block.dst, weights=block.l1, minlength=graph.n_units)
        count += np.bincount(block.dst, weights=block.parameters, minlength=graph.n_units).astype(np.int64)
    gates = np.array([layer.kind == LayerKind.RNN_GATE for layer in graph.layers], dtype=bool)[
        graph.unit_layer
    ]
    weighted = np.zeros(len(graph.layers), dtype=bool)
    weighted[[block.target for block in everything]] = True
    hidden = graph.neuron & (graph.role == ROLES.index(Role.HIDDEN)) & weighted[graph.unit_layer]
    for block in stay:
        # what leads into such a unit could not be removed
        hidden[block.dst] = False
    units = np.flatnonzero(hidden & ~gates)
    if gates.any():
        notes.append("units of recurrent cells are kept: their gates can only be removed together")
    if not len(units):
        raise UsageError("; ".join(["the graph has no hidden neurons that could be pruned", *notes]))
    return Items(
        table=table,
        unit=PruningUnit.UNIT,
        blocks=tuple(leaders),
        copies=copies,
        edge=units,
        magnitude=l1[units],
        parameters=count[units],
        group={
            "global": np.zeros(len(units), dtype=np.int64),
            "layer": graph.unit_layer[units].astype(np.int64),
            "block": graph.unit_layer[units].astype(np.int64),
            "unit": units,
        },
        n_params=n_params,
        taps={},
        notes=(*notes, *_not_finite(l1[units])),
    )
