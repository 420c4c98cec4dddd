"""Rank correlations of emergence and ruggedness: raw and partial, with intervals and corrected p values."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.statistics.conditional import ConditionalCorrelation, conditional_correlation
from emergraph.analysis.statistics.permutation import RankCorrelation, holm, rank_correlation
from ruggedness.measure import AT_THE_POINT, MEASURED, NORMS

Floats = NDArray[np.float64]

EMERGENCE = ("E_active", "E_active_per_density", "E_any")
CONTROLS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "raw": ((), None),
    "given sparsity": (("level",), None),
    "given sparsity, size": (("level", "sizes"), None),
    "given sparsity, size, loss": (("level", "sizes"), "base_loss"),
}
"""Columns whose groups are compared within themselves, and one that is held constant among neighbours."""
HELD_BY = {"sparsity": "level"}
"""Measures that do not vary within the groups of a column."""


def statistics() -> list[str]:
    """Names of all ruggedness columns."""
    return [f"{norm}_{name}" for norm in NORMS for name in MEASURED] + list(AT_THE_POINT)


def correlation(
    x: Floats, y: Floats, *, within: list[tuple[object, ...]] | None, given: Floats | None, permutations: int
) -> RankCorrelation | ConditionalCorrelation:
    """Within groups, and among neighbours where something is given."""
    if given is not None:
        return conditional_correlation(x, y, given=given, within=within)
    return rank_correlation(x, y, within=within, n_permutations=permutations)


def correlations(nets: pl.DataFrame, *, only: Sequence[str] = (), permutations: int = 9999) -> pl.DataFrame:
    """All correlations: one row per measure of emergence, statistic and control.

    p values are corrected over all statistics and controls of a measure: nothing is picked afterwards.

    Args:
        nets: One row per net, from `measure.measure`.
        only: These statistics; all of them when empty.
        permutations: Of each test.
    """
    rows: list[dict[str, object]] = []
    for statistic in only or statistics():
        kept = nets.filter(pl.col(statistic).is_finite())
        if kept.height < len(CONTROLS) + 8:
            continue
        y = _column(kept, statistic)
        for measure in (*EMERGENCE, "sparsity"):
            for control, (groups, given) in CONTROLS.items():
                if HELD_BY.get(measure) in groups:
                    continue
                found = correlation(
                    _column(kept, measure),
                    y,
                    within=kept.select(groups).rows() if groups else None,
                    given=_column(kept, given) if given else None,
                    permutations=permutations,
                )
                rows.append(
                    {
                        "measure": measure,
                        "statistic": statistic,
                        "control": control,
                        "rho": found.rho,
                        "low": found.low,
                        "high": found.high,
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


def _column(nets: pl.DataFrame, name: str) -> Floats:
    return nets[name].to_numpy().astype(np.float64)
