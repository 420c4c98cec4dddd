"""Names from files are data: how they are shown in messages without doing anything to a terminal or a log."""

import unicodedata

_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control, format and surrogate characters, and the two separators that break a line."""


def printable(name: str | bytes, limit: int = 80) -> str:
    r"""Return a name as one line of visible text.

    Characters of the Unicode categories Cc, Cf and Cs (escape sequences, bidirectional overrides, lone
    surrogates, ...), line and paragraph separators are written as `\xNN`, `\uNNNN` or `\UNNNNNNNN`.

    Args:
        name: Any text out of a file; bytes are what a text field holds that is not UTF-8.
        limit: The longest result; longer names are cut and end in an ellipsis and their full length.

    Example:
        >>> printable("conv\x1b[2J")
        'conv\\x1b[2J'
    """
    if isinstance(name, bytes):
        name = name[: 4 * limit].decode("utf-8", "backslashreplace")
    if len(name) <= limit and name.isprintable():
        return name
    shown = "".join(_escape(char) for char in name[: limit + 1])
    if len(shown) <= limit and len(name) <= limit:
        return shown
    return f"{shown[:limit]}… ({len(name)} characters)"


def has_hidden_characters(name: str) -> bool:
    """Tell whether a name holds characters that `printable` escapes."""
    return not name.isprintable() and any(unicodedata.category(c) in _ESCAPED_CATEGORIES for c in name)


def _escape(char: str) -> str:
    if char.isprintable() or unicodedata.category(char) not in _ESCAPED_CATEGORIES:
        return char
    code = ord(char)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
