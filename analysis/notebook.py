"""How results look in a notebook."""

import html
from collections.abc import Mapping
from typing import Any

from emergraph.safetext import escape_controls, shorten

ROWS = 10
"""Rows of a table that a notebook shows; `to_dict()` and the frames have all."""
LONGEST = 120


class ShownInNotebooks:
    """Gives a result with `to_dict()` a table form: its single values, and the first rows of its tables.

    Names from files are escaped: in a notebook, too, they are text.
    """

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; results have their own."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return html_of(type(self).__name__, self.to_dict())


def html_of(title: str, document: Mapping[str, Any]) -> str:
    """Return a title, the single values of a document, and the first rows of its lists of objects.

    Example:
        >>> html_of("Demo", {"name": "<b>", "rows": [{"x": 1}]}).count("&lt;b&gt;")
        1
    """
    single = {
        name: value for name, value in document.items() if not isinstance(value, Mapping | list | tuple)
    }
    parts = [f"<p><strong>{_text(title)}</strong></p>"]
    if single:
        rows = "".join(f"<tr><th>{_text(n)}</th><td>{_text(v)}</td></tr>" for n, v in single.items())
        parts.append(f"<table>{rows}</table>")
    for name, value in document.items():
        entries = _entries(value)
        if entries:
            parts.append(f"<p>{_text(name)} ({len(entries)})</p>{_table(entries[:ROWS])}")
    return "".join(parts)


def _entries(value: object) -> list[Mapping[str, Any]]:
    """The rows of a list of objects, or of a mapping of objects with the key as their first column."""
    if isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
        return value
    if isinstance(value, Mapping) and value and all(isinstance(entry, Mapping) for entry in value.values()):
        return [{"": key, **entry} for key, entry in value.items()]
    return []


def _table(rows: list[Mapping[str, Any]]) -> str:
    columns = [name for name, value in rows[0].items() if not isinstance(value, list | tuple)]
    head = "".join(f"<th>{_text(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(row.get(name))}</td>" for name in columns) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(value: object) -> str:
    match value:
        case None:
            text = "–"
        case bool():
            text = str(value)
        case int():
            text = f"{value:,}"
        case float():
            text = f"{value:.4g}"
        case Mapping():
            text = ", ".join(f"{name} {_text(entry)}" for name, entry in value.items())
            return shorten(text, LONGEST)
        case _:
            text = str(value)
    return html.escape(shorten(escape_controls(text), LONGEST))
