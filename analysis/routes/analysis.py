"""`emergraph paths`: which units reach which, along how many paths, and where they can be cut."""

from typing import TYPE_CHECKING, Any

from emergraph.analysis.declaration import Analysis, Headline, Query, SectionSpec, Subject, TableSpec
from emergraph.analysis.routes.options import PathOptions
from emergraph.graphstore.results import Column, ResultTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from emergraph.analysis.access import GraphAccess
    from emergraph.analysis.routes.routes import PathsResult
    from emergraph.analysis.view import View

PAIRS = ResultTable(
    "path_pairs",
    "One row per start and end with a path between them.",
    (
        Column("start", "INTEGER", "units.id."),
        Column("end", "INTEGER", "units.id."),
        Column("n_paths", "DOUBLE", "Number of paths; infinite beyond 1.8e308."),
    ),
)
STEPS = ResultTable(
    "path_steps",
    "One row per unit of a path that was named.",
    (
        Column("path", "VARCHAR", "shortest, or strongest."),
        Column("rank", "INTEGER", "From 1."),
        Column(
            "strength",
            "DOUBLE",
            "Product of |w| along the path (of kernels their l1 norm); NULL for shortest.",
        ),
        Column("step", "INTEGER", "Place in the path, from 0."),
        Column("unit", "INTEGER", "units.id."),
    ),
)
CUT = ResultTable(
    "path_cuts",
    "One row per unit of a smallest set without which no path is left.",
    (Column("unit", "INTEGER", "units.id."),),
)
SECTION = SectionSpec(
    id="paths",
    title="Paths",
    lead="What the graph lets reach what: an upper bound on what can influence what.",
    tables=(
        TableSpec(
            name="paths",
            title="Shortest and strongest paths",
            definition="Units in order; strength: product of |w| along the path, of kernels their l1 norm.",
            query=Query(
                name="rows",
                table="path_steps",
                sql="""
SELECT s.path, s.rank, s.strength, s.step, l.name AS layer, s.unit - l.first_unit AS unit
FROM path_steps AS s JOIN runs AS r ON r.id = s.run
JOIN units AS u ON u.graph = r.graph AND u.id = s.unit
JOIN layers AS l ON l.graph = r.graph AND l.id = u.layer
WHERE s.run = {run} ORDER BY s.path, s.rank, s.step""",
            ),
        ),
    ),
)


def _run(at: "GraphAccess", asked: PathOptions) -> "PathsResult":
    from emergraph.analysis.routes.routes import find_paths

    return find_paths(at, asked)


def _rows(result: "PathsResult") -> "Mapping[str, pl.DataFrame]":
    import polars as pl

    cut = pl.DataFrame({"unit": list(result.cut or ())}, schema={"unit": pl.Int64})
    return {PAIRS.name: result.pairs, STEPS.name: result.paths.fill_nan(None), CUT.name: cut}


def _show(result: "PathsResult") -> "View":
    from emergraph.analysis.routes.views import paths_view

    return paths_view(result)


def _headline(rows: "Sequence[tuple[Any, ...]]", _parameters: "Mapping[str, Any]") -> str | None:
    if not rows:
        return None
    kind, strength, units, cut = rows[0]
    product = "" if strength is None else f" (product of weights {strength:.3g})"
    without = f"; without {cut} unit{'s' * (cut > 1)} between them, no path is left" if cut else ""
    return f"the {kind} path leads {units}{product}{without}"


PATHS = Analysis(
    name="paths",
    summary="Find which units reach which: along how many paths, by which ones, and where they can be cut.",
    of=Subject.GRAPH,
    options=(PathOptions,),
    examples="""
    emergraph paths net.duckdb
    emergraph paths net.duckdb --from "layer = 'input' AND position = 3" --to "role = 'output'" --strongest 10
    """,
    run=_run,
    rows=_rows,
    show=_show,
    tables=(PAIRS, STEPS, CUT),
    section=SECTION,
    headline=Headline(
        query=Query(
            name="paths",
            table="path_steps",
            sql="""
SELECT s.path, any_value(s.strength),
       string_agg(l.name || ':' || (s.unit - l.first_unit), ' > ' ORDER BY s.step),
       (SELECT count(*) FROM path_cuts WHERE run = {run})
FROM path_steps AS s JOIN runs AS r ON r.id = s.run
JOIN units AS u ON u.graph = r.graph AND u.id = s.unit
JOIN layers AS l ON l.graph = r.graph AND l.id = u.layer
WHERE s.run = {run} AND s.rank = 1 GROUP BY s.path ORDER BY s.path = 'strongest' DESC LIMIT 1""",
        ),
        text=_headline,
    ),
)
