"""Text that comes from files: made safe to store and safe to print."""

import unicodedata

_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def storable(text: str) -> str:
    """Return `text` with lone surrogates, which UTF-8 cannot hold, replaced by question marks."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def printable(text: str, *, limit: int = 200) -> str:
    r"""Return `text` on one line, without characters that a terminal obeys or hides.

    Args:
        text: Any text, for example a layer name from a model file.
        limit: Characters to keep; longer text ends in "...".

    Returns:
        Control, format and surrogate characters and line separators become `\xNN`, `\uNNNN` or `\UNNNNNNNN`.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    shown = text if len(text) <= limit else f"{text[:limit]}..."
    return "".join(_escaped(c) if unicodedata.category(c) in _HIDDEN_CATEGORIES else c for c in shown)


def _escaped(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
