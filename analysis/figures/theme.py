"""How figures look: colours that colour-blind readers can tell apart, one size, one set of fonts.

The series colours are those of Okabe and Ito ("Color Universal Design", 2008), darkened where thin lines on
white need it. Series differ by dash or shape too, never by colour alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

SERIES = ("#0072b2", "#d55e00", "#00845f", "#b0508c", "#a67100", "#4b5563")
"""Blue, vermilion, green, purple, amber, grey: in the order in which series take them."""
DARK_SERIES = ("#5bb8ee", "#ff8f4a", "#3fcf9f", "#e08fc0", "#edb84a", "#aab4c2")
"""What stands for them on a dark page."""
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [1, 3], [10, 4])
INK = "#1f2328"
MUTED = "#57606b"
GRID = "#e3e6ea"
ALARM = "#b3261e"
"""Marks what a reader must not miss, such as collapse."""
PAPER = "#fefefe"
RAMP: Final = "viridis"
"""For quantities: perceptually even, and legible without colour."""
WIDTH = 500
HEIGHT = 260
TICKS = 6
"""About how many ticks an axis has."""
APART = 10
"""Least distance of labels side by side: the fonts of a reader may be wider than those measured here."""
SHORT_NUMBERS = (
    "abs(datum.value) >= 1e7 || (datum.value != 0 && abs(datum.value) < 1e-4) "
    "? format(datum.value, '~e') : datum.label"
)
"""Labels of an axis: powers of ten for what would be a row of zeros."""
FONT = "DejaVu Sans, Verdana, sans-serif"

STYLE_NAMES: Mapping[str, str] = {
    **{colour: f"--c{number}" for number, colour in enumerate(SERIES, start=1)},
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    ALARM: "--alarm",
    PAPER: "--paper",
}
"""Colours of figures by the CSS custom property that takes their place in a report."""


def config() -> dict[str, Any]:
    """Return the Vega-Lite configuration of every figure."""
    text = {"labelColor": INK, "titleColor": INK, "labelFont": FONT, "titleFont": FONT}
    return {
        "background": PAPER,
        "font": FONT,
        "axis": {
            **text,
            "labelFontSize": 12,
            "titleFontSize": 13,
            "titleFontWeight": "normal",
            "gridColor": GRID,
            "domainColor": MUTED,
            "tickColor": MUTED,
            "labelLimit": 260,
            "labelExpr": SHORT_NUMBERS,
        },
        "axisX": {"tickCount": TICKS, "labelSeparation": APART},
        "axisY": {"tickCount": TICKS, "labelSeparation": 2},
        "legend": {
            **text,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "orient": "top",
            "symbolStrokeWidth": 2.5,
            "symbolSize": 180,
            "labelLimit": 300,
            "titleLimit": 420,
            "tickCount": 4,
            "labelOverlap": "greedy",
            "labelSeparation": APART,
        },
        "header": {**text, "labelFontSize": 12, "titleFontSize": 13},
        "title": {
            "color": INK,
            "font": FONT,
            "fontSize": 15,
            "anchor": "start",
            "subtitleColor": MUTED,
            "subtitleFont": FONT,
            "subtitleFontSize": 12,
            "offset": 12,
        },
        "line": {"strokeWidth": 2},
        "view": {"stroke": GRID},
        "range": {"category": list(SERIES)},
    }


def colours(names: Sequence[str]) -> dict[str, Any]:
    """Return the domain and range of a colour scale for named series, in their order."""
    return {"domain": list(names), "range": [SERIES[i % len(SERIES)] for i in range(len(names))]}


def dashes(names: Sequence[str]) -> dict[str, Any]:
    """Return the domain and range of a dash scale for named series, in their order."""
    return {"domain": list(names), "range": [DASHES[i % len(DASHES)] for i in range(len(names))]}
