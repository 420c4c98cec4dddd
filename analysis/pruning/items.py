"""What a pruning removes: edges, single parameters, or units; shared weights once.

Prunable are the weights that lead into neurons: blocks of kind `weight` or `recurrent` with a parameter
tensor, embedding tables left out. A weight that is exactly zero is not an edge and cannot be removed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import BlockTable, EdgeTable, Floats
from emergraph.analysis.edgesets.kernel_parameters import Taps, kernel_taps
from emergraph.analysis.edgesets.ordering import positions_in
from emergraph.analysis.pruning.options import PruningUnit
from emergraph.analysis.unitgraph import ROLES
from emergraph.errors import UsageError
from emergraph.graphstore.inplace import Piece
from emergraph.graphstore.records import EdgeKind, LayerKind, Role
from emergraph.graphstore.text import listed
from emergraph.options import member

TensorValues = Callable[[str], NDArray[np.generic]]
"""Gives a parameter tensor of the model by name."""
LeftAlone = Callable[[Iterable[BlockTable]], Mapping[int, str]]
"""Says which of some blocks cannot be pruned in the model: block id -> why."""


@dataclass(frozen=True, eq=False)
class Items:
    """The things that can be removed, in the order that breaks ties.

    Arrays of one entry per item are made when they are asked for: sweeps of very many items do without.
    """

    table: EdgeTable
    unit: PruningUnit
    blocks: tuple[BlockTable, ...]
    """Prunable blocks that hold weights of their own."""
    copies: Mapping[int, tuple[BlockTable, NDArray[np.intp]]]
    """Block id of a further use of a tensor -> (block of the first use, which of its edges each edge is)."""
    n_params: int
    """Parameters of the prunable tensors, exact zeros included."""
    taps: Mapping[int, Taps]
    """Block id -> parameters of its kernels, where single parameters are removed."""
    units: "UnitItems | None" = None
    """Where units are removed."""
    notes: tuple[str, ...] = ()

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Items of each of the blocks; not of units."""
        return tuple(map(self.size_of, self.blocks))

    def size_of(self, block: BlockTable) -> int:
        """Items of one block."""
        taps = self.taps.get(block.block.id)
        return block.n_edges if taps is None else taps.n

    @property
    def n(self) -> int:
        """Number of items."""
        return sum(self.sizes) if self.units is None else len(self.units.unit)

    @cached_property
    def edge(self) -> NDArray[np.signedinteger]:
        """(n_items,) edge of each item; the unit itself where units are removed."""
        if self.units is not None:
            return self.units.unit
        return np.concatenate([self._edges_of(block) for block in self.blocks])

    def _edges_of(self, block: BlockTable) -> NDArray[np.signedinteger]:
        taps = self.taps.get(block.block.id)
        if taps is None:
            return np.arange(block.edges.start, block.edges.stop, dtype=np.int32)
        return taps.edge + block.first

    @cached_property
    def magnitude(self) -> NDArray[np.floating]:
        """(n_items,) absolute value of the parameter, or l1 of the edge; for units l1 of incoming edges."""
        if self.units is not None:
            return self.units.l1
        return np.concatenate([self.magnitudes(block) for block in self.blocks])

    def magnitudes(self, block: BlockTable) -> NDArray[np.floating]:
        """The same of the items of one block."""
        taps = self.taps.get(block.block.id)
        if taps is not None:
            return taps.magnitude
        return np.abs(block.weight) if is_plain(block) else block.l1

    @cached_property
    def parameters(self) -> NDArray[np.int64]:
        """(n_items,) non-zero parameters that go with the item."""
        if self.units is not None:
            return self.units.parameters
        if all(block.n_params is None or block.block.id in self.taps for block in self.blocks):
            return np.broadcast_to(np.int64(1), self.n)
        return np.concatenate(
            [
                np.ones(size, np.int64) if block.block.id in self.taps else block.parameters
                for block, size in zip(self.blocks, self.sizes, strict=True)
            ]
        )

    @property
    def group(self) -> Mapping[str, NDArray[np.int64]]:
        """Scope of comparison -> (n_items,) number of the group that each item is in."""
        return _Groups(self)

    def n_nonfinite(self, block: BlockTable) -> int:
        """Items of a block whose weights are NaN or infinite."""
        if block.cells is None or block.block.id in self.taps or not is_plain(block):
            return int((~np.isfinite(self.magnitudes(block))).sum())
        cells = block.cells

        def count(run: list[Piece]) -> int:
            return sum(int((~np.isfinite(cells.weights(piece))).sum()) for piece in run)

        return sum(block.passed(count))

    @property
    def n_nonzero(self) -> int:
        """Non-zero parameters of the prunable blocks, shared ones once."""
        return int(sum(int(block.parameters.sum()) for block in self.blocks))


@dataclass(frozen=True, eq=False)
class UnitItems:
    """Hidden neurons that can be removed."""

    unit: NDArray[np.int64]
    """(n,)."""
    layer: NDArray[np.int64]
    """(n,) position of its layer."""
    l1: Floats
    """(n,) of its incoming edges."""
    parameters: NDArray[np.int64]
    """(n,) non-zero parameters of its incoming edges."""


def is_plain(block: BlockTable) -> bool:
    """Whether the size of an edge is that of its weight."""
    return block.kernels is None and block.block.tensor is not None


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
    taps, whole = {}, []
    for block in leaders:
        if unit is PruningUnit.PARAMETER and block.n_params is not None:
            found = kernel_taps(block, table.graph, tensor_values)
            if found is None:
                whole.append(str(block.block.name or block.block.id))
            else:
                taps[block.block.id] = found
    if whole:
        notes.append(
            f"kernels of {listed(whole)} are removed as wholes: the layout of a kernel's tensor is not known "
            "from the graph"
        )
    if not leaders:
        raise UsageError("; ".join(["the graph has no weights that could be pruned", *notes]))
    items = Items(table, unit, tuple(leaders), copies, n_params, taps)
    return replace(items, notes=(*notes, *_not_finite(sum(map(items.n_nonfinite, leaders)), items.n)))


class _Groups(Mapping[str, NDArray[np.int64]]):
    """The groups of each scope, put together when a scope is asked for."""

    def __init__(self, items: Items) -> None:
        self._items = items

    def __getitem__(self, scope: str) -> NDArray[np.int64]:
        items = self._items
        if scope == "global":
            return np.broadcast_to(np.int64(0), items.n)
        if items.units is not None:
            return items.units.unit if scope == "unit" else items.units.layer
        if scope == "unit":
            return np.concatenate([self._targets(block) for block in items.blocks]).astype(np.int64)
        numbers = {
            "layer": [block.target for block in items.blocks],
            "block": [block.block.id for block in items.blocks],
        }
        return np.repeat(numbers[scope], items.sizes)

    def __iter__(self) -> Iterator[str]:
        return iter(("global", "layer", "block", "unit"))

    def __len__(self) -> int:
        return len(tuple(self))

    def _targets(self, block: BlockTable) -> NDArray[np.int32]:
        taps = self._items.taps.get(block.block.id)
        return block.dst if taps is None else block.dst[taps.edge]


def _not_finite(count: int, n: int) -> list[str]:
    """A note on items with weights that are NaN or infinite."""
    if not count:
        return []
    what = f"{count} of {n} items have weights that are NaN or infinite"
    return [f"{what}: path norms and flows leave those weights out"]


def _said(blocks: Sequence[BlockTable], why: Mapping[int, str]) -> list[str]:
    """One note for each reason why blocks are left alone."""
    by_reason: dict[str, list[str]] = {}
    for block in blocks:
        by_reason.setdefault(why[block.block.id], []).append(str(block.block.name or block.block.id))
    return [f"left alone: {listed(names)} ({reason})" for reason, names in by_reason.items()]


def _is_prunable(table: EdgeTable, block: BlockTable) -> bool:
    about = block.block
    if about.kind not in (EdgeKind.WEIGHT, EdgeKind.RECURRENT) or not block.is_weighted:
        return False
    if about.kind is EdgeKind.RECURRENT and about.tensor is None:
        return False
    first = block.rows[0] if block.cells is not None else block.src[0]
    first_layer = table.graph.layers[int(table.graph.unit_layer[first])]
    return first_layer.kind != LayerKind.EMBEDDING


def _size(block: BlockTable, sizes: Mapping[str, int] | None) -> int:
    """Parameters of the block, exact zeros included where they are known."""
    about = block.block
    held = block.n_edges if block.n_params is None else int(block.parameters.sum())
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
    if block.n_edges != leader.n_edges:
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
    own = UnitItems(units, graph.unit_layer[units].astype(np.int64), l1[units], count[units])
    unknown = int((~np.isfinite(own.l1)).sum())
    return Items(
        table,
        PruningUnit.UNIT,
        tuple(leaders),
        copies,
        n_params,
        {},
        own,
        (*notes, *_not_finite(unknown, len(units))),
    )
