"""`emergraph emergence` and `emergraph trajectory`: path-count emergence, and how it moves in training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emergraph.analysis.activity.options import ActivityOptions, ActivityRule, RuleOptions
from emergraph.analysis.declaration import Analysis, Headline, Query, SectionSpec, Subject, TableSpec
from emergraph.analysis.emergence.options import (
    ExtentOptions,
    ReportOptions,
    SnapshotOptions,
    TrajectoryOptions,
)
from emergraph.analysis.engines.options import EngineOptions
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.errors import UsageError
from emergraph.graphstore.results import Column, ResultTable

if TYPE_CHECKING:
    import polars as pl

    from emergraph.analysis.access import GraphAccess
    from emergraph.analysis.emergence.trajectory import Trajectory
    from emergraph.analysis.figures.figure import Figure
    from emergraph.analysis.view import View

COUNTS = ResultTable(
    "emergence",
    "One row per interior of a run: E, the number of paths from inactive to active units.",
    (
        Column(
            "interior",
            "VARCHAR",
            "Where paths run: active (through active units only) or any; printed for "
            "the count on layer sizes that the paper prints, where layers are a chain.",
        ),
        Column("activity", "VARCHAR", "Which units are active, in words."),
        Column("threshold", "DOUBLE", "Threshold of the activity rule; NULL for none."),
        Column("emergence", "DOUBLE", "E; infinite beyond 1.8e308."),
        Column("log10", "DOUBLE", "Decimal logarithm of E; NULL where E is 0."),
        Column("exact", "VARCHAR", "E as an integer; NULL where it was not counted exactly."),
        Column("per_param", "DOUBLE", "E / non-zero parameters; NULL without parameters."),
        Column("per_dense_param", "DOUBLE", "E / parameters before pruning; NULL without parameters."),
        Column("per_density", "DOUBLE", "E / (share of parameters that remain); NULL without parameters."),
        Column("n_active", "INTEGER", "Active units."),
        Column("n_inactive", "INTEGER", "Inactive units that count."),
    ),
)
BY_LAYER = ResultTable(
    "emergence_layers",
    "One row per interior and layer of a run: how much of E starts in the layer.",
    (
        Column("interior", "VARCHAR", "As in emergence."),
        Column("layer", "INTEGER", "layers.id."),
        Column("n_active", "INTEGER", "Active units."),
        Column("n_inactive", "INTEGER", "Inactive units."),
        Column("n_transparent", "INTEGER", "Units where paths pass, but neither start nor end."),
        Column("share", "DOUBLE", "Share of E that starts in the layer, in [0, 1]; NULL where E is 0."),
        Column("log10", "DOUBLE", "Decimal logarithm of that part of E; NULL where it is 0."),
    ),
)
BY_THRESHOLD = ResultTable(
    "emergence_thresholds",
    "One row per interior and threshold of a sweep.",
    (
        Column("interior", "VARCHAR", "As in emergence."),
        Column("threshold", "DOUBLE", "Threshold of the activity rule."),
        Column("n_active", "DOUBLE", "Active units; for rule per_sample the mean over samples."),
        Column("share_active", "DOUBLE", "Their share of the units that count, in [0, 1]."),
        Column("emergence", "DOUBLE", "E; infinite beyond 1.8e308."),
        Column("log10", "DOUBLE", "Decimal logarithm of E; NULL where E is 0."),
    ),
)
INTERVALS = ResultTable(
    "emergence_intervals",
    "One row per interior: E over the samples of a trace, with an interval or a spread.",
    (
        Column("interior", "VARCHAR", "As in emergence."),
        Column("activity", "VARCHAR", "Which units are active, in words."),
        Column("emergence", "DOUBLE", "E on all samples; for rule per_sample the mean over samples."),
        Column("median", "DOUBLE", "For rule per_sample the median over samples; NULL for the others."),
        Column("low", "DOUBLE", "Lower end of the median's interval; NULL for rules that have a spread."),
        Column("high", "DOUBLE", "Upper end of the median's interval; NULL for rules that have a spread."),
        Column("spread_low", "DOUBLE", "Lower end of E over samples drawn again; no interval."),
        Column("spread_high", "DOUBLE", "Upper end of it; NULL for rule per_sample."),
        Column("level", "DOUBLE", "Coverage of the interval, or share of draws in the spread."),
        Column("n_draws", "INTEGER", "Draws with replacement; 0 for an interval."),
        Column("n_samples", "INTEGER", "Samples behind it."),
    ),
)
NULLS = ResultTable(
    "emergence_nulls",
    "One row per null model and interior of a run: E beside E where chance decides.",
    (
        Column("null_model", "VARCHAR", "What is drawn at random, such as activity_in_layers."),
        Column("interior", "VARCHAR", "As in emergence."),
        Column("activity", "VARCHAR", "shuffled, measured again (the model ran), or held fixed."),
        Column("emergence", "DOUBLE", "E as observed."),
        Column("mean", "DOUBLE", "Mean of the draws."),
        Column("sd", "DOUBLE", "Their standard deviation, of E or of its logarithm, see scale."),
        Column("z", "DOUBLE", "(E - mean) / sd; NULL for a degenerate null."),
        Column("scale", "VARCHAR", "count, or log10 where counts are beyond 1.8e308."),
        Column("p_two_sided", "DOUBLE", "Empirical p value, in (0, 1]."),
        Column("degenerate", "BOOLEAN", "All draws are equal: the null says nothing."),
        Column("n_draws", "INTEGER", "Draws."),
        Column("noise", "DOUBLE", "Size of weight_noise, relative to each tensor's root mean square."),
    ),
)
BASELINES = ResultTable(
    "emergence_baselines",
    "One row per run: simple figures that a claim about E has to beat.",
    (
        Column("activity_sparsity", "DOUBLE", "Share of the units that count that are inactive."),
        Column("weight_sparsity", "DOUBLE", "Share of the parameters that are exactly zero."),
        Column("weight_l1", "DOUBLE", "Sum of the absolute weights of edges."),
        Column("weight_l2", "DOUBLE", "Root of the sum of their squares."),
        Column("weight_max_abs", "DOUBLE", "Largest absolute weight."),
    ),
)
COMPLEXITY = ResultTable(
    "emergence_complexity",
    "One row per layer of a run: how far the layer is from a linear map of its input.",
    (
        Column("layer", "INTEGER", "layers.id."),
        Column("unexplained", "DOUBLE", "Share of variance that no linear map explains, held out."),
        Column("status", "VARCHAR", "ok, or why there is no figure."),
    ),
)
POSITIONS = ResultTable(
    "emergence_positions",
    "One row per form and interior of a run: E between the positions of a convolutional network.",
    (
        Column("form", "VARCHAR", "positions, channels, or filters, as printed."),
        Column("interior", "VARCHAR", "As in emergence; - for the form as printed."),
        Column("emergence", "DOUBLE", "E."),
        Column("log10", "DOUBLE", "Decimal logarithm of E; NULL where E is 0."),
        Column("n_active", "BIGINT", "Active units."),
        Column("n_units", "BIGINT", "Units that count."),
    ),
)
STEPS = ResultTable(
    "trajectory_steps",
    "One row per snapshot and interior of a run: E along training.",
    (
        Column("training", "VARCHAR", "Training run: the name of the snapshot without its step."),
        Column("snapshot", "INTEGER", "graphs.id of the snapshot."),
        Column("step", "BIGINT", "Training step."),
        Column("interior", "VARCHAR", "As in emergence."),
        Column("emergence", "DOUBLE", "E; infinite beyond 1.8e308."),
        Column("log10", "DOUBLE", "Decimal logarithm of E; NULL where E is 0."),
        Column("per_density", "DOUBLE", "E / (share of parameters that remain)."),
        Column("activity_sparsity", "DOUBLE", "Share of inactive units."),
        Column("weight_sparsity", "DOUBLE", "Share of the parameters that are zero."),
        Column("metric", "DOUBLE", "The metric that the run asked about."),
    ),
)
CORRELATIONS = ResultTable(
    "trajectory_correlations",
    "One row per measure, lag and kind of change: E against the change in the metric that follows.",
    (
        Column("measure", "VARCHAR", "Figure of emergence."),
        Column("change", "VARCHAR", "raw, or smoothed by a trailing mean."),
        Column("lag", "INTEGER", "Steps between E and the change."),
        Column("n", "INTEGER", "Pairs of each run."),
        Column("runs", "INTEGER", "Training runs in which E and the change vary."),
        Column("rho", "DOUBLE", "Spearman's rank correlation along the steps, mean over runs."),
        Column("low", "DOUBLE", "Lower end of its 95 % interval over runs; NULL for one run."),
        Column("high", "DOUBLE", "Upper end of it."),
        Column("rho_given_step", "DOUBLE", "The same with the step held constant."),
        Column("p", "DOUBLE", "p value of the test; NULL for none."),
        Column("p_holm", "DOUBLE", "The same after Holm's correction over all rows of the run."),
        Column("test", "VARCHAR", "What was drawn at random, or why there is no p value."),
    ),
)
STOPPINGS = ResultTable(
    "trajectory_stoppings",
    "One row per rule on E: where it stops training, beside ordinary early stopping.",
    (
        Column("training", "VARCHAR", "Training run."),
        Column("rule", "VARCHAR", "settled or near_zero."),
        Column("measure", "VARCHAR", "Figure of emergence."),
        Column("step", "BIGINT", "Where the rule stops; NULL for never."),
        Column("ordinary_step", "BIGINT", "Where early stopping on the metric does; NULL for never."),
        Column("saved", "INTEGER", "Snapshots that the rule stops earlier."),
        Column("loss", "DOUBLE", "What it costs in the best value of the metric."),
    ),
)
SECTION = SectionSpec(
    id="emergence",
    title="Emergence",
    on_trace=True,
    lead="How many paths lead from units that are silent to units that are active. The number depends "
    "on the threshold of activity and on conventions, so it is shown with its sweep, and never "
    "alone.",
    tables=(
        TableSpec(
            name="emergence",
            title="Emergence at one threshold",
            definition=(
                "E: paths from inactive to active units. Per parameter: E over the non-zero parameters; per "
                "density: E over the share of parameters that are not zero."
            ),
            query=Query(
                name="rows",
                table="emergence",
                sql="""
SELECT interior, activity, emergence, log10, per_param AS per_parameter, per_density, n_active AS active,
       n_inactive AS inactive
FROM emergence WHERE run = {run} ORDER BY interior""",
            ),
        ),
        TableSpec(
            name="emergence-intervals",
            title="E over samples",
            definition=(
                "For rule per_sample the mean over samples, and their median with its interval (low, high); "
                "the mean of counts that differ by decades has none. For the others how far E moves when "
                "samples are drawn again with replacement (spread): a count of units above a threshold is "
                "not a smooth function of the samples, and this is not a confidence interval."
            ),
            query=Query(
                name="rows",
                table="emergence_intervals",
                sql="""
SELECT interior, activity, emergence, median, low, high, spread_low, spread_high, level, n_draws AS draws,
       n_samples AS samples
FROM emergence_intervals WHERE run = {run} ORDER BY interior""",
            ),
        ),
        TableSpec(
            name="emergence-nulls",
            title="Null models",
            definition=(
                "E beside its mean over draws of each null model. z: distance in standard deviations, none "
                "for a degenerate null; p: share of draws at least as far away. Activity: whether the model "
                "ran again for each draw."
            ),
            query=Query(
                name="rows",
                table="emergence_nulls",
                sql="""
SELECT null_model, interior, activity, emergence, mean, sd, scale, z, p_two_sided AS p, degenerate,
       n_draws AS draws
FROM emergence_nulls WHERE run = {run} ORDER BY null_model, interior""",
            ),
        ),
        TableSpec(
            name="emergence-baselines",
            title="Baselines",
            definition=(
                "Simple figures that a claim about emergence has to beat: shares of inactive units and of "
                "zero parameters, and norms of the weights."
            ),
            query=Query(
                name="rows",
                table="emergence_baselines",
                sql="""
SELECT activity_sparsity, weight_sparsity, weight_l1, weight_l2, weight_max_abs
FROM emergence_baselines WHERE run = {run}""",
            ),
        ),
    ),
    command="emergraph emergence STORE --graph GRAPH --full",
)
TRAINING = SectionSpec(
    id="training",
    title="Training",
    lead="What was recorded with snapshots during training.",
    command="a Recorder in the training script, see docs/pytorch.md",
)


def _figures() -> "Sequence[Figure]":
    from emergraph.analysis.emergence import figures

    return figures.FIGURES


def _training_figures() -> "Sequence[Figure]":
    from emergraph.analysis.emergence import figures

    return figures.TRAINING_FIGURES


def has_interval(activity: ActivityOptions, report: ReportOptions) -> bool:
    """Whether E over samples is asked for."""
    return report.draws is not None or activity.rule is ActivityRule.PER_SAMPLE


def _check(
    activity: ActivityOptions,
    report: ReportOptions,
    extent: ExtentOptions,
    _conventions: EmergenceOptions,
    _engine: EngineOptions,
) -> None:
    """Refuse options that do not go together."""
    if extent.positions:
        if extent.full or activity.before is not None or extent.model is None:
            raise UsageError("--positions runs the model: give --model FILE, and no --full or --before")
        return
    if extent.full:
        return
    if report.nulls is not None:
        raise UsageError("--model and --nulls are for null models: add --full")
    if report.thresholds is not None:
        if report.draws is not None or activity.threshold is not None:
            raise UsageError("--thresholds sweeps: leave out --threshold and --draws, or add --full")
    elif has_interval(activity, report) and activity.before is not None:
        raise UsageError("--draws needs samples, and weight_change has none: leave it out")


def _run(
    at: "GraphAccess",
    activity: ActivityOptions,
    report: ReportOptions,
    extent: ExtentOptions,
    conventions: EmergenceOptions,
    engine: EngineOptions,
) -> object:
    from emergraph.analysis.emergence.storedcount import stored_emergence

    at.leave_out(engine)
    at.run_on(engine)
    return stored_emergence(at, activity, report, extent, conventions)


def _plan(
    at: "GraphAccess",
    _activity: ActivityOptions,
    report: ReportOptions,
    _extent: ExtentOptions,
    conventions: EmergenceOptions,
    _engine: EngineOptions,
) -> "View":
    from emergraph.analysis.emergence.views import plan_view
    from emergraph.analysis.paths.planning import plan_count

    cases = len(report.thresholds) if isinstance(report.thresholds, tuple) else 1
    return plan_view(plan_count(at.units(), at.reader, conventions, cases=cases))


def _rows(result: Any) -> "dict[str, pl.DataFrame]":  # noqa: ANN401 - one of five results
    from emergraph.analysis.emergence.storedcount import emergence_rows

    return emergence_rows(result)


def _show(result: object) -> "View":
    from emergraph.analysis.emergence.views import result_view

    return result_view(result)


def _run_trajectory(
    at: "GraphAccess",
    snapshots: SnapshotOptions,
    activity: RuleOptions,
    asked: TrajectoryOptions,
    conventions: EmergenceOptions,
) -> "Trajectory":
    from emergraph.analysis.emergence.storedtrajectory import stored_trajectory

    result = stored_trajectory(
        at.store,
        snapshots.graphs,
        rule=activity.rule,
        threshold=activity.threshold,
        options=conventions,
        trajectory=asked,
    )
    about = result.options
    at.keep(activity=result.activity, metric=about.metric, higher_is_better=about.higher_is_better)
    return result


def _trajectory_rows(result: "Trajectory") -> "dict[str, pl.DataFrame]":
    from emergraph.analysis.emergence.storedtrajectory import trajectory_rows

    return trajectory_rows(result)


def _headline(rows: Sequence[tuple[Any, ...]], _parameters: Mapping[str, Any]) -> str:
    told = ", ".join(f"{value:.4g} through {interior} units" for interior, value, _ in rows)
    return f"E is {told} (active: {rows[0][2]})"


def _beside_nulls(rows: Sequence[tuple[Any, ...]], _parameters: Mapping[str, Any]) -> str | None:
    if not rows:
        return None
    told = ", ".join(
        f"{mean:.4g} through {interior} units ({'all draws equal' if z is None else f'z = {z:.2g}'})"
        for interior, mean, z, _ in rows
    )
    return (
        f"with the active units of each layer chosen at random it is {told}, on average of {rows[0][3]} draws"
    )


def _trajectory_headline(rows: Sequence[tuple[Any, ...]], parameters: Mapping[str, Any]) -> str | None:
    from emergraph.analysis.statistics.permutation import SIGNIFICANT  # loads numpy

    least, rho, tests, correlations = rows[0]
    metric = parameters.get("metric")
    if not correlations:
        return None
    if not tests:
        return f"undecided whether E goes with the change in {metric}: too few runs or steps for a p value"
    goes = least <= SIGNIFICANT
    said = f"E goes with the change in {metric}, rho {rho:.2f}" if goes else "no correlation beyond chance"
    return f"{said}; least p {least:.2g} (Holm, {tests} tests)"


EMERGENCE = Analysis(
    name="emergence",
    summary="Count the paths from inactive to active units (path-count emergence, arXiv 2409.01568).",
    of=Subject.GRAPH,
    options=(ActivityOptions, ReportOptions, ExtentOptions, EmergenceOptions, EngineOptions),
    examples="""
    emergraph emergence net.duckdb
    emergraph emergence net.duckdb --dry-run
    emergraph emergence net.duckdb --full --model net.onnx
    emergraph emergence net.duckdb --positions --model net.onnx --inputs test.npz
    emergraph emergence net.duckdb --graph vad --rule any --threshold 0.1
    emergraph emergence net.duckdb --graph epoch-9 --rule weight_change --before epoch-8
    emergraph emergence net.duckdb --graph pruned --reference dense
    emergraph emergence net.duckdb --thresholds 0.01,0.05,0.1,0.2 --format csv
    emergraph emergence net.duckdb --rule per_sample --draws 500 --seed 1 --format json
    emergraph emergence llm.duckdb --model llm --backend dask --cluster tcp://host:8786
    """,
    check=_check,
    run=_run,
    plan=_plan,
    rows=_rows,
    show=_show,
    tables=(COUNTS, BY_LAYER, BY_THRESHOLD, INTERVALS, NULLS, BASELINES, COMPLEXITY, POSITIONS),
    section=SECTION,
    figures=_figures,
    measures=(
        Query(
            name="emergence",
            table="emergence",
            sql="""
            SELECT 'log10 E, ' || interior || ' (' || activity || ')', log10, NULL, NULL FROM emergence
            WHERE run = {run} ORDER BY interior
        """,
        ),
        Query(
            name="emergence",
            table="emergence_intervals",
            sql="""
            SELECT if(median IS NULL, '', 'median ') || 'E, ' || interior || ' (' || activity || ')',
                   coalesce(median, emergence), low, high
            FROM emergence_intervals
            WHERE run = {run} ORDER BY interior
        """,
        ),
    ),
    headline=Headline(
        query=Query(
            name="emergence",
            table="emergence",
            sql="""
            SELECT interior, emergence, activity FROM emergence WHERE run = {run} AND interior <> 'printed'
            ORDER BY interior
        """,
        ),
        text=_headline,
        beside=Headline(
            query=Query(
                name="beside-nulls",
                table="emergence_nulls",
                sql="""
SELECT interior, mean, z, n_draws FROM emergence_nulls
WHERE run = {run} AND null_model = 'activity_in_layers' AND interior <> 'printed' ORDER BY interior""",
            ),
            text=_beside_nulls,
        ),
        alone="the number alone says little: --full draws null models",
    ),
)
TRAJECTORY = Analysis(
    name="trajectory",
    summary="Follow emergence over training steps: with the change in a metric, and as a reason to stop.",
    of=Subject.SNAPSHOTS,
    options=(SnapshotOptions, RuleOptions, TrajectoryOptions, EmergenceOptions),
    examples="""
    emergraph trajectory run.duckdb
    emergraph trajectory run.duckdb --graphs 'mlp-*' --metric validation_accuracy
    emergraph trajectory run.duckdb --metric loss --patience 5
    emergraph trajectory run.duckdb --rule weight_change --format json
    """,
    run=_run_trajectory,
    rows=_trajectory_rows,
    show=_show,
    tables=(STEPS, CORRELATIONS, STOPPINGS),
    section=TRAINING,
    figures=_training_figures,
    headline=Headline(
        query=Query(
            name="trajectory",
            table="trajectory_correlations",
            shared=True,
            sql="""
SELECT min(p_holm), arg_min(rho, p_holm), count(p_holm), count(*) FROM trajectory_correlations
WHERE run = {run}""",
        ),
        text=_trajectory_headline,
    ),
)
