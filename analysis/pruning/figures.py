"""Figures of pruning what-ifs."""

import altair as alt
import polars as pl

from emergraph.analysis.declaration import Query
from emergraph.analysis.figures.figure import Figure, Frames
from emergraph.analysis.figures.marks import lines, rule_at, series_colour, series_dash, sized
from emergraph.analysis.figures.theme import ALARM, WIDTH

SHARES = {
    "effective_sparsity": "effective sparsity",
    "giant_share": "units in the largest component",
    "argmax_agreement": "same answer as the unpruned model",
    "accuracy": "accuracy",
}
_EMERGENCE = {
    "log10_emergence_active": "through active units only",
    "log10_emergence_any": "through any unit",
}


def _collapse(levels: pl.DataFrame) -> alt.LayerChart | None:
    """The first level at which layers collapse or outputs are cut off."""
    broken = levels.filter((pl.col("collapsed_layers") > 0) | (pl.col("disconnected_outputs") > 0))
    if broken.is_empty():
        return None
    first = broken.row(0, named=True)
    what = (
        "an output is cut off"
        if first["disconnected_outputs"]
        else f"{first['collapsed_layers']} layer(s) collapse"
    )
    side = "right" if first["level"] > 0.5 else "left"
    return rule_at(first["level"], what, colour=ALARM, align=side)


def draw_curves(frames: Frames) -> alt.VConcatChart:
    """What remains at each level: shares above, emergence below, collapse marked in both."""
    levels = frames["levels"]
    x = alt.X("level:Q", title="share of the weights removed", axis=alt.Axis(format="%"))
    parts = [_shares(levels, x)]
    if levels["log10_emergence_any"].null_count() < levels.height:
        parts.append(_emergence(levels, x))
    mark = _collapse(levels)
    return alt.vconcat(
        *(sized(part if mark is None else part + mark, height=230, width=WIDTH) for part in parts)
    ).resolve_scale(color="independent", strokeDash="independent")


def _long(levels: pl.DataFrame, names: dict[str, str]) -> pl.DataFrame:
    kept = [name for name in names if name in levels.columns and levels[name].null_count() < levels.height]
    return (
        levels.unpivot(kept, index="level", variable_name="measure")
        .with_columns(pl.col("measure").replace(names))
        .drop_nulls()
        .group_by("level", "measure", maintain_order=True)
        .agg(value=pl.col("value").mean(), low=pl.col("value").min(), high=pl.col("value").max())
    )


def _shares(levels: pl.DataFrame, x: alt.X) -> alt.LayerChart:
    frame = _long(levels, SHARES)
    names = frame["measure"].unique(maintain_order=True).to_list()
    y = alt.Y("value:Q", title="share", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1]))
    return lines(frame, x, y, series="measure", names=names, band=("low", "high"))


def _emergence(levels: pl.DataFrame, x: alt.X) -> alt.LayerChart:
    frame = _long(levels, _EMERGENCE)
    names = list(_EMERGENCE.values())
    y = alt.Y("value:Q", title="log10 E (E in paths)", scale=alt.Scale(zero=False))
    return lines(frame, x, y, series="measure", names=names, band=("low", "high"))


CURVES = Figure(
    name="pruning",
    title="What pruning would do",
    command="emergraph prune STORE",
    definition=(
        "The smallest items by the criterion are removed, level by level; the graph is asked, the model "
        "is not run unless the table has accuracy or agreement. Effective sparsity: share of the prunable "
        "parameters that are removed or lie on no path from an input to an output. The red line marks the "
        "first level at which a layer keeps no prunable weight or an output is cut off. Bands span "
        "repetitions with different seeds."
    ),
    queries=(
        Query(
            name="levels",
            table="pruning_levels",
            sql="""
SELECT level, seed, sparsity, effective_sparsity, giant_share, collapsed_layers, disconnected_outputs,
       log10_emergence_active, log10_emergence_any, argmax_agreement, accuracy
FROM pruning_levels WHERE run = {run} ORDER BY level, seed""",
        ),
    ),
    draw=draw_curves,
)


def draw_runs(frames: Frames) -> alt.Chart:
    """How far the outputs of pruned models are from those of the unpruned one."""
    frame = frames["runs"].with_columns(series=pl.lit("relative squared error of the outputs"))
    x = alt.X("level:Q", title="share of the weights removed", axis=alt.Axis(format="%"))
    names = ["relative squared error of the outputs"]
    chart = (
        alt.Chart(frame)
        .mark_line(point=True)
        .encode(
            x=x,
            y=alt.Y("relative_mse:Q", title="squared error / squared outputs"),
            color=series_colour("series", names),
            strokeDash=series_dash("series", names),
        )
    )
    return sized(chart)


RUNS = Figure(
    name="pruning-runs",
    title="What the pruned model answers",
    command="emergraph prune STORE --model MODEL --inputs INPUTS.npz",
    definition=(
        "Squared difference between the outputs of the pruned and the unpruned model over the squared "
        "outputs of the unpruned one, on the given inputs: 0 is the same, 1 is as far as answering "
        "nothing."
    ),
    queries=(
        Query(
            name="runs",
            table="pruning_levels",
            sql="""
SELECT level, avg(relative_mse) AS relative_mse, avg(argmax_agreement) AS argmax_agreement
FROM pruning_levels WHERE run = {run} AND relative_mse IS NOT NULL GROUP BY level ORDER BY level""",
        ),
    ),
    draw=draw_runs,
)

FIGURES = (CURVES, RUNS)
