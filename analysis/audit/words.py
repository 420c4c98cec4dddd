"""Words of sentences: counts, sizes, shares and lists of names."""

import re
import shlex
from collections.abc import Mapping, Sequence

from emergraph.analysis.audit.options import AuditOptions
from emergraph.exporters.runtime.inputwords import InputOptions, InputWords
from emergraph.exporters.runtime.quoting import quoted
from emergraph.options import repeated

_SHOWN = 3
_COMMAND = re.compile(r"`(emergraph [^`]+)`")
_STORE = "net.duckdb"


def count(n: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> count(1, "unit"), count(2, "branch"), count(1200, "layer")
        ('1 unit', '2 branches', '1,200 layers')
    """
    plural = noun + ("es" if noun.endswith(("ch", "x", "s")) else "s")
    return f"{n:,} {noun if n == 1 else plural}"


def bytes_text(n: int) -> str:
    """Return a size.

    Example:
        >>> bytes_text(999), bytes_text(1500), bytes_text(2_500_000)
        ('999 bytes', '1.5 kB', '2.5 MB')
    """
    if n < 1000:
        return count(n, "byte")
    return f"{n / 1e3:.1f} kB" if n < 1e6 else f"{n / 1e6:.1f} MB"


def share(part: float, whole: float) -> str:
    """Return a percentage.

    Example:
        >>> share(1, 3), share(0, 0), share(1, 100000)
        ('33 %', '0 %', '< 0.1 %')
    """
    value = 100 * part / whole if whole else 0.0
    if 0 < value < 0.1:
        return "< 0.1 %"
    return f"{value:.1f} %" if 0 < value < 10 else f"{value:.0f} %"


def names_text(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are.

    Example:
        >>> names_text(["a", "b", "c", "d", "e"])
        "'a', 'b', 'c' and 2 more"
    """
    distinct = list(dict.fromkeys(names))
    shown = ", ".join(map(quoted, distinct[:_SHOWN]))
    rest = len(distinct) - _SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def units_text(found: Mapping[str, tuple[int, int]]) -> str:
    """Return how many units of which layers, by the name of a layer: those found, and those that it has.

    Example:
        >>> units_text({"a": (2, 9)})
        "2 of the 9 units of layer 'a'"
        >>> units_text({"a": (2, 9), "b": (1, 4)})
        "3 units in 2 layers ('a', 'b')"
    """
    if len(found) == 1:
        ((name, (n, of)),) = found.items()
        return f"{n:,} of the {count(of, 'unit')} of layer {quoted(name)}"
    n = sum(one for one, _ in found.values())
    return f"{count(n, 'unit')} in {count(len(found), 'layer')} ({names_text(list(found))})"


def spelled_out(
    action: str,
    *,
    model: str,
    parameters: Mapping[str, object],
    store: str | None = None,
    graph: str | None = None,
) -> str:
    """Return an action with commands that a shell takes: their names and options are those of an audit.

    Args:
        action: Of a finding; commands stand between grave accents.
        model: The model that was audited.
        parameters: What was asked of the audit, by name, as a run keeps it.
        store: A store that holds its graph; None: the command makes one first.
        graph: The graph in it; None: the only one.

    Example:
        >>> spelled_out("Fold: `emergraph audit MODEL --write S.onnx`.", model="a b", parameters={"seed": 3})
        "Fold: `emergraph audit 'a b' --seed 3 --write S.onnx`."
    """
    inputs = shlex.join(repeated(InputWords, parameters))
    lasting = {key: value for key, value in parameters.items() if key != "budget"}
    asked = shlex.join([*repeated(InputOptions, lasting), *repeated(AuditOptions, lasting)])
    name = shlex.quote(model)
    there = shlex.quote(store or _STORE) + (f" --graph {shlex.quote(graph)}" if graph else "")

    def filled(command: re.Match[str]) -> str:
        words = command[1].split(" ")
        by_word = {"MODEL": f"{name} {asked}".strip() if words[1] == "audit" else name, "STORE": there}
        text = " ".join(by_word.get(word, word) for word in words)
        if store is None and "STORE" in words:
            text = f"emergraph export {' '.join(filter(None, (name, _STORE, inputs)))} && {text}"
        return f"`{text}`"

    return _COMMAND.sub(filled, action)
