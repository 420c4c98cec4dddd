"""Names of layers and tensors, short enough for a figure."""

import re

from emergraph.safetext import escape_controls, shorten


def short_name(name: str, width: int) -> str:
    """Return the end of a path-like name, which tells layers apart, at most `width` (8 or more) characters.

    Example:
        >>> short_name("model/encoder/layer.3/attention/output/dense/MatMul", 26)
        'output/dense/MatMul'
    """
    text = escape_controls(name)
    if len(text) <= width:
        return text
    *parts, end = re.split(r"(?<=[/.:])", text) if text[-1] not in "/.:" else [text]
    for part in reversed(parts):
        if len(part) + len(end) > width:
            break
        end = part + end
    # an end such as "statistic", which many layers have, tells nothing apart: both ends do
    return shorten(text if len(end) < width // 2 else end, width)
