"""One reverse sweep over the edges that counts paths for many activities at once.

Let `a(v)` be 1 for active units, `z(v)` 1 for transparent units (structural, left out or unmeasured) and
`m(v, w)` the paths that the edge v -> w stands for. With `s(v) = sum_w m(v, w) g(w)`:

* interior "active": `g(v) = a(v) + (a(v) + z(v)) s(v)`, paths run through active and transparent units only;
* interior "any": `g(v) = a(v) + s(v)`;
* `E = sum of s(x)` over units that are neither active nor transparent (arXiv 2409.01568, eq. 9).

Target layers are taken in descending order, so that s is final before g is needed. A row may also stand for a
group of units that are equal in every edge (`size` units, of which `active` are active): dense nets then need
no unit at all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.paths.edgesums import EdgeSums, group_edges
from emergraph.analysis.paths.scaled import Scaled, add, times
from emergraph.analysis.unitgraph import EdgeColumns, UnitBlock, UnitGraph, UnitLayer, matrix_units
from emergraph.errors import InvalidInputError
from emergraph.graphstore.arrays import IntArray
from emergraph.graphstore.records import EdgeKind

Floats = NDArray[np.float64]
Rows = IntArray | slice

CYCLIC_KINDS = frozenset({EdgeKind.RECURRENT, EdgeKind.NORM})
"""Kinds that may lead to the same or a lower layer, and so into the next time step of an unrolled count."""


@dataclass(frozen=True, kw_only=True)
class RowStates:
    """Activity of the graph's rows (units, or groups of equal units) in C cases at once."""

    active: NDArray[np.bool_ | np.int64]
    """(n_rows, C) whether active, or how many of the row's units are."""
    transparent: NDArray[np.bool_ | np.int64]
    """(n_rows,) whether transparent, or how many of the row's units are."""
    size: NDArray[np.int64] | None = None
    """(n_rows,) units per row; None: one each."""
    end_layers: IntArray | None = None
    """(C,) position of the layer in which paths end; None: in any."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a reverse pass follows and how it counts."""

    blocks: tuple[UnitBlock, ...]
    interiors: tuple[str, ...] = ("active", "any")
    multiplicity: bool = False
    """Count an edge as its number of non-zero parameters instead of once."""
    steps: int = 1
    """Time steps of an unrolled count."""
    moduli: Floats | None = None
    """(len(interiors) * C,) primes; the pass then counts modulo them, exactly."""
    in_degree: Floats | None = None
    """(n_rows,) weights w; the pass then also sums w(v) g(v), the edge form."""


@dataclass(frozen=True, kw_only=True)
class LayerSums:
    """Results of a pass, one row per layer, one column per interior and case (interior-major)."""

    starts: Scaled
    """(n_layers, K) paths by the layer in which they start; their sum is E."""
    edge_form: Scaled | None
    """(n_layers, K) sums of `in_degree * g` by layer; None where not asked for."""
    fan: float
    """Largest sum of multiplicities over a unit's edges in one block (1 where edges count once)."""


def reverse_pass(graph: UnitGraph, states: RowStates, sweep: Sweep) -> LayerSums:
    """Count paths from inactive to active units for every case, in one stream over the edges per time step.

    Cost: O(edges x K) with K = interiors x cases, memory O(rows x K) and one block. Relative error below
    1e-13 for any depth.

    Raises:
        InvalidInputError: An edge of a kind that has to lead to a higher layer does not.
    """
    running = _Running(graph, states, sweep)
    for step in reversed(range(sweep.steps)):
        running.count_step(first=step == 0)
    return LayerSums(starts=running.starts, edge_form=running.edge_form, fan=running.fan)


class _Running:
    """State of a pass: `below[v]` is s(v) as far as it is known, `carried` the share of the step before."""

    def __init__(self, graph: UnitGraph, states: RowStates, sweep: Sweep) -> None:
        self.graph, self.states, self.sweep = graph, states, sweep
        self.n_cases = states.active.shape[1]
        self.shape = (graph.n_units, len(sweep.interiors) * self.n_cases)
        self.below, self.carried = Scaled.zeros(*self.shape), Scaled.zeros(*self.shape)
        self.starts = Scaled.zeros(len(graph.layers), self.shape[1])
        self.edge_form = None if sweep.in_degree is None else Scaled.zeros(len(graph.layers), self.shape[1])
        by_layer: dict[int, list[UnitBlock]] = {layer.id: [] for layer in graph.layers}
        for block in sweep.blocks:
            if block.n_edges:
                by_layer[block.layer].append(block)
        self.by_layer = by_layer
        self.fan = 1.0

    def count_step(self, *, first: bool) -> None:
        if self.sweep.steps > 1:
            self.below, self.carried = self.carried, Scaled.zeros(*self.shape)
        blocks = [
            block
            for layer in reversed(self.graph.layers)
            for block in self.by_layer[layer.id]
            if not (first and block.kind is EdgeKind.RECURRENT)
        ]
        streamed = [
            block
            for block in blocks
            if not block.in_place and not closed(block, multiplicity=self.sweep.multiplicity)
        ]
        columns = ("src", "dst", "n_params") if self.sweep.multiplicity else ("src", "dst")
        stream = self.graph.iter_edges(streamed, columns=columns)
        for position in reversed(range(len(self.graph.layers))):
            layer = self.graph.layers[position]
            values = self._finish(position, layer)
            for block in self.by_layer[layer.id]:
                if first and block.kind is EdgeKind.RECURRENT:
                    continue
                rows, sums = self._sums(block, layer, values, stream)
                self._add(block, position, rows, sums)

    def _finish(self, position: int, layer: UnitLayer) -> Scaled:
        """Sum the paths that start in the layer and return g of its rows, (n_rows, K)."""
        rows, states = layer.units, self.states
        active = states.active[rows].astype(np.float64)
        clear = states.transparent[rows].astype(np.float64)[:, None]
        size = np.ones_like(clear) if states.size is None else states.size[rows].astype(np.float64)[:, None]
        ends = active if states.end_layers is None else active * (states.end_layers == position)
        interiors = self.sweep.interiors
        through = np.concatenate(
            [
                active + clear if name == "active" else np.broadcast_to(size, active.shape)
                for name in interiors
            ],
            axis=1,
        )
        below = self.below[rows]
        idle = np.tile(size - active - clear, (1, len(interiors)))
        started = self._reduce(times(below, idle)).sum(axis=0)
        self._accumulate(self.starts, position, started)
        passing = self._reduce(add(times(below, through), Scaled(np.tile(ends, (1, len(interiors))))))
        if self.edge_form is not None and self.sweep.in_degree is not None:
            weighted = times(passing, self.sweep.in_degree[rows][:, None])
            self._accumulate(self.edge_form, position, self._reduce(weighted).sum(axis=0))
        return passing

    def _accumulate(self, into: Scaled, position: int, terms: Scaled) -> None:
        into.add_at(position, terms)
        if self.sweep.moduli is not None:
            into.value[position] %= self.sweep.moduli

    def _reduce(self, counts: Scaled) -> Scaled:
        return counts if self.sweep.moduli is None else Scaled(counts.value % self.sweep.moduli)

    def _sums(
        self,
        block: UnitBlock,
        layer: UnitLayer,
        values: Scaled,
        stream: Iterator[tuple[UnitBlock, EdgeColumns]],
    ) -> tuple[IntArray, list[Scaled]]:
        """Sources of a block and what it adds to each: one term per band of the values."""
        if closed(block, multiplicity=self.sweep.multiplicity):
            sources, targets = matrix_units(block)
            total = self._reduce(values[_compact(targets - layer.first_unit)].sum(axis=0))
            return sources, [total]
        if block.in_place:
            return self._matrix_sums(block, layer, values)
        got, columns = next(stream)
        if got.id != block.id:
            raise InvalidInputError(f"Edges came out of order: expected block {block.id}, got {got.id}")
        edges = group_edges(
            columns["src"],
            columns["dst"],
            first_target=layer.first_unit,
            multiplicity=columns["n_params"] if self.sweep.multiplicity and block.has_kernels else None,
        )
        self.fan = max(self.fan, edges.fan)
        return edges.sources, [self._reduce(term) for term in _by_band(edges, values)]

    def _matrix_sums(
        self, block: UnitBlock, layer: UnitLayer, values: Scaled
    ) -> tuple[IntArray, list[Scaled]]:
        """The same of a block in place: its 0/1 matrix times the values, for all bands in one pass."""
        sources, targets = matrix_units(block)
        own = values[_compact(targets - layer.first_unit)]
        if own.band is None:
            return sources, [self._reduce(Scaled(self.graph.mask_times(block, own.value)))]
        bands = np.unique(own.band)
        vectors = np.concatenate([np.where(own.band == band, own.value, 0.0) for band in bands], axis=1)
        sums = np.split(self.graph.mask_times(block, vectors), len(bands), axis=1)
        return sources, [
            Scaled(part, np.full(part.shape, band, dtype=np.int32)).normalise()
            for band, part in zip(bands, sums, strict=True)
        ]

    def _add(self, block: UnitBlock, position: int, rows: IntArray, sums: Sequence[Scaled]) -> None:
        upward = self.graph.unit_layer[rows] < position
        if block.kind not in CYCLIC_KINDS and not upward.all():
            row = int(rows[np.argmin(upward)])
            raise InvalidInputError(
                f"Block {block.id} ({block.kind}) leads from unit {row} to layer {block.layer}, "
                "which is not above the unit's own layer: layer ids must be a topological order"
            )
        if block.kind is EdgeKind.RECURRENT:
            upward[:] = False
        for into, chosen in ((self.below, upward), (self.carried, ~upward)):
            if not chosen.any():
                continue
            picked = slice(None) if chosen.all() else chosen
            index = _compact(rows[picked])
            for term in sums:
                shared = term.value.ndim == 1
                into.add_at(index, term if shared else term[picked])
                if self.sweep.moduli is not None:
                    into.value[index] %= self.sweep.moduli


def closed(block: UnitBlock, *, multiplicity: bool) -> bool:
    """Whether a block's sums follow without its edges: all pairs, each counted once."""
    return block.dense and block.src_units is not None and not (multiplicity and block.has_kernels)


def _by_band(edges: EdgeSums, values: Scaled) -> Iterator[Scaled]:
    if values.band is None:
        yield Scaled(edges(values.value))
        return
    for band in np.unique(values.band):
        sums = edges(np.where(values.band == band, values.value, 0.0))
        yield Scaled(sums, np.full(sums.shape, band, dtype=np.int32)).normalise()


def _compact(rows: IntArray) -> Rows:
    """The rows as a slice where they are consecutive, which makes views of them."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and np.all(rows[1:] - rows[:-1] == 1):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
