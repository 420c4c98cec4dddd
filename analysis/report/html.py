"""The page: one HTML file that holds everything, loads nothing, and runs no script."""

import base64
import hashlib
import re
import shlex
from functools import cache
from pathlib import Path

import jinja2
import polars as pl
from markupsafe import Markup, escape

from emergraph.analysis.figures.rendering import inline_svg
from emergraph.analysis.figures.theme import DARK_SERIES, SERIES
from emergraph.analysis.report.document import Page, Report, Table
from emergraph.analysis.report.texts import cell, heading, words
from emergraph.safetext import escape_controls, reveal_lookalikes

_FOLDER = Path(__file__).parent
_WIDTH = re.compile(r'^<svg width="([\d.]+)"')
WIDEST = 760
"""Pixels of a picture beside its words; a wider one has the page's width, so that it stays legible."""


def report_page(report: Report) -> str:
    """Return a report as an HTML page; names from files are text in it, whatever they hold."""
    return page_html(report.page())


def page_html(page: Page) -> str:
    """Return a page as one HTML file; names from files are text in it, whatever they hold."""
    pictures = {
        data.figure.name: Markup(  # noqa: S704 - SVG by this project and Vega, both of which escape names
            inline_svg(data.chart(), prefix=f"{data.figure.name}-", label=str(escape(data.figure.title)))
        )
        for section in page.sections
        for data in section.figures
    }
    wide = {name for name, svg in pictures.items() if float(_WIDTH.findall(svg)[0]) > WIDEST}
    style = styled(_FOLDER / "report.css")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            page=page,
            pictures=pictures,
            wide=wide,
            style=Markup(style),  # noqa: S704 - a file of this project
            style_hash=source_hash(style),
        )
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "words": words,
        "with_code": with_code,
        "cell": cell,
        "asked_of": asked_of,
        "heading": heading,
        "rows": _rows,
        "numeric": _numeric,
    }
    return environment


def with_code(text: str) -> Markup:
    """Return a text on one line, in which what stands between grave accents is code."""
    parts = enumerate(words(text).split("`"))
    said = [Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in parts]
    return Markup("").join(said)


def asked_of(query: str, store: str) -> str:
    """Return the command line that asks a store a question, for a shell: quoted as is easiest to read."""
    asked = f"\n{query}"
    plain = not set('"$`\\!') & set(asked)
    words = f'"{asked}"' if plain else shlex.quote(asked)
    return f"emergraph sql {shlex.quote(escape_controls(store))} {words}"


@cache
def styled(sheet: Path) -> str:
    """Return a style sheet behind the colours that all pages share."""
    text = (_FOLDER / "colours.css").read_text(encoding="utf-8")
    for word, colours in (("LIGHT_SERIES", SERIES), ("DARK_SERIES", DARK_SERIES)):
        text = text.replace(word, " ".join(f"--c{i}: {c};" for i, c in enumerate(colours, start=1)))
    return text + sheet.read_text(encoding="utf-8")


def source_hash(text: str) -> str:
    """Return the source expression that lets a page use this style or script and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _numeric(table: Table, column: str) -> bool:
    return table.frame.schema[column].is_numeric()


def _rows(table: Table) -> list[list[tuple[str, bool]]]:
    """The cells of a table as text, each with whether it is a number; look-alike names are told apart."""
    frame = table.frame
    names = {
        value
        for column, dtype in frame.schema.items()
        if dtype == pl.String
        for value in frame[column].to_list()
        if value is not None
    }
    revealed = reveal_lookalikes(names)
    numbers = [dtype.is_numeric() for dtype in frame.dtypes]
    return [
        [
            (cell(revealed.get(value, value) if isinstance(value, str) else value), number)
            for value, number in zip(row, numbers, strict=True)
        ]
        for row in frame.iter_rows()
    ]
