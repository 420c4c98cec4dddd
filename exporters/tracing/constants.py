"""Constants of a model: parameters, and everything that follows from parameters and shapes alone.

A constant knows which parameter tensors it is made of (its roots), and whether it *is* one of them up to a
permutation of axes, so that an edge's weight can be traced back to one parameter.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Constant:
    """A tensor that does not depend on the model's inputs."""

    shape: tuple[int, ...]
    load: Callable[[], Array]
    """Computes or reads the values; large results are not kept, so call once per use."""
    roots: frozenset[str] = frozenset()
    """Names of the parameter tensors it is made of."""
    permutation: tuple[int, ...] | None = None
    """If the constant is one root with its axes permuted: which axis of the root each axis is."""
    neutral: bool = False
    """A factor that depends on the data (a dynamic quantization scale) and is taken as 1."""

    @property
    def root(self) -> str | None:
        """The parameter tensor that this constant is a view of, if it is one."""
        return next(iter(self.roots)) if len(self.roots) == 1 and self.permutation is not None else None

    def floats(self) -> NDArray[np.floating]:
        """The values as float32 (float64 where the file has it)."""
        values = self.load()
        if values.dtype in (np.float32, np.float64):
            return values  # type: ignore[return-value]
        return values.astype(np.float32)


def literal(values: Array) -> Constant:
    """Wrap computed values that stem from no parameter."""
    return Constant(tuple(values.shape), lambda: values)
