"""Figures of what a store holds: which there are, one as a chart, and as a file."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from emergraph.analysis.figures.reading import read_figure, require_figure
from emergraph.analysis.registry import known_to
from emergraph.errors import UsageError
from emergraph.graphstore.reader import GraphReader

if TYPE_CHECKING:
    import altair as alt

    from emergraph.analysis.figures.picture import Picture


class Image(StrEnum):
    """What a figure is written as."""

    SVG = "svg"
    PNG = "png"
    HTML = "html"


def image_of(out: Path) -> Image:
    """Return what the name of a file asks for.

    Raises:
        UsageError: It asks for something else.
    """
    ending = out.suffix.lower().removeprefix(".")
    if ending not in set(Image):
        raise UsageError(f"--out {out.name}: expected a name that ends in .svg, .png or .html")
    return Image(ending)


def figure_list(reader: GraphReader) -> tuple[pl.DataFrame, Sequence[str]]:
    """Return which figures there are and which of them have data, with a line for each unusable plug-in."""
    known = known_to(reader.connection)
    rows = [
        {
            "figure": figure.name,
            "shows": figure.title,
            "state": "ready" if read_figure(reader, figure) else f"needs {figure.command}",
        }
        for figure in known.figures()
    ]
    return pl.DataFrame(rows), known.problems


def figure_chart(reader: GraphReader, name: str) -> "tuple[alt.TopLevelMixin | Picture, Sequence[str]]":
    """Return a figure in the common style, with a line for each unusable plug-in.

    Raises:
        UsageError: There is no such figure, or the store has nothing to draw.
    """
    from emergraph.analysis.figures.picture import Picture
    from emergraph.analysis.figures.theme import config

    known = known_to(reader.connection)
    chart = require_figure(reader, known.figure(name)).chart()
    styled = chart if isinstance(chart, Picture) else chart.configure(**config())
    return styled, known.problems


def figure_bytes(chart: "alt.TopLevelMixin | Picture", out: Path) -> bytes:
    """Return a figure as what the name of a file asks for.

    Raises:
        UsageError: It asks for something that a figure cannot be.
    """
    from emergraph.analysis.figures.rendering import ImageFormat, render

    return render(chart, ImageFormat(image_of(out)))
