"""What a calibration is: a simulation with a known answer, and what it stands for."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Rng = np.random.Generator


@dataclass(frozen=True)
class Interval:
    """An interval whose truth is known: how often it holds it.

    `draw` gives one interval (low, high) of new data; NaN where there is none, which does not count.
    """

    name: str
    setting: str
    """What is simulated, with the default settings of the house."""
    truth: Callable[[], float]
    draw: Callable[[Rng], tuple[float, float]]
    conservative: float | None = None
    """Width against the ideal, for an interval that is labelled conservative."""


@dataclass(frozen=True)
class ChanceTest:
    """A p value: how often it is at most 0.05 and 0.01 under its null, and at most 0.05 with an effect.

    Both draws give one p value of new data; None where the test gives none, which rejects nothing.
    """

    name: str
    setting: str
    null: Callable[[Rng], float | None]
    alternative: Callable[[Rng], float | None]
    effect: str
    """The named alternative."""
