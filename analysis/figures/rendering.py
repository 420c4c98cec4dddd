"""From a chart to SVG, PNG or a page, without a network: vl-convert holds Vega and its fonts."""

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from emergraph.analysis.figures.picture import Picture
from emergraph.analysis.figures.theme import STYLE_NAMES, config

if TYPE_CHECKING:
    import altair as alt

_NAMES = re.compile(r' (?:aria-[a-z]+|role|class|style)="[^"]*"')
_EMPTY = re.compile(r'<path[^>]* d="(?:M0,0h0v0h0Z)?"[^>]*/>')
_IDS = re.compile(r'(\bid="|url\(#|href="#)')
_SIZE = re.compile(r'^<svg [^>]*?width="([\d.]+)" height="([\d.]+)" viewBox="([^"]*)"[^>]*>')
_TAG = re.compile(r'<[A-Za-z][^\s/>]*((?:\s+[\w:.-]+="[^"]*")*)')
_ATTRIBUTE = re.compile(r'([\w:.-]+)="([^"]*)"')
_ELSEWHERE = re.compile(r"url\((?!#)")
_COLOUR = re.compile(r'"(#[0-9a-f]{6})"')


class ImageFormat(StrEnum):
    """What a figure can be written as."""

    SVG = "svg"
    PNG = "png"
    HTML = "html"


def specification(chart: "alt.TopLevelMixin") -> dict[str, Any]:
    """Return the Vega-Lite specification of a chart, with its data and the common style."""
    import altair as alt

    with alt.data_transformers.enable("default", max_rows=None):
        return {**chart.to_dict(), "config": config()}


def render(chart: "alt.TopLevelMixin | Picture", image: ImageFormat) -> bytes:
    """Return a chart as a file's bytes. HTML holds Vega itself and opens without a network."""
    import vl_convert

    if isinstance(chart, Picture):
        return _render_picture(chart, image)
    spec = specification(chart)
    svg = _closed(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]))
    match image:
        case ImageFormat.SVG:
            return svg.encode()
        case ImageFormat.PNG:
            return vl_convert.svg_to_png(svg, scale=2.0)
        case ImageFormat.HTML:
            return vl_convert.vegalite_to_html(spec, bundle=True).encode()


def _render_picture(picture: Picture, image: ImageFormat) -> bytes:
    import vl_convert

    svg = _closed(picture.svg)
    match image:
        case ImageFormat.SVG:
            return svg.encode()
        case ImageFormat.PNG:
            return vl_convert.svg_to_png(svg, scale=2.0)
        case ImageFormat.HTML:
            return f'<!doctype html><meta charset="utf-8"><title>emergraph</title>{svg}'.encode()


def _closed(svg: str) -> str:
    """The picture, if it names no place outside itself: what turns it into pixels would fetch from there.

    Raises:
        ValueError: It does.
    """
    for tag in _TAG.finditer(svg):
        for name, value in _ATTRIBUTE.findall(tag[1]):
            points = name.rpartition(":")[2] in ("href", "src") and not value.startswith("#")
            if points or (not name.startswith("aria-") and _ELSEWHERE.search(value)):
                raise ValueError(f"a figure must hold all that it shows, and names {value[:80]!r}")
    return svg


def inline_svg(chart: "alt.TopLevelMixin | Picture", *, prefix: str, label: str) -> str:
    """Return a chart as an SVG element for an HTML page: no scripts, no styles, colours from the page.

    Args:
        chart: The chart.
        prefix: Put before the ids in the picture, which must be unique on a page.
        label: What the picture shows, for readers who do not see it; already escaped for an attribute.
    """
    svg = render(chart, ImageFormat.SVG).decode()
    found = _SIZE.match(svg)
    if found is None:
        raise ValueError(f"not the SVG that was expected: {svg[:80]}")
    body = _EMPTY.sub("", _NAMES.sub("", svg[found.end() :]))
    body = _IDS.sub(lambda match: match[1] + prefix, body)
    body = _COLOUR.sub(lambda match: f'"{_themed(match[1])}"', body)
    width, height, box = found.groups()
    return f'<svg width="{width}" height="{height}" viewBox="{box}" role="img" aria-label="{label}">{body}'


def _themed(colour: str) -> str:
    name = STYLE_NAMES.get(colour)
    return colour if name is None else f"var({name})"
