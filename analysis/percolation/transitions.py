"""The transition of one training run: a percolation curve, a smooth alternative, and which of them fits.

Four curves of a metric y over training steps t, each with a level before and a level after:

- percolation: `y = a + b P(t / t_c)` with the pair order parameter `P(x) = S_E S_K` of `bipartite_giant` for
  the run's |E| and |K|: flat up to t_c, then a kink. Its only free number beside a and b is t_c.
- logistic: `y = a + b / (1 + (t / t_0)^-s)`: smooth, with a middle t_0 and a steepness s.
- power: `y = a + b t^c`: smooth, without any point that stands out.
- constant: `y = a`.

They are compared by the Bayesian information criterion of Gaussian residuals, `BIC = n ln(RSS / n) + p ln n`
with p counting the variance. Examinations of one run are not independent, so differences of BIC are an upper
bound of what the data say. The theory predicts no number of steps: t_c is fitted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import stdtrit

from emergraph.analysis.percolation.predictions import bipartite_giant, bipartite_threshold
from emergraph.errors import InvalidInputError

Floats = NDArray[np.float64]

MIN_POINTS = 6
"""Fewer finite values, and a run is refused: the logistic curve has four parameters."""
N_GRID = 400
DISTINCT = 6.0
"""Difference of BIC from which one curve is preferred ("strong evidence" of Kass and Raftery, 1995)."""


@dataclass(frozen=True, kw_only=True)
class CurveFit:
    """One curve fitted to one run."""

    curve: str
    """percolation, logistic, power or constant."""
    before: float
    """Level a."""
    rise: float
    """b, the change of the metric."""
    point: float | None
    """t_c or t_0 in steps; None for curves without one."""
    spread_low: float | None
    """Steps between which the curve fits about as well: the profile of residual sums, with the ratio of an F
    test at 95 % for independent residuals. Those of one run are not, and it is no interval: with
    autocorrelations of 0.5 and 0.8 it holds the truth 0.75 and 0.55 of the time."""
    spread_high: float | None
    shape: float | None
    """s of the logistic curve, c of the power."""
    rss: float
    """Sum of squared residuals."""
    bic: float


@dataclass(frozen=True, kw_only=True)
class TransitionFit:
    """All curves of one run."""

    run: str
    n_entities: int
    n_properties: int
    n_points: int
    percolation: CurveFit
    logistic: CurveFit
    power: CurveFit
    constant: CurveFit

    @property
    def best(self) -> str:
        """The curve with the least BIC; "undecided" where the next one of the other sort is within 6.

        The sorts are threshold (percolation), smooth (logistic, power) and none (constant).
        """
        sorts = {
            "percolation": self.percolation.bic,
            "smooth": min(self.logistic.bic, self.power.bic),
            "constant": self.constant.bic,
        }
        first, second = sorted(sorts, key=lambda name: sorts[name])[:2]
        return first if sorts[second] - sorts[first] >= DISTINCT else "undecided"

    @property
    def evidence(self) -> float:
        """BIC of the better smooth curve minus that of percolation: positive speaks for the threshold."""
        return min(self.logistic.bic, self.power.bic) - self.percolation.bic

    def to_dict(self) -> dict[str, object]:
        """Return one flat row."""
        return {
            "run": self.run,
            "n_entities": self.n_entities,
            "n_properties": self.n_properties,
            "n_points": self.n_points,
            "threshold": self.percolation.point,
            "threshold_spread_low": self.percolation.spread_low,
            "threshold_spread_high": self.percolation.spread_high,
            "middle": self.logistic.point,
            "middle_spread_low": self.logistic.spread_low,
            "middle_spread_high": self.logistic.spread_high,
            "steepness": self.logistic.shape,
            "rise": self.logistic.rise,
            "bic_percolation": self.percolation.bic,
            "bic_logistic": self.logistic.bic,
            "bic_power": self.power.bic,
            "bic_constant": self.constant.bic,
            "best": self.best,
        }


@lru_cache(maxsize=256)
def _order_parameter(n_entities: int, n_properties: int) -> tuple[Floats, Floats]:
    """Log x on a grid from 0, and the pair order parameter there."""
    m_c = bipartite_threshold(n_entities, n_properties)
    log_x = np.concatenate([np.linspace(0, 0.5, 200), np.linspace(0.52, 8, 150)])
    shares = [bipartite_giant(n_entities, n_properties, m_c * float(x)) for x in np.exp(log_x)]
    return log_x, np.array([e * k for e, k in shares])


def pair_order_parameter(x: Floats, n_entities: int, n_properties: int) -> Floats:
    """Share of pairs that random pairs connect, `S_E S_K`, at x times the threshold; 0 for x <= 1.

    Example:
        >>> pair_order_parameter(np.array([0.5, 2.0]), 1000, 1000).round(3).tolist()
        [0.0, 0.635]
    """
    log_x, share = _order_parameter(n_entities, n_properties)
    with np.errstate(divide="ignore"):
        return np.asarray(np.interp(np.log(x), log_x, share, left=0.0))


def fit_transition(
    step: NDArray[np.number], value: NDArray[np.number], *, n_entities: int, n_properties: int, run: str = ""
) -> TransitionFit:
    """Fit all curves to one run.

    Args:
        step: (n,) training steps, positive; those at or below zero and values that are not finite are left
            out.
        value: (n,) the metric; it may rise or fall.
        n_entities: |E| of the run's data.
        n_properties: |K|.
        run: Its name.

    Raises:
        InvalidInputError: Fewer than 6 steps remain.

    Example:
        >>> step = np.geomspace(1, 1000, 40)
        >>> value = 0.1 + 0.8 * pair_order_parameter(step / 50, 100, 400)
        >>> fit = fit_transition(step, value, n_entities=100, n_properties=400)
        >>> round(fit.percolation.point), fit.best
        (50, 'percolation')
    """
    t, y = np.asarray(step, dtype=np.float64), np.asarray(value, dtype=np.float64)
    kept = (t > 0) & np.isfinite(t) & np.isfinite(y)
    t, y = t[kept], y[kept]
    if len(np.unique(t)) < MIN_POINTS:
        raise InvalidInputError(
            f"run {run or '-'}: {len(np.unique(t))} steps with a value, expected at least {MIN_POINTS}"
        )
    if n_entities < 1 or n_properties < 1:
        raise InvalidInputError(f"run {run or '-'}: |E| and |K| must be positive")
    order = np.argsort(t, kind="stable")
    t, y = t[order], y[order]
    return TransitionFit(
        run=run,
        n_entities=n_entities,
        n_properties=n_properties,
        n_points=len(t),
        percolation=_percolation(t, y, n_entities, n_properties),
        logistic=_logistic(t, y),
        power=_power(t, y),
        constant=_fitted("constant", y, np.zeros_like(t), 2),
    )


def _percolation(t: Floats, y: Floats, n_entities: int, n_properties: int) -> CurveFit:
    log_t = np.log(t)

    def shapes(log_c: Floats) -> Floats:
        return pair_order_parameter(np.exp(log_t - log_c[:, None]), n_entities, n_properties)

    grid = np.linspace(log_t[0], log_t[-1], N_GRID)
    losses = _residuals(y, shapes(grid))
    i = int(np.argmin(losses))
    width = float(grid[1] - grid[0])
    found = minimize_scalar(
        lambda at: float(_residuals(y, shapes(np.array([at])))[0]),
        bounds=(float(grid[i]) - width, float(grid[i]) + width),
        method="bounded",
        options={"xatol": 1e-6},
    )
    at = float(found.x) if found.fun <= losses[i] else float(grid[i])
    best = min(float(found.fun), float(losses[i]))
    span = float(log_t[-1] - log_t[0])
    within = _spread(lambda near, _: _residuals(y, shapes(near)), at, span, best, _likely(len(y), 3))
    return _fitted(
        "percolation",
        y,
        shapes(np.array([at]))[0],
        4,
        point=float(np.exp(at)),
        within=within,
    )


def _logistic(t: Floats, y: Floats) -> CurveFit:
    log_t = np.log(t)
    span = float(log_t[-1] - log_t[0])

    def shapes(log_0: Floats, log_s: Floats) -> Floats:
        """(n_places, n_slopes, n) logistic curves."""
        return np.asarray(
            0.5 * (1 + np.tanh(0.5 * np.exp(log_s)[None, :, None] * (log_t - log_0[:, None, None])))
        )

    places = np.linspace(log_t[0], log_t[-1], 60)
    slopes = np.log(np.geomspace(1 / span, 200 / span, 20))
    losses = _residuals(y, shapes(places, slopes))
    i, j = np.unravel_index(int(np.argmin(losses)), losses.shape)
    found = minimize(
        lambda at: float(_residuals(y, shapes(at[:1], at[1:]))[0, 0]),
        np.array([places[i], slopes[j]]),
        method="Nelder-Mead",
        options={"maxiter": 400},
    )
    log_0, log_s = (float(v) for v in found.x)

    def profile(near: Floats, scale: float) -> Floats:
        nearby = log_s + scale * np.linspace(-1.5, 1.5, 31)
        return np.asarray(_residuals(y, shapes(near, nearby)).min(axis=1))

    return _fitted(
        "logistic",
        y,
        shapes(np.array([log_0]), np.array([log_s]))[0, 0],
        5,
        point=float(np.exp(log_0)),
        within=_spread(profile, log_0, span, float(found.fun), _likely(len(y), 4)),
        form=float(np.exp(log_s)),
    )


def _power(t: Floats, y: Floats) -> CurveFit:
    log_t = np.log(t) - np.log(t).mean()

    def shape(c: float) -> Floats:
        return np.asarray(np.expm1(c * log_t) / c) if abs(c) > 1e-6 else log_t

    exponents = np.linspace(-4, 4, 161)
    best = float(exponents[int(np.argmin(_residuals(y, np.array([shape(float(c)) for c in exponents]))))])
    found = minimize_scalar(
        lambda c: float(_residuals(y, shape(c))), bounds=(best - 0.05, best + 0.05), method="bounded"
    )
    return _fitted("power", y, shape(float(found.x)), 4, form=float(found.x))


def _spread(
    profile: Callable[[Floats, float], Floats], at: float, span: float, best: float, most: float
) -> tuple[float, float]:
    """Steps between which the profile of residual sums stays within a ratio of the least.

    Args:
        profile: Residual sums at places (logarithms), the best of what else is free within a scale in (0, 1].
        at: The best place.
        span: Length of the logarithms of all steps.
        best: Residual sum there.
        most: Largest ratio of residual sums, see `_likely`.
    """
    floor = max(best, np.finfo(np.float64).tiny)
    reach, likely = span, np.empty(0)
    while len(likely) < 20 and reach > 1e-9:  # ever finer, until it is resolved
        near = at + np.linspace(-reach, reach, 401)
        likely = near[np.maximum(profile(near, min(1.0, 8 * reach / span)), floor) <= most * floor]
        reach /= 4
    return float(np.exp(min([at, *likely]))), float(np.exp(max([at, *likely])))


def _likely(n: int, n_parameters: int) -> float:
    """Ratio of residual sums that an F test of one fitted parameter allows at 95 %, residuals independent.

    The chi-squared quantile, its limit for many values, is far too small for a short run: six values and four
    parameters allow a factor of 10, not 1.9.
    """
    rest = max(n - n_parameters, 1)
    return 1 + float(stdtrit(rest, 0.975)) ** 2 / rest


def _residuals(y: Floats, shapes: Floats) -> Floats:
    """(...,) residual sums of squares of y = a + b shape with the best a and b; shapes (..., n)."""
    centred = shapes - shapes.mean(axis=-1, keepdims=True)
    spread = (centred**2).sum(axis=-1)
    along = centred @ (y - y.mean())
    gained = np.divide(along**2, spread, out=np.zeros_like(spread), where=spread > 1e-300)
    total = float(((y - y.mean()) ** 2).sum())
    return np.asarray(np.maximum(total - gained, 0.0))


def _fitted(
    name: str,
    y: Floats,
    shape: Floats,
    n_parameters: int,
    *,
    point: float | None = None,
    within: tuple[float, float] | None = None,
    form: float | None = None,
) -> CurveFit:
    centred = shape - shape.mean()
    spread = float(centred @ centred)
    b = float(centred @ (y - y.mean())) / spread if spread > 1e-300 else 0.0
    a = float(y.mean() - b * shape.mean())
    rss = float(((y - a - b * shape) ** 2).sum())
    # Rounding of a perfect fit must not decide: residuals below 1e-9 of the metric's size count as that.
    floor = len(y) * (1e-9 * max(float(np.abs(y).max()), 1e-100)) ** 2
    bic = len(y) * float(np.log(max(rss, floor) / len(y))) + n_parameters * float(np.log(len(y)))
    low, high = within or (None, None)
    return CurveFit(
        curve=name,
        before=a,
        rise=b,
        point=point,
        spread_low=low,
        spread_high=high,
        shape=form,
        rss=rss,
        bic=bic,
    )
