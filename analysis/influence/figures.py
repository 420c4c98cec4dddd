"""The figure of a circuit: layers from left to right, units as dots, and the edges that go on."""

from typing import Any

import altair as alt
import polars as pl

from emergraph.analysis.declaration import Query
from emergraph.analysis.figures.figure import Figure, Frames
from emergraph.analysis.figures.marks import series_colour, sized, with_labels
from emergraph.analysis.figures.theme import INK, PAPER

WAYS = ("positive", "negative", "no weight")
COLUMN_WIDTH = 110
LETTERS = 15
"""Of the name of a layer, above its column."""
ROW_HEIGHT = 14


def draw_circuit(frames: Frames) -> alt.LayerChart:
    """Units of the circuit, and of the inputs and outputs that its edges touch."""
    units = with_labels(frames["units"], "layer", width=LETTERS)
    places = units.select("unit", "x", y=pl.col("row").max().over("x") / 2 - pl.col("row"))
    units = units.join(places, on=["unit", "x"])
    ends = frames["edges"]
    for column, names in (("src", {"x": "x1", "y": "y1"}), ("dst", {"x": "x2", "y": "y2"})):
        ends = ends.join(places.rename({"unit": column, **names}), on=column)
    n_columns = int(str(units["x"].max() or 0)) + 1
    n_rows = int(str(units["row"].max() or 0)) + 1
    axis: dict[str, Any] = {"axis": None, "scale": alt.Scale(zero=False, padding=14)}
    x, y = (alt.X("x:Q", **axis), alt.Y("y:Q", **axis))
    lines = (
        alt.Chart(ends)
        .mark_rule()
        .encode(
            x=alt.X("x1:Q", **axis),
            x2="x2:Q",
            y=alt.Y("y1:Q", **axis),
            y2="y2:Q",
            color=series_colour("way", WAYS, "weight"),
            strokeWidth=alt.StrokeWidth("size:Q", legend=None, scale=alt.Scale(range=[0.4, 3])),
            opacity=alt.value(0.65),
        )
    )
    shape = alt.Shape("role:N", title="unit", scale=alt.Scale(domain=ROLES, range=SHAPES))
    dots = alt.Chart(units).mark_point(filled=True, size=70, opacity=1, color=INK, stroke=PAPER)
    dots = dots.encode(x=x, y=y, shape=shape)
    heads = units.group_by("x", maintain_order=True).agg(pl.col("label").first(), pl.col("y").max())
    words = alt.Chart(heads).mark_text(dy=-14, fontSize=11, color=INK).encode(x=x, y=y, text="label:N")
    height = max(120, ROW_HEIGHT * n_rows + 40)
    return sized(lines + dots + words, width=max(300, COLUMN_WIDTH * n_columns), height=height)


ROLES = ["input", "hidden", "output"]
SHAPES = ["square", "circle", "diamond"]

CIRCUIT = Figure(
    name="circuit",
    title="The circuit",
    command="emergraph circuit STORE --model MODEL --inputs FILE.npz",
    definition=(
        "Layers from left to right; dots are the units of the circuit, and the inputs and outputs that its "
        "edges touch. Lines are edges that go on, the 400 with the largest absolute weights, wider "
        "for larger ones within their target layer. All other units are at the baseline."
    ),
    queries=(
        Query(
            name="units",
            table="circuit_units",
            sql="""
WITH shown AS (
    SELECT unit FROM circuit_units WHERE run = {run}
    UNION SELECT unnest([src, dst]) FROM circuit_edges WHERE run = {run}
)
SELECT s.unit, l.name AS layer, u.role, dense_rank() OVER (ORDER BY l.depth, l.id) - 1 AS x,
       row_number() OVER (PARTITION BY l.id ORDER BY s.unit) - 1 AS row
FROM shown AS s JOIN units AS u ON u.graph = {graph} AND u.id = s.unit
JOIN layers AS l ON l.graph = {graph} AND l.id = u.layer ORDER BY x, row""",
        ),
        Query(
            name="edges",
            table="circuit_edges",
            sql="""
SELECT e.src, e.dst, abs(e.weight) / nullif(max(abs(e.weight)) OVER (PARTITION BY u.layer), 0) AS size,
       CASE WHEN e.weight > 0 THEN 'positive' WHEN e.weight < 0 THEN 'negative' ELSE 'no weight' END AS way
FROM circuit_edges AS e JOIN units AS u ON u.graph = {graph} AND u.id = e.dst
WHERE e.run = {run} ORDER BY abs(e.weight) DESC NULLS LAST, e.src, e.dst LIMIT 400""",
        ),
    ),
    draw=draw_circuit,
)

FIGURES = (CIRCUIT,)
