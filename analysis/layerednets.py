"""Unit graphs of plain layered nets, without a store: for studies, examples and tests."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.unitgraph import EdgeColumns, UnitBlock, UnitGraph, UnitLayer, from_arrays
from emergraph.errors import InvalidInputError
from emergraph.graphstore.records import EdgeKind, LayerKind


def dense_net(sizes: Sequence[int], *, kind: LayerKind = LayerKind.DENSE) -> UnitGraph:
    """A fully connected layered net without weights: `sizes[0]` inputs, then layers of the given kind.

    Example:
        >>> dense_net([3, 2, 2]).n_edges
        10
    """
    layers = _layers(sizes, [0] * (len(sizes) - 1), kind)
    blocks = [
        _block(source, target, n_edges=source.n_units * target.n_units) for source, target in pairwise(layers)
    ]
    return from_arrays(layers, blocks)


def layered_net(weights: Sequence[NDArray[np.floating]], *, name: str = "") -> UnitGraph:
    """A layered net from its weight matrices; a weight of exactly zero is not an edge.

    Args:
        weights: (n_in, n_out) each, from the first layer to the last.
        name: Name of the graph.

    Raises:
        InvalidInputError: No matrices, or one that does not fit the next.

    Example:
        >>> layered_net([np.array([[1.0, 0.0], [2.0, 3.0]])]).n_edges
        3
    """
    if not weights or any(a.ndim != 2 for a in weights):
        raise InvalidInputError("A layered net needs matrices (n_in, n_out), at least one")
    if any(a.shape[1] != b.shape[0] for a, b in pairwise(weights)):
        raise InvalidInputError(f"Matrices do not fit: shapes {[a.shape for a in weights]}")
    sizes = [weights[0].shape[0], *(matrix.shape[1] for matrix in weights)]
    layers = _layers(sizes, [int(np.count_nonzero(matrix == 0)) for matrix in weights], LayerKind.DENSE)
    blocks, columns = [], {}
    for matrix, (source, target) in zip(weights, pairwise(layers), strict=True):
        src, dst = np.nonzero(matrix)
        block = _block(source, target, n_edges=len(src))
        edges: EdgeColumns = {
            "src": src + source.first_unit,
            "dst": dst + target.first_unit,
            "weight": matrix[src, dst],
        }
        blocks.append(block)
        columns[block.id] = edges
    return from_arrays(layers, blocks, columns, name=name)


def _layers(sizes: Sequence[int], zeros: Sequence[int], kind: LayerKind) -> list[UnitLayer]:
    firsts = np.cumsum([0, *sizes]).tolist()
    return [
        UnitLayer(
            id=index,
            name=f"layer{index}",
            kind=kind if index else LayerKind.INPUT,
            first_unit=firsts[index],
            n_units=size,
            n_params=size * sizes[index - 1] if index else 0,
            n_zeros=zeros[index - 1] if index else 0,
        )
        for index, size in enumerate(sizes)
    ]


def _block(source: UnitLayer, target: UnitLayer, *, n_edges: int) -> UnitBlock:
    return UnitBlock(
        id=target.id - 1,
        name=target.name,
        kind=EdgeKind.WEIGHT,
        layer=target.id,
        n_edges=n_edges,
        dense=0 < n_edges == source.n_units * target.n_units,
        src_units=np.arange(source.first_unit, source.first_unit + source.n_units, dtype=np.int64),
        dst_units=np.arange(target.first_unit, target.first_unit + target.n_units, dtype=np.int64),
    )
