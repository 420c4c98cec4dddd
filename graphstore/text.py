"""Text that comes from files: made fit for the store and for error messages."""

from emergraph.safetext import escape_controls, shorten


def storable(text: str) -> str:
    """Return `text` with lone surrogates, which UTF-8 cannot hold, replaced by question marks."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def printable(text: str, *, limit: int = 200) -> str:
    r"""Return `text` on one line of at most `limit` characters, without any that a terminal obeys or hides.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    return shorten(escape_controls(text), limit)
