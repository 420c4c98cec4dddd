"""Every interval and p value that the house prints, and the calibration that stands behind it.

A test walks all result tables and the statistics of a landscape, and fails for one that has no entry here. A
number over repetitions that misses its level is not an interval: its columns say `spread`.
"""

from casetypes import ChanceTest, Interval
from intervalcases import INTERVALS
from testcases import TESTS

COLUMNS: dict[str, str | tuple[str, ...]] = {
    "emergence_intervals.low": "E per sample",
    "emergence_nulls.p_two_sided": "null model",
    "landscape_layers.low": "student",
    "landscape_layers.excess_low": "excess ruggedness",
    "percolation.low": "percolation threshold",
    "information.low": ("information, gaussian", "information, ksg", "information, codes"),
    "information.macro_low": ("information, gaussian", "information, ksg", "information, codes"),
    "skills.low": "skill's half-time",
    "skills_curves.low": "skill's half-time",
    "circuits.low": "kept behaviour",
    "circuit_curve.low": "kept behaviour",
    "unit_influence.low": "student, positive",
    "unit_influence.target_low": "student",
    "trajectory_correlations.low": "student, correlations over runs",
    "trajectory_correlations.p": (
        *(case.name for case in TESTS if case.name.startswith(("one run", "six runs"))),
    ),
    "trajectory_correlations.p_holm": "Holm's least p",
}
"""Columns of result tables; `low` stands for both ends."""

_SHARES = ("convexity", "asymmetry", "h_max", "h_0", "m_0", "neutral_share")
_POSITIVE = ("range", "eps_max", "plateau_length")
_REAL = ("rise", "curvature", "eps_s", "eps_ratio", "average_sharpness", "ball_rise", "adaptive_ball_rise")
_PLANES = ("n_minima", "saddles", "total_persistence", "max_persistence")

STATISTICS: dict[str, str] = {
    **dict.fromkeys(_REAL, "student"),
    **dict.fromkeys(("worst_case", "adaptive_worst_case"), "student"),
    **dict.fromkeys(_SHARES, "student, shares"),
    **dict.fromkeys(_POSITIVE, "student, positive"),
    **dict.fromkeys((f"plane_{name}" for name in _PLANES), "student, positive"),
    **dict.fromkeys(("plane_smad_normalised", "plane_convex_share"), "student, shares"),
    "rho_1": "autocorrelation",
    "correlation_length": "excess ruggedness",
    "excess_ruggedness": "excess ruggedness",
    "fdc_pearson": "fitness-distance, pearson",
    "fdc_spearman": "fitness-distance, spearman",
    "hessian_trace": "trace, Hutchinson",
    "hessian_trace_hutch_pp": "trace, Hutch++",
}
"""Rows of the table `landscape` that may have an interval; others are single figures."""

ELSEWHERE: dict[str, str | tuple[str, ...]] = {
    "transition, exponents": "exponent, slope",
    "transition, collapse": "exponent, collapse",
    "transition, threshold_low": "threshold of a run",
    "transition, middle_low": "middle of a run",
    "studies, intervals over seeds": "student",
    "studies, p over seeds": "Student's t over seeds",
    "studies, p_flip": "sign flips over seeds",
    "studies, p_holm": "Holm's least p",
    "studies, correlations of networks": (
        *(case.name for case in INTERVALS if case.name.startswith("correlation ")),
    ),
    "studies, p of networks": (
        *("rank correlation of networks", "rank correlation within groups"),
        *(case.name for case in TESTS if case.name.startswith("given one variable")),
    ),
    "audit, units far outside their layer": "robust z of units",
}
"""Answers without a result table."""


def cases() -> dict[str, Interval | ChanceTest]:
    """All simulations by name."""
    return {case.name: case for case in (*INTERVALS, *TESTS)}


def claimed() -> set[str]:
    """Names of the simulations that something stands on."""
    entries = [*COLUMNS.values(), *STATISTICS.values(), *ELSEWHERE.values()]
    return {name for entry in entries for name in ((entry,) if isinstance(entry, str) else entry)}
