"""Sweeps by magnitude of very many weights, which are read in pieces as often as thresholds need it."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import BlockTable, Cells, Levels
from emergraph.analysis.pruning.items import Items, is_plain
from emergraph.analysis.pruning.removal import Removal, of_kernels
from emergraph.analysis.pruning.selection import CodedPart, Codes, magnitude_codes, mark_levels
from emergraph.graphstore.inplace import Piece


def prune_by_magnitude(items: Items, levels: Sequence[float], *, scope: str = "global") -> Removal:
    """Do what `prune_by_scores` does with the magnitudes of very many items, without holding these.

    Args:
        items: Edges or parameters.
        levels: Ascending shares.
        scope: `global`, `layer` or `block`.
    """
    parts: dict[int, Levels] = {}
    taps: dict[int, Levels] = {}
    for block in items.blocks:
        number, kernels = block.block.id, items.taps.get(block.block.id)
        if kernels is not None:
            taps[number] = np.zeros(kernels.kernels.shape, np.uint8)
        else:
            parts[number] = np.zeros(block.n_edges, np.uint8) if block.cells is None else block.cells.empty()
    for _, group in groupby(items.blocks, key=partial(_group, scope=scope)):
        _mark_magnitudes(items, list(group), taps | parts, levels)
    parts |= {number: of_kernels(items.table.by_id[number], found) for number, found in taps.items()}
    units = np.full(items.table.graph.n_units, len(levels), dtype=np.uint8)
    return Removal(items=items, levels=tuple(levels), parts=parts, taps=taps, units=units)


def _group(block: BlockTable, *, scope: str) -> int:
    """What blocks have in common whose items are compared."""
    return {"global": 0, "layer": block.target, "block": block.block.id}[scope]


def _mark_magnitudes(
    items: Items, blocks: Sequence[BlockTable], gone: Mapping[int, Levels], levels: Sequence[float]
) -> None:
    dtype = np.float32 if all(_is_narrow(items, block) for block in blocks) else np.float64
    starts = np.cumsum([0, *(gone[block.block.id].size for block in blocks)]).tolist()

    def coded(owners: Collection[int] | None = None) -> Iterator[CodedPart]:
        for owner, block in enumerate(blocks):
            if owners is None or owner in owners:
                for codes, where, own in _coded(items, block, gone[block.block.id], np.dtype(dtype)):
                    yield CodedPart(owner, codes, partial(_moved, where, starts[owner]), own)

    n_items = sum(items.size_of(block) for block in blocks)
    mark_levels(coded, levels, n_items=n_items, n_codes=starts[-1])


Where = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Gives for places in a part those in the block, row by row."""


def _moved(where: Where, start: int, at: NDArray[np.int64]) -> NDArray[np.int64]:
    return where(at) + start


def _is_narrow(items: Items, block: BlockTable) -> bool:
    taps = items.taps.get(block.block.id)
    if taps is not None:
        return taps.kernels.dtype == np.float32
    values = block.weights if block.cells is None else block.cells.values
    return is_plain(block) and (not isinstance(values, np.ndarray) or values.dtype == np.float32)


def _coded(
    items: Items, block: BlockTable, gone: Levels, dtype: np.dtype[np.floating]
) -> Iterator[tuple[Codes, Where, Levels]]:
    """Codes of magnitudes, where they are, and where their levels are to be written."""
    taps, cells = items.taps.get(block.block.id), block.cells
    if taps is not None:
        kernels = taps.kernels.reshape(-1).astype(dtype, copy=False)
        yield magnitude_codes(kernels, full=False), _as_it_is, gone.reshape(-1)
    elif cells is not None and cells.present is None and is_plain(block):
        for piece in cells.pieces:
            codes = magnitude_codes(cells.weights(piece).astype(dtype, copy=False), full=cells.full)
            yield _part_of(codes, gone[piece], piece, cells)
    else:
        codes = magnitude_codes(items.magnitudes(block).astype(dtype, copy=False), full=True)
        yield (codes if cells is None else block.grid(codes).reshape(-1)), _as_it_is, gone.reshape(-1)


def _as_it_is(at: NDArray[np.int64]) -> NDArray[np.int64]:
    return at


def _part_of(codes: Codes, gone: Levels, piece: Piece, cells: Cells) -> tuple[Codes, Where, Levels]:
    """A piece of whole rows or of whole columns, in the order in which it is held."""
    rows, columns = piece
    height, width = cells.shape
    if cells.by_rows:
        return codes.reshape(-1), partial(np.add, rows.start * width), gone.reshape(-1)

    def down(at: NDArray[np.int64]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = at % height * width + columns.start + at // height
        return found

    return codes.T.reshape(-1), down, gone.T.reshape(-1)
