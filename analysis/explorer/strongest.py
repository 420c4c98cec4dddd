"""The strongest edges into and out of every unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.unitgraph import UnitGraph

MOST_HELD = 4_000_000
"""Edges that are candidates at a time, about 20 bytes each and side."""

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class KeptEdges:
    """Edges by source, then by falling strength, then by block and target."""

    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    block: NDArray[np.int32]
    """Place in `UnitGraph.blocks`."""
    weight: NDArray[np.float32]
    """NaN without a weight."""
    strength: NDArray[np.float32]
    """|w|; the l1 norm of a kernel; 1 without a weight."""


def strongest_edges(graph: UnitGraph, k: int) -> KeptEdges:
    """Return the edges that are among the k strongest into their target, or out of their source.

    Of equally strong edges, those of the first blocks, sources and targets are kept. A weight that is no
    number is stronger than all others: nobody should miss it.
    """
    held: dict[str, list[Columns]] = {"src": [], "dst": []}
    place = {block.id: number for number, block in enumerate(graph.blocks)}
    for block, edges in graph.iter_pieces(columns=("src", "dst", "weight", "l1")):
        part = _columns(edges, place[block.id], weighted=block.tensor is not None)
        if not (_ascends(block.src_units) and _ascends(block.dst_units)):
            part = _ordered(part)
        for side, parts in held.items():
            parts.append(_best(part, side, k))
            if sum(len(one["src"]) for one in parts) > MOST_HELD:
                parts[:] = [_best(_ordered(_joined(parts)), side, k)]
    if not any(len(one["src"]) for one in held["src"]):
        none = np.zeros(0, np.int32)
        return KeptEdges(none, none, none, none.astype(np.float32), none.astype(np.float32))
    both = _joined([_best(_ordered(_joined(parts)), side, k) for side, parts in held.items()])
    order = np.lexsort((both["dst"], both["block"], -both["strength"], both["src"]))
    kept = {name: column[order] for name, column in both.items()}
    new = np.ones(len(order), np.bool_)
    new[1:] = np.any([kept[name][1:] != kept[name][:-1] for name in ("src", "dst", "block")], axis=0)
    return KeptEdges(**{name: column[new] for name, column in kept.items()})


def _columns(edges: Mapping[str, NDArray[Any]], block: int, *, weighted: bool) -> Columns:
    weight = np.asarray(edges["weight"], np.float32)
    strength = np.asarray(edges["l1"], np.float32)
    return {
        "src": np.asarray(edges["src"], np.int32),
        "dst": np.asarray(edges["dst"], np.int32),
        "block": np.full(len(weight), block, np.int32),
        "weight": weight,
        "strength": np.where(np.isnan(strength), np.float32(np.inf if weighted else 1.0), strength),
    }


def _ascends(units: NDArray[Any] | None) -> bool:
    """Whether edges come in the order of these rows or columns; those of no matrix do."""
    return units is None or bool(np.all(units[1:] > units[:-1]))


def _ordered(part: Columns) -> Columns:
    order = np.lexsort((part["dst"], part["src"], part["block"]))
    return {name: column[order] for name, column in part.items()}


def _joined(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _best(part: Columns, side: str, k: int) -> Columns:
    """The k strongest edges of each unit on one side; of equal ones the first, in the order given."""
    units = part[side]
    # one sort by unit and falling strength: the bits of floats that are not negative are in their order
    falling = np.uint64(0xFFFFFFFF) - part["strength"].view(np.uint32).astype(np.uint64)
    key = (units.astype(np.uint64) << np.uint64(32)) | falling
    order = np.argsort(key, kind="stable")
    sorted_units = units[order]
    first = np.flatnonzero(np.concatenate(([True], sorted_units[1:] != sorted_units[:-1])))
    lengths = np.diff(np.append(first, len(order))) if len(order) else np.zeros(0, np.int64)
    rank = np.arange(len(order)) - np.repeat(first[: len(lengths)], lengths)
    chosen = np.sort(order[rank < k])
    return {name: column[chosen] for name, column in part.items()}
