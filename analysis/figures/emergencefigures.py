"""Figures of path-count emergence."""

import altair as alt
import polars as pl

from emergraph.analysis.figures.figure import Figure, Frames, Query
from emergraph.analysis.figures.marks import lines, series_colour, sized, with_labels
from emergraph.analysis.figures.theme import PAPER, colours

INTERIORS = ("through active units only", "through any unit")
LOG_E = "log10 E (E in paths)"


def draw_sweep(frames: Frames) -> alt.LayerChart:
    """E against the threshold of activity, both interiors, with counts and intervals at their thresholds."""
    sweep = frames["sweep"]
    x = alt.X(
        "threshold:Q",
        title="threshold: a unit is active above it (units of the activation)",
        scale=alt.Scale(type="symlog", constant=0.05, nice=False),
        axis=alt.Axis(values=_ticks(sweep), labelOverlap=True, format=","),
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
        "threshold, with its bootstrap interval over samples."
    ),
    queries=(
        Query(
            name="sweep",
            table="emergence_thresholds",
            sql="""
SELECT CASE interior WHEN 'active' THEN 'through active units only' ELSE 'through any unit' END AS paths,
       threshold, share_active, log10
FROM emergence_thresholds WHERE run = {run} AND log10 IS NOT NULL
ORDER BY paths, threshold""",
        ),
        Query(
            name="interval",
            table="emergence_intervals",
            optional=True,
            sql="""
SELECT CASE interior WHEN 'active' THEN 'through active units only' ELSE 'through any unit' END AS paths,
       regexp_extract(activity, '> ([-0-9.e+]+)', 1)::DOUBLE AS threshold,
       log10(emergence) AS observed, log10(low) AS low, log10(high) AS high
FROM emergence_intervals
WHERE run = {run} AND low > 0 AND regexp_matches(activity, '> [-0-9.e+]+')""",
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
        "Share of all paths from inactive to active units that start in each layer. Layers where none "
        "starts are left out; of the others the 24 with the largest shares are shown."
    ),
    queries=(
        Query(
            name="layers",
            table="emergence_layers",
            sql="""
WITH top AS (
    SELECT layer, max(share) AS largest FROM emergence_layers
    WHERE run = {run} AND share > 0 GROUP BY layer ORDER BY largest DESC LIMIT 24
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
