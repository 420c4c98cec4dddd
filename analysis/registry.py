"""All analyses: those of this package by name, and those of plug-ins."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from emergraph.analysis.declaration import Analysis, Subject
from emergraph.choices import unknown
from emergraph.errors import InvalidInputError, UsageError
from emergraph.graphstore.results import show_new_columns
from emergraph.plugins import ANALYSES, Plugin, plugins

if TYPE_CHECKING:
    import duckdb

    from emergraph.analysis.figures.figure import Figure, Run

BUILT_IN: Mapping[str, str] = {
    "audit": "audit.analysis:AUDIT",
    "emergence": "emergence.analysis:EMERGENCE",
    "prune": "pruning.analysis:PRUNE",
    "influence": "influence.analysis:INFLUENCE",
    "circuit": "influence.analysis:CIRCUIT",
    "contributions": "influence.analysis:CONTRIBUTION",
    "landscape": "landscape.analysis:LANDSCAPE",
    "percolate": "percolation.analysis:PERCOLATE",
    "concepts": "percolation.analysis:CONCEPTS",
    "transition": "percolation.analysis:TRANSITION",
    "paths": "routes.analysis:PATHS",
    "topology": "topology.analysis:TOPOLOGY",
    "information": "information.analysis:INFORMATION",
    "skills fit": "skills.analysis:FIT",
    "skills simulate": "skills.analysis:SIMULATE",
    "trajectory": "emergence.analysis:TRAJECTORY",
    "lineage": "lineage.analysis:LINEAGE",
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
    """Return an analysis, built in or of a plug-in, which is imported.

    Raises:
        UsageError: There is none of that name; the message names all.
        InvalidInputError: The plug-in cannot be used.
    """
    if name in BUILT_IN:
        return _built_in(name)
    others = {plugin.name: plugin for plugin in _plugged_in()}
    if name not in others:
        raise UsageError(unknown("analysis", name, [*BUILT_IN, *others]))
    return _plugged(others[name])


def _plugged_in() -> tuple[Plugin, ...]:
    return plugins(ANALYSES, taken={name.split()[0] for name in BUILT_IN}).found


def _plugged(plugin: Plugin) -> Analysis:
    """The analysis of a plug-in.

    Raises:
        InvalidInputError: It cannot be imported, or what it declares does not fit beside what is built in.
    """
    own = built_in()  # whose tables are then known, so that no plug-in declares them otherwise
    found = plugin.load()
    if not isinstance(found, Analysis) or found.name != plugin.name:
        raise plugin.broken(f"expected {plugin.target} to be an Analysis of the name {plugin.name}")
    tables = {table.name for one in own for table in one.tables}
    sections = {one.section.id for one in own if one.section is not None}
    taken = [table.name for table in found.tables if table.name in tables]
    taken += [found.section.id] if found.section is not None and found.section.id in sections else []
    if taken:
        raise plugin.broken(f"{taken[0]!r} is a table or section of an analysis that is built in")
    return found


@dataclass(frozen=True, kw_only=True)
class Known:
    """The analyses that a store's runs are of, besides all those that are built in."""

    analyses: tuple[Analysis, ...]
    problems: tuple[str, ...] = ()
    """One line for each plug-in that cannot be used."""

    def figure(self, name: str) -> "Figure":
        """Return a figure by its name.

        Raises:
            UsageError: There is none of that name; the message names the closest ones.
        """
        by_name = {figure.name: figure for figure in self.figures()}
        if name not in by_name:
            raise UsageError(unknown("figure", name, by_name))
        return by_name[name]

    def figures(self) -> "tuple[Figure, ...]":
        """Return all figures, in the order of a report."""
        from emergraph.analysis.figures.layermap import LAYER_MAP

        return (LAYER_MAP, *(figure for one in self.analyses for figure in one.figures()))

    def repeat(self, run: "Run", *, store: str, graph: str) -> str:
        """Return a command line that repeats a run, for a shell.

        Args:
            run: The run.
            store: File name of the store.
            graph: Name of the graph.
        """
        by_name = {one.name: one for one in self.analyses}
        nobody = Analysis(name=run.command, summary="", of=Subject.GRAPH)
        analysis = by_name.get(run.command, nobody)
        return analysis.repeat(run.parameters, run.seed, store=store, graph=graph)


def known_to(connection: "duckdb.DuckDBPyConnection") -> Known:
    """Return what is built in, and the plug-ins whose runs a store holds; no other plug-in is imported."""
    rows = connection.execute("SELECT DISTINCT command FROM runs").fetchall()
    wanted = {str(command) for (command,) in rows} - BUILT_IN.keys()
    found, problems = list(built_in()), []
    for plugin in _plugged_in() if wanted else ():
        if plugin.name in wanted:
            try:
                found.append(_plugged(plugin))
            except InvalidInputError as error:
                problems.append(str(error))
    show_new_columns(connection)
    return Known(analyses=tuple(found), problems=tuple(problems))


def figure_named(name: str) -> "Figure":
    """Return a figure of what is built in.

    Raises:
        UsageError: There is none of that name; the message names the closest ones.
    """
    return Known(analyses=built_in()).figure(name)
