"""What is kept of a model so that its relatives are found among many: a few numbers per matrix.

The numbers of a matrix are of its balanced form, and of all its units alike: no other encoding of it, other
numbers for its units, other scales of them, folded norm or type of number changes them but by rounding.
"""

import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.comparison.model import Model, Weights, balanced
from emergraph.analysis.comparison.weights import Matrix, Weight

Floats = NDArray[np.float64]
MATRICES = 12
"""Matrices of a model that are kept, the largest."""
PLACES = (0.02, 0.15, 0.5, 0.85, 0.98)
"""Quantiles over units."""
SINGULAR = 6
"""Largest singular values."""
LARGEST_SIDE = 1024
"""Sides up to which all singular values are computed, of the product of a matrix with itself."""
NEIGHBOURS = 12
"""Models that each matrix is compared with, the nearest."""
Key = tuple[int, int, int]
"""Targets, sources and weights of each pair."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fingerprint:
    """Sketches of the largest matrices of a model, with their sizes."""

    sketches: Sequence[tuple[Key, NDArray[np.float32]]]
    skeleton: int = 0
    """Checksum of what a model shares with itself without some of its units; 0 where that is not known."""
    size: int = 0
    """Entries of all matrices."""

    @property
    def n_bytes(self) -> int:
        """Bytes of the numbers."""
        return sum(sketch.nbytes + 12 for _, sketch in self.sketches) + 12


def fingerprint_of(model: Model) -> Fingerprint:
    """Return the fingerprint of a model."""
    parts = [_by_source(weight, model.values[weight.name]) for weight in model.weights]
    largest = sorted(parts, key=lambda weights: -weights.size)[:MATRICES]
    return Fingerprint(
        sketches=tuple((one.shape, sketch_of(one)) for one in largest),
        skeleton=_skeleton(parts) if model.groups.wired and parts else 0,
        size=model.size,
    )


def _skeleton(parts: Sequence[Weights]) -> int:
    """Of inputs, outputs, and the weights of each pair of units in all matrices."""
    said = parts[0].shape[1], parts[-1].shape[0], [one.shape[2] for one in parts]
    return zlib.crc32(repr(said).encode()) or 1


def _by_source(weight: Weight, values: Matrix) -> Weights:
    """A matrix as (targets, sources, taps), however much is known of its units."""
    sources = 0 if weight.block is None else weight.block.n_src
    if not sources or values.shape[1] % sources:
        sources = values.shape[1]
    return values.reshape(len(values), sources, -1)


def sketch_of(weights: Floats) -> NDArray[np.float32]:
    """Return numbers that tell (targets, sources, taps) from others, whatever the order and scale of units.

    Logarithms of the largest singular values, and quantiles over targets and over sources of the sums of
    their weights, and of the third and fourth powers.
    """
    even = balanced(weights)
    rows, columns = len(even), even.shape[1]
    found = [np.log(_singular(even.reshape(rows, -1)) / np.sqrt(even.size) + 1e-6)]
    for power in (1, 3, 4):
        powers = even**power
        for axes, n in (((1, 2), rows), ((0, 2), columns)):
            spread = np.sqrt(even.size / n)
            found.append(np.quantile(powers.sum(axis=axes) / spread, PLACES))
    return np.concatenate(found).astype(np.float32)


def _singular(matrix: Floats) -> Floats:
    """The largest singular values, padded with zeros."""
    small = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    if len(small) <= LARGEST_SIDE:
        values = np.sqrt(np.maximum(np.linalg.eigvalsh(small @ small.T)[::-1], 0.0))
    else:
        from scipy.sparse.linalg import svds

        values = np.sort(svds(small, k=SINGULAR, v0=np.ones(len(small)), return_singular_vectors=False))[::-1]
    return np.pad(values[:SINGULAR], (0, max(0, SINGULAR - values.size)))


def candidates(prints: Sequence[Fingerprint], *, neighbours: int = NEIGHBOURS) -> set[tuple[int, int]]:
    """Return pairs of models that may be related, the lower number first.

    For each matrix those of its size are asked that are nearest: a tree finds them without looking at all.

    Args:
        prints: Of all models.
        neighbours: How many other models are asked for each matrix.
    """
    found: set[tuple[int, int]] = set()
    for owners, sketches in _by_size(prints).values():
        found.update(_nearest(owners, sketches, neighbours))
    found.update(_of_other_sizes(prints, neighbours))
    return found


def _of_other_sizes(prints: Sequence[Fingerprint], neighbours: int) -> Iterator[tuple[int, int]]:
    """Models and the next larger ones of their skeleton: no sketch stays as it is where units are cut out."""
    alike: defaultdict[int, list[int]] = defaultdict(list)
    for number, one in enumerate(prints):
        if one.skeleton:
            alike[one.skeleton].append(number)
    for members in alike.values():
        ordered = sorted(members, key=lambda number: prints[number].size)
        sizes = [prints[number].size for number in ordered]
        for number in ordered:
            first = bisect_right(sizes, prints[number].size)
            yield from (
                (min(number, other), max(number, other)) for other in ordered[first : first + neighbours]
            )


def _by_size(prints: Sequence[Fingerprint]) -> Mapping[Key, tuple[NDArray[np.int64], Floats]]:
    parts: defaultdict[Key, list[tuple[int, NDArray[np.float32]]]] = defaultdict(list)
    for owner, one in enumerate(prints):
        for key, sketch in one.sketches:
            parts[key].append((owner, sketch))
    return {
        key: (
            np.array([owner for owner, _ in rows]),
            np.array([sketch for _, sketch in rows], dtype=np.float64),
        )
        for key, rows in parts.items()
        if len({owner for owner, _ in rows}) > 1
    }


def _nearest(owners: NDArray[np.int64], sketches: Floats, neighbours: int) -> Iterator[tuple[int, int]]:
    from scipy.spatial import cKDTree

    spread = sketches.std(axis=0)
    even = sketches / np.where(spread > 0, spread, 1.0)
    own = int(np.unique(owners, return_counts=True)[1].max())  # sketches of one model that may lie between
    _, places = cKDTree(even).query(even, k=min(len(even), (neighbours + 1) * own))
    for owner, row in zip(owners.tolist(), owners[places].tolist(), strict=True):
        others = [other for other in dict.fromkeys(row) if other != owner][:neighbours]
        yield from ((min(owner, other), max(owner, other)) for other in others)
