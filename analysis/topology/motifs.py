"""Motifs of one block as a bipartite graph: stars and butterflies."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

MAX_FULL = 1 << 26
"""Elements of a matrix that is multiplied in full where it is not sparse."""
MAX_SIDE = 4096
"""Butterflies are counted where the smaller side has at most so many units."""


def block_motifs(src: NDArray[np.integer], dst: NDArray[np.integer]) -> dict[str, int | None]:
    """Count motifs of a block without repeated pairs.

    `diverging` and `converging`: pairs of edges with a common source, a common target. `butterflies`: two
    sources and two targets with all four edges, `sum over pairs of units of C(common neighbours, 2)`.

    Returns:
        diverging, converging, butterflies (None where both sides exceed `MAX_SIDE`).

    Example:
        >>> block_motifs(np.array([0, 0, 1, 1]), np.array([2, 3, 2, 3]))
        {'diverging': 2, 'converging': 2, 'butterflies': 1}
    """
    out_degree, in_degree = np.unique(src, return_counts=True)[1], np.unique(dst, return_counts=True)[1]
    return {
        "diverging": int((out_degree * (out_degree - 1) // 2).sum()),
        "converging": int((in_degree * (in_degree - 1) // 2).sum()),
        "butterflies": _butterflies(src, dst),
    }


def _butterflies(src: NDArray[np.integer], dst: NDArray[np.integer]) -> int | None:
    sides = [np.unique(side, return_inverse=True) for side in (src, dst)]
    (rows, row), (columns, column) = sorted(sides, key=lambda side: len(side[0]))
    if len(rows) > MAX_SIDE:
        return None
    shape = (len(rows), len(columns))
    matrix = csr_array((np.ones(len(row)), (row, column)), shape=shape)
    if len(row) > 0.05 * len(rows) * len(columns) and len(rows) * len(columns) <= MAX_FULL:
        full = matrix.toarray()
        common = full @ full.T
    else:
        common = (matrix @ matrix.T).toarray()
    pairs = common[np.triu_indices(len(rows), 1)].astype(np.int64)
    return int((pairs * (pairs - 1) // 2).sum())
