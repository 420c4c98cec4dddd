"""Pieces that several figures are made of."""

from collections.abc import Sequence
from typing import Any, cast

import altair as alt
import polars as pl

from emergraph.analysis.figures.names import telling_names
from emergraph.analysis.figures.theme import HEIGHT, INK, MUTED, PAPER, WIDTH, colours, dashes

LABEL_WIDTH = 34


def series_colour(column: str, names: Sequence[str], title: str | None = None) -> alt.Color:
    """Return the encoding of a series by colour; its legend is shared with `series_dash`."""
    legend = alt.Legend(symbolType="stroke", symbolOpacity=1)
    return alt.Color(
        f"{column}:N", title=title, scale=alt.Scale(**colours(names)), sort=list(names), legend=legend
    )


def series_dash(column: str, names: Sequence[str], title: str | None = None) -> alt.StrokeDash:
    """Return the encoding of the same series by dashes, for readers who do not see the colours."""
    legend = alt.Legend(symbolType="stroke", symbolOpacity=1)
    return alt.StrokeDash(
        f"{column}:N", title=title, scale=alt.Scale(**dashes(names)), sort=list(names), legend=legend
    )


def with_labels(frame: pl.DataFrame, column: str, width: int = LABEL_WIDTH) -> pl.DataFrame:
    """Return the frame with the column `label`: what tells names apart, a different one for every name."""
    labels = telling_names(frame[column].unique(maintain_order=True).to_list(), width)
    return frame.with_columns(label=pl.col(column).replace_strict(labels, return_dtype=pl.String))


def rule_at(x: float, text: str, *, colour: str = MUTED, y: int = 10, align: str = "left") -> alt.LayerChart:
    """Return a vertical line at `x` with words beside it, `y` pixels below the top."""
    base = alt.Chart(pl.DataFrame({"x": [x], "text": [text]})).encode(x="x:Q")
    dx = 5 if align == "left" else -5
    words: dict[str, Any] = {"align": align, "dx": dx, "y": y, "color": colour, "fontSize": 12}
    halos: tuple[dict[str, Any], ...] = ({"stroke": PAPER, "strokeWidth": 5}, {})
    said = [  # the first keeps lines away from the letters
        base.mark_text(**words, **halo, baseline="middle").encode(text="text:N") for halo in halos
    ]
    return cast(
        "alt.LayerChart", alt.layer(base.mark_rule(color=colour, strokeDash=[4, 3], strokeWidth=1.5), *said)
    )


def sized(chart: alt.LayerChart | alt.Chart, *, height: int = HEIGHT, width: int = WIDTH) -> Any:  # noqa: ANN401 - altair returns what it was given
    """Return the chart in the common size."""
    return chart.properties(width=width, height=height)


def lines(
    frame: pl.DataFrame,
    x: alt.X,
    y: alt.Y,
    *,
    series: str,
    names: Sequence[str],
    band: tuple[str, str] | None = None,
    detail: str | None = None,
) -> alt.LayerChart:
    """Return one line per series, with a band between two columns behind it.

    Args:
        frame: One row per series and point.
        x: The horizontal encoding.
        y: The vertical encoding.
        series: Column with the names of the series.
        names: Series in the order of colours.
        band: Columns of the lower and upper ends.
        detail: Column that parts the lines of a series.
    """
    base = alt.Chart(frame).encode(x=x)
    if detail is not None:
        base = base.encode(detail=f"{detail}:N")
    line = base.mark_line().encode(
        y=y, color=series_colour(series, names), strokeDash=series_dash(series, names)
    )
    if band is None:
        return cast("alt.LayerChart", alt.layer(line))
    area = base.mark_area(opacity=0.18).encode(
        y=_of_column(y, band[0]), y2=f"{band[1]}:Q", color=series_colour(series, names)
    )
    return cast("alt.LayerChart", alt.layer(area, line))


def _of_column(y: alt.Y, column: str) -> alt.Y:
    """Return the encoding for another column, with the same title, axis and scale."""
    return alt.Y(**{**y._kwds, "shorthand": f"{column}:Q"})  # noqa: SLF001 - altair has no public way to read an encoding


def interval_bars(
    frame: pl.DataFrame, *, x: str, low: str, high: str, y: alt.Y, title: str, colour: str = INK
) -> alt.LayerChart:
    """Return horizontal intervals with a dot at the estimate, one per row."""
    base = alt.Chart(frame).encode(y=y)
    bar = base.mark_rule(strokeWidth=2.5, color=colour).encode(
        x=alt.X(f"{low}:Q", title=title, scale=alt.Scale(zero=False)), x2=f"{high}:Q"
    )
    dot = base.mark_point(filled=True, size=70, color=colour, opacity=1).encode(x=f"{x}:Q")
    return bar + dot
