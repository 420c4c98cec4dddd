"""The one sentence about a name that is not among the names available."""

from collections.abc import Iterable

from emergraph.safetext import escape_controls, shorten

_ALL = 12
"""So many names are listed in full; of more, only the closest."""
_CLOSEST = 3
_WIDTH = 60


def unknown(what: str, name: object, available: Iterable[object]) -> str:
    """Return the message about a name that is not available, with those that are.

    Args:
        what: What it should name, such as "criterion".
        name: The name; it may come from a file.
        available: The names that exist. Up to twelve are all listed; of more, the three most similar
            to `name`.

    Example:
        >>> unknown("criterion", "size", ["magnitude", "random"])
        "unknown criterion 'size'; available: magnitude, random"
        >>> unknown("column", "skore", ["score", *(f"c{i}" for i in range(20))])
        "unknown column 'skore'; available: score and 20 more"
    """
    known = list(dict.fromkeys(map(str, available)))
    shown = known if len(known) <= _ALL else _closest(str(name), known)
    more = f" and {len(known) - len(shown)} more" if len(shown) < len(known) else ""
    names = ", ".join(map(_plain, shown)) or "none"
    return f"unknown {what} '{_plain(str(name))}'; available: {names}{more}"


def _closest(name: str, known: list[str]) -> list[str]:
    import difflib

    return difflib.get_close_matches(name, known, n=_CLOSEST, cutoff=0.4) or known[:_CLOSEST]


def _plain(name: str) -> str:
    return shorten(escape_controls(name), _WIDTH)
