"""Rank correlations of emergence and ruggedness: raw and partial, with intervals and corrected p values."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.statistics.intervals import percentiles
from emergraph.analysis.statistics.permutation import holm, partial_spearman, rank_correlation
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


def interval(x: Floats, y: Floats, given: Sequence[Floats], *, draws: int, seed: int) -> tuple[float, float]:
    """Percentile interval of 95 % over resamples of whole nets."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        chosen = rng.integers(0, len(x), len(x))
        found.append(partial_spearman(x[chosen], y[chosen], [g[chosen] for g in given]))
    return percentiles(found)


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
