"""From a store to a report."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from emergraph.analysis.declaration import Analysis, Query, SectionSpec, TableSpec
from emergraph.analysis.figures.figure import Figure, FigureData, Run
from emergraph.analysis.figures.layermap import LAYER_MAP
from emergraph.analysis.figures.reading import newest_run, question, read_figure
from emergraph.analysis.registry import known_to
from emergraph.analysis.report.document import Attempt, Report, Section, Table
from emergraph.analysis.report.sections import MAP, RUNS, TRACES
from emergraph.analysis.report.summary import summary_section
from emergraph.graphstore.frames import fetch_frame
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.results import result_columns, result_table_names
from emergraph.graphstore.sql import compose, identifier
from emergraph.steps import steps
from emergraph.version import __version__

ROWS = 24
"""Rows of a result table that has no figure and no table of its own."""
_FIRST = "SELECT {columns} FROM {table} WHERE run = {run} LIMIT {rows}"
_SHOWN = """
SELECT list_distinct(flatten(list(result_tables))) FROM runs
WHERE (graph = ? OR graph IS NULL AND ?) AND command = ?
"""


def collect_report(
    reader: GraphReader,
    *,
    attempts: Sequence[Attempt] = (),
    budget: float | None = None,
    model: str | None = None,
) -> Report:
    """Return what a store knows about a graph.

    Args:
        reader: The graph.
        attempts: Commands that ran, or were to run, for this report.
        budget: Seconds that they were given.
        model: File name of the model, for command lines; by default the one that the graph came from.
    """
    collector = _Collector(reader, attempts, model or str(reader.summary["source"]) or "MODEL")
    analyses = collector.known.analyses
    sections = [collector.section(MAP, str(MAP.command), [LAYER_MAP])]
    sections += [collector.section_of(those) for those in steps(list(_by_section(analyses)), "sections")]
    first = summary_section(reader, analyses, attempts=attempts, budget=budget)
    last = collector.provenance()
    return Report(
        graph=reader.summary,
        store=reader.path.name,
        tool_version=__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        warnings=(*_texts(reader.summary["warnings"]), *collector.known.problems),
        sections=(first, *sections, last),
        attempts=tuple(attempts),
        budget=budget,
        commands=collector.commands,
    )


def _texts(value: object) -> list[str]:
    return [str(entry) for entry in value] if isinstance(value, list) else []


def _by_section(analyses: Sequence[Analysis]) -> list[list[Analysis]]:
    """Analyses with a section, those of one section together."""
    found: dict[str, list[Analysis]] = {}
    for analysis in analyses:
        if analysis.section is not None:
            found.setdefault(analysis.section.id, []).append(analysis)
    return list(found.values())


class _Collector:
    """Fills sections, and remembers the command lines of the runs that they show."""

    def __init__(self, reader: GraphReader, attempts: Sequence[Attempt], model: str) -> None:
        self.reader = reader
        self.attempts = attempts
        self.words = {"STORE": reader.path.name, "MODEL": model, "GRAPH": reader.name}
        self.known = known_to(reader.connection)
        self.commands: dict[int, str] = {}
        self.there = set(result_table_names(reader.connection))

    def section_of(self, analyses: Sequence[Analysis]) -> Section:
        """The section that some analyses share."""
        spec = analyses[0].section or MAP
        figures = [figure for analysis in analyses for figure in analysis.figures()]
        return self.section(spec, analyses[0].fill, figures, analyses)

    def section(
        self, spec: SectionSpec, fill: str, figures: Sequence[Figure], analyses: Sequence[Analysis] = ()
    ) -> Section:
        """A section: its figures, its tables, and results that neither of them shows."""
        read = [read_figure(self.reader, figure) for figure in figures]
        drawn = tuple(data for data in read if data is not None)
        asked = {query.table for data in drawn for query in data.figure.queries}
        known = [self.table(table) for table in spec.tables]
        asked |= {table.query.table for table in spec.tables}
        others = [self.table(other) for other in self._others(analyses, {str(name) for name in asked})]
        shown = tuple(table for table in (*known, *others) if table is not None)
        for run in (*(run for data in drawn for run in data.runs), *(t.run for t in shown)):
            self._remember(run)
        there = bool(drawn or shown)
        tried = None if there else self._unfinished(fill)
        return Section(
            id=spec.id,
            title=spec.title,
            lead=spec.lead,
            figures=drawn,
            tables=shown,
            notes=self._notes(drawn, shown),
            missing=None if there else self._filled(fill) if tried is None else tried.command,
            why_missing=None if tried is None else ": ".join(filter(None, (tried.state, tried.message))),
        )

    def table(self, spec: TableSpec) -> Table | None:
        """The table, or None where there is no run for it or no row in it."""
        query = spec.query
        run = newest_run(self.reader, query)
        if query.table is not None and run is None:
            return None
        sql = question(query, self.reader.id, None if run is None else run.id)
        frame = fetch_frame(self.reader.connection, sql)
        return None if frame.is_empty() else Table(spec=spec, frame=frame, sql=sql, run=run)

    def provenance(self) -> Section:
        """How the report was made."""
        shown = [self.table(spec) for spec in (TRACES, RUNS)]
        return Section(
            id="provenance",
            title="How this report was made",
            lead=(
                "Everything above was read from one DuckDB store, and every figure and table can be made "
                "again from it with the command and the SQL that stand below it."
            ),
            tables=tuple(table for table in shown if table is not None),
        )

    def _others(self, analyses: Sequence[Analysis], asked: set[str]) -> Iterable[TableSpec]:
        """Result tables of the section's analyses that nothing has asked for."""
        for analysis in analyses:
            about = [self.reader.id, analysis.of.shared, analysis.name]
            rows = self.reader.connection.execute(_SHOWN, about).fetchall()
            for name in sorted(set(rows[0][0] or ()) & self.there - asked):
                columns = result_columns(self.reader.connection, name)
                listed = ", ".join(identifier(column) for column in columns if column != "run")
                yield TableSpec(
                    name=name,
                    title=f"Result table {name}",
                    folded=True,
                    definition=f"Its first {ROWS} rows; docs/results.md has the columns of {name}.",
                    query=Query(
                        name="rows",
                        table=name,
                        shared=analysis.of.shared,
                        sql=compose(_FIRST, columns=listed, table=identifier(name), run="{run}", rows=ROWS),
                    ),
                )

    def _remember(self, run: Run | None) -> None:
        if run is not None and run.id not in self.commands:
            self.commands[run.id] = self.known.repeat(
                run, store=self.words["STORE"], graph=self.words["GRAPH"]
            )

    def _notes(self, figures: Sequence[FigureData], shown: Sequence[Table]) -> tuple[str, ...]:
        runs = {run.id: run for data in figures for run in data.runs}
        runs |= {table.run.id: table.run for table in shown if table.run is not None}
        notes = [note for run in runs.values() for note in _texts(run.parameters.get("notes"))]
        return tuple(dict.fromkeys(notes))

    def _filled(self, command: str) -> str:
        return " ".join(self.words.get(word, word) for word in command.split(" "))

    def _unfinished(self, command: str) -> Attempt | None:
        """What was tried of a section's command, in vain."""
        wanted = command.split(" ")[1]
        for attempt in self.attempts:
            if attempt.command.split(" ")[1:2] == [wanted] and attempt.state != "done":
                return attempt
        return None
