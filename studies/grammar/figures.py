"""Two figures of the study, as SVG: one training on one time axis, and curves of all sizes laid together."""

from pathlib import Path

import altair as alt
import polars as pl

CAPABILITIES = {
    "grammar_mass": "grammar",
    "relative_mass": "relative types",
    "descriptive_mass": "descriptive types",
}
WIDTH = 420


def _step(title: str) -> alt.X:
    return alt.X("step:Q", scale=alt.Scale(type="log"), title=title)


def time_axis(recorded: pl.DataFrame, path: Path) -> None:
    """Capabilities, path-count emergence and percolation of one recorded training, over its steps."""
    trained = recorded.filter(pl.col("step") > 0)

    def panel(columns: dict[str, str], title: str, *, scale: alt.Scale, last: bool = False) -> alt.Chart:
        rows = (
            trained.select("step", *(pl.col(old).cast(pl.Float64).alias(new) for old, new in columns.items()))
            .unpivot(index="step", variable_name="curve", value_name="value")
            .drop_nulls()
        )
        return (
            alt.Chart(alt.Data(values=rows.to_dicts()))
            .mark_line(point=alt.OverlayMarkDef(size=12))
            .encode(
                x=_step("training step" if last else ""),
                y=alt.Y("value:Q", title=title, scale=scale),
                color=alt.Color("curve:N", title=None, sort=list(columns.values())),
            )
            .properties(width=WIDTH, height=130)
        )

    free = alt.Scale(zero=False)
    log = alt.Scale(type="log", nice=False)
    panels = [
        panel(CAPABILITIES, "probability", scale=alt.Scale(domain=[0, 1])),
        panel(
            {"log10_emergence_active": "interior active", "log10_emergence_any": "interior any"},
            "log10 E",
            scale=free,
        ),
        panel(
            {
                "weights_threshold": "by weight",
                "weights_shuffled": "shuffled in blocks",
                "weights_random": "random order",
            },
            "threshold, edges",
            scale=free,
        ),
        panel({"pairs": "pairs seen / M_c"}, "data", scale=log, last=True),
    ]
    _save(alt.vconcat(*panels).resolve_scale(color="independent"), path)


def collapse(logs: pl.DataFrame, metric: str, exponents: dict[str, float], path: Path) -> None:
    """One metric over the steps, and over steps divided by size^exponent, for all runs."""
    charts = []
    for name, exponent in {"training step": 0.0, **exponents}.items():
        rows = logs.select(
            "n_properties",
            "seed",
            pl.col(metric).alias("value"),
            (
                pl.col("step")
                / ((pl.col("n_entities") * pl.col("n_properties")).cast(pl.Float64) / 1e5) ** exponent
            ).alias("step"),
        ).sort("n_properties", "seed", "step")
        charts.append(
            alt.Chart(alt.Data(values=rows.to_dicts()))
            .mark_line(strokeWidth=1.2)
            .encode(
                x=_step(name),
                y=alt.Y("value:Q", title="probability of the right class"),
                color=alt.Color("n_properties:O", title="|K|", scale=alt.Scale(scheme="viridis")),
                detail="seed:N",
            )
            .properties(width=WIDTH // 2, height=180)
        )
    _save(alt.hconcat(*charts), path)


def _save(chart: alt.TopLevelMixin, path: Path) -> None:
    import vl_convert

    path.write_text(vl_convert.vegalite_to_svg(chart.to_dict()), encoding="utf-8")
