"""The figure of information through blocks."""

import altair as alt

from emergraph.analysis.declaration import Query
from emergraph.analysis.figures.figure import Figure, Frames
from emergraph.analysis.figures.marks import interval_bars, sized, with_labels
from emergraph.analysis.figures.theme import SERIES


def draw_blocks(frames: Frames) -> alt.LayerChart:
    """Emergence of information in each block, with intervals."""
    frame = with_labels(frames["blocks"], "block")
    y = alt.Y("label:N", title=None, sort=frame["label"].to_list())
    title = "macro less micro information (bits)"
    bars = interval_bars(frame, x="emergence", low="low", high="high", y=y, title=title, colour=SERIES[0])
    ceiling = (
        alt.Chart(frame)
        .mark_point(shape="triangle-left", size=60, color=SERIES[1], filled=True, opacity=1)
        .encode(x="ideal:Q", y=y)
    )
    return sized(bars + ceiling, height=max(110, 26 * frame.height), width=360)


BLOCKS = Figure(
    name="information",
    title="Information of blocks: macro less micro",
    command="emergraph information MODEL --store STORE",
    definition=(
        "Mutual information between the input and output of each block at the last token, less the mean "
        "over single tokens, in bits; bars: 95 % intervals over halves of the data. Triangles: the same "
        "with both estimates at their ceilings, which is a property of the data, not of the model."
    ),
    queries=(
        Query(
            name="blocks",
            table="information",
            sql="""
SELECT block, emergence, coalesce(low, emergence) AS low, coalesce(high, emergence) AS high, ideal,
       macro, micro, at_ceiling
FROM information WHERE run = {run} AND emergence IS NOT NULL ORDER BY number""",
        ),
    ),
    draw=draw_blocks,
)

FIGURES = (BLOCKS,)
