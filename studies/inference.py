"""Statistics that several studies share: partial rank correlations and corrected p values."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.emergence.rankcorrelation import ranks

Floats = NDArray[np.float64]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979) over the p values that there are.

    Example:
        >>> holm([0.01, None, 0.04, 0.03])
        [0.03, None, 0.06, 0.06]
    """
    known = sorted((value, i) for i, value in enumerate(p_values) if value is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (value, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        corrected[i] = largest
    return corrected


def partial_spearman(x: Floats, y: Floats, given: Sequence[Floats] = ()) -> float:
    """Spearman correlation with the ranks of `given` regressed out of both; NaN where one is constant then.

    `rank_correlation` of the library gives the same with a permutation test; this is for resampling.
    """
    design = np.column_stack([np.ones(len(x)), *(ranks(values) for values in given)])
    left, right = (r - design @ np.linalg.lstsq(design, r, rcond=None)[0] for r in (ranks(x), ranks(y)))
    scale = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / scale if scale > 1e-9 * len(x) else float("nan")
