"""Names from files in messages."""

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
