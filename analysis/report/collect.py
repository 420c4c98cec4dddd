"""From a store to a report."""

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from emergraph.analysis.audit.words import spelled_out
from emergraph.analysis.declaration import Analysis, Headline, Query, SectionSpec, TableSpec
from emergraph.analysis.figures.figure import Figure, FigureData, Run
from emergraph.analysis.figures.layermap import LAYER_MAP
from emergraph.analysis.figures.reading import newest_run, question, read_figure
from emergraph.analysis.registry import known_to
from emergraph.analysis.report.document import Attempt, Point, Report, Section, Table
from emergraph.analysis.report.texts import percent
from emergraph.graphstore.frames import fetch_frame
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.results import result_columns, result_table_names
from emergraph.graphstore.sql import compose, identifier
from emergraph.graphstore.text import stored_object
from emergraph.steps import steps
from emergraph.version import __version__

# The first section of a report: what the file is, how much of it was understood, and what to beware of.


def summary_section(
    reader: GraphReader,
    tables: tuple[Table, ...] = (),
    *,
    attempts: Sequence[Attempt],
    budget: float | None,
) -> Section:
    """Return the summary of a graph.

    Args:
        reader: The graph.
        tables: Those that it shows.
        attempts: Commands that ran, or were to run, for the report.
        budget: Seconds that they were given.
    """
    about = reader.summary
    units, layers, params = (
        _number(about["n_units"]),
        _number(about["n_layers"]),
        _number(about["n_parameters"]),
    )
    lead = (
        f"{about['source'] or about['name']} holds a network of {units:,} units in {layers:,} layers, with "
        f"{_number(about['n_edges']):,} edges and {params:,} parameters."
    )
    facts: dict[str, object] = {
        "graph": about["name"],
        "file": about["source"],
        "SHA-256": about["sha256"],
        "format": about["format"],
        "made by": about["producer"],
        "wiring": about["wiring"],
        "units": units,
        "neurons": about["n_neurons"],
        "edges": about["n_edges"],
        "parameters": params,
        "parameters understood": percent(_number(about["n_parameters_understood"]), params),
        "operations understood": percent(
            _number(about["n_operations_understood"]), _number(about["n_operations"])
        ),
        "parameters that are zero": _zeros(reader),
        "branches taken": about["branches"],
        "training step": about["step"],
    }
    audited, found = _points(reader)
    return Section(
        id="summary",
        title="Summary",
        lead=lead,
        finding=_health(audited, found),
        points=tuple(found[:POINTS]),
        facts={name: value for name, value in facts.items() if value not in (None, "", [])},
        tables=tables,
        notes=tuple(_notes(reader, attempts, budget)),
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _zeros(reader: GraphReader) -> str | None:
    sql = """SELECT sum(n_zeros), sum(n_params) FROM tensors
    WHERE graph = ? AND role NOT IN ('quantization', 'buffer')"""
    zeros, params = reader.connection.execute(sql, [reader.id]).fetchall()[0]
    return None if not params else f"{int(zeros):,} ({percent(int(zeros), int(params))})"


def _points(reader: GraphReader) -> tuple[Run | None, list[Point]]:
    """The newest audit, if there was one, and its findings, the worst first."""
    query = Query(name="points", table="audit_findings", sql=_POINTS)
    run = newest_run(reader, query)
    if run is None:
        return None, []
    rows = reader.connection.execute(question(query, reader.id, run.id)).fetchall()
    several = reader.connection.execute("SELECT count(*) > 1 FROM graphs").fetchall()[0][0]

    def filled(action: str) -> str:
        return spelled_out(
            action,
            model=str(run.parameters.get("model", "MODEL")),
            parameters=run.parameters,
            store=reader.path.name,
            graph=reader.name if several else None,
        )

    points = [Point(severity=s, grade=g, sentence=said, action=filled(action)) for s, g, said, action in rows]
    return run, points


def _health(audited: Run | None, points: Sequence[Point]) -> str:
    """Whether anything is wrong, and what was not looked at to the end, in two sentences."""
    if audited is None:
        return "It was not audited: nothing here says whether something is wrong with it, or what may go."
    left_out = audited.parameters.get("left_out")
    missing = ", ".join(left_out) if isinstance(left_out, dict) else ""
    rest = f" Not looked at to the end, for want of time: {missing}." if missing else ""
    if not points:
        return f"The audit found nothing that it looks for.{rest}"
    counts = Counter(point.severity for point in points)
    serious = ", ".join(
        f"{counts[severity]} {severity}{'s' * (counts[severity] > 1)}"
        for severity in ("error", "warning")
        if counts[severity]
    )
    infos = counts["info"]
    told = f"The audit has {serious}" if serious else "The audit found nothing wrong that it looks for"
    told += f", and {infos} thing{'s' * (infos > 1)} worth knowing" if infos else ""
    return f"{told}.{rest} The worst first:"


def section_finding(reader: GraphReader, analyses: Sequence[Analysis]) -> str:
    """Return what the newest runs of some analyses say, a sentence for each that has a headline."""
    sentences: list[str] = []
    for headline in (analysis.headline for analysis in analyses):
        if headline is None or not (text := _line(reader, headline)):
            continue
        compared = (
            headline.alone if headline.beside is None else _line(reader, headline.beside) or headline.alone
        )
        sentences += [f"{said[0].upper()}{said[1:]}." for said in (text, compared) if said]
    return " ".join(sentences)


def _line(reader: GraphReader, headline: Headline) -> str | None:
    """What the newest run says, if there is one."""
    run = newest_run(reader, headline.query)
    if run is None:
        return None
    sql = question(headline.query, reader.id, run.id)
    return headline.text(reader.connection.execute(sql).fetchall(), run.parameters)


def _notes(reader: GraphReader, attempts: Sequence[Attempt], budget: float | None) -> list[str]:
    notes = []
    traces = reader.traces()
    if traces.is_empty():
        notes.append("No activation trace: nothing here depends on what the units do.")
    elif traces["kind"][-1] == "random":
        seed = traces["seed"][-1]
        n = traces["n_samples"][-1]
        notes.append(
            f"Activity was measured on {n} random inputs (seed {seed}), not on real ones: what "
            "depends on it says little about the model in use. --inputs FILE.npz takes real ones."
        )
        free = stored_object(traces["settings"][-1], "settings of the trace").get("open_shapes")
        if free:
            from emergraph.exporters.runtime.sizes import open_shapes_note  # loads onnx

            note = open_shapes_note(free)
            notes.append(f"{note[0].upper()}{note[1:]}.")
    unfinished = [attempt for attempt in attempts if attempt.state != "done"]
    if unfinished and budget is not None:
        names = ", ".join(dict.fromkeys(attempt.command.split(" ")[1] for attempt in unfinished))
        notes.append(f"Not finished in the budget of {budget:g} s, or failed: {names}.")
    return notes


# What a report shows of a graph itself: its layers and blocks, and how the report was made.

MAP = SectionSpec(
    id="map",
    title="Layers and what leads where",
    lead="The layers that the model's operations produce, and the blocks of edges between them. A unit "
    "is a neuron (a channel, a feature, a gate) or structural (a sum, a product, an attention "
    "score).",
    tables=(
        TableSpec(
            name="layers",
            title="Layers",
            definition=(
                "The 40 layers with the most parameters, in topological order. Zeros: parameters that are "
                "exactly 0."
            ),
            query=Query(
                name="rows",
                sql="""
SELECT id, name, op, kind, depth, n_units AS units, n_params AS parameters, n_zeros AS zeros, dtype FROM (
    FROM layers WHERE graph = {graph} ORDER BY n_params DESC, id LIMIT 40
) ORDER BY id""",
            ),
        ),
        TableSpec(
            name="edge-kinds",
            title="Edges by kind",
            definition=(
                "weight: parameters; recurrent: parameters from the previous time step; identity: junctions "
                "and fan-out; gate: products; attention: scores and contexts; norm: group statistics; "
                "opaque: an operation that is not understood."
            ),
            query=Query(
                name="rows",
                sql="""
SELECT kind, count(*) AS blocks, sum(n_edges) AS edges FROM blocks WHERE graph = {graph}
GROUP BY kind ORDER BY edges DESC""",
            ),
        ),
        TableSpec(
            name="opaque",
            title="What the tracer did not understand",
            definition="Operations whose edges are opaque, by type and reason. Paths do not follow them.",
            query=Query(
                name="rows",
                sql="""
SELECT op, reason, count(*) AS operations, sum(n_params) AS parameters FROM operations
WHERE graph = {graph} AND traced_as = 'opaque' GROUP BY op, reason ORDER BY operations DESC LIMIT 20""",
            ),
        ),
    ),
    command="emergraph export MODEL STORE",
)
GRAPHS = TableSpec(
    name="graphs",
    title="Graphs of this store",
    definition="This page is about the one that is marked. emergraph diff compares two of them.",
    query=Query(
        name="rows",
        sql="""
SELECT CASE WHEN id = {graph} THEN 'this page' ELSE '' END AS shown, id, name, source, step,
       n_layers AS layers, n_units AS units, n_edges AS edges, n_parameters AS parameters
FROM graphs ORDER BY id""",
    ),
)
TRACES = TableSpec(
    name="traces",
    title="Activation traces",
    definition=(
        "inputs: the model ran on given inputs; random: on random inputs, so that activity says little "
        "about real use; imported: recorded elsewhere."
    ),
    query=Query(
        name="rows",
        sql="""
SELECT name, kind, source, n_samples AS samples, seed, created_at FROM traces
WHERE graph = {graph} ORDER BY id""",
    ),
)
RUNS = TableSpec(
    name="runs",
    title="Runs of this graph in the store",
    definition="Every analysis of this graph, oldest first. Parameters are in the table runs.",
    query=Query(
        name="rows",
        sql="""
SELECT id, command, result_tables, seed, duration AS seconds, tool_version, created_at
FROM runs WHERE graph = {graph} ORDER BY id""",
    ),
)


POINTS = 7
"""Findings of the audit that the summary has."""
_POINTS = """
SELECT severity, grade, sentence, action FROM audit_findings WHERE run = {run} ORDER BY place"""
_TRACE = "emergraph trace STORE --random 64 --model MODEL --graph GRAPH"
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
    about_layers = collector.section(MAP, str(MAP.command), [LAYER_MAP])
    sections = [collector.section_of(those) for those in steps(list(_by_section(analyses)), "sections")]
    sections.insert(1, about_layers)  # behind the findings
    several = collector.graphs()
    first = summary_section(reader, () if several is None else (several,), attempts=attempts, budget=budget)
    last = collector.provenance()
    return Report(
        graph=reader.summary,
        store=reader.path.name,
        tool_version=__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        warnings=(*_texts(reader.summary["warnings"]), *collector.known.problems),
        sections=(first, *(without(section, first.notes) for section in sections), last),
        attempts=tuple(attempts),
        budget=budget,
        commands=collector.commands,
    )


def without(section: Section, said: Sequence[str]) -> Section:
    """A section without the notes that the summary has, whichever way they begin and end."""
    known = {note.rstrip(".").casefold() for note in said}
    notes = tuple(note for note in section.notes if note.rstrip(".").casefold() not in known)
    return replace(section, notes=notes)


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
        if spec.on_trace and self.reader.traces().is_empty():
            fill = f"{_TRACE} && {fill}"
        fits = spec.only_with is None or spec.only_with in self.reader.layers()["kind"]
        why = None if fits or there else f"needs layers of kind {spec.only_with}, which this network has not"
        why = why if tried is None else ": ".join(filter(None, (tried.state, tried.message)))
        return Section(
            id=spec.id,
            title=spec.title,
            lead=spec.lead,
            finding=section_finding(self.reader, analyses) if there else "",
            figures=drawn,
            tables=shown,
            notes=self._notes(drawn, shown),
            missing=None if there or not fits else self._filled(fill) if tried is None else tried.command,
            why_missing=why,
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

    def graphs(self) -> Table | None:
        """The graphs of the store side by side, where there are several."""
        found = self.table(GRAPHS)
        return found if found is not None and found.frame.height > 1 else None

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
        return " ".join(
            shlex.quote(self.words[word]) if word in self.words else word for word in command.split(" ")
        )

    def _unfinished(self, command: str) -> Attempt | None:
        """What was tried of a section's command, in vain."""
        wanted = command.split(" ")[1]
        for attempt in self.attempts:
            if attempt.command.split(" ")[1:2] == [wanted] and attempt.state != "done":
                return attempt
        return None
