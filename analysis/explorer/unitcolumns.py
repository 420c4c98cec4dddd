"""What a store knows about single units, as the columns of one question in SQL.

The same text fills the page and stands on it: a reader who asks it again sees the same numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from emergraph.analysis.declaration import Query
from emergraph.analysis.figures.reading import newest_run
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.results import result_columns, result_table_names
from emergraph.graphstore.sql import compose, identifier
from emergraph.safetext import escape_controls

MOST_COLUMNS = 48
"""Columns of numbers; those of further result tables are left out, and the page says so."""

_ACTIVITY = {
    "mean": "Mean over samples and positions.",
    "mean_abs": "Mean of the absolute values.",
    "std": "Standard deviation over samples and positions.",
    "max": "Largest value.",
    "share_positive": "Share of values above 0.",
}
_OWN = {
    "bias": "Bias added to the unit.",
    "scale": "Product of the element-wise factors applied to it.",
    "shift": "Sum of the element-wise terms applied to it.",
}
_STRENGTHS = {
    "edges in": "Edges into the unit, of all kinds.",
    "edges out": "Edges out of it.",
    "|w| in": "Sum of the absolute parameters of the edges into it.",
    "|w| out": "Sum of the absolute parameters of the edges out of it.",
}
_SUMS = """LEFT JOIN (
  SELECT unit, sum(degree) FILTER (NOT outgoing) AS "edges in", sum(degree) FILTER (outgoing) AS "edges out",
         sum(l1) FILTER (NOT outgoing) AS "|w| in", sum(l1) FILTER (outgoing) AS "|w| out"
  FROM unit_strengths WHERE graph = {graph} GROUP BY unit
) AS strength ON strength.unit = u.id"""
_FOUND = """LEFT JOIN (
  SELECT l.first_unit + a.position AS unit, count(DISTINCT a.place) AS findings
  FROM audit_units AS a JOIN layers AS l ON l.graph = {graph} AND l.name = a.layer
  WHERE a.run = {run} GROUP BY ALL
) AS finding ON finding.unit = u.id"""
_ROWS = 'SELECT unit, count(*) AS "rows" FROM {table} WHERE run = {run} GROUP BY unit'
_NUMBERS = ("DOUBLE", "FLOAT", "BIGINT", "INTEGER", "BOOLEAN", "SMALLINT", "TINYINT", "HUGEINT")
_NO_RESULT = frozenset({"run", "unit", "layer", "n"})


@dataclass(frozen=True, kw_only=True)
class UnitColumns:
    """Columns of units, and the question that they answer."""

    names: tuple[str, ...]
    """What tells a column apart, such as "activity.mean"; columns of one source follow each other."""
    titles: tuple[str, ...]
    """Short names."""
    sources: tuple[str, ...]
    """Where each comes from, in words."""
    meanings: tuple[str, ...]
    sql: str
    """With `{layer}`, a condition that begins with AND or nothing, and `{order}`."""
    left_out: tuple[str, ...]
    """Result tables about units whose columns were too many."""


Source = tuple[str, str, list[tuple[str, str, str]], str]
"""Name, description, columns (title, expression, meaning) and join of what knows something about units."""


def unit_columns(reader: GraphReader) -> UnitColumns:
    """Return the columns that a graph has: of its units, its newest trace, its edges, and results."""
    chosen: list[Source] = []
    left_out: list[str] = []
    room = MOST_COLUMNS
    for source in _sources(reader):
        if len(source[2]) > room:
            left_out.append(source[0])
            continue
        room -= len(source[2])
        chosen.append(source)
    columns = [(name, about, *column) for name, about, listed, _ in chosen for column in listed]
    selected = [
        f"{expression} AS {identifier(f'{name}.{title}')}" for name, _, title, expression, _ in columns
    ]
    lines = [
        "SELECT " + ",\n  ".join(["u.id AS unit", "u.position", "u.role", "u.activation", *selected]),
        "FROM units AS u",
        *(join for *_, join in chosen if join),
        f"WHERE u.graph = {reader.id}{{layer}}",
        "ORDER BY {order}",
    ]
    return UnitColumns(
        names=tuple(f"{name}.{title}" for name, _, title, _, _ in columns),
        titles=tuple(title for _, _, title, _, _ in columns),
        sources=tuple(about for _, about, *_ in columns),
        meanings=tuple(meaning for *_, meaning in columns),
        sql="\n".join(lines),
        left_out=tuple(left_out),
    )


def _sources(reader: GraphReader) -> Iterator[Source]:
    traces = reader.traces()
    if not traces.is_empty():
        trace = traces.row(-1, named=True)
        about = f"trace {escape_controls(trace['name'])}, {trace['n_samples']} samples ({trace['kind']})"
        join = f"LEFT JOIN (FROM activations WHERE trace = {trace['id']}) AS activity ON activity.unit = u.id"
        yield "activity", about, _plain("activity", _ACTIVITY), join
    yield "edges", "sums over all edges", _plain("strength", _STRENGTHS), compose(_SUMS, graph=reader.id)
    yield "unit", "the unit itself", _plain("u", _OWN), ""
    audit = newest_run(reader, Query(name="findings", sql="", table="audit_units"))
    if audit is not None:
        meaning = {"findings": "Findings of the audit about the unit."}
        join = compose(_FOUND, graph=reader.id, run=audit.id)
        yield "audit", f"audit of run {audit.id}", _plain("finding", meaning), join
    for table in result_table_names(reader.connection):
        found = _of_results(reader, table)
        if found is not None:
            yield found


def _plain(alias: str, columns: dict[str, str]) -> list[tuple[str, str, str]]:
    return [(name, f"{alias}.{identifier(name)}", meaning) for name, meaning in columns.items()]


def _of_results(reader: GraphReader, table: str) -> Source | None:
    """What the newest run of a result table says about units; of several rows about a unit, how many."""
    if "unit" not in result_columns(reader.connection, table):
        return None
    run = newest_run(reader, Query(name=table, sql="", table=table))
    if run is None:
        return None
    alias = identifier(table)
    counted = compose(
        "SELECT count(unit), count(DISTINCT unit) FROM {table} WHERE run = {run}", table=alias, run=run.id
    )
    rows, units = reader.connection.execute(counted).fetchall()[0]
    if not rows:
        return None
    columns = _numbers(reader, table) if rows == units else []
    about = f"{table} of run {run.id} (emergraph {escape_controls(run.command)})"
    if columns:
        return table, about, columns, _joined(alias, f"FROM {alias} WHERE run = {run.id}")
    asked = compose(_ROWS, table=alias, run=run.id)
    meaning = f"Rows of {table} about the unit."
    return table, about, [("rows", f'{alias}."rows"', meaning)], _joined(alias, asked)


def _joined(alias: str, asked: str) -> str:
    return f"LEFT JOIN ({asked}) AS {alias} ON {alias}.unit = u.id"


def _numbers(reader: GraphReader, table: str) -> list[tuple[str, str, str]]:
    rows = reader.connection.execute(
        """
        SELECT column_name, data_type, coalesce("comment", '') FROM duckdb_columns()
        WHERE table_name = ? AND NOT internal AND database_name = current_database() ORDER BY column_index
        """,
        [table],
    ).fetchall()
    return [
        (name, f"{identifier(table)}.{identifier(name)}", escape_controls(meaning))
        for name, kind, meaning in rows
        if kind in _NUMBERS and name not in _NO_RESULT
    ]
