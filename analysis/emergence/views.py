"""What is shown of path counts, their sweeps, intervals and null models, and of trajectories."""

from typing import TYPE_CHECKING

from emergraph.analysis.activity.unittrace import RANDOM_SAMPLES
from emergraph.analysis.view import View, beside, evenly, first_and_last
from emergraph.memory import mebibytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from emergraph.analysis.emergence.fullreport import EmergenceReport
    from emergraph.analysis.emergence.intervals import BootstrapResult, SampleRange
    from emergraph.analysis.emergence.positionrun import PositionReport
    from emergraph.analysis.emergence.result import EmergenceResult, Magnitude, PathCount, PrintedCount
    from emergraph.analysis.emergence.thresholds import ThresholdSweep
    from emergraph.analysis.emergence.trajectory import Stopping, Trajectory
    from emergraph.analysis.paths.planning import CountPlan


LARGEST_WRITTEN_OUT = 10**15
"""Counts below it are shown with all digits."""
LEVEL = 0.05
"""Below it, a p value tells E apart from a null model."""
BRIEF_PARTS = ("step", "emergence_", "metric_")
"""Beginnings of the columns of a trajectory that matter."""
RELATIVE = ("per_param", "per_dense_param", "per_density")


def result_view(result: object) -> View:
    """Return what is shown of any result of `emergence` or `trajectory`."""
    kind = type(result).__name__  # looked up by name: a count must not load what draws null models
    view: View = _VIEWS[kind](result)
    return view


def count_view(result: "EmergenceResult") -> View:
    """Both counts, the conventions, and where the paths start."""
    import polars as pl

    facts: dict[str, object] = {
        "graph": result.graph,
        "activity": result.activity,
        "active units": result.n_active,
        "inactive units": result.n_inactive,
        "structural units": result.n_structural,
    }
    for name in ("layers", "endpoints", "paths"):
        facts[name] = str(getattr(result.options, name))
    for interior, (layer, share) in result.starts.items():
        facts[f"starts most, interior {interior}"] = f"{layer}, {100 * share:.3g} % of E"
    for count in result.scale_free:
        facts[f"E by contribution, interior {count.interior}"] = (
            count.emergence.value if count.exact is None else count.exact
        )
    for count in result.carried:
        whole = result.count(count.interior).emergence
        part = 10 ** (count.emergence.log10 - whole.log10) if whole.value else 0.0
        said = f"{magnitude_text(count.emergence)}, {100 * part:.3g} % of E"
        facts[f"along edges that carry more than {result.carried_share:g}, interior {count.interior}"] = said
    counts = [
        {
            "interior": str(count.interior),
            "emergence": count.emergence.value,
            "exact": None if count.exact is None else str(count.exact),
            "log10": count.emergence.to_dict()["log10"],
            **({} if count.edge_form is None else {"edge_form": count.edge_form.value}),
            **{name: value_of(getattr(count, name)) for name in RELATIVE},
        }
        for count in result.named_counts
    ]
    layers = ["layer", "name", "kind", "n_units", "n_active", "n_inactive"]
    layers += [f"start_{count.interior}" for count in result.counts]
    rows = pl.DataFrame(counts, infer_schema_length=None)
    details = result.layers.select(layers)
    return View(
        finding=_count_finding(result),
        rows=rows,
        details=details,
        brief=[rows, first_and_last(details.filter(pl.col("n_active") + pl.col("n_inactive") > 0))],
        facts=facts,
        document=result.to_dict(),
        notes=result.notes()[2:],
    )


def _count_finding(result: "EmergenceResult") -> str:
    """E in words, beside what it is to be compared with."""
    count = result.counts[0]
    exact = count.exact
    small = exact is not None and exact < LARGEST_WRITTEN_OUT
    said = (
        f"E = {f'{exact:,}' if small else magnitude_text(count.emergence)}: paths from {result.n_inactive:,} "
        f"inactive to {result.n_active:,} active units through {count.interior} ones"
    )
    if result.printed is not None:
        said += f"; fully connected layers would have {magnitude_text(result.printed.emergence)}"
    if RANDOM_SAMPLES in result.activity:
        said += "; activity is that on random inputs, so trace real ones before you build on it"
    return f"{said}. --full compares it with null models."


def magnitude_text(magnitude: "Magnitude") -> str:
    """A count for a sentence, by its power of ten where it is too large to say anything else."""
    value = magnitude.value
    return f"{value:.6g}" if value < LARGEST_WRITTEN_OUT else f"10^{magnitude.log10:.2f}"


def value_of(magnitude: "Magnitude | None") -> float | None:
    """A count as tables have it: None where there is none."""
    return None if magnitude is None else magnitude.value


def sweep_view(sweep: "ThresholdSweep") -> View:
    """E at every threshold, its maximum, and the range where it is above half of that."""
    facts: dict[str, object] = {"activity": sweep.rule} | _sweep_facts(sweep)
    best = sweep.summaries[0]
    finding = (
        f"E is largest, {best.maximum.value:.4g}, at a threshold of {best.threshold_at_maximum:.4g} "
        f"(interior {best.interior}, {sweep.frame['threshold'].n_unique()} thresholds)."
    )
    return View(
        finding=finding, rows=sweep.frame, brief=[evenly(sweep.frame)], facts=facts, document=sweep.to_dict()
    )


def _sweep_facts(sweep: "ThresholdSweep") -> dict[str, object]:
    facts: dict[str, object] = {}
    for summary in sweep.summaries:
        facts[f"largest E, interior {summary.interior}"] = (
            f"{summary.maximum.value:.6g} at t = {summary.threshold_at_maximum:.6g}"
        )
        if summary.half_low is not None:
            facts[f"above half of it, interior {summary.interior}"] = (
                f"t = {summary.half_low:.6g} to {summary.half_high:.6g}"
            )
    return facts


def interval_view(result: "BootstrapResult") -> View:
    """E over samples, with its interval or spread."""
    import polars as pl

    facts = {
        "activity": result.activity,
        "samples": result.n_samples,
        "draws": result.n_draws,
        "level": result.level,
        "seed": result.seed,
    }
    rows = [
        {
            "interior": str(found.interior),
            "emergence": found.observed.value,
            **_ends(found),
        }
        for found in result.ranges
    ]
    return View(
        finding=_over_samples(result),
        rows=pl.DataFrame(rows),
        facts=facts,
        document=result.to_dict(),
    )


def _over_samples(result: "BootstrapResult") -> str:
    first, n = result.ranges[0], result.n_samples
    low, high = ("-" if end is None else f"{end.value:.4g}" for end in (first.low, first.high))
    if first.median is None:
        return f"E = {first.observed.value:.4g} ({low} to {high}, a spread, no interval) over {n} samples."
    ends = f"{low} to {high}" if first.low is not None else "too few samples for one"
    return (
        f"E = {first.observed.value:.4g}, the mean over {n} samples; "
        f"the median is {first.median.value:.4g} ({100 * result.level:g} % interval: {ends})."
    )


def report_view(report: "EmergenceReport") -> View:
    """E with its interval, the null models, the baselines, and where the sweep has its maximum."""
    import numpy as np
    import polars as pl

    facts: dict[str, object] = {}
    notes: list[str] = []
    if report.result is not None:
        facts |= {
            "graph": report.result.graph,
            "activity": report.result.activity,
            "active units": report.result.n_active,
            "inactive units": report.result.n_inactive,
        }
        notes += report.result.notes()[2:]
    elif report.interval is not None:
        facts["activity"] = report.interval.activity
    facts |= _sweep_facts(report.sweep)
    facts |= {
        f"baseline {name.replace('_', ' ')}": value for name, value in report.baselines.to_dict().items()
    }
    if report.complexity is not None:
        measured = report.complexity["unexplained"].drop_nulls()
        if len(measured):
            facts["baseline effective complexity"] = (
                f"median {float(np.median(measured.to_numpy())):.4g} of {len(measured)} layers"
            )
    for null in report.nulls:
        if null.kept_blocks:
            notes.append(
                f"{null.kind.value}: the weights of {len(null.kept_blocks)} blocks stay where they are, "
                "they cannot be told apart in a tensor of the model"
            )
    notes += [null.note for null in report.nulls if null.note is not None]
    notes += [f"no {what.replace('_', ' ')}: {why}" for what, why in report.left_out.items()]
    rows = [_report_row(report, str(summary.interior)) for summary in report.sweep.summaries]
    if report.result is not None and report.result.printed is not None:
        rows.append({"interior": report.result.printed.interior, **_count_row(report.result.printed)})
    nulls = [
        {
            "null_model": null.kind.value,
            "interior": str(comparison.interior),
            "activity": null.activity,
            "mean": comparison.mean.value,
            "sd": comparison.sd,
            "z": comparison.z,
            "p": None if comparison.degenerate else comparison.p_two_sided,
            "draws": null.n_draws,
            "status": "degenerate" if comparison.degenerate else "ok",
        }
        for null in report.nulls
        for comparison in null.comparisons
    ]
    return View(
        finding=_report_finding(report),
        rows=pl.DataFrame(rows, infer_schema_length=None),
        details=pl.DataFrame(nulls, infer_schema_length=None) if nulls else None,
        facts=facts,
        document=report.to_dict(),
        notes=notes,
    )


def _report_finding(report: "EmergenceReport") -> str:
    """E beside its null models: which of them it is told apart from, and on which side."""
    interior = report.sweep.summaries[0].interior
    found = [
        (null.kind.value.replace("_", " "), comparison)
        for null in report.nulls
        for comparison in null.comparisons
        if str(comparison.interior) == str(interior)
    ]
    value = report.result.count(str(interior)).emergence if report.result is not None else None
    said = "E" if value is None else f"E = {magnitude_text(value)}"
    if not found:
        return f"{said}, interior {interior}; no null model could be drawn, see the notes."
    told = []
    for name, comparison in found:
        p = comparison.p_two_sided
        side = beside(comparison.z or 0.0, clear=p <= LEVEL, above="above", below="below")
        side = "does not vary under" if comparison.degenerate else side
        told.append(f"{side} {name}" + ("" if comparison.degenerate else f" (p = {p:.2g})"))
    return f"{said}, interior {interior}: {'; '.join(told)}."


def _report_row(report: "EmergenceReport", interior: str) -> dict[str, object]:
    row: dict[str, object] = {"interior": interior}
    if report.result is not None:
        row |= _count_row(report.result.count(interior))
    if report.interval is not None:
        found = report.interval.range(interior)
        row.setdefault("emergence", found.observed.value)
        row |= _ends(found)
    return row


def _count_row(count: "PathCount | PrintedCount") -> dict[str, object]:
    row: dict[str, object] = {
        "emergence": count.emergence.value,
        "log10": count.emergence.to_dict()["log10"],
    }
    if count.edge_form is not None:
        row["edge_form"] = count.edge_form.value
    return row | {name: value_of(getattr(count, name)) for name in RELATIVE}


def _ends(found: "SampleRange") -> dict[str, object]:
    """The median and the ends of its interval, or the ends of a spread, under their own names."""
    ends = found.ends()
    if found.median is None:
        return {word: value_of(ends[word]) for word in ("spread_low", "spread_high")}
    return {"median": found.median.value, **{word: value_of(ends[word]) for word in ("low", "high")}}


def position_view(report: "PositionReport") -> View:
    """E between positions, between channels, and as the paper prints it; where positions are active."""
    import polars as pl

    from emergraph.analysis.emergence.positionrun import by_form

    facts: dict[str, object] = {
        "graph": report.channels.graph,
        "activity": f"{report.rule} over {report.n_samples} samples > {report.threshold:g}, at each position",
    }
    layers = report.positions.layers.with_columns(
        pl.col("shape").list.eval(pl.element().cast(pl.String)).list.join("x")
    )
    return View(
        rows=pl.DataFrame(by_form(report), infer_schema_length=None),
        details=layers,
        facts=facts,
        document=report.to_dict(),
    )


def plan_view(plan: "CountPlan") -> View:
    """What a count would take."""
    facts = {
        "edges": plan.edges,
        "full matrices": plan.skipped,
        "rows of the store": plan.rows,
        "weights in the file": plan.in_file,
        "seconds": plan.seconds,
        "memory": mebibytes(plan.memory),
    }
    return View(facts=facts, document=plan.to_dict())


def trajectory_view(result: "Trajectory") -> View:
    """E and metrics step by step, correlations with the change that follows, and where rules on E stop."""
    import polars as pl

    facts: dict[str, object] = {
        "activity": result.activity,
        "runs": ", ".join(name or "-" for name in result.runs),
        "snapshots": result.frame.height,
    }
    if result.options.metric is not None:
        better = "larger" if result.options.larger_is_better else "smaller"
        facts["metric"] = f"{result.options.metric}, {better} is better"
    for stopping in result.stoppings:
        where = f" of {stopping.training}" if len(result.runs) > 1 else ""
        rule = f"stop when {stopping.rule.replace('_', ' ')}, {stopping.measure}{where}"
        facts[rule] = _stopping_text(stopping)
    correlations = [c.row() for c in result.correlations]
    several = ("training",) if len(result.runs) > 1 else ()
    parts = ("step", "emergence_", "per_density_", "activity_s", "weight_sparsity", "metric_", "change_")
    columns = [name for name in result.frame.columns if name.startswith((*several, *parts))]
    short = [name for name in columns if name.startswith((*several, *BRIEF_PARTS))]
    return View(
        finding=f"{result.verdict[:1].upper()}{result.verdict[1:]}",
        rows=result.frame,
        columns=columns,
        details=pl.DataFrame(correlations, infer_schema_length=None) if correlations else None,
        brief=[evenly(result.frame.select(short))],
        facts=facts,
        document=result.to_dict(),
        notes=result.left_out,
    )


def _stopping_text(stopping: "Stopping") -> str:
    ordinary = (
        "early stopping never"
        if stopping.ordinary_step is None
        else (f"early stopping at step {stopping.ordinary_step}")
    )
    if stopping.step is None:
        return f"never; {ordinary}"
    loss = 0.0 if stopping.loss is None else stopping.loss
    return (
        f"step {stopping.step}; {ordinary}; saves {stopping.saved} snapshots, costs {loss:.4g} of the metric"
    )


_VIEWS: "Mapping[str, Callable[..., View]]" = {
    "EmergenceResult": count_view,
    "ThresholdSweep": sweep_view,
    "BootstrapResult": interval_view,
    "EmergenceReport": report_view,
    "PositionReport": position_view,
    "Trajectory": trajectory_view,
}
