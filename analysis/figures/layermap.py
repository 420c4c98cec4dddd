"""The layer map: layers as boxes by depth, blocks of edges as lines between them.

Drawn as SVG directly, because Vega has no layout of layered graphs; igraph places the boxes.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from emergraph.analysis.declaration import Query
from emergraph.analysis.figures.figure import Figure, Frames
from emergraph.analysis.figures.folding import folds_of
from emergraph.analysis.figures.names import telling_names
from emergraph.analysis.figures.picture import Picture
from emergraph.analysis.figures.theme import FONT, GRID, INK, MUTED, PAPER, SERIES
from emergraph.safetext import escape_controls, escape_xml

if TYPE_CHECKING:
    import igraph

BOX = (190, 40)
GAP = (26, 34)
MARGIN = 44
LABEL = 26
PAGE = 960
"""Width that a map of few boxes beside each other fills: rows that are left go on in a column beside it."""
GUTTER = 96
"""Room between two columns."""
LEAST_ROWS = 8
"""Rows of a column where there are several."""
KIND_COLOURS = {
    "weight": SERIES[0],
    "recurrent": SERIES[3],
    "identity": MUTED,
    "gate": SERIES[2],
    "attention": SERIES[4],
    "norm": MUTED,
    "opaque": SERIES[1],
}
DASHED = {"recurrent": "7 4", "norm": "2 3", "opaque": "5 3"}
NEURONS = ("input", "embedding", "dense", "conv", "rnn_gate", "rnn_cell", "rnn_hidden")


@dataclass(frozen=True)
class Box:
    """A layer in the picture."""

    id: int
    x: float
    y: float
    row: int
    left: float
    right: float
    """Ends of its column of rows."""


def draw_map(frames: Frames) -> Picture:
    """Return the picture of all layers and blocks."""
    layers, blocks, folds = folded(frames["layers"], frames["blocks"])
    boxes = placed(layers, blocks)
    width = max(box.x for box in boxes.values()) + BOX[0] + MARGIN + 20
    height = max(box.y for box in boxes.values()) + BOX[1] + MARGIN
    shares = dict(frames["shares"].iter_rows()) if "shares" in frames else {}
    top = 30
    lines = [_line(block, boxes) for block in blocks.iter_rows(named=True)]
    marks = _marks(frames)
    names = telling_names(layers["name"].unique(maintain_order=True).to_list(), LABEL)
    widest = math.log10(int(str(layers["n_units"].max())) + 1) or 1
    drawn = [
        _box(layer, boxes[layer["id"]], shares, names[layer["name"]], widest, marks)
        for layer in layers.iter_rows(named=True)
    ]
    frame = [_frame([boxes[layer] for layer in members], times) for members, times in folds]
    kinds = [kind for kind in KIND_COLOURS if kind in set(blocks["kind"].to_list())]
    size = max(width, 90 * len(kinds) + 2 * MARGIN), height + top
    return Picture(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]:.0f}" height="{size[1]:.0f}" '
        f'viewBox="0 0 {size[0]:.0f} {size[1]:.0f}" font-family="{FONT}">'
        f'<rect width="100%" height="100%" fill="{PAPER}"/>{_legend(kinds)}'
        f'<g transform="translate(0 {top})">{"".join(frame)}{"".join(lines)}{"".join(drawn)}</g></svg>'
    )


def folded(
    layers: pl.DataFrame, blocks: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, list[tuple[list[int], int]]]:
    """Layers and blocks without the copies of what repeats; of each repeat, the layers and how often."""
    rows = layers.to_dicts()
    folds = folds_of(rows, blocks.select("src", "dst", "kind").iter_rows())
    if not folds:
        return layers, blocks, []
    ids = [row["id"] for row in rows]
    stands = list(range(len(ids)))
    for fold in folds:
        stands = [fold.first(place) for place in stands]
    first = {layer: ids[stands[number]] for number, layer in enumerate(ids)}
    within = {ids[place]: fold for fold in folds for place in range(fold.start, fold.end)}
    copies = {layer for layer, stand in first.items() if layer != stand}

    def kept(source: int, target: int) -> bool:
        """Not an edge of a copy, nor one that leads from a copy to the next."""
        return target not in copies and not (source in copies and within.get(target) is within[source])

    shown = blocks.filter([kept(a, b) for a, b in blocks.select("src", "dst").iter_rows()])
    shown = shown.with_columns(pl.col("src").replace_strict(first, return_dtype=pl.Int64))
    shown = shown.group_by("src", "dst", "kind", maintain_order=True).agg(pl.col("n_edges").sum())
    framed = [([ids[fold.start + k] for k in range(fold.size)], fold.times) for fold in folds]
    return layers.filter(~pl.col("id").is_in(list(copies))), shown, framed


def _frame(boxes: list[Box], times: int) -> str:
    """What is drawn around a block that repeats, in each column of rows that it is in."""
    said = f"{times} such blocks, one after the other; the first is shown"
    parts = []
    for place in sorted({box.left for box in boxes}):
        own = [box for box in boxes if box.left == place]
        left, right = min(box.x for box in own) - 14, max(box.x for box in own) + BOX[0] + 14
        top, bottom = min(box.y for box in own) - 14, max(box.y for box in own) + BOX[1] + 14
        parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
            f'height="{bottom - top:.1f}" rx="12" fill="{GRID}" fill-opacity="0.45" stroke="{MUTED}" '
            f'stroke-dasharray="4 4"/><text x="{left + 6:.1f}" y="{top - 4:.1f}" font-size="13" '
            f'font-weight="bold" fill="{INK}">× {times}</text>'
        )
    return f"<g><title>{said}</title>{''.join(parts)}</g>"


def _marks(frames: Frames) -> dict[str, str]:
    """By layer, what an audit found there."""
    found: dict[str, str] = {}
    if "findings" in frames:
        for layer, sentence in frames["findings"].iter_rows():
            found[layer] = f"{found[layer]} {sentence}" if layer in found else sentence
    return found


def placed(layers: pl.DataFrame, blocks: pl.DataFrame) -> dict[int, Box]:
    """Boxes in rows by depth, and in each row where igraph's layered layout has least crossings."""
    import igraph

    ids = layers["id"].to_list()
    index = {layer: number for number, layer in enumerate(ids)}
    depths = sorted(set(layers["depth"].to_list()))
    rows = [depths.index(depth) for depth in layers["depth"].to_list()]
    pairs = {
        (index[a], index[b])
        for a, b in blocks.select("src", "dst").iter_rows()
        if rows[index[a]] < rows[index[b]]
    }
    graph = igraph.Graph(n=len(ids), edges=sorted(pairs), directed=True)
    columns = _columns(graph, rows)
    step_x, step_y = BOX[0] + GAP[0], BOX[1] + GAP[1]
    least = min(columns, default=0.0)
    width = (max(columns, default=0.0) - least) * step_x + BOX[0]
    per = _rows_of_a_column(len(depths), width)

    def box(number: int, layer: int) -> Box:
        left = MARGIN + rows[number] // per * (width + GUTTER)
        x, y = left + (columns[number] - least) * step_x, MARGIN + rows[number] % per * step_y
        return Box(layer, x, y, rows[number], left, left + width)

    return {layer: box(number, layer) for number, layer in enumerate(ids)}


def _rows_of_a_column(n_rows: int, width: float) -> int:
    """Rows below each other, where as many columns of this width as fit stand side by side."""
    fit = max(1, int((PAGE - 2 * MARGIN + GUTTER) // (width + GUTTER)))
    return math.ceil(n_rows / min(fit, math.ceil(n_rows / LEAST_ROWS)))


def _columns(graph: "igraph.Graph", rows: list[int]) -> list[float]:
    """Horizontal position of every vertex in boxes; no two of a row closer than one box."""
    layout = graph.layout_sugiyama(layers=rows, hgap=1, vgap=1, maxiter=100)
    wanted = [float(layout[vertex][0]) for vertex in range(graph.vcount())]
    columns = [0.0] * len(rows)
    for row in set(rows):
        members = sorted((v for v in range(len(rows)) if rows[v] == row), key=lambda v: wanted[v])
        for place, vertex in enumerate(members):
            columns[vertex] = place - (len(members) - 1) / 2
    return columns


def _line(block: dict[str, object], boxes: dict[int, Box]) -> str:
    source, target = boxes[int(str(block["src"]))], boxes[int(str(block["dst"]))]
    kind, edges = str(block["kind"]), int(str(block["n_edges"]))
    stroke = 1 + math.log10(max(edges, 1)) * 0.9
    span = target.row - source.row
    if source.left != target.left:
        path = _path_between_columns(source, target)
    elif span == 1:
        x1, y1 = source.x + BOX[0] / 2, source.y + BOX[1]
        x2, y2 = target.x + BOX[0] / 2, target.y
        middle = (y1 + y2) / 2
        path = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}"
    else:
        side = BOX[0] if span > 1 else 0  # ahead on the right, back in time on the left
        away = (18 + 7 * math.log2(abs(span) + 1)) * (1 if side else -1)
        x1, y1 = source.x + side, source.y + BOX[1] * (0.75 if span > 1 else 0.5)
        x2, y2 = target.x + side, target.y + BOX[1] * 0.25
        outer = max(x1, x2) + away if side else min(x1, x2) + away
        path = f"M{x1:.1f} {y1:.1f}C{outer:.1f} {y1:.1f} {outer:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    dash = f' stroke-dasharray="{DASHED[kind]}"' if kind in DASHED else ""
    return (
        f'<path d="{path}" fill="none" stroke="{KIND_COLOURS[kind]}" stroke-opacity="0.75" '
        f'stroke-width="{stroke:.1f}"{dash}><title>{edges:,} {kind} edges</title></path>'
    )


def _path_between_columns(source: Box, target: Box) -> str:
    """From the foot of a column to the head of the next; any other line leaves and enters at the sides."""
    if target.row == source.row + 1:
        x1, x2, room = source.x + BOX[0] / 2, target.x + BOX[0] / 2, GAP[1] / 2
        return (
            f"M{x1:.1f} {source.y + BOX[1]:.1f}v{room:.1f}H{target.left - GUTTER / 2:.1f}"
            f"V{target.y - room:.1f}H{x2:.1f}V{target.y:.1f}"
        )
    apart = 18 + 7 * (source.row % 3)  # lines side by side, not upon each other
    ahead = target.row > source.row
    out = source.right + apart if ahead else source.left - apart
    begin = f"M{source.x + BOX[0] * ahead:.1f} {source.y + BOX[1] * 0.75:.1f}H{out:.1f}"
    over = "" if 0 < target.left - out < GUTTER else f"V{apart / 4:.1f}H{target.left - apart:.1f}"
    return f"{begin}{over}V{target.y + BOX[1] * 0.25:.1f}H{target.x:.1f}"


def _box(
    layer: dict[str, object],
    box: Box,
    shares: dict[int, float],
    label: str,
    widest: float,
    marks: dict[str, str],
) -> str:
    name, units = str(layer["name"]), int(str(layer["n_units"]))
    bar = (BOX[0] - 16) * math.log10(units + 1) / widest
    share = shares.get(box.id)
    told = "" if share is None else f"; {100 * share:.3g} % of E starts here"
    params = int(str(layer["n_params"]))
    size = f"{units:,} units, {params:,} parameters{told}"
    title = f"{escape_controls(name)}: {layer['op']}, {layer['kind']}, {size}"
    round_ = 6 if layer["kind"] in NEURONS else 18
    part = 0.0 if share is None else min(1.0, max(0.0, share)) * (BOX[0] - 16)
    return (
        f'<g transform="translate({box.x:.1f} {box.y:.1f})"><title>{escape_xml(title)}</title>'
        f'<rect width="{BOX[0]}" height="{BOX[1]}" rx="{round_}" fill="{PAPER}" stroke="{INK}"/>'
        f'<text x="9" y="16" font-size="11.5" fill="{INK}">{escape_xml(label)}</text>'
        f'<text x="9" y="30" font-size="10" fill="{MUTED}">{layer["kind"]} · {units:,}</text>'
        f'<rect x="8" y="33" width="{BOX[0] - 16}" height="3" fill="{GRID}"/>'
        f'<rect x="8" y="33" width="{bar:.1f}" height="3" fill="{SERIES[5]}"/>'
        + (f'<rect x="8" y="36" width="{part:.1f}" height="3" fill="{SERIES[1]}"/>' if part else "")
        + (_mark(marks[name]) if name in marks else "")
        + "</g>"
    )


def _mark(sentence: str) -> str:
    """A sign in the corner of a layer about which there is a warning."""
    return (
        f'<g transform="translate({BOX[0] - 12} 12)"><title>{escape_xml(escape_controls(sentence))}</title>'
        f'<circle r="7" fill="{SERIES[1]}"/><text y="4" text-anchor="middle" font-size="11" '
        f'font-weight="bold" fill="{PAPER}">!</text></g>'
    )


def _legend(kinds: list[str]) -> str:
    parts = []
    for number, kind in enumerate(kinds):
        x = MARGIN + 90 * number
        dash = f' stroke-dasharray="{DASHED[kind]}"' if kind in DASHED else ""
        parts.append(
            f'<path d="M{x} 16h22" stroke="{KIND_COLOURS[kind]}" stroke-width="3"{dash}/>'
            f'<text x="{x + 27}" y="20" font-size="11" fill="{INK}">{kind}</text>'
        )
    return "".join(parts)


LAYER_MAP = Figure(
    name="layers",
    title="Layer map",
    command="emergraph export MODEL STORE",
    definition=(
        "One box per layer, inputs on top; square corners: neurons, round ones: structural units. The "
        "grey bar grows with the logarithm of the number of units, the orange one with the share of E "
        "(paths through any unit) that starts in the layer. One line per block of edges and source layer; "
        "its width grows with the logarithm of the edges. Blocks that repeat at least three times are drawn "
        "once, in a frame with their number; an exclamation mark is a warning of the audit."
    ),
    queries=(
        Query(
            name="layers",
            sql="""
SELECT id, name, op, kind, depth, n_units, n_params FROM layers WHERE graph = {graph} ORDER BY id""",
        ),
        Query(
            name="blocks",
            sql="""
SELECT source AS src, layer AS dst, kind, sum(n_edges) AS n_edges
FROM (SELECT unnest(src_layers) AS source, layer, kind, n_edges FROM blocks WHERE graph = {graph})
GROUP BY ALL ORDER BY ALL""",
        ),
        Query(
            name="shares",
            table="emergence_layers",
            optional=True,
            sql="""
SELECT layer, share FROM emergence_layers
WHERE run = {run} AND interior = 'any' AND share IS NOT NULL ORDER BY layer""",
        ),
        Query(
            name="findings",
            table="audit_findings",
            optional=True,
            sql="""
SELECT layer, sentence FROM (SELECT unnest(layers) AS layer, sentence, place, severity FROM audit_findings
WHERE run = {run}) WHERE severity <> 'info' ORDER BY place""",
        ),
    ),
    draw=draw_map,
)
