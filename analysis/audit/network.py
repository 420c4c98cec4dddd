"""The network behind a file: its unit graph, what reaches what, and keys of layers that exports share."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.audit.finding import Key
from emergraph.analysis.edgesets.edgetable import TABLE_COLUMNS, BlockTable, block_table
from emergraph.analysis.edgesets.kernel_parameters import parameters_behind
from emergraph.analysis.storedgraph import read_unit_graph
from emergraph.analysis.unitgraph import ROLES, UnitBlock, UnitGraph, UnitLayer
from emergraph.exporters.runtime.quoting import quoted
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.records import EdgeKind, LayerKind, Role
from emergraph.graphstore.restore import restore_tensor

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

MAX_ROWS = 1 << 25
"""Elements of the matrix of a layer's weights; larger ones (embeddings) are not compared by row."""
_BACKWARD = (EdgeKind.RECURRENT, EdgeKind.NORM)
"""Edges that may lead to earlier layers."""
_COUNTED = (EdgeKind.WEIGHT, EdgeKind.RECURRENT)
ENERGY = 1 - 1e-6
"""Share of a matrix's squares that its leading singular values have to hold."""
MAX_SIDE = 2048
"""Matrices with a longer shorter side are not decomposed."""
SATURATED = {"Sigmoid": (0.0, 1.0), "Tanh": (-1.0, 1.0), "HardSigmoid": (0.0, 1.0)}
"""Ends of the range of activations."""


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """The weights that lead into the units of a layer."""

    layer: UnitLayer
    rows: Floats
    """(n_units, n_columns): what each unit reads with which weight; a column is a source, and a tap of it."""
    widths: tuple[int, ...]
    """Columns of each block, in the order of `tensors`."""
    tensors: tuple[str, ...]


class Network:
    """The unit graph of a model in a store.

    Args:
        reader: The graph; its store stays open.
    """

    def __init__(self, reader: GraphReader) -> None:
        self.reader = reader
        self.graph: UnitGraph = read_unit_graph(reader)
        self.layers: pl.DataFrame = reader.layers()
        self.units: pl.DataFrame = reader.units()
        self.blocks: pl.DataFrame = reader.blocks()
        none = np.zeros(self.graph.n_units, dtype=bool)
        self.behind_decisions: Mask = none
        """(n_units,) units that something other than an edge may reach, see `control`."""
        self.before_decisions: Mask = none
        """(n_units,) units that are read by something other than an edge."""

    @cached_property
    def wired(self) -> bool:
        """Whether the graph says how layers are joined, so that a missing path is none."""
        return str(self.reader.summary["wiring"]) in ("traced", "declared")

    @cached_property
    def keys(self) -> dict[int, Key]:
        """By layer: how many layers with weights lie before it, its size, what it reads, and which of such.

        Names differ from export to export, as do the layers that one operation is written as; these do not.
        """
        depth: dict[int, int] = defaultdict(int)
        reads: Counter[int] = Counter()
        by_layer = self.blocks.partition_by("layer", as_dict=True)
        found: dict[int, Key] = {}
        seen: Counter[Key] = Counter()
        for layer in self.graph.layers:
            frame = by_layer.get((layer.id,))
            for kind, sources, n_src in () if frame is None else _sources(frame):
                if kind in _BACKWARD:
                    continue
                more = int(kind == EdgeKind.WEIGHT)
                depth[layer.id] = max([depth[layer.id], *(depth[source] + more for source in sources)])
                reads[layer.id] += more * n_src
            role = "input" if layer.kind == LayerKind.INPUT else "layer"
            key: Key = (role, depth[layer.id], layer.n_units, reads[layer.id])
            found[layer.id] = (*key, seen[key])
            seen[key] += 1
        return found

    @cached_property
    def sources_of_layers(self) -> dict[int, list[int]]:
        """By layer: the layers that it reads along edges that lead forward."""
        found: dict[int, list[int]] = {layer.id: [] for layer in self.graph.layers}
        for layer, kind, sources in self.blocks.select("layer", "kind", "src_layers").iter_rows():
            if kind not in _BACKWARD:
                found[layer] += sources
        return found

    def has_weights(self, layer: UnitLayer) -> bool:
        """Whether weights lead into a layer, so that it makes units of its own."""
        return layer.id in self._weighted

    @cached_property
    def _weighted(self) -> frozenset[int]:
        return frozenset(block.layer for block in self.graph.blocks if block.kind in _COUNTED)

    def title(self, layer: UnitLayer) -> str:
        """The layer's name in quotes, fit to be shown."""
        return quoted(layer.name)

    @cached_property
    def reached(self) -> Mask:
        """(n_units,) whether an input has any influence on each unit, along edges of all kinds."""
        start = (self.graph.role == ROLES.index(Role.INPUT)) | self._of_kind(LayerKind.EMBEDDING)
        # what a weighted sum takes in comes along edges: without one it is constant, whatever was decided
        start |= self.behind_decisions & (self.fed | ~self._contracted)
        return self._reach(start, forward=True)

    @cached_property
    def fed(self) -> Mask:
        """(n_units,) whether any edge leads into each unit."""
        found = np.zeros(self.graph.n_units, dtype=bool)
        for _, edges in self.graph.iter_edges(columns=("dst",)):
            found[edges["dst"]] = True
        return found

    @property
    def _contracted(self) -> Mask:
        found = self._of_kind(LayerKind.DENSE) | self._of_kind(LayerKind.CONV)
        return np.asarray(found | self._of_kind(LayerKind.RNN_GATE))

    @cached_property
    def read(self) -> Mask:
        """(n_units,) whether each unit has any influence on an output."""
        end = self.graph.role == ROLES.index(Role.OUTPUT)
        return self._reach(end | self.before_decisions, forward=False)

    def _of_kind(self, kind: LayerKind) -> Mask:
        per_layer = np.array([layer.kind == kind for layer in self.graph.layers], dtype=bool)
        return np.asarray(per_layer[self.graph.unit_layer])

    def _reach(self, start: Mask, *, forward: bool) -> Mask:
        reached = start.copy()
        order = sorted(
            (block for block in self.graph.blocks if block.n_edges),
            key=lambda block: self.graph.layer_position(block.layer),
            reverse=not forward,
        )
        back = [block for block in order if block.kind in _BACKWARD]
        self._pass(order, reached, forward=forward)
        while back and self._pass(back, reached, forward=forward):
            self._pass(order, reached, forward=forward)
        return reached

    def _pass(self, blocks: list[UnitBlock], reached: Mask, *, forward: bool) -> bool:
        """One look at every edge; tell whether another unit was reached."""
        before = int(reached.sum())
        for _, edges in self.graph.iter_edges(blocks):
            a, b = (edges["src"], edges["dst"]) if forward else (edges["dst"], edges["src"])
            reached[b[reached[a]]] = True
        return int(reached.sum()) > before

    def weight_layers(self) -> Iterator[UnitLayer]:
        """Layers of neurons that weights lead into, in order."""
        yield from filter(self.has_weights, self.graph.layers)

    def weights(self, layer: UnitLayer) -> LayerWeights | None:
        """All weights that lead into a layer, by unit; None where they cannot be told apart."""
        blocks = [b for b in self.graph.blocks if b.layer == layer.id and b.kind in _COUNTED and b.n_edges]
        parts: list[Floats] = []
        tensors: list[str] = []
        for block, edges in self.graph.iter_edges(blocks, columns=TABLE_COLUMNS):
            table = block_table(self.graph, block, edges)
            part = self._kernels(table, layer) if block.has_kernels else _matrix(table, layer)
            if part is None:
                return None
            parts.append(part)
            tensors.append(block.tensor or "")
        if not parts:
            return None
        widths = tuple(part.shape[1] for part in parts)
        return LayerWeights(layer, np.concatenate(parts, axis=1), widths, tuple(tensors))

    def _kernels(self, table: BlockTable, layer: UnitLayer) -> Floats | None:
        if table.block.tensor is None or not self._fits(table, layer):
            return None
        values = restore_tensor(self.reader, table.block.tensor)
        if values.size > MAX_ROWS:
            return None
        taps = parameters_behind(table, self.graph, values, shared=True)
        if taps is None:
            return None
        sources = _sources_of(table)
        size = len(sources) * taps.kernel_size
        if size * layer.n_units > MAX_ROWS:
            return None
        value = taps.value
        if values.dtype.kind in "iu":  # codes, which are the weights up to a factor of each edge
            value = value * np.repeat(
                table.l1 / np.add.reduceat(np.abs(value), taps.starts), table.parameters
            )
        rows = np.zeros((layer.n_units, size))
        column = np.searchsorted(sources, table.src)[taps.edge] * taps.kernel_size + taps.tap
        rows[table.dst[taps.edge] - layer.first_unit, column] = value
        return rows

    def _fits(self, table: BlockTable, layer: UnitLayer) -> bool:
        return len(table.rows) * layer.n_units <= MAX_ROWS


def _matrix(table: BlockTable, layer: UnitLayer) -> Floats | None:
    if len(table.rows) * layer.n_units > MAX_ROWS:
        return None
    sources = _sources_of(table)
    rows = np.zeros((layer.n_units, len(sources)))
    rows[table.dst - layer.first_unit, np.searchsorted(sources, table.src)] = table.weight
    return rows


def _sources_of(table: BlockTable) -> NDArray[np.int64]:
    """All units that a block may read, in order: also those that it reads with zeros alone."""
    known = table.block.src_units
    return table.rows if known is None else np.unique(known)


def _sources(frame: pl.DataFrame) -> Iterator[tuple[str, list[int], int]]:
    columns = frame.select("kind", "src_layer", "src_layers", "n_src")
    for kind, one, several, n_src in columns.iter_rows():
        yield str(kind), [int(one)] if one is not None else [int(s) for s in several or ()], int(n_src or 0)


def by_layer(network: Network, mask: Mask) -> Iterator[tuple[UnitLayer, list[int]]]:
    """Yield the layers of chosen units with the positions of the units."""
    for layer in network.graph.layers:
        positions = np.flatnonzero(mask[layer.units])
        if len(positions):
            yield layer, positions.tolist()


def rank_at(matrix: Floats) -> int | None:
    """Return how many singular values hold `ENERGY` of the squares; None where that is not computed."""
    if min(matrix.shape) < 4 or min(matrix.shape) > MAX_SIDE or not np.isfinite(matrix).all():
        return None
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares = np.maximum(np.linalg.eigvalsh(wide @ wide.T)[::-1], 0)
    total = squares.sum()
    if total == 0:
        return None
    return int(np.searchsorted(np.cumsum(squares), ENERGY * total) + 1)
