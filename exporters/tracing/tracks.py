"""How a layer's units look on one branch of a model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PerUnit = NDArray[np.float64]
"""One number per unit of a layer; NaN where it differs within the unit."""


@dataclass(frozen=True)
class Track:
    """How a layer's units look on one branch: which tensor shows them, and what was applied to them."""

    tensor: str | None
    """The last element-wise tensor (or the producing one) whose layout gives the unit index."""
    axes: tuple[int, ...] | None
    """Its unit axes."""
    nonlinear: bool = False
    """Whether that tensor comes after a nonlinearity."""
    activation: str | None = None
    """The first nonlinearity applied on this branch."""
    bias: PerUnit | None = None
    scale: PerUnit | None = None
    shift: PerUnit | None = None
