"""A report as data: what every form of it (page, terminal, JSON) is made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from emergraph.analysis.declaration import Caption
from emergraph.analysis.figures.figure import FigureData, Run
from emergraph.analysis.notebook import ShownInNotebooks

FORM = "emergraph-report/1"
"""Name and version of the JSON form; see docs/report.schema.json."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with its origin."""

    spec: Caption
    frame: pl.DataFrame
    sql: str | None = None
    """The query whose answer it is; None where it was computed."""
    run: Run | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A command that ran, or was to run, to make a report."""

    command: str
    """Command line, without the program's folder; it takes the time that it takes."""
    state: str
    """done, failed, out of time or left out."""
    seconds: float | None = None
    """Wall time in seconds; None where it did not run."""
    message: str = ""
    """What it said when it failed, or why it was left out."""
    held_to: str = ""
    """What was added to the command line so that it stays within the report's budget."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Something that a reader should know first: what was found, how sure it is, and what to do."""

    severity: str
    """error, warning or info."""
    grade: str
    """proved, tested or suspected."""
    sentence: str
    action: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """One question and its answers."""

    id: str
    title: str
    lead: str
    """What the section is about, in a sentence or two."""
    finding: str = ""
    """What its results say, in a sentence; empty where nothing was measured."""
    points: tuple[Point, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    figures: tuple[FigureData, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    missing: str | None = None
    """The command that would fill the section; None where there is something to show, or nothing fills it."""
    why_missing: str | None = None
    """What happened when that command ran, if it did, or why nothing fills the section."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a page shows: sections, and where they come from."""

    kind: str
    """What the page is: the command that makes it."""
    title: str
    tool_version: str
    created_at: str
    """UTC, ISO 8601."""
    sections: tuple[Section, ...]
    """The first one has the id `summary`."""
    store: str | None = None
    """File name of the store that its SQL asks; None where it has none."""
    warnings: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    budget: float | None = None
    commands: Mapping[int, str] = field(default_factory=dict)
    """Command line that would repeat a run, by the run's id."""


@dataclass(frozen=True, kw_only=True)
class Report(ShownInNotebooks):
    """Everything that is known about one graph."""

    graph: Mapping[str, object]
    """The row of the table `graphs`."""
    store: str
    """File name of the store, without folders."""
    tool_version: str
    created_at: str
    """UTC, ISO 8601."""
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    attempts: tuple[Attempt, ...]
    budget: float | None
    """Seconds that analyses were given; None when the report was made from what the store held."""
    commands: Mapping[int, str]
    """Command line that would repeat a run, by the run's id."""

    def page(self) -> Page:
        """Return the report as a page."""
        return Page(
            kind="report",
            title=str(self.graph["name"]),
            tool_version=self.tool_version,
            created_at=self.created_at,
            sections=self.sections,
            store=self.store,
            warnings=self.warnings,
            attempts=self.attempts,
            budget=self.budget,
            commands=self.commands,
        )

    def to_html(self) -> str:
        """Return the page: one HTML file that loads nothing and runs no script."""
        from emergraph.analysis.report.html import page_html

        return page_html(self.page())

    def section(self, name: str) -> Section:
        """Return a section by its id.

        Raises:
            KeyError: There is none.
        """
        return {section.id: section for section in self.sections}[name]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, in the form that docs/report.schema.json describes."""
        return {
            "form": FORM,
            "tool_version": self.tool_version,
            "created_at": self.created_at,
            "store": self.store,
            "budget_seconds": self.budget,
            "graph": dict(self.graph),
            "warnings": list(self.warnings),
            "attempts": [vars(attempt) for attempt in self.attempts],
            "sections": [self._section(section) for section in self.sections],
        }

    def _section(self, section: Section) -> dict[str, Any]:
        return {
            "id": section.id,
            "title": section.title,
            "lead": section.lead,
            "finding": section.finding,
            "points": [vars(point) for point in section.points],
            "facts": dict(section.facts),
            "notes": list(section.notes),
            "missing": section.missing,
            "why_missing": section.why_missing,
            "figures": [
                {
                    "name": data.figure.name,
                    "title": data.figure.title,
                    "definition": data.figure.definition,
                    "runs": [self._run(run) for run in data.runs],
                    "sql": dict(data.sql),
                    "data": {name: frame.to_dicts() for name, frame in data.frames.items()},
                }
                for data in section.figures
            ],
            "tables": [
                {
                    "name": table.spec.name,
                    "title": table.spec.title,
                    "definition": table.spec.definition,
                    "runs": [] if table.run is None else [self._run(table.run)],
                    "sql": table.sql,
                    "rows": table.frame.to_dicts(),
                }
                for table in section.tables
            ],
        }

    def _run(self, run: Run) -> dict[str, Any]:
        return {
            "id": run.id,
            "command": self.commands[run.id],
            "seed": run.seed,
            "tool_version": run.tool_version,
            "parameters": dict(run.parameters),
        }
