"""Figures of path-count emergence."""

import altair as alt
import polars as pl

from emergraph.analysis.declaration import Query
from emergraph.analysis.figures.figure import Figure, Frames
from emergraph.analysis.figures.marks import interval_bars, lines, series_colour, sized, with_labels
from emergraph.analysis.figures.theme import MUTED, PAPER, SERIES, WIDTH, colours

INTERIORS = ("through active units only", "through any unit")
LOG_E = "log10 E (E in paths)"


def draw_sweep(frames: Frames) -> alt.LayerChart:
    """E against the threshold of activity, both interiors, with counts and intervals at their thresholds."""
    sweep = frames["sweep"]
    x = alt.X(
        "threshold:Q",
        title="threshold: a unit is active above it (units of the activation)",
        scale=alt.Scale(type="symlog", constant=0.05, nice=False),
        axis=alt.Axis(values=_ticks(sweep), labelOverlap=True, labelExpr="format(datum.value, ',')"),
    )
    y = alt.Y("log10:Q", title=LOG_E, scale=alt.Scale(zero=False))
    chart = lines(sweep, x, y, series="paths", names=INTERIORS)
    if "interval" in frames:
        base = alt.Chart(frames["interval"]).encode(x="threshold:Q", color=_colour())
        bars = base.mark_rule(strokeWidth=4).encode(y="low:Q", y2="high:Q")
        dots = base.mark_point(filled=True, size=90, stroke=PAPER, strokeWidth=1, opacity=1)
        chart = chart + bars + dots.encode(y="observed:Q", shape=alt.Shape("paths:N", legend=None))
    return sized(chart)


def _ticks(sweep: pl.DataFrame) -> list[float]:
    """Powers of ten on both sides of 0, as far as the thresholds go."""
    tens = [0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0]
    low, high = float(str(sweep["threshold"].min())), float(str(sweep["threshold"].max()))
    return [t for t in [*(-t for t in reversed(tens)), 0.0, *tens] if low <= t <= high]


def _colour() -> alt.Color:
    return series_colour("paths", INTERIORS, "paths")


SWEEP = Figure(
    name="emergence-sweep",
    title="Emergence against the threshold of activity",
    command="emergraph emergence STORE --thresholds 100",
    definition=(
        "E is the number of directed paths from an inactive unit to an active one (arXiv 2409.01568), an "
        "upper bound on the dimension of the derived functor that it stands for. A unit is active where "
        "its activation exceeds the threshold. Two counts: paths whose inner units are all active, and "
        "paths with any inner units. Where E = 0 there is no line. Dots and bars, if any: E at one "
        "threshold, with its interval or spread over samples."
    ),
    queries=(
        Query(
            name="sweep",
            table="emergence_thresholds",
            sql="""
SELECT CASE interior WHEN 'active' THEN 'through active units only' ELSE 'through any unit' END AS paths,
       threshold, share_active, log10
FROM emergence_thresholds WHERE run = {run} AND interior <> 'printed' AND log10 IS NOT NULL
ORDER BY paths, threshold""",
        ),
        Query(
            name="interval",
            table="emergence_intervals",
            optional=True,
            sql="""
SELECT CASE interior WHEN 'active' THEN 'through active units only' ELSE 'through any unit' END AS paths,
       regexp_extract(activity, '> ([-0-9.e+]+)', 1)::DOUBLE AS threshold,
       log10(coalesce(median, emergence)) AS observed, log10(coalesce(low, spread_low)) AS low,
       log10(coalesce(high, spread_high)) AS high
FROM emergence_intervals
WHERE run = {run} AND coalesce(low, spread_low) > 0 AND regexp_matches(activity, '> [-0-9.e+]+')""",
        ),
    ),
    draw=draw_sweep,
)


def draw_layers(frames: Frames) -> alt.Chart:
    """Share of E that starts in each layer, both interiors."""
    shares = with_labels(frames["layers"], "layer")
    order = shares["label"].unique(maintain_order=True).to_list()
    chart = (
        alt.Chart(shares)
        .mark_bar()
        .encode(
            x=alt.X("share:Q", title="share of E that starts in the layer", axis=alt.Axis(format="%")),
            y=alt.Y("label:N", title=None, sort=order),
            yOffset=alt.YOffset("paths:N", sort=list(INTERIORS)),
            color=alt.Color(
                "paths:N", title=None, scale=alt.Scale(**colours(INTERIORS)), sort=list(INTERIORS)
            ),
        )
    )
    return sized(chart, height=max(120, 30 * len(order)), width=440)


LAYERS = Figure(
    name="emergence-layers",
    title="Where emergence starts",
    command="emergraph emergence STORE",
    definition=(
        "Share of all paths from inactive to active units that start in each layer. Layers with less than a "
        "hundredth of the largest share are left out; of the others the 24 with the largest shares are shown."
    ),
    queries=(
        Query(
            name="layers",
            table="emergence_layers",
            sql="""
WITH top AS (
    SELECT layer, max(share) AS largest FROM emergence_layers
    WHERE run = {run} AND share > 0
      AND share >= 0.01 * (SELECT max(share) FROM emergence_layers WHERE run = {run})
    GROUP BY layer ORDER BY largest DESC LIMIT 24
)
SELECT CASE interior WHEN 'active' THEN 'through active units only' ELSE 'through any unit' END AS paths,
       l.name AS layer, e.share, e.n_active, e.n_inactive
FROM emergence_layers AS e JOIN top USING (layer)
JOIN layers AS l ON l.graph = {graph} AND l.id = e.layer
WHERE e.run = {run} AND e.share IS NOT NULL
ORDER BY l.id, paths""",
        ),
    ),
    draw=draw_layers,
)


def draw_nulls(frames: Frames) -> alt.LayerChart:
    """E beside the spread of E under each null model."""
    frame = frames["nulls"].with_columns(row=pl.col("null_model") + ", " + pl.col("paths"))
    y = alt.Y("row:N", title=None, sort=frame["row"].to_list())
    bars = interval_bars(frame, x="middle", low="low", high="high", y=y, title=LOG_E, colour=MUTED)
    seen = (
        alt.Chart(frame)
        .mark_point(shape="diamond", filled=True, size=110, opacity=1, color=SERIES[1])
        .encode(x="observed:Q", y=y)
    )
    return sized(bars + seen, height=max(90, 34 * frame.height), width=320)


NULLS = Figure(
    name="emergence-nulls",
    title="Emergence against null models",
    command="emergraph emergence STORE --full",
    definition=(
        "Diamonds: log10 of E as observed. Grey: mean of E over draws of a null model, with a bar of two "
        "standard deviations on both sides (cut at E = 1). Activity in layers and over the net: the same "
        "number of active units, shuffled; weights in blocks, rewired, weight noise: other weights, other "
        "edges, moved weights. A null whose draws are all equal is degenerate: it has no bar and says "
        "nothing."
    ),
    queries=(
        Query(
            name="nulls",
            table="emergence_nulls",
            sql="""
SELECT null_model, CASE interior WHEN 'active' THEN 'active' ELSE 'any' END AS paths,
       log10(emergence) AS observed, log10(mean) AS middle, z, p_two_sided, degenerate,
       CASE scale WHEN 'count' THEN log10(greatest(mean - 2 * sd, 1)) ELSE log10(mean) - 2 * sd END AS low,
       CASE scale WHEN 'count' THEN log10(mean + 2 * sd) ELSE log10(mean) + 2 * sd END AS high
FROM emergence_nulls
WHERE run = {run} AND mean > 0 AND emergence > 0 AND isfinite(mean) AND isfinite(emergence)
ORDER BY null_model, interior""",
        ),
    ),
    draw=draw_nulls,
)


def draw_metrics(frames: Frames) -> alt.FacetChart:
    """Recorded metrics, and E where it was counted, against the training step; one panel each."""
    frame = frames["metrics"]
    names = frame["name"].unique(maintain_order=True).to_list()
    return (
        sized(
            alt.Chart(frame)
            .mark_line(point=True, color=SERIES[0])
            .encode(
                x=alt.X("step:Q", title="training step", axis=alt.Axis(tickMinStep=1, tickCount=3)),
                y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
                detail="training:N",
            ),
            height=120,
            width=WIDTH // 2 - 50,
        )
        .facet(facet=alt.Facet("name:N", title=None, sort=names), columns=2)
        .resolve_scale(y="independent")
        .resolve_axis(x="independent")
    )


METRICS = Figure(
    name="training",
    title="Recorded during training",
    command="emergraph.record in a training script (docs/pytorch.md)",
    definition=(
        "Every metric that was recorded with the snapshots of this store, against the training step, each "
        "in its own unit; a line for each recording. At most eight metrics."
    ),
    queries=(
        Query(
            name="metrics",
            sql="""
SELECT g.step, m.name, m."value",
       CASE WHEN g.id IN (SELECT parent FROM graphs) THEN g.id ELSE g.parent END AS training
FROM graphs AS g JOIN metrics AS m ON m.graph = g.id
WHERE g.step IS NOT NULL AND m."value" IS NOT NULL
  AND (SELECT step FROM graphs WHERE id = {graph}) IS NOT NULL
  AND m.name IN (SELECT DISTINCT name FROM metrics ORDER BY name LIMIT 8)
ORDER BY m.name, training, g.step""",
        ),
    ),
    draw=draw_metrics,
)


def draw_trajectory(frames: Frames) -> alt.VConcatChart:
    """E of every snapshot, and below it the metric that was asked about."""
    steps = frames["steps"]
    x = alt.X("step:Q", title="training step", axis=alt.Axis(tickMinStep=1))
    y = alt.Y("log10:Q", title="log10 E (E in paths)", scale=alt.Scale(zero=False))
    names = steps["paths"].unique(maintain_order=True).to_list()
    curve = lines(steps.drop_nulls("log10"), x, y, series="paths", names=names, detail="training")
    measured = steps.unique(["training", "step"], maintain_order=True).drop_nulls("metric")
    metric = (
        alt.Chart(measured)
        .mark_line(point=True, color=SERIES[2])
        .encode(x=x, y=alt.Y("metric:Q", title="metric", scale=alt.Scale(zero=False)), detail="training:N")
    )
    return alt.vconcat(sized(curve, height=200), sized(metric, height=130))


TRAJECTORY = Figure(
    name="trajectory",
    title="Emergence along training",
    command="emergraph trajectory STORE",
    definition=(
        "E of every snapshot against the training step, for both interiors, and the metric that the run "
        "asked about; a line for each training run. Steps where E = 0 have no point."
    ),
    queries=(
        Query(
            name="steps",
            table="trajectory_steps",
            shared=True,
            sql="""
SELECT training, step, log10, metric,
       CASE interior WHEN 'active' THEN 'through active units only' ELSE 'through any unit' END AS paths
FROM trajectory_steps WHERE run = {run} ORDER BY paths, training, step""",
        ),
    ),
    draw=draw_trajectory,
)

FIGURES = (SWEEP, NULLS, LAYERS)
TRAINING_FIGURES = (METRICS, TRAJECTORY)
