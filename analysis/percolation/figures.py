"""Figures of percolation."""

import altair as alt
import polars as pl

from emergraph.analysis.declaration import Query
from emergraph.analysis.figures.figure import Figure, Frames
from emergraph.analysis.figures.marks import lines, rule_at, sized
from emergraph.analysis.figures.theme import SERIES


def draw_curve(frames: Frames) -> alt.VConcatChart:
    """The largest component and the susceptibility as edges are added, with the threshold."""
    curve = frames["curve"].filter(pl.col("share") > 0)
    names = curve["series"].unique(maintain_order=True).to_list()
    x = alt.X(
        "share:Q", title="share of the edges added, in their order", scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format="~p", values=[10.0**power for power in range(-8, 1)]),
    )  # fmt: skip
    giant = lines(
        curve,
        x,
        alt.Y("giant:Q", title="units in the largest component", axis=alt.Axis(format="%")),
        series="series",
        names=names,
        band=("giant_spread_low", "giant_spread_high"),
    )
    chi = lines(
        curve, x, alt.Y("susceptibility:Q", title="susceptibility (units)"), series="series", names=names
    )
    if "threshold" in frames:
        row = frames["threshold"].row(0, named=True)
        span = alt.Chart(frames["threshold"]).mark_rect(opacity=0.12, color=SERIES[0])
        band = span.encode(x=alt.X("low:Q"), x2="high:Q")
        side = "left" if row["share"] < 30 * float(str(curve["share"].min())) else "right"
        words = f"threshold: {row['edges']:,.0f} edges"
        giant = giant + band + rule_at(row["share"], words, colour=SERIES[0], align=side)
        chi = chi + band + rule_at(row["share"], "", colour=SERIES[0])
    return alt.vconcat(sized(giant, height=230), sized(chi, height=160))


CURVE = Figure(
    name="percolation",
    title="Where the network grows together",
    command="emergraph percolate STORE",
    definition=(
        "Edges are added one by one, strongest first (or in the order named below). Above: share of the "
        "units that can become connected which lie in the largest connected component. Below: "
        "susceptibility, the expected size of the component of a unit outside the largest one. The "
        "threshold is where the susceptibility peaks; its band, and those of the curves, hold percentiles "
        "2.5 to 97.5 over random orders of equal keys. Nulls: the same weights shuffled within blocks, "
        "and a random order (arXiv 2408.12578)."
    ),
    queries=(
        Query(
            name="curve",
            table="percolation_curve",
            sql="""
SELECT series, edges, share, giant, giant_spread_low, giant_spread_high, susceptibility
FROM percolation_curve WHERE run = {run} ORDER BY series = 'observed' DESC, series, edges""",
        ),
        Query(
            name="threshold",
            table="percolation",
            sql="""
SELECT threshold AS edges, share, low / threshold * share AS low, high / threshold * share AS high
FROM percolation WHERE run = {run} AND series = 'observed' AND threshold > 0""",
        ),
    ),
    draw=draw_curve,
)

FIGURES = (CURVE,)
