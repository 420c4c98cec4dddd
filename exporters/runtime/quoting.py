"""Names from files in messages."""

import difflib
from collections.abc import Iterable

from emergraph.graphstore.text import printable

_WIDTH = 80


def quoted(name: str) -> str:
    r"""A name from a file in quotes, on one line, without control characters, and not too long.

    Example:
        >>> print(quoted("conv\x1b[2J"))
        'conv\x1b[2J'
    """
    return f"'{plain(name)}'"


def plain(name: str) -> str:
    """The same without quotes."""
    return printable(name, limit=_WIDTH)


def closest(wanted: str, known: Iterable[str]) -> str:
    """The known names that look most like a wanted one, quoted, for an error message."""
    names = list(dict.fromkeys(known))
    found = difflib.get_close_matches(wanted, names, n=3, cutoff=0.4) or names[:3]
    return ", ".join(quoted(name) for name in found) or "none"
