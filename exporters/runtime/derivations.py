"""How a constant follows from others: by operations, each of which takes what others make, or values."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

Array = NDArray[np.generic]
Read = Callable[[], Array]


@dataclass(frozen=True, eq=False)
class Step:
    """One operation on constants."""

    node: onnx.NodeProto
    inputs: tuple["Source | None", ...]
    """None where an optional input is left out."""


@dataclass(frozen=True, eq=False)
class Made:
    """One output of a step."""

    step: Step
    position: int


Source = Made | Read
"""A constant that a step makes, or a function that gives the values of one that is there."""
