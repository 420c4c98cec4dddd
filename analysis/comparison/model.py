"""A model as lineage sees it: its weight matrices, what may be renumbered in them, and their fingerprint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.comparison.deltas import finite_values
from emergraph.analysis.comparison.groups import Groups, groups_of
from emergraph.analysis.comparison.weights import Matrix, Weight, values_of, weights_of
from emergraph.graphstore.reader import GraphReader

Weights = NDArray[np.float64]
LEAST = 8
"""Entries of the smallest matrix that says anything about where a model comes from."""
BALANCING = 8
"""Rounds in which rows and columns are brought to one size."""
GRID = 1e-3
"""Distance from a whole number of steps that counts as rounding of floats."""
FEW = 256
"""Values that 8 bits have."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """The weights of one graph."""

    name: str
    graph: Mapping[str, object]
    """Its row of the table `graphs`."""
    weights: Sequence[Weight]
    """Matrices, in the order of their first use."""
    values: Mapping[str, Matrix]
    """By tensor, (targets, rest)."""
    groups: Groups

    @property
    def size(self) -> int:
        """Entries of all matrices."""
        return sum(values.size for values in self.values.values())

    @property
    def architecture(self) -> tuple[object, ...]:
        """What models of one architecture share: the shapes of their matrices in order."""
        return tuple(self.values[weight.name].shape for weight in self.weights)

    @cached_property
    def share_rounded(self) -> float:
        """Share of the entries that lie in matrices of at most 8 bits, however they are stored."""
        rounded = sum(values.size for values in self.values.values() if is_rounded(values))
        return rounded / max(1, self.size)


def read_model(reader: GraphReader, name: str) -> Model:
    """Read the weights of a graph; those of no edge, and those whose numbers cannot be told, are left out."""
    found: dict[str, Matrix] = {}
    weights = []
    for weight in weights_of(reader):
        if weight.block is None or weight.n_params < LEAST:
            continue
        values = values_of(reader, weight)
        if values is not None and np.any(values):
            found[weight.name] = finite_values(values)
            weights.append(weight)
    return Model(
        name=name,
        graph=reader.summary,
        weights=tuple(weights),
        values=found,
        groups=groups_of(reader, weights),
    )


def balanced(weights: Weights) -> Weights:
    """Return (targets, sources, taps) scaled so that all targets and all sources have one size.

    What a function-preserving change multiplies a unit by, and what a norm is folded into, falls out.

    Example:
        >>> one = np.random.default_rng(0).standard_normal((4, 3, 1))
        >>> other = one * np.array([1, 2, 3, 4.0])[:, None, None] * np.array([5, 1, 0.1])[:, None]
        >>> bool(np.allclose(balanced(one), balanced(other), atol=1e-3))
        True
    """
    found = weights / (np.sqrt(np.mean(weights**2)) or 1.0)
    squares = (found**2).sum(axis=2)
    rows, columns = np.ones(len(squares)), np.ones(squares.shape[1])
    for _ in range(BALANCING):
        rows = _inverse(squares @ columns / squares.shape[1])
        columns = _inverse(rows @ squares / len(squares))
    return np.asarray(found * np.sqrt(rows)[:, None, None] * np.sqrt(columns)[:, None])


def _inverse(sizes: Weights) -> Weights:
    return np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0)


def is_rounded(values: Matrix) -> bool:
    """Whether all values of a matrix, or of each of its rows, lie on a grid of at most 8 bits.

    Example:
        >>> fine = np.random.default_rng(0).standard_normal((8, 100))
        >>> is_rounded(fine), is_rounded(np.round(fine * 20) / 20)
        (False, True)
    """
    rows = values[np.any(values, axis=1)]
    if rows.size < 4 * LEAST:
        return False
    if _few_values(rows.ravel()):
        return True
    whole = rows.reshape(1, -1)
    return any(_on_grid(part, steps) for part in (rows, whole) for steps in (127, 255, 63, 31, 15, 7, 3))


def _few_values(values: Weights) -> bool:
    sample = values[: 1 << 16]
    other = sample[sample != 0]
    return bool(np.unique(other).size <= min(FEW, other.size // 4))


def _on_grid(rows: Matrix, steps: int) -> bool:
    """Whether rows are whole multiples of their largest entry, or of their range, over a number of steps."""
    if rows.shape[1] < 4:
        return False
    for offset, length in (
        (0.0, np.abs(rows).max(axis=1, keepdims=True)),
        (rows.min(axis=1, keepdims=True), np.ptp(rows, axis=1, keepdims=True)),
    ):
        places = (rows - offset) / np.where(length > 0, length, 1.0) * steps
        if np.all(np.abs(places - np.round(places)) < GRID * max(1.0, steps / 16)):
            return True
    return False
