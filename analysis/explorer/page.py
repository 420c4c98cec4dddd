"""The page: one HTML file with its script and data in it, which loads nothing."""

from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from emergraph.analysis.explorer.collect import explorer_data
from emergraph.analysis.explorer.options import ExplorerOptions
from emergraph.analysis.report.html import source_hash, styled
from emergraph.graphstore.reader import GraphReader
from emergraph.safetext import escape_controls
from emergraph.version import __version__

_FOLDER = Path(__file__).parent
LIBRARY = "cytoscape.min.js"
SCRIPTS = (
    "data.js",
    "dom.js",
    "address.js",
    "overlays.js",
    "paths.js",
    "picture.js",
    "pictures.js",
    "parts.js",
    "views.js",
    "search.js",
    "main.js",
)
"""The page's own script, in this order."""


def explorer_page(reader: GraphReader, options: ExplorerOptions | None = None) -> str:
    """Return a page for walking through a graph; made again, it is the same, byte for byte.

    Raises:
        LimitError: The graph has more units than a page is meant for.
    """
    data = explorer_data(reader, options or ExplorerOptions())
    library, own, style = _text(LIBRARY), _script(), styled(_FOLDER / "explorer.css")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("explorer.html.j2").render(
        title=escape_controls(reader.name),
        version=__version__,
        scripts=[Markup(text) for text in (library, own)],  # noqa: S704 - files of this project
        script_hashes=[source_hash(text) for text in (library, own)],
        style=Markup(style),  # noqa: S704 - a file of this project
        style_hash=source_hash(style),
        data=data,
    )


@cache
def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    """The page's own script, as one function, so that none of its names is a name of the page."""
    parts = "\n".join(_text(name) for name in SCRIPTS)
    return f"(() => {{\n'use strict';\n{parts}\n}})();\n"
