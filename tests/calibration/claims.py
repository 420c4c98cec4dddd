"""Every interval and p value that the house prints, and the calibration that stands behind it.

A test walks all result tables and the statistics of a landscape, and fails for one that has no entry here. A
number over repetitions that misses its level is not an interval: its columns say `spread`.
"""

from casetypes import ChanceTest, Interval
from intervalcases import INTERVALS
from testcases import TESTS

_PER_SAMPLE = tuple(case.name for case in INTERVALS if case.name.startswith("E per sample"))
_ORDERS = tuple(case.name for case in TESTS if case.name.startswith("order of matched units"))

COLUMNS: dict[str, str | tuple[str, ...]] = {
    "emergence_intervals.low": _PER_SAMPLE,
    "emergence_nulls.p_two_sided": "null model",
    "landscape_layers.low": "student",
    "landscape_layers.excess_low": "excess ruggedness",
    "percolation.low": "percolation threshold",
    "information.low": "information emergence",
    "information.macro_low": ("information, gaussian", "information, ksg", "information, codes"),
    "skills.low": "skill's half-time",
    "skills_curves.low": "skill's curve",
    "attribution_agreement.low": (
        *(case.name for case in INTERVALS if case.name.startswith("correlation ")),
    ),
    "unit_influence.low": ("influence, effect", "influence, squares"),
    "unit_influence.target_low": "influence, change of the target",
    "trajectory_correlations.low": "student, correlations over runs",
    "trajectory_correlations.p": (
        *(case.name for case in TESTS if case.name.startswith(("one run", "six runs"))),
    ),
    "trajectory_correlations.p_holm": "Holm's least p",
    "relations.p": _ORDERS,
    "relations.p_corrected": _ORDERS,
    "relations.match_p": "match score of two models",
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
    "transition, collapse": ("exponent, collapse", "exponent, collapse of four"),
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
    "audit, units far outside their layer": ("robust z of units", "false discoveries among units"),
    "audit, silent units": "silence of units",
    "findings, clear distance from a null model": ("clear distance, 3 draws", "clear distance, 5 draws"),
}
"""Answers without a result table."""


_STUDENT = ("student", "student, positive", "student, shares")
_NETS = ELSEWHERE["studies, p of networks"]

CALLS: dict[str, str | tuple[str, ...]] = {
    "analysis/audit/dead:silence_bound 0.05 **": "silence of units",
    "analysis/audit/suspicious:p_values sf": ("robust z of units", "false discoveries among units"),
    "analysis/emergence/intervals:sample_range median_rank": _PER_SAMPLE,
    "analysis/emergence/intervals:bootstrap_emergence counts_of_draws": "none: spread_low and spread_high",
    "analysis/emergence/nulls:compare p_two_sided": "null model",
    "analysis/emergence/thresholds:default_thresholds quantile": "none: places of a grid",
    "analysis/emergence/trajectory:_correlation paired_runs_p": (
        *(case.name for case in TESTS if case.name.startswith("six runs")),
    ),
    "analysis/emergence/trajectory:_correlation partial_spearman": "none: an effect",
    "analysis/emergence/trajectory:_correlation stationary_p": (
        *(case.name for case in TESTS if case.name.startswith("one run")),
    ),
    "analysis/emergence/trajectory:_correlation student": "student, correlations over runs",
    "analysis/emergence/trajectory:corrected holm": "Holm's least p",
    "analysis/influence/circuits:_Behaviour.kept jackknife": "none: spread_low, samples chose the units",
    "analysis/influence/influences:agreement rank_correlation": (
        ELSEWHERE["studies, correlations of networks"]
    ),
    "analysis/influence/knockouts:Bench.row student": (
        *("influence, effect", "influence, squares", "influence, change of the target"),
    ),
    "analysis/information/estimate:spread student_reach": (
        *(case.name for case in INTERVALS if case.name.startswith("information")),
    ),
    "analysis/landscape/autocorrelation:analyse_walks jackknife": ("autocorrelation", "excess ruggedness"),
    "analysis/landscape/curvature:average_sharpness student": "student",
    "analysis/landscape/curvature:worst_case_ascent student": "student",
    "analysis/landscape/curvature:worst_case_sampled student": "student",
    "analysis/landscape/extras:single student": "none: one value has no interval",
    "analysis/landscape/fdc:fitness_distance student": (
        "fitness-distance, pearson",
        "fitness-distance, spearman",
    ),
    "analysis/landscape/figures:draw_slices quantile": "none: a band of percentiles, called so",
    "analysis/landscape/figures:draw_walks left_out_ends": "autocorrelation",
    "analysis/landscape/information_content:summarise_information.over student": _STUDENT,
    "analysis/landscape/layers:layer_ruggedness student": "student",
    "analysis/landscape/neutrality:neutrality student": _STUDENT,
    "analysis/landscape/slices:summarise_slices student": _STUDENT,
    "analysis/landscape/spectrum:_without_interval student": "none: mean and deviation only",
    "analysis/landscape/spectrum:hutch_pp_trace student": "trace, Hutch++",
    "analysis/landscape/spectrum:hutchinson_trace student": "trace, Hutchinson",
    "analysis/landscape/survey:_analyse student": "student",
    "analysis/landscape/survey:_balls student": "student",
    "analysis/landscape/survey:_over_planes student": _STUDENT,
    "analysis/lineage/fingerprint:sketch_of quantile": "none: numbers of a fingerprint",
    "analysis/lineage/independence:_neighbours_p share_as_extreme": "none: a check, which only takes away",
    "analysis/lineage/independence:_trend_p spearmanr": "none: a check, which only takes away",
    "analysis/lineage/independence:stored_order_test bonferroni_log_p": _ORDERS,
    "analysis/lineage/independence:stored_order_test fisher_log_p": _ORDERS,
    "analysis/lineage/independence:stored_order_test order_log_p": _ORDERS,
    "analysis/lineage/lineage:_with_match_p share_as_extreme": "match score of two models",
    "analysis/lineage/outputs:_stand_out ppf": "none: a score, with its false rate in docs/lineage.md",
    "analysis/lineage/outputs:_stand_out sf": "none: a score, with its false rate in docs/lineage.md",
    "analysis/percolation/analysis:_finding is_clear": ("clear distance, 3 draws", "clear distance, 5 draws"),
    "analysis/percolation/concepts:_curve percentile": "none: random_spread_low and random_spread_high",
    "analysis/percolation/concepts:_threshold_row student": "percolation threshold",
    "analysis/percolation/result:PercolationResult._series_curve percentile": "none: giant_spread_low",
    "analysis/percolation/result:Series.estimate student": "percolation threshold",
    "analysis/percolation/training:collapse_exponent ppf": (
        "exponent, collapse",
        "exponent, collapse of four",
    ),
    "analysis/percolation/training:slope_exponent linregress": "exponent, slope",
    "analysis/percolation/training:slope_exponent ppf": "exponent, slope",
    "analysis/percolation/transitions:_likely stdtrit": "none: threshold_spread_low, middle_spread_low",
    "analysis/skills/fit:_bands left_out_ends": "skill's curve",
    "analysis/skills/fit:_emergence left_out_ends": "skill's half-time",
    "analysis/topology/analysis:finding_of is_clear": ("clear distance, 3 draws", "clear distance, 5 draws"),
    "analysis/topology/topology:_layers percentile": "none: percentiles of strengths, called so",
    "studies/lineagenets/experiment:_derived quantile": "none: how many weights are pruned",
    "studies/lineagenets/experiment:calibrated share_as_extreme": "match score of two models",
    "studies/pathcounts/claims:_changes paired_runs_p": (
        *(case.name for case in TESTS if case.name.startswith("six runs")),
    ),
    "studies/pathcounts/claims:_changes partial_spearman": "none: an effect of each seed",
    "studies/pathcounts/claims:_row sign_flip_p": "sign flips over seeds",
    "studies/pathcounts/experiment:_initialised ndtr": "none: normal weights of a start",
    "studies/pathcounts/claims:judged holm": "Holm's least p",
    "studies/pathcounts/page:_interval student": "student",
    "studies/pathcounts/stopping:stopping_rows student": "student",
    "studies/planned:among rank_correlation": (*_NETS, *ELSEWHERE["studies, correlations of networks"]),
    "studies/planned:judge holm": "Holm's least p",
    "studies/planned:over_replicates student": ("student", "student, correlations over runs"),
    "studies/planned:over_replicates student_p": "Student's t over seeds",
    "studies/ruggedness/correlate:correlation conditional_correlation": _NETS,
    "studies/ruggedness/correlate:correlation rank_correlation": _NETS,
    "studies/ruggedness/correlate:correlations holm": "Holm's least p",
    "studies/skillsmodel/experiment:change_effect percentile": "none: shifted_spread_low",
    "studies/transfer/page:_interval student": "student",
}
"""Every place outside of the room of statistics that infers from repetitions: file, function, what it calls.

A name that starts with "none: " says why there is neither an interval nor a p value.
"""


def cases() -> dict[str, Interval | ChanceTest]:
    """All simulations by name."""
    return {case.name: case for case in (*INTERVALS, *TESTS)}


def claimed() -> set[str]:
    """Names of the simulations that something stands on."""
    entries = [*COLUMNS.values(), *STATISTICS.values(), *ELSEWHERE.values(), *CALLS.values()]
    names = {name for entry in entries for name in ((entry,) if isinstance(entry, str) else entry)}
    return {name for name in names if not name.startswith("none: ")}
