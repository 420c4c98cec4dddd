"""Figures of loss landscapes."""

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.declaration import Query
from emergraph.analysis.figures.figure import Figure, Frames
from emergraph.analysis.figures.marks import interval_bars, lines, sized, with_labels
from emergraph.analysis.figures.theme import MUTED, RAMP, SERIES
from emergraph.analysis.landscape.spectrum import smoothed_density

COMMAND = "emergraph landscape MODEL --store STORE"
POSITION = "distance along a random direction (units of the weights' own norms)"
_RAMP = alt.Scale(scheme=RAMP, type="sqrt")
WHITE = "#ffffff"
FLOOR = 0.02
"""Pairs of a minimum and its saddle that differ by less than this share of a plane's range are cancelled."""
MAX_LAG = 20


def draw_slices(frames: Frames) -> alt.LayerChart:
    """Loss along random lines: every line, the median, and the middle 80 %."""
    points = frames["slices"].drop_nulls()
    spread = points.group_by("x", maintain_order=True).agg(
        low=pl.col("loss").quantile(0.1), middle=pl.col("loss").median(), high=pl.col("loss").quantile(0.9)
    )
    x = alt.X("x:Q", title=POSITION)
    each = alt.Chart(points).mark_line(strokeWidth=1, opacity=0.45, color=MUTED)
    base = alt.Chart(spread).encode(x=x)
    band = base.mark_area(opacity=0.2, color=SERIES[0]).encode(y="low:Q", y2="high:Q")
    middle = base.mark_line(color=SERIES[0], strokeWidth=2.5).encode(y="middle:Q")
    drawn = each.encode(x=x, y=alt.Y("loss:Q", title=_loss_title(frames)), detail="number:N")
    return sized(band + drawn + middle)


def _loss_title(frames: Frames) -> str:
    loss = frames["loss"]["loss"][0] if "loss" in frames else ""
    return f"loss: {loss}"[:60]


_LOSS = Query(
    name="loss",
    table="landscape",
    optional=True,
    sql="SELECT DISTINCT loss FROM landscape WHERE run = {run}",
)

SLICES = Figure(
    name="landscape-slices",
    title="Loss along random lines",
    command=COMMAND,
    definition=(
        "Loss at the model's own weights plus x times a random direction, whose length is that of the "
        "weights, filter by filter unless another norm is named (arXiv 1712.09913). Thin lines: single "
        "directions. Thick line: their median; band: percentiles 10 to 90. Without labels the loss is the "
        "distance of the outputs from those of the unperturbed model, so it is 0 in the middle."
    ),
    queries=(
        Query(
            name="slices",
            table="landscape_points",
            sql="""
SELECT number, x, loss FROM landscape_points WHERE run = {run} AND kind = 'slice' ORDER BY number, x""",
        ),
        _LOSS,
    ),
    draw=draw_slices,
)


def draw_plane(frames: Frames) -> alt.LayerChart:
    """Loss over one random plane, with minima and the borders of their basins."""
    points = frames["plane"]
    xs, ys = points["x"].unique().sort().to_numpy(), points["y"].unique().sort().to_numpy()
    step = float(xs[1] - xs[0]) / 2 * 1.02  # cells overlap a little: no seams between them
    cells = points.with_columns(x1=pl.col("x") - step, x2=pl.col("x") + step).with_columns(
        y1=pl.col("y") - step, y2=pl.col("y") + step
    )
    heat = (
        alt.Chart(cells)
        .mark_rect()
        .encode(
            x=alt.X("x1:Q", title="first direction", scale=alt.Scale(nice=False, padding=0)),
            x2="x2:Q",
            y=alt.Y("y1:Q", title="second direction", scale=alt.Scale(nice=False, padding=0)),
            y2="y2:Q",
            color=alt.Color("loss:Q", title=_loss_title(frames), scale=_RAMP),
        )
    )
    minima, borders = _basins(points, xs, ys)
    walls = alt.Chart(borders).mark_rule(color=WHITE, strokeWidth=1.5)
    dots = alt.Chart(minima).mark_point(shape="cross", filled=True, size=90, color=SERIES[1], stroke=WHITE)
    return sized(
        heat + walls.encode(x="x:Q", x2="x2:Q", y="y:Q", y2="y2:Q") + dots.encode(x="x:Q", y="y:Q"),
        height=420,
        width=420,
    )


def _basins(
    points: pl.DataFrame, xs: NDArray[np.float64], ys: NDArray[np.float64]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Minima, and the segments between cells that drain into different ones."""
    from emergraph.analysis.landscape.merge_tree import merge_tree

    grid = points.sort("x", "y")["loss"].fill_null(np.nan).to_numpy().reshape(xs.size, ys.size)
    finite = grid[np.isfinite(grid)]
    tree = merge_tree(grid, floor=FLOOR * float(np.ptp(finite)))
    rows, columns = np.divmod(tree.minima, ys.size)
    minima = pl.DataFrame({"x": xs[rows], "y": ys[columns]})
    half_x, half_y = (xs[1] - xs[0]) / 2, (ys[1] - ys[0]) / 2
    i, j = np.nonzero(tree.basin[:-1] != tree.basin[1:])
    k, m = np.nonzero(tree.basin[:, :-1] != tree.basin[:, 1:])
    borders = pl.DataFrame(
        {
            "x": np.concatenate([xs[i] + half_x, xs[k] - half_x]),
            "x2": np.concatenate([xs[i] + half_x, xs[k] + half_x]),
            "y": np.concatenate([ys[j] - half_y, ys[m] + half_y]),
            "y2": np.concatenate([ys[j] + half_y, ys[m] + half_y]),
        }
    )
    return minima, borders


PLANE = Figure(
    name="landscape-plane",
    title="Loss over a random plane, with minima and basins",
    command=COMMAND,
    definition=(
        "Loss at the model's own weights (the centre) plus two random directions; the colour follows the "
        "square root of the loss. Crosses: minima of the sampled plane that lie deeper below their saddle "
        "than 2 % of the plane's range. White lines part the basins that drain into them. A minimum of a "
        "plane is not one of the whole landscape."
    ),
    queries=(
        Query(
            name="plane",
            table="landscape_points",
            sql="""
SELECT x, y, loss FROM landscape_points WHERE run = {run} AND kind = 'plane' AND number = 0 ORDER BY x, y""",
        ),
        _LOSS,
    ),
    draw=draw_plane,
)


def draw_walks(frames: Frames) -> alt.LayerChart:
    """Autocorrelation of the loss along random walks, against that of a bowl."""
    from emergraph.analysis.landscape.autocorrelation import WIDENED, autocorrelation
    from emergraph.analysis.statistics.intervals import Support, left_out_ends

    walks = frames["walks"].sort("number", "x")
    values = walks["loss"].fill_null(np.nan).to_numpy().reshape(walks["number"].n_unique(), -1)
    values = values[np.isfinite(values).all(axis=1)]
    lags = np.arange(min(MAX_LAG, values.shape[1] - 1) + 1)
    rho = autocorrelation(values, max_lag=int(lags[-1]))
    left_out = np.array(
        [autocorrelation(np.delete(values, i, axis=0), max_lag=int(lags[-1])) for i in range(len(values))]
    )
    ends = np.array(
        [
            (1.0, 1.0),  # at lag 0, whatever the walks are
            *(
                left_out_ends(float(at), each, support=Support.CORRELATION, widen=WIDENED)
                for at, each in zip(rho[1:], left_out.T[1:], strict=True)
            ),
        ]
    )
    a = float(frames["null"]["a"][0])
    names = ["observed", "quadratic bowl"]
    frame = pl.DataFrame(
        {
            "lag": np.tile(lags, 2),
            "rho": np.concatenate([rho, a ** (2.0 * lags)]),
            "low": np.concatenate([ends[:, 0], a ** (2.0 * lags)]),
            "high": np.concatenate([ends[:, 1], a ** (2.0 * lags)]),
            "series": np.repeat(names, lags.size),
        }
    )
    x = alt.X("lag:Q", title="lag (steps of the walk)")
    y = alt.Y("rho:Q", title="autocorrelation of the loss")
    return sized(lines(frame, x, y, series="series", names=names, band=("low", "high")))


WALKS = Figure(
    name="landscape-walks",
    title="Autocorrelation along random walks",
    command=COMMAND,
    definition=(
        "Correlation between the loss at one step of a random walk around the model's weights and at a "
        "later step (Weinberger 1990, eq. 3), over all walks; band: at each lag the conservative interval of "
        "95 % from leaving out one walk at a time. Dashed: the exact curve of a quadratic bowl for the same "
        "walk. Below it: more rugged than a bowl."
    ),
    queries=(
        Query(
            name="walks",
            table="landscape_points",
            sql="""
SELECT number, x, loss FROM landscape_points WHERE run = {run} AND kind = 'walk' ORDER BY number, x""",
        ),
        Query(
            name="null",
            table="landscape_points",
            sql="SELECT (parameters::JSON ->> 'a')::DOUBLE AS a FROM runs WHERE id = {run}",
        ),
    ),
    draw=draw_walks,
)


def draw_layers(frames: Frames) -> alt.LayerChart:
    """How much the loss rises when one weight tensor alone is perturbed, with intervals."""
    frame = with_labels(frames["layers"], "tensor")
    y = alt.Y("label:N", title=None, sort=frame["label"].to_list())
    chart = interval_bars(
        frame, x="rise", low="low", high="high", y=y, title="rise of the loss", colour=SERIES[0]
    )
    return sized(chart, height=max(120, 20 * frame.height), width=420)


LAYERS = Figure(
    name="landscape-layers",
    title="How sensitive the loss is to each weight tensor",
    command=COMMAND,
    definition=(
        "Mean of the loss at plus and minus one random step that perturbs this tensor alone, less the loss "
        "at the model's own weights, in units of the loss; bars: interval over directions. The 24 largest."
    ),
    queries=(
        Query(
            name="layers",
            table="landscape_layers",
            sql="""
SELECT tensor, operation, n_params, rise, low, high FROM landscape_layers
WHERE run = {run} AND rise IS NOT NULL ORDER BY rise DESC LIMIT 24""",
        ),
    ),
    draw=draw_layers,
)


DENSITY_POINTS = 200
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
    grid = np.linspace(low - 0.05 * span, high + 0.05 * span, DENSITY_POINTS)
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

FIGURES = (SLICES, PLANE, WALKS, HESSIAN, LAYERS)
