"""What `emergraph emergence` shows."""

from typing import TYPE_CHECKING

from emergraph.cli.output import View

if TYPE_CHECKING:
    from emergraph.analysis.emergence.intervals import BootstrapResult
    from emergraph.analysis.emergence.result import EmergenceResult, Magnitude
    from emergraph.analysis.emergence.thresholds import ThresholdSweep


RELATIVE = ("per_param", "per_dense_param", "per_density")


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
    counts = [
        {
            "interior": str(count.interior),
            "emergence": count.emergence.value,
            "exact": None if count.exact is None else str(count.exact),
            "log10": count.emergence.to_dict()["log10"],
            **{name: _value(getattr(count, name)) for name in RELATIVE},
        }
        for count in result.counts
    ]
    layers = ["layer", "name", "kind", "n_units", "n_active", "n_inactive"]
    layers += [f"start_{count.interior}" for count in result.counts]
    return View(
        rows=pl.DataFrame(counts, infer_schema_length=None),
        details=result.layers.select(layers),
        facts=facts,
        document=result.to_dict(),
        notes=result.notes()[2:],
    )


def _value(magnitude: "Magnitude | None") -> float | None:
    return None if magnitude is None else magnitude.value


def sweep_view(sweep: "ThresholdSweep") -> View:
    """E at every threshold, its maximum, and the range where it is above half of that."""
    facts: dict[str, object] = {"activity": sweep.rule}
    for summary in sweep.summaries:
        facts[f"largest E, interior {summary.interior}"] = (
            f"{summary.maximum.value:.6g} at t = {summary.threshold_at_maximum:.6g}"
        )
        if summary.half_low is not None:
            facts[f"above half of it, interior {summary.interior}"] = (
                f"t = {summary.half_low:.6g} to {summary.half_high:.6g}"
            )
    return View(rows=sweep.frame, facts=facts, document=sweep.to_dict())


def interval_view(result: "BootstrapResult") -> View:
    """E with its interval."""
    import polars as pl

    facts = {
        "activity": result.activity,
        "samples": result.n_samples,
        "draws": result.n_draws,
        "confidence": result.confidence,
        "seed": result.seed,
    }
    rows = [
        {
            "interior": str(interval.interior),
            "emergence": interval.observed.value,
            "low": interval.low.value,
            "high": interval.high.value,
        }
        for interval in result.intervals
    ]
    return View(rows=pl.DataFrame(rows), facts=facts, document=result.to_dict())
