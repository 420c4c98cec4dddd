"""Figures of snapshots during training."""

import altair as alt

from emergraph.analysis.figures.figure import Figure, Frames, Query
from emergraph.analysis.figures.marks import lines, sized
from emergraph.analysis.figures.theme import SERIES, WIDTH


def draw_metrics(frames: Frames) -> alt.FacetChart:
    """Recorded metrics, and E where it was counted, against the training step; one panel each."""
    frame = frames["metrics"]
    names = frame["name"].unique(maintain_order=True).to_list()
    return (
        sized(
            alt.Chart(frame)
            .mark_line(point=True, color=SERIES[0])
            .encode(
                x=alt.X("step:Q", title="training step"),
                y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            ),
            height=120,
            width=WIDTH // 2 - 50,
        )
        .facet(facet=alt.Facet("name:N", title=None, sort=names), columns=2)
        .resolve_scale(y="independent")
    )


METRICS = Figure(
    name="training",
    title="Recorded during training",
    command="emergraph.record in a training script (docs/pytorch.md)",
    definition=(
        "Every metric that was recorded with the snapshots of this store, against the training step, each "
        "in its own unit. At most eight metrics."
    ),
    queries=(
        Query(
            name="metrics",
            sql="""
SELECT g.step, m.name, m."value" FROM graphs AS g JOIN metrics AS m ON m.graph = g.id
WHERE g.step IS NOT NULL AND m."value" IS NOT NULL
  AND (SELECT step FROM graphs WHERE id = {graph}) IS NOT NULL
  AND m.name IN (SELECT DISTINCT name FROM metrics ORDER BY name LIMIT 8)
ORDER BY m.name, g.step""",
        ),
    ),
    draw=draw_metrics,
)


def draw_trajectory(frames: Frames) -> alt.VConcatChart:
    """E of every snapshot, and below it the metric that was asked about."""
    steps = frames["steps"]
    x = alt.X("step:Q", title="training step")
    y = alt.Y("log10:Q", title="log10 E (E in paths)", scale=alt.Scale(zero=False))
    names = steps["paths"].unique(maintain_order=True).to_list()
    curve = lines(steps.drop_nulls("log10"), x, y, series="paths", names=names)
    metric = (
        alt.Chart(steps.unique("step", maintain_order=True).drop_nulls("metric"))
        .mark_line(point=True, color=SERIES[2])
        .encode(x=x, y=alt.Y("metric:Q", title="metric", scale=alt.Scale(zero=False)))
    )
    return alt.vconcat(sized(curve, height=200), sized(metric, height=130))


TRAJECTORY = Figure(
    name="trajectory",
    title="Emergence along training",
    command="emergraph trajectory STORE",
    definition=(
        "E of every snapshot against the training step, for both interiors, and the metric that the run "
        "asked about. Steps where E = 0 have no point."
    ),
    queries=(
        Query(
            name="steps",
            table="trajectory_steps",
            sql="""
SELECT step, log10, metric,
       CASE interior WHEN 'active' THEN 'through active units only' ELSE 'through any unit' END AS paths
FROM trajectory_steps WHERE run = {run} ORDER BY paths, step""",
        ),
    ),
    draw=draw_trajectory,
)
