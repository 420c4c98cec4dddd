"""Asks a store a figure's questions."""

from typing import TYPE_CHECKING

from emergraph.analysis.declaration import Query
from emergraph.analysis.figures.figure import Figure, FigureData, Run
from emergraph.errors import UsageError
from emergraph.graphstore.frames import fetch_frame
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.sql import compose
from emergraph.graphstore.text import stored_object
from emergraph.safetext import escape_controls

if TYPE_CHECKING:
    import polars as pl

_NEWEST = """
SELECT id, command, parameters, seed, tool_version FROM runs
WHERE (graph = ? OR graph IS NULL AND ?)
  AND list_contains(result_tables, ?)
ORDER BY id DESC LIMIT 1
"""


def newest_run(reader: GraphReader, query: Query) -> Run | None:
    """Return the newest run that a question is about; None where there is none, or it asks about no run."""
    if query.table is None:
        return None
    rows = fetch_frame(reader.connection, _NEWEST, [reader.id, query.shared, query.table]).rows()
    if not rows:
        return None
    number, command, parameters, seed, version = rows[0]
    kept = stored_object(parameters, f"parameters of run {number}")
    return Run(id=number, command=command, parameters=kept, seed=seed, tool_version=version)


def read_figure(reader: GraphReader, figure: Figure) -> FigureData | None:
    """Return what a figure shows of a graph; None when the store holds no run for it, or nothing to draw."""
    frames: dict[str, pl.DataFrame] = {}
    asked: dict[str, str] = {}
    runs: dict[int, Run] = {}
    for query in figure.queries:
        run = newest_run(reader, query)
        if run is None and query.table is not None:
            if query.optional:
                continue
            return None
        sql = question(query, reader.id, None if run is None else run.id)
        frame = fetch_frame(reader.connection, sql)
        if frame.is_empty():
            if query.optional:
                continue
            return None
        frames[query.name], asked[query.name] = frame, sql
        if run is not None:
            runs[run.id] = run
    return FigureData(figure=figure, frames=frames, sql=asked, runs=tuple(runs.values()))


def require_figure(reader: GraphReader, figure: Figure) -> FigureData:
    """Return what a figure shows of a graph.

    Raises:
        UsageError: The store holds nothing to draw; the message says what would make it.
    """
    data = read_figure(reader, figure)
    if data is None:
        raise UsageError(
            f"graph {escape_controls(reader.name)[:60]!r}: no data for figure {figure.name}; "
            f"`{figure.command}` makes them"
        )
    return data


def question(query: Query, graph: int, run: int | None) -> str:
    """Return the SQL of a query for one graph and run, as a reader can ask it again."""
    lines = compose(query.sql, graph=graph, run="NULL" if run is None else run).strip().splitlines()
    return "\n".join(line.rstrip() for line in lines)
