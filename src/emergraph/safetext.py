"""Names from strangers' files made safe for the place where they are shown or stored.

A layer name is third-party data. It can hold terminal commands, markup, spreadsheet formulas,
line breaks, or letters that only look like others. Each function here answers for one destination; what goes
to SQL needs none of them: there a name is always a parameter, or quoted by `graphstore.sql.identifier`.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

_FORMULA_STARTS = frozenset("=+-@\t\r\n＝＋－＠")
"""First characters that make a spreadsheet evaluate a cell, full-width forms included."""

_LOOKALIKES = str.maketrans(
    "АВЕЅЗІЈКМНОРСТУХаеорсухіјѕһԁԛԝӏΑΒΕΖΗΙΚΜΝΟΡΤΥΧανοικρυωℓ∕⁄‐‑‒–—−",
    "ABES3IJKMHOPCTYXaeopcyxijshdqwlABEZHIKMNOPTYXavoikpuwl//------",
)
"""Letters of other scripts that most fonts draw like the Latin letter below them."""


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escape_controls(text: str) -> str:
    r"""Return `text` on one line without any character that steers a terminal or hides text.

    What `str.isprintable` denies becomes ``\xNN``, ``\uNNNN`` or ``\UNNNNNNNN``: control (Cc), format (Cf:
    bidirectional overrides, zero-width characters), surrogate (Cs), private (Co) and unassigned (Cn)
    characters, line and paragraph separators, and every space but the ordinary one. All others stay.

    Example:
        >>> escape_controls("fc1\x1b[2J\u202e")
        'fc1\\x1b[2J\\u202e'
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def shorten(text: str, width: int) -> str:
    """Return `text`, its middle replaced by an ellipsis where it is longer than `width` (at least 8)."""
    if len(text) <= width:
        return text
    head = (width - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def guard_formula(text: str) -> str:
    """Return `text` with a leading apostrophe where a spreadsheet would run it as a formula.

    Example:
        >>> guard_formula("=cmd|' /C calc'!A0")
        "'=cmd|' /C calc'!A0"
    """
    return f"'{text}" if text.lstrip(" ")[:1] in _FORMULA_STARTS and text.strip(" ") else text


def escape_xml(text: str) -> str:
    """Return `text` for XML content and attribute values (GraphML, SVG).

    The five predefined entities are used, ``>`` included, so that ``]]>`` cannot occur. Characters that XML
    1.0 cannot hold at all are written as `escape_controls` writes them.

    Example:
        >>> escape_xml('a]]><b id="1">')
        'a]]&gt;&lt;b id=&quot;1&quot;&gt;'
    """
    text = escape_controls(text)
    for character, entity in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ('"', "&quot;"),
        ("'", "&apos;"),
    ):
        text = text.replace(character, entity)
    return text


def _skeleton(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).translate(_LOOKALIKES)


def reveal_lookalikes(names: Iterable[str]) -> dict[str, str]:
    r"""Return, for each name that a reader could take for another of `names`, a form that tells them apart.

    Two names look alike when they agree after compatibility decomposition, without accents, and with letters
    of other scripts replaced by the Latin letter that they resemble. In such a group every character outside
    ASCII is shown by its code. Names that differ only in case are told apart by eye, and stay.

    Example:
        >>> reveal_lookalikes(["fc1", "f\u04411", "conv"])
        {'fс1': 'f\\u04411'}
    """
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[_skeleton(name)].add(name)
    return {
        name: "".join(c if c.isascii() else _escape(c) for c in name)
        for group in groups.values()
        if len(group) > 1
        for name in sorted(group)
        if not name.isascii()
    }
