"""The figure of a loss's curvature."""

import altair as alt
import numpy as np
import polars as pl

from emergraph.analysis.figures.figure import Figure, Frames, Query
from emergraph.analysis.figures.marks import sized
from emergraph.analysis.figures.theme import SERIES
from emergraph.analysis.landscape.spectrum import smoothed_density

POINTS = 200
WIDTH_SHARE = 0.01
"""Standard deviation of the smoothing, as a share of the range of the eigenvalues."""
LEAST = 1e-6
"""Densities below this share of the largest are not drawn: the axis is logarithmic."""


def density(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the smoothed spectral density: eigenvalue, and mean, lowest and highest density over probes.

    Args:
        frame: One row per probe and Ritz value: number, eigenvalue, weight (summing to 1 per probe).
    """
    low, high = float(str(frame["eigenvalue"].min())), float(str(frame["eigenvalue"].max()))
    span = (high - low) or max(abs(high), 1.0)
    grid = np.linspace(low - 0.05 * span, high + 0.05 * span, POINTS)
    width = WIDTH_SHARE * span
    probes = np.array(
        [
            smoothed_density(probe["eigenvalue"].to_numpy(), probe["weight"].to_numpy(), grid, width=width)
            for probe in frame.partition_by("number", maintain_order=True)
        ]
    )
    mean = probes.mean(axis=0)
    floor = LEAST * mean.max()
    return pl.DataFrame(
        {
            "eigenvalue": grid,
            "mean": np.maximum(mean, floor),
            "low": np.maximum(probes.min(axis=0), floor),
            "high": np.maximum(probes.max(axis=0), floor),
        }
    )


def draw_hessian(frames: Frames) -> alt.LayerChart:
    """The density of the Hessian's eigenvalues, with the largest and smallest ones as ticks."""
    base = alt.Chart(density(frames["ritz"])).encode(
        x=alt.X("eigenvalue:Q", title="eigenvalue of the Hessian (loss per squared parameter)")
    )
    scale = alt.Scale(type="log")
    band = base.mark_area(opacity=0.2, color=SERIES[0], clip=True).encode(
        y=alt.Y("low:Q", title="density", scale=scale), y2="high:Q"
    )
    line = base.mark_line(color=SERIES[0]).encode(y=alt.Y("mean:Q", title="density", scale=scale))
    chart = band + line
    if "extremes" in frames:
        ticks = alt.Chart(frames["extremes"]).mark_tick(color=SERIES[1], thickness=2, size=14, yOffset=-7)
        chart = chart + ticks.encode(x="eigenvalue:Q", y=alt.value("height"))
    return sized(chart)


HESSIAN = Figure(
    name="landscape-hessian",
    title="Spectrum of the Hessian",
    command="emergraph landscape MODEL --store STORE --hessian 5",
    definition=(
        "Density of the eigenvalues of the loss's Hessian at the model's own weights, by stochastic "
        "Lanczos quadrature (arXiv 1901.10159): mean over probes, band from the lowest to the highest "
        "probe, smoothed by a bell of 1 % of the range, on a logarithmic axis. Orange ticks: the largest "
        "and smallest eigenvalues."
    ),
    queries=(
        Query(
            name="ritz",
            table="landscape_curves",
            sql="""
SELECT number, x AS eigenvalue, y AS weight FROM landscape_curves
WHERE run = {run} AND curve = 'hessian_density' ORDER BY number, x""",
        ),
        Query(
            name="extremes",
            table="landscape_curves",
            optional=True,
            sql="""
SELECT y AS eigenvalue FROM landscape_curves
WHERE run = {run} AND curve IN ('hessian_largest', 'hessian_smallest') ORDER BY y""",
        ),
    ),
    draw=draw_hessian,
)
