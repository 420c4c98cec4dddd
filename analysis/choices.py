"""Members of enumerations by the words that users give."""

from enum import StrEnum
from typing import TypeVar

from emergraph.errors import UsageError

Choice = TypeVar("Choice", bound=StrEnum)


def choice(kind: type[Choice], word: str, what: str) -> Choice:
    """Return the member of an enumeration that a word names.

    Args:
        kind: The enumeration.
        word: A value of it; a member is one too.
        what: What is chosen, for the message, such as "activity rule".

    Raises:
        UsageError: There is no such member; the message lists all.
    """
    try:
        return kind(word)
    except ValueError:
        raise UsageError(f"unknown {what} '{word}': expected one of {', '.join(kind)}") from None
