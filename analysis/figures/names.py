"""Names of layers and tensors, short enough for a figure."""

import re
from collections import Counter
from collections.abc import Sequence

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
    *parts, end = _parts(text) if text[-1] not in "/.:" else [text]
    for part in reversed(parts):
        if len(part) + len(end) > width:
            break
        end = part + end
    # an end such as "statistic", which many layers have, tells nothing apart: both ends do
    return shorten(text if len(end) < width // 2 else end, width)


def telling_names(names: Sequence[str], width: int) -> dict[str, str]:
    """Return short names by name, a different one for each: ends that several share give way to what differs.

    Args:
        names: Different names.
        width: Most characters (8 or more), but for a number behind names that are still the same.

    Example:
        >>> telling_names(["encoder/stage.1/block/norm", "encoder/stage.2/block/norm", "head"], 10)
        {'encoder/stage.1/block/norm': 'stage.1…', 'encoder/stage.2/block/norm': 'stage.2…', 'head': 'head'}
    """
    labels = {name: short_name(name, width) for name in names}
    times = Counter(labels.values())
    alike = [name for name in names if times[labels[name]] > 1]
    if alike:
        shared = _shared_end([_parts(escape_controls(name)) for name in alike])
        labels |= {name: _without_end(escape_controls(name), shared, width) for name in alike}
    taken: set[str] = set()
    for name, short in labels.items():
        number, label = 1, short
        while label in taken:
            number += 1
            label = f"{short} ({number})"
        taken.add(label)
        labels[name] = label
    return labels


def _parts(text: str) -> list[str]:
    return re.split(r"(?<=[/.:])", text)


def _shared_end(names: Sequence[Sequence[str]]) -> int:
    """Characters of the parts in which all names end."""
    n = 0
    while n < min(map(len, names)) - 1 and len({name[-1 - n] for name in names}) == 1:
        n += 1
    return sum(map(len, names[0][len(names[0]) - n :]))


def _without_end(text: str, shared: int, width: int) -> str:
    if not shared:
        return short_name(text, width)
    return f"{short_name(text[: len(text) - shared].rstrip('/.:'), width - 1)}…"
