"""`emergraph fan`: how many edges lead into the units of each layer.

One declaration makes the command, `graph.analyse("fan")`, a table in the store, a section of the report with
a figure, and measures that `emergraph diff` compares. Importing it is cheap: numpy, polars and altair are
imported where they are used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emergraph.analysis.declaration import Analysis, Headline, Query, SectionSpec, Subject, TableSpec
from emergraph.analysis.view import View
from emergraph.graphstore.records import PATH_KINDS, EdgeKind
from emergraph.graphstore.results import Column, ResultTable
from emergraph.options import Options, option

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

    from emergraph.analysis.access import GraphAccess
    from emergraph.analysis.figures.figure import Figure


class FanOptions(Options):
    """Which edges count."""

    kinds: tuple[EdgeKind, ...] = option(default=PATH_KINDS, help="Kinds of edges.", metavar="KIND,...")
    least: float = option(default=0.0, help="Leave out layers with fewer edges per unit.", least=0)


@dataclass(frozen=True, kw_only=True)
class Fan:
    """Edges per unit, layer by layer."""

    graph: str
    layers: "pl.DataFrame"
    """Columns layer, name, n_units, fan_in."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values, for JSON."""
        return {"graph": self.graph, "layers": self.layers.to_dicts()}


LAYERS = ResultTable(
    "fan",
    "One row per layer of a run.",
    (
        Column("layer", "INTEGER", "layers.id."),
        Column("name", "VARCHAR", "layers.name."),
        Column("n_units", "INTEGER", "Units of the layer."),
        Column("fan_in", "DOUBLE", "Edges into the layer over its units."),
    ),
)
ROWS = "SELECT name, n_units AS units, fan_in FROM fan WHERE run = {run} ORDER BY layer"


def _run(at: "GraphAccess", options: FanOptions) -> Fan:
    import polars as pl

    kinds = [str(kind) for kind in options.kinds]
    edges = (
        at.reader.blocks()
        .filter(pl.col("kind").is_in(kinds))
        .group_by("layer")
        .agg(n_edges=pl.col("n_edges").sum())
    )
    layers = (
        at.reader.layers()
        .select(layer="id", name="name", n_units="n_units")
        .join(edges, on="layer", how="inner")
        .with_columns(fan_in=pl.col("n_edges") / pl.col("n_units"))
        .filter(pl.col("fan_in") >= options.least)
        .sort("layer")
        .drop("n_edges")
    )
    return Fan(graph=at.reader.name, layers=layers)


def _rows(result: Fan) -> "dict[str, pl.DataFrame]":
    return {LAYERS.name: result.layers}


def _show(result: Fan) -> View:
    facts = {"graph": result.graph, "layers": result.layers.height}
    return View(rows=result.layers, facts=facts, document=result.to_dict())


def _headline(rows: Sequence[tuple[Any, ...]], _parameters: Mapping[str, Any]) -> str:
    name, fan_in = rows[0]
    return f"{fan_in:.4g} edges into each unit of {name}"


def _draw(frames: "Mapping[str, pl.DataFrame]") -> "alt.Chart":
    import altair as alt

    return alt.Chart(frames["rows"]).mark_bar().encode(x="fan_in:Q", y=alt.Y("name:N", sort=None))


def _figures() -> "tuple[Figure, ...]":
    from emergraph.analysis.figures.figure import Figure

    return (
        Figure(
            name="fan",
            title="Edges into a unit",
            command="emergraph fan STORE",
            definition="Edges into each layer over the units of the layer.",
            queries=(Query(name="rows", table="fan", sql=ROWS),),
            draw=_draw,
        ),
    )


FAN = Analysis(
    name="fan",
    summary="Count the edges that lead into the units of each layer.",
    of=Subject.GRAPH,
    options=(FanOptions,),
    examples="""
    emergraph fan net.duckdb
    emergraph fan net.duckdb --kinds weight --format json
    """,
    run=_run,
    rows=_rows,
    show=_show,
    tables=(LAYERS,),
    section=SectionSpec(
        id="fan",
        title="Fan-in",
        lead="How many edges lead into a unit.",
        tables=(
            TableSpec(
                name="fan",
                title="Edges into a unit, by layer",
                definition="Fan in: edges into the layer over its units.",
                query=Query(name="rows", table="fan", sql=ROWS),
            ),
        ),
    ),
    figures=_figures,
    measures=(
        Query(
            name="fan",
            table="fan",
            sql="SELECT 'fan-in of ' || name, fan_in, NULL, NULL FROM fan WHERE run = {run} ORDER BY layer",
        ),
    ),
    headline=Headline(
        query=Query(
            name="fan-in",
            table="fan",
            sql="SELECT name, fan_in FROM fan WHERE run = {run} ORDER BY fan_in DESC, layer LIMIT 1",
        ),
        text=_headline,
    ),
)
