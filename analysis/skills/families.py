"""Curves that skills may follow against time, data or parameters: the solvable model and its rivals.

Each gives the strength, as a share of the target, of a skill with frequency P(k) = s P(1) at x, from
parameters that are calibrated on skill 1 alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from emergraph.analysis.skills.closedforms import Floats, linear_strength, multilinear_strength
from emergraph.analysis.skills.options import Axis
from emergraph.analysis.skills.shots import data_by_definition, data_from_loss, parameter_strength

Curve = Callable[[Floats, float, int, Floats], Floats]
"""(x, s, k, parameters) -> share of the target."""


@dataclass(frozen=True)
class Family:
    """One kind of curve."""

    name: str
    curve: Curve
    starts: tuple[Callable[[float], tuple[float, ...]], ...]
    """First guesses of the parameters, in terms of the x at which skill 1 is half learned."""
    bounds: tuple[tuple[float, float], ...]
    """Lowest and highest value of each parameter; all are fitted as logarithms."""


def _multilinear(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    # rate p[0] = 2 eta P(1) S, start p[1] = R(0) / S
    return multilinear_strength(x, s, start=float(p[1]), rate=float(p[0]) / 2)


def _linear(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    return linear_strength(x, s, rate=float(p[0]))


def _gompertz(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    return np.asarray(np.exp(-p[1] * np.exp(-p[0] * s * x)))


def _hill(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    scaled = (s * x / p[0]) ** p[1]
    return np.asarray(scaled / (1 + scaled))


def _step(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    # steep, but not vertical: a fit needs a slope
    return np.asarray(1 / (1 + np.exp(-np.clip(60 * (s * x / p[0] - 1), -500, 500))))


def _same(x: Floats, _s: float, _k: int, p: Floats) -> Floats:
    return _multilinear(x, 1.0, 1, p)


def _definition(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    return data_by_definition(s * x, per_skill=float(p[0]))


def _from_loss(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    return data_from_loss(s * x, per_skill=float(p[0]))


def _shot(x: Floats, _s: float, k: int, p: Floats) -> Floats:
    return parameter_strength(x, k, per_skill=float(p[0]))


def _shared(x: Floats, s: float, _k: int, p: Floats) -> Floats:
    return np.asarray(np.clip(s * x / p[0], 0, 1))


_WIDE = (1e-12, 1e12)
_RATE_AND_START = (_WIDE, (1e-9, 0.4))
_SIGMOIDS = (
    Family(
        "linear",
        _linear,
        (lambda half: (0.7 / half,),),
        (_WIDE,),
    ),
    Family(
        "gompertz",
        _gompertz,
        (lambda half: (3 / half, 14.0), lambda half: (1.5 / half, 3.0)),
        (_WIDE, (0.1, 1e6)),
    ),
    Family("hill", _hill, (lambda half: (half, 4.0), lambda half: (half, 1.0)), (_WIDE, (0.2, 60.0))),
    Family("step", _step, (lambda half: (half,),), (_WIDE,)),
    Family(
        "same for all", _same, (lambda half: (5 / half, 7e-3), lambda half: (2 / half, 0.1)), _RATE_AND_START
    ),
)

FAMILIES: dict[Axis, tuple[Family, ...]] = {
    Axis.TIME: (
        Family(
            "multilinear",
            _multilinear,
            (lambda half: (5 / half, 7e-3), lambda half: (2 / half, 0.1), lambda half: (9 / half, 1e-4)),
            _RATE_AND_START,
        ),
        *_SIGMOIDS,
    ),
    Axis.DATA: (
        Family("by definition", _definition, (lambda half: (2 * half,),), (_WIDE,)),
        Family("from loss", _from_loss, (lambda half: (1.34 * half,),), (_WIDE,)),
        *_SIGMOIDS[:4],
    ),
    Axis.PARAMETERS: (
        Family("parameter shot", _shot, (lambda half: (2 * half,),), (_WIDE,)),
        Family("by frequency", _shared, (lambda half: (2 * half,),), (_WIDE,)),
        *_SIGMOIDS[:4],
    ),
}
"""The model first; on the axis of data it has two readings, which stand first and second."""
