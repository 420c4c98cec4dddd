"""Figures of a graph as a network, and of the spectra of its weights."""

from typing import Any

import altair as alt

from emergraph.analysis.declaration import Query
from emergraph.analysis.figures.figure import Figure, Frames
from emergraph.analysis.figures.marks import lines, sized, with_labels
from emergraph.analysis.figures.theme import MUTED, SERIES

COMMAND = "emergraph topology STORE"
STATUS: dict[str, Any] = {"domain": ["ok", "short tail"], "range": ["circle", "cross"]}
SIDES = ("into the unit", "out of the unit")


def draw_strengths(frames: Frames) -> alt.LayerChart:
    """How strengths are distributed: the share of units that are at least as strong."""
    x = alt.X("strength:Q", title="strength: sum of absolute weights", scale=alt.Scale(type="log"))
    y = alt.Y("share:Q", title="share of units at least as strong", scale=alt.Scale(type="log"))
    return sized(lines(frames["strengths"], x, y, series="side", names=SIDES))


STRENGTHS = Figure(
    name="strengths",
    title="How strengths are distributed",
    command=COMMAND,
    definition=(
        "Strength of a unit: sum of the absolute weights of the edges that lead into it, or out of it. "
        "The curves show the share of units with at least that strength, of those with any; both axes are "
        "logarithmic. At most 400 points per curve."
    ),
    queries=(
        Query(
            name="strengths",
            table="topology_units",
            sql="""
WITH sides AS (
    SELECT 'into the unit' AS side, in_abs AS strength FROM topology_units WHERE run = {run} AND in_abs > 0
    UNION ALL
    SELECT 'out of the unit', out_abs FROM topology_units WHERE run = {run} AND out_abs > 0
), ranked AS (
    SELECT side, strength, row_number() OVER (PARTITION BY side ORDER BY strength DESC) AS rank,
           count(*) OVER (PARTITION BY side) AS n
    FROM sides
)
SELECT side, strength, rank / n AS share FROM ranked
WHERE rank = 1 OR rank = n OR rank % greatest(1, n // 400) = 0
ORDER BY side, strength, share DESC""",
        ),
    ),
    draw=draw_strengths,
)


def draw_layers(frames: Frames) -> alt.Chart:
    """How strong the units of each layer are."""
    frame = with_labels(frames["layers"], "layer")
    chart = (
        alt.Chart(frame)
        .mark_bar(color=SERIES[0])
        .encode(
            x=alt.X("fluctuation:Q", title="standard deviation of signed strengths"),
            y=alt.Y("label:N", title=None, sort=frame["label"].to_list()),
        )
    )
    return sized(chart, height=max(120, 20 * frame.height), width=440)


FLUCTUATION = Figure(
    name="strength-layers",
    title="Fluctuation of strengths by layer",
    command=COMMAND,
    definition=(
        "Standard deviation, over the units of a layer, of the sum of all weights into and out of a unit, "
        "signs kept. The 24 largest, in the order of the layers."
    ),
    queries=(
        Query(
            name="layers",
            table="topology_layers",
            sql="""
SELECT t.name AS layer, t.fluctuation, t.strength_mean, t.strength_max FROM (
    FROM topology_layers WHERE run = {run} AND fluctuation > 0 ORDER BY fluctuation DESC LIMIT 24
) AS t ORDER BY t.layer""",
        ),
    ),
    draw=draw_layers,
)


def draw_spectra(frames: Frames) -> alt.LayerChart:
    """Exponent of the power-law tail of each weight tensor."""
    frame = with_labels(frames["spectra"], "tensor")
    order = frame["label"].to_list()
    points = (
        alt.Chart(frame)
        .mark_point(filled=True, size=80, color=SERIES[0], opacity=1)
        .encode(
            x=alt.X("alpha:Q", title="exponent alpha of the tail", scale=alt.Scale(zero=False)),
            y=alt.Y("label:N", title=None, sort=order),
            shape=alt.Shape(
                "status:N",
                title=None,
                scale=alt.Scale(domain=["ok", "short tail"], range=["circle", "cross"]),
            ),
        )
    )
    marks = alt.Chart(frame).mark_rule(color=MUTED, strokeDash=[4, 3]).encode(x=alt.datum(2.0))
    return sized(points + marks, height=max(120, 20 * frame.height), width=440)


SPECTRA = Figure(
    name="spectra",
    title="Tails of the weights' spectra",
    command=COMMAND,
    definition=(
        "Exponent of the power law that fits the largest eigenvalues of W'W best (least "
        "Kolmogorov-Smirnov distance), per weight tensor; crosses: fewer than ten eigenvalues in the "
        "tail, not to be relied on. Dashed: 2. At most 40 tensors, those with the most eigenvalues."
    ),
    queries=(
        Query(
            name="spectra",
            table="spectra",
            sql="""
SELECT tensor, alpha, d, n_tail, stable_rank, status FROM (
    FROM spectra WHERE run = {run} AND alpha IS NOT NULL ORDER BY n_eigenvalues DESC LIMIT 40
) ORDER BY layer, tensor""",
        ),
    ),
    draw=draw_spectra,
)

FIGURES = (STRENGTHS, FLUCTUATION, SPECTRA)
