"""The edges of a unit graph as flat arrays: those that are added one by one, and those that are given."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.ends import Ends
from emergraph.analysis.edgesets.gradual import GRADUAL_EDGES
from emergraph.analysis.percolation.options import Structure
from emergraph.analysis.unitgraph import UnitBlock, UnitGraph
from emergraph.errors import LimitError, UsageError
from emergraph.graphstore.records import PATH_KINDS, EdgeKind
from emergraph.options import member

MAX_EDGES = 200_000_000
"""Edges that are held in memory at once, about 20 bytes each while they are put in order."""
PIECE = 1 << 22
"""Edges that are looked at together."""

PARAMETER_KINDS = frozenset({EdgeKind.WEIGHT, EdgeKind.RECURRENT})
"""Kinds whose edges are parameters, and so have a strength to be ordered by."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PercolationEdges:
    """Edges of the chosen kinds. Blocks lie one after the other, in order of their id."""

    graph: UnitGraph
    src: NDArray[np.int32] | Ends
    """(n_edges,) of the edges that are added one by one."""
    dst: NDArray[np.int32] | Ends
    weight: NDArray[np.float32]
    """(n_edges,) as stored; NaN where there is none."""
    blocks: tuple[UnitBlock, ...]
    """Blocks of those edges."""
    starts: NDArray[np.int64]
    """(n_blocks + 1,) where each block's edges begin; the last entry is n_edges."""
    given_src: NDArray[np.int32]
    """(n_given,) structural edges, there from the start."""
    given_dst: NDArray[np.int32]
    given_blocks: tuple[UnitBlock, ...]

    @property
    def n_edges(self) -> int:
        """Edges that are added one by one."""
        return len(self.src)

    def degrees(self, block: int) -> tuple["Degrees", "Degrees"]:
        """Edges of a block, by its position in `blocks`, out of its units and into them."""
        return self._degrees(self.src, block), self._degrees(self.dst, block)

    def _degrees(self, ends: NDArray[np.int32] | Ends, block: int) -> "Degrees":
        parts = list(self.pieces(block))
        spans = [(int(units.min()), int(units.max())) for units in (ends[part] for part in parts)]
        first = min((low for low, _ in spans), default=0)
        counts = np.zeros(max((high for _, high in spans), default=first - 1) + 1 - first, dtype=np.int64)
        for part in parts:
            counts += np.bincount(ends[part] - first, minlength=counts.size)
        return Degrees(first, counts)

    def pieces(self, block: int) -> Iterator[slice]:
        """The numbers of a block's edges, by its position in `blocks`, a bounded number at a time."""
        first, end = int(self.starts[block]), int(self.starts[block + 1])
        return (slice(at, min(at + PIECE, end)) for at in range(first, end, PIECE))

    def block_of_edge(self) -> NDArray[np.integer]:
        """(n_edges,) position in `blocks`, in the smallest type that holds it."""
        dtype = np.uint16 if len(self.blocks) <= 1 << 16 else np.int64
        return np.repeat(np.arange(len(self.blocks)).astype(dtype), np.diff(self.starts))


@dataclass(frozen=True, eq=False)
class Degrees:
    """How many edges units have."""

    first: int
    """The first unit; the others follow."""
    counts: NDArray[np.int64]

    @property
    def units(self) -> slice:
        """The units."""
        return slice(self.first, self.first + len(self.counts))


def read_edges(
    graph: UnitGraph, *, kinds: Sequence[EdgeKind | str] = PATH_KINDS, structure: str = Structure.GIVEN
) -> PercolationEdges:
    """Read the edges that percolate.

    Args:
        graph: The unit graph.
        kinds: Kinds of edges to follow. Those with parameters (weight, recurrent) are added one by one.
        structure: "given": the others (junctions, gates, attention) are there from the start, since they
            are wiring and have no strength; "absent": they are left out.

    Raises:
        UsageError: A word is unknown, or no edge of a chosen kind has parameters.
        LimitError: There are more edges than fit in memory.
    """
    structure = member(Structure, structure, "structure")
    wanted = {member(EdgeKind, kind, "edge kind") for kind in kinds}
    chosen = sorted((block for block in graph.blocks if block.kind in wanted), key=lambda block: block.id)
    moving = tuple(block for block in chosen if block.kind in PARAMETER_KINDS and block.n_edges)
    given = tuple(b for b in chosen if b.kind not in PARAMETER_KINDS) if structure is Structure.GIVEN else ()
    total = sum(block.n_edges for block in moving)
    if total == 0:
        raise UsageError(
            f"graph '{graph.name}': no edges with parameters of kinds {', '.join(sorted(wanted))}"
        )
    if total > MAX_EDGES:
        raise LimitError(f"graph '{graph.name}': {total} edges, at most {MAX_EDGES} percolate in memory")
    weight = np.empty(total, dtype=np.float32)
    starts = np.cumsum([0, *(block.n_edges for block in moving)]).astype(np.int64)
    src, dst = _read_ends(graph, moving, starts, weight)
    pairs = [(c["src"], c["dst"]) for _, c in graph.iter_edges(given, columns=("src", "dst"))]
    given_src, given_dst = (
        np.concatenate([np.empty(0, np.int32), *(pair[side] for pair in pairs)]).astype(np.int32)
        for side in (0, 1)
    )
    return PercolationEdges(
        graph=graph,
        src=src,
        dst=dst,
        weight=weight,
        blocks=moving,
        starts=starts,
        given_src=given_src,
        given_dst=given_dst,
        given_blocks=given,
    )


def _read_ends(
    graph: UnitGraph, blocks: Sequence[UnitBlock], starts: NDArray[np.int64], weight: NDArray[np.float32]
) -> tuple[NDArray[np.int32] | Ends, NDArray[np.int32] | Ends]:
    """Read weights into an array, and return both ends: of full matrices by their rows and columns alone."""
    sides: tuple[list[NDArray[np.int32]], list[NDArray[np.int32]]] = ([], [])
    widths: list[int] = []
    for block, found in graph.iter_edges(blocks, columns=("src", "dst", "weight")):
        position = int(starts[len(widths)])
        weight[position : position + block.n_edges] = found["weight"]
        units = (block.src_units, block.dst_units)
        implied = block.dense and weight.size > GRADUAL_EDGES and _in_matrix_order(found, *units)
        widths.append(len(units[1]) if implied and units[1] is not None else 0)
        for side, name, own in zip(sides, ("src", "dst"), units, strict=True):
            listed = found[name] if not implied or own is None else own
            side.append(np.asarray(listed, dtype=np.int32))
    if not any(widths):
        return np.concatenate(sides[0]), np.concatenate(sides[1])
    return Ends(starts, sides[0], widths, rows=True), Ends(starts, sides[1], widths, rows=False)


def _in_matrix_order(
    found: Mapping[str, NDArray[np.generic]],
    src_units: NDArray[np.int64] | None,
    dst_units: NDArray[np.int64] | None,
) -> bool:
    """Whether edges are all entries of a matrix row by row."""
    if src_units is None or dst_units is None:
        return False
    shape = (len(src_units), len(dst_units))
    src, dst = found["src"].reshape(shape), found["dst"].reshape(shape)
    return bool((src == src_units[:, None]).all() and (dst == dst_units[None, :]).all())
