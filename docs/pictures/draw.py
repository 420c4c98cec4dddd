"""The pictures of the explanation and of the tutorials: `python docs/pictures/draw.py` writes them.

What they show is kept here as data, which tests compare with what emergraph counts and with the schema.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).resolve().parent
INK, MUTED, PAPER, BLUE, ORANGE, PALE = "#1f2328", "#57606b", "#fefefe", "#0072b2", "#d55e00", "#e8f1f8"

LAYERS = ((0, 1), (2, 3, 4), (5, 6))
"""Units of the small network, layer by layer."""
EDGES = ((0, 2), (0, 3), (1, 3), (1, 4), (2, 5), (2, 6), (3, 5), (4, 6))
ACTIVE = frozenset({1, 2, 4, 5, 6})
PATHS = ((0, 2), (0, 2, 5), (0, 2, 6), (3, 5))
"""All paths from an inactive to an active unit through active ones: E of the picture is their number."""

TABLES: Mapping[str, Sequence[str]] = {
    "graphs": ("id", "name", "source", "n_units"),
    "layers": ("graph", "id", "name", "kind", "n_params"),
    "units": ("graph", "id", "layer", "role", "bias"),
    "blocks": ("graph", "id", "layer", "kind", "n_edges"),
    "edges": ("graph", "block", "src", "dst", "weight"),
    "traces": ("graph", "id", "name", "n_samples"),
    "activations": ("trace", "unit", "mean", "max"),
    "runs": ("graph", "id", "command", "parameters"),
}
"""Columns that the diagram shows, by table."""
JOINS = (
    ("layers", "graph", "graphs"),
    ("traces", "graph", "graphs"),
    ("runs", "graph", "graphs"),
    ("units", "layer", "layers"),
    ("blocks", "layer", "layers"),
    ("edges", "src, dst", "units"),
    ("edges", "block", "blocks"),
    ("activations", "trace", "traces"),
    ("activations", "unit", "units"),
)
"""Table, its column, and the table whose id that is."""
_PLACES = {
    "graphs": (20, 170), "layers": (240, 20), "traces": (240, 330), "runs": (240, 185),
    "units": (460, 20), "blocks": (460, 185), "edges": (680, 90), "activations": (680, 330),
}  # fmt: skip


def text(
    x: float,
    y: float,
    said: str,
    *,
    size: int = 13,
    colour: str = INK,
    anchor: str = "middle",
    bold: bool = False,
) -> str:
    """Return a line of text."""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}>{said}</text>'


def line(
    a: tuple[float, float],
    b: tuple[float, float],
    *,
    colour: str = MUTED,
    width: float = 1.2,
    head: bool = False,
) -> str:
    """Return a straight line, as an arrow or not."""
    end = f' marker-end="url(#{"hot" if colour == ORANGE else "cold"})"' if head else ""
    return f'<line x1="{a[0]:g}" y1="{a[1]:g}" x2="{b[0]:g}" y2="{b[1]:g}" stroke="{colour}" stroke-width="{width:g}"{end}/>'


def dot(x: float, y: float, said: str = "", *, full: bool = True, size: float = 13) -> str:
    """Return a unit: full for an active one."""
    fill, ink = (BLUE, PAPER) if full else (PAPER, INK)
    return (
        f'<circle cx="{x:g}" cy="{y:g}" r="{size:g}" fill="{fill}" stroke="{BLUE}" stroke-width="1.5"/>'
        + (text(x, y + 4, said, size=11, colour=ink) if said else "")
    )


def picture(width: int, height: int, about: str, parts: Sequence[str]) -> str:
    """Return a whole SVG document."""
    arrows = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{colour}"/></marker>'
        for name, colour in (("cold", MUTED), ("hot", ORANGE))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="DejaVu Sans, Verdana, sans-serif" role="img"><title>{about}</title><defs>{arrows}</defs>'
        f'<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/>' + "".join(parts) + "</svg>\n"
    )


def between(
    a: tuple[float, float], b: tuple[float, float], gap: float = 15
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ends of a line that leaves room for the circles around both points."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    long = (dx * dx + dy * dy) ** 0.5
    return (a[0] + dx * gap / long, a[1] + dy * gap / long), (b[0] - dx * gap / long, b[1] - dy * gap / long)


def emergence() -> str:
    """The small network, and the paths that E counts."""
    at = {
        unit: (110 + 190 * x, 60 + 95 * y + (0 if len(units) == 3 else 47))
        for x, units in enumerate(LAYERS)
        for y, unit in enumerate(units)
    }
    names = {unit: f"{'xhy'[x]}{y + 1}" for x, units in enumerate(LAYERS) for y, unit in enumerate(units)}
    hot = {pair for path in PATHS for pair in pairwise(path)}
    parts = [
        line(
            *between(at[a], at[b]),
            colour=ORANGE if (a, b) in hot else MUTED,
            width=2.2 if (a, b) in hot else 1.2,
            head=True,
        )
        for a, b in EDGES
    ]
    parts += [dot(*at[unit], names[unit], full=unit in ACTIVE) for unit in at]
    parts += [
        text(at[unit][0], 24, said, colour=MUTED)
        for unit, said in ((0, "inputs"), (2, "hidden"), (5, "outputs"))
    ]
    parts.append(text(590, 60, f"E = {len(PATHS)}", size=18, anchor="start", bold=True))
    for row, path in enumerate(PATHS):
        parts.append(
            text(590, 90 + 24 * row, " → ".join(names[unit] for unit in path), anchor="start", colour=ORANGE)
        )
    parts += [
        dot(600, 208, size=8),
        text(616, 213, "active", anchor="start"),
        dot(600, 236, full=False, size=8),
        text(616, 241, "inactive", anchor="start"),
    ]
    return picture(720, 300, f"Seven units and the {len(PATHS)} paths from inactive to active ones", parts)


def units() -> str:
    """What a dense layer and a convolution become."""
    parts = [
        text(180, 26, "dense layer, 3 inputs, 2 outputs", bold=True),
        text(560, 26, "convolution, 2 channels to 2", bold=True),
    ]
    left, right = [(60, 90), (60, 150), (60, 210)], [(200, 120), (200, 180)]
    for row, a in enumerate(left):
        for column, b in enumerate(right):
            if (row, column) != (2, 0):
                parts.append(line(*between(a, b), head=True))
    parts += [dot(*place) for place in [*left, *right]]
    values = (("0.3", "-1.2"), ("0.8", "0.1"), ("0", "2.0"))
    for row, pair in enumerate(values):
        for column, value in enumerate(pair):
            zero = value == "0"
            parts.append(
                f'<rect x="{250 + 46 * column}" y="{88 + 44 * row}" width="42" height="38" fill="{PAPER if zero else PALE}" stroke="{MUTED}"/>'
            )
            parts.append(
                text(271 + 46 * column, 112 + 44 * row, value, size=12, colour=MUTED if zero else INK)
            )
    parts.append(text(180, 262, "a weight is an edge; a zero is none", colour=MUTED))
    ends, starts = [(690, 100), (690, 210)], [(440, 100), (440, 210)]
    for a in starts:
        for b in ends:
            parts.append(line(*between(a, b, 24), head=True))
            x0, y0 = a[0] + 0.3 * (b[0] - a[0]) - 15, a[1] + 0.3 * (b[1] - a[1]) - 15
            for cell in range(9):
                px, py = x0 + 10 * (cell % 3), y0 + 10 * (cell // 3)
                parts.append(
                    f'<rect x="{px:g}" y="{py:g}" width="9" height="9" fill="{PALE}" stroke="{MUTED}" stroke-width="0.6"/>'
                )
    for x, y in [*starts, *ends]:
        parts += [
            f'<rect x="{x - 22 + 5 * k}" y="{y - 22 + 5 * k}" width="34" height="34" fill="{PAPER if k < 2 else PALE}" stroke="{BLUE}" stroke-width="1.2"/>'
            for k in range(3)
        ]
    parts.append(text(565, 262, "a channel is one unit, a kernel one edge", colour=MUTED))
    return picture(
        760, 285, "A weight of a dense layer is an edge, a kernel of a convolution is an edge", parts
    )


def store() -> str:
    """The tables of a store and how they join."""
    parts, boxes = [], {}
    for name, (x, y) in _PLACES.items():
        boxes[name] = (x, y, 160, 30 + 18 * len(TABLES[name]))
    for table, column, other in JOINS:
        parts += _join(boxes[table], boxes[other], column)
    for name, (x, y, wide, high) in boxes.items():
        parts.append(
            f'<rect x="{x}" y="{y}" width="{wide}" height="{high}" rx="4" fill="{PAPER}" stroke="{BLUE}" stroke-width="1.4"/>'
        )
        parts.append(f'<rect x="{x}" y="{y}" width="{wide}" height="22" rx="4" fill="{BLUE}"/>')
        parts.append(text(x + wide / 2, y + 16, name, colour=PAPER, bold=True))
        parts += [
            text(x + 10, y + 40 + 18 * row, column, size=12, anchor="start")
            for row, column in enumerate(TABLES[name])
        ]
    return picture(
        860, 450, "Tables of a store: graphs, layers, units, blocks, edges, traces, activations, runs", parts
    )


def _join(ours: tuple[float, ...], theirs: tuple[float, ...], column: str) -> list[str]:
    """A line between the sides of two boxes that face each other, with the column that joins."""
    (x, y, wide, high), (p, q, broad, tall) = ours, theirs
    if x > p + broad:
        a, b = (x, y + high / 2), (p + broad, q + tall / 2)
    elif p > x + wide:
        a, b = (x + wide, y + high / 2), (p, q + tall / 2)
    elif y > q:
        a, b = (x + wide / 2, y), (p + broad / 2, q + tall)
    else:
        a, b = (x + wide / 2, y + high), (p + broad / 2, q)
    middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
    width = 7 * len(column) + 6
    return [
        line(a, b, head=True),
        f'<rect x="{middle[0] - width / 2:g}" y="{middle[1] - 9:g}" width="{width}" height="16" fill="{PAPER}"/>',
        text(middle[0], middle[1] + 3, column, size=11, colour=MUTED),
    ]


PICTURES = {"emergence.svg": emergence, "units.svg": units, "store.svg": store}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (HERE / name).write_text(draw(), encoding="utf-8")
