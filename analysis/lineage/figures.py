"""The family tree of models, drawn as SVG."""

from collections.abc import Mapping

import polars as pl

from emergraph.analysis.declaration import Query
from emergraph.analysis.figures.figure import Figure, Frames
from emergraph.analysis.figures.names import telling_names
from emergraph.analysis.figures.picture import Picture
from emergraph.analysis.figures.theme import FONT, INK, MUTED, PAPER, SERIES
from emergraph.safetext import escape_xml

ROW = 26
STEP = 28
MARGIN = 16
WIDTH = 900
LETTERS = 46
"""Letters of a name that are drawn."""


def draw_tree(frames: Frames) -> Picture:
    """Return the trees of all families, one below the other."""
    rows = frames["rows"]
    kinds = {(row["child"], row["parent"]): row["kind"] for row in rows.iter_rows(named=True)}
    lines: list[tuple[int, str, str]] = []
    for root in _roots(rows):
        lines += _below(root, "", 0, kinds, set())
    names = telling_names(list(dict.fromkeys(name for _, name, _ in lines)), LETTERS)
    height = ROW * max(1, len(lines)) + 2 * MARGIN
    drawn = [_line(place, depth, names[name], kind) for place, (depth, name, kind) in enumerate(lines)]
    return Picture(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="{FONT}" font-size="13">'
        f'<rect width="100%" height="100%" fill="{PAPER}"/>{"".join(drawn)}</svg>'
    )


def _roots(rows: pl.DataFrame) -> list[str]:
    children = set(rows["child"].to_list())
    return [name for name in dict.fromkeys(rows["parent"].to_list()) if name not in children]


def _below(
    name: str, kind: str, depth: int, kinds: Mapping[tuple[str, str], str], drawn: set[str]
) -> list[tuple[int, str, str]]:
    found = [(depth, name, kind)]
    drawn.add(name)
    for (child, parent), how in kinds.items():
        if parent == name and child not in drawn:
            found += _below(child, how, depth + 1, kinds, drawn)
    return found


def _line(place: int, depth: int, name: str, kind: str) -> str:
    x, y = MARGIN + STEP * depth, MARGIN + ROW * place + ROW // 2
    dot = f'<circle cx="{x}" cy="{y}" r="5" fill="{SERIES[0] if depth else SERIES[1]}"/>'
    up = f'<path d="M{x - STEP} {y - ROW + 6}V{y}H{x - 6}" fill="none" stroke="{MUTED}"/>' if depth else ""
    what = f'<tspan fill="{MUTED}" dx="10">{escape_xml(kind)}</tspan>' if kind else ""
    text = f'<text x="{x + 12}" y="{y + 4}" fill="{INK}">{escape_xml(name)}{what}</text>'
    return f"{up}{dot}{text}"


TREE = Figure(
    name="lineage-tree",
    title="Family tree of models",
    command="emergraph lineage MODELS --store STORE",
    definition=(
        "Each model hangs below the one that it is most like; beside it, what it is to that one. The model "
        "on top is the one that most others seem to be made of: a heuristic."
    ),
    queries=(
        Query(
            name="rows",
            table="relations",
            shared=True,
            sql="""
SELECT CASE WHEN parent = a THEN b ELSE a END AS child, parent, kind, family FROM relations
WHERE run = {run} AND parent IS NOT NULL ORDER BY family, parent, child""",
        ),
    ),
    draw=draw_tree,
)
FIGURES = (TREE,)
