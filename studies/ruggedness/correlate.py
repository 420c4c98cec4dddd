"""Rank correlations of emergence and ruggedness: raw and partial, with intervals and corrected p values."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.emergence.rankcorrelation import rank_correlation, ranks
from ruggedness.measure import AT_THE_POINT, MEASURED, NORMS

Floats = NDArray[np.float64]

EMERGENCE = ("E_active", "E_active_per_density", "E_any")
CONTROLS: dict[str, tuple[str, ...]] = {
    "raw": (),
    "given sparsity": ("sparsity",),
    "given sparsity, size": ("sparsity", "n_weights"),
    "given sparsity, size, loss": ("sparsity", "n_weights", "base_loss"),
}


def statistics() -> list[str]:
    """Names of all ruggedness columns."""
    return [f"{norm}_{name}" for norm in NORMS for name in MEASURED] + list(AT_THE_POINT)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979) over the values that there are.

    Example:
        >>> holm([0.01, None, 0.04, 0.03])
        [0.03, None, 0.06, 0.06]
    """
    known = sorted((value, i) for i, value in enumerate(p) if value is not None)
    corrected: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        corrected[i] = largest
    return corrected


def partial_rho(x: Floats, y: Floats, given: Sequence[Floats]) -> float:
    """Spearman correlation with the ranks of `given` regressed out; NaN where nothing is left."""
    ranked = [ranks(v) for v in (x, y, *given)]
    design = np.column_stack([np.ones(len(x)), *ranked[2:]])
    left, right = (v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in ranked[:2])
    size = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / size if size > 1e-9 * len(x) else float("nan")


def interval(x: Floats, y: Floats, given: Sequence[Floats], *, draws: int, seed: int) -> tuple[float, float]:
    """Percentile interval of 95 % over resamples of whole nets."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        chosen = rng.integers(0, len(x), len(x))
        found.append(partial_rho(x[chosen], y[chosen], [g[chosen] for g in given]))
    kept = np.array(found)[np.isfinite(found)]
    low, high = np.quantile(kept, [0.025, 0.975]) if kept.size else (np.nan, np.nan)
    return float(low), float(high)


def correlations(
    nets: pl.DataFrame, *, only: Sequence[str] = (), draws: int = 300, permutations: int = 9999
) -> pl.DataFrame:
    """All correlations: one row per measure of emergence, statistic and control.

    p values are corrected over all statistics and controls of a measure: nothing is picked afterwards.

    Args:
        nets: One row per net, from `measure.measure`.
        only: These statistics; all of them when empty.
        draws: Of the bootstrap.
        permutations: Of each test.
    """
    rows: list[dict[str, object]] = []
    for statistic in only or statistics():
        kept = nets.filter(pl.col(statistic).is_finite())
        if kept.height < len(CONTROLS) + 8:
            continue
        y = kept[statistic].to_numpy().astype(np.float64)
        for measure in (*EMERGENCE, "sparsity"):
            x = kept[measure].to_numpy().astype(np.float64)
            for control, names in CONTROLS.items():
                if measure in names:
                    continue
                given = [kept[name].to_numpy().astype(np.float64) for name in names]
                found = rank_correlation(x, y, given=given, n_permutations=permutations)
                low, high = (None, None) if found.degenerate else interval(x, y, given, draws=draws, seed=0)
                rows.append(
                    {
                        "measure": measure,
                        "statistic": statistic,
                        "control": control,
                        "rho": found.rho,
                        "low": low,
                        "high": high,
                        "p": found.p,
                        "n": found.n,
                    }
                )
    frame = pl.DataFrame(rows, infer_schema_length=None)
    families = frame.partition_by("measure", maintain_order=True)
    return pl.concat(
        part.with_columns(pl.Series("p_holm", holm(part["p"].to_list()), dtype=pl.Float64))
        for part in families
    )
