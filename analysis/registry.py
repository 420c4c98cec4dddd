"""All analyses: those of this package by name, and those of plug-ins."""

import importlib
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from emergraph.analysis.declaration import Analysis, Subject
from emergraph.choices import unknown
from emergraph.errors import UsageError

if TYPE_CHECKING:
    from emergraph.analysis.figures.figure import Figure, Run

BUILT_IN: Mapping[str, str] = {
    "emergence": "emergence.analysis:EMERGENCE",
    "prune": "pruning.analysis:PRUNE",
    "landscape": "landscape.analysis:LANDSCAPE",
    "percolate": "percolation.analysis:PERCOLATE",
    "topology": "topology.analysis:TOPOLOGY",
    "information": "information.analysis:INFORMATION",
    "skills fit": "skills.analysis:FIT",
    "skills simulate": "skills.analysis:SIMULATE",
    "trajectory": "emergence.analysis:TRAJECTORY",
}
"""Where each analysis is declared, in the order of a report."""


@cache
def built_in() -> tuple[Analysis, ...]:
    """Return the analyses of this package, in the order of a report."""
    return tuple(map(_built_in, BUILT_IN))


def _built_in(name: str) -> Analysis:
    module, _, attribute = BUILT_IN[name].partition(":")
    found = getattr(importlib.import_module(f"emergraph.analysis.{module}"), attribute)
    assert isinstance(found, Analysis)  # noqa: S101 - of this package
    return found


def analysis_named(name: str) -> Analysis:
    """Return an analysis.

    Raises:
        UsageError: There is none of that name; the message names all.
    """
    if name not in BUILT_IN:
        raise UsageError(unknown("analysis", name, BUILT_IN))
    return _built_in(name)


def command_of(run: "Run", *, store: str, graph: str) -> str:
    """Return a command line that repeats a run, for a shell.

    Args:
        run: The run.
        store: File name of the store.
        graph: Name of the graph.
    """
    known = BUILT_IN.get(run.command) and _built_in(run.command)
    analysis = known or Analysis(name=run.command, summary="", of=Subject.GRAPH)
    return analysis.repeat(run.parameters, run.seed, store=store, graph=graph)


def figures() -> "tuple[Figure, ...]":
    """Return all figures, in the order of a report."""
    from emergraph.analysis.figures.layermap import LAYER_MAP

    return (LAYER_MAP, *(figure for one in built_in() for figure in one.figures()))


def figure_named(name: str) -> "Figure":
    """Return a figure.

    Raises:
        UsageError: There is none of that name; the message names the closest ones.
    """
    by_name = {figure.name: figure for figure in figures()}
    if name not in by_name:
        raise UsageError(unknown("figure", name, by_name))
    return by_name[name]
