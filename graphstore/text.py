"""Text that comes from files: made fit for the store and for error messages."""

import json
from collections.abc import Sequence
from typing import Any

from emergraph.errors import StoreError
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


def listed(names: Sequence[str], *, most: int = 3) -> str:
    """Return a list of names that may be long as text, each name once.

    Example:
        >>> listed(["a", "b", "c", "d", "d", "e"])
        'a, b, c and 2 more'
    """
    once = [printable(name, limit=60) for name in dict.fromkeys(names)]
    return ", ".join(once[:most]) + (f" and {len(once) - most} more" if len(once) > most else "")


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's text that says something; the kind of error where none does.

    Example:
        >>> first_line(ValueError("\n no such axis \nStack trace: ...")), first_line(KeyError())
        ('no such axis', 'KeyError')
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def stored_object(text: str | None, where: str) -> dict[str, Any]:
    """Return the JSON object of a store's cell; an empty one for an empty cell.

    Args:
        text: The cell.
        where: Which cell it is, for messages.

    Raises:
        StoreError: The cell holds something else: the store was changed by another program.
    """
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise StoreError(
            f"the store is damaged: {where}: expected a JSON object, found '{printable(str(text), limit=40)}'"
        )
    return found
