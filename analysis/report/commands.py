"""Command lines that repeat runs, from the parameters that runs keep."""

import shlex
from collections.abc import Mapping, Sequence

from emergraph.analysis.figures.figure import Run
from emergraph.analysis.pruning.options import DEFAULT_LEVELS
from emergraph.safetext import escape_controls

_OPTIONS: Mapping[str, Sequence[tuple[str, str, object]]] = {
    "emergence": (
        ("rule", "--rule", "mean"),
        ("trace", "--trace", None),
        ("paths", "--paths", "units"),
        ("endpoints", "--endpoints", "neurons"),
        ("layers", "--layers", "all"),
        ("unmeasured", "--unmeasured", "transparent"),
        ("unroll", "--unroll", 1),
    ),
    "prune": (
        ("criterion", "--criterion", "magnitude"),
        ("where", "--where", None),
        ("unit", "--unit", "parameter"),
        ("scope", "--scope", None),
        ("trace", "--trace", None),
        ("rule", "--rule", "mean"),
        ("threshold", "--threshold", None),
        ("seeds", "--seeds", 1),
    ),
    "percolate": (
        ("order", "--order", "weight"),
        ("trace", "--trace", None),
        ("structure", "--structure", "given"),
        ("seeds", "--seeds", 5),
        ("nulls", "--nulls", 5),
        ("points", "--points", 100),
    ),
    "topology": (
        ("alpha", "--alpha", 0.05),
        ("nulls", "--nulls", 3),
        ("max_edges", "--max-edges", 1_000_000),
    ),
    "landscape": (
        ("norm", "--norm", "filter"),
        ("radius", "--radius", 1.0),
        ("sigma", "--sigma", 0.1),
        ("directions", "--directions", 10),
        ("planes", "--planes", 3),
        ("walks", "--walks", 10),
        ("masks", "--masks", 0),
    ),
}
"""By command: parameter, option, and the value at which the option is left out."""

_DEFAULT_SCOPE = "global"
_DEFAULT_KINDS = ["weight", "identity", "gate", "attention"]


def command_of(run: Run, *, store: str, graph: str, extra: Sequence[str] = ()) -> str:
    """Return a command line that repeats a run, for a shell.

    Args:
        run: The run.
        store: File name of the store.
        graph: Name of the graph.
        extra: Options that its parameters do not tell.
    """
    words = ["emergraph", run.command]
    if run.command == "landscape":
        words += [str(run.parameters.get("model", "MODEL")), "--store", store]
    else:
        words += [store, "--graph", graph]
    for name, option, default in _OPTIONS.get(run.command, ()):
        value = run.parameters.get(name, default)
        if value not in (default, None) and not (name == "scope" and value == _DEFAULT_SCOPE):
            words += [option, _word(value)]
    words += _lists(run)
    words += extra
    if run.seed:
        words += ["--seed", str(run.seed)]
    return shlex.join(map(escape_controls, words))


def _lists(run: Run) -> list[str]:
    """The options that take several values."""
    words = []
    levels = run.parameters.get("levels")
    if run.command == "prune" and isinstance(levels, list) and tuple(levels) != DEFAULT_LEVELS:
        words += ["--level", ",".join(f"{level:g}" for level in levels)]
    kinds = run.parameters.get("kinds")
    if isinstance(kinds, list) and kinds != _DEFAULT_KINDS:
        words += ["--kinds", ",".join(map(str, kinds))]
    return words


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
