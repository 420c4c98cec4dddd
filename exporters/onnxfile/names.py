"""Names from files are data: how messages show them."""

from collections.abc import Sequence

from emergraph.safetext import escape_controls

_SHOWN = 3


def printable(name: str | bytes, limit: int = 80) -> str:
    r"""Return a name as one line of visible text, cut where it is longer than `limit`.

    Characters that cannot be seen (terminal escapes, bidirectional overrides, ...) are written as codes; see
    `safetext.escape_controls`.

    Args:
        name: Any text out of a file; bytes are what a text field holds that is not UTF-8.
        limit: The longest result; longer names are cut and end in an ellipsis and their full length.

    Example:
        >>> printable("conv\x1b[2J")
        'conv\\x1b[2J'
    """
    head = name[: limit + 1]
    shown = escape_controls(head if isinstance(head, str) else head.decode("utf-8", "backslashreplace"))
    if len(shown) <= limit:
        return shown
    return f"{shown[:limit]}… ({len(name)} {'bytes' if isinstance(name, bytes) else 'characters'})"


def has_hidden_characters(name: str) -> bool:
    """Tell whether a name holds characters that `printable` shows as codes."""
    return not name.isprintable()


def listed(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
