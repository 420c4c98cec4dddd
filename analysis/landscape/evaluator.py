"""What every engine offers: the loss of one fixed evaluation set at any weight vector."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.landscape.layout import Layout
from emergraph.errors import UsageError

Weights = NDArray[np.float32]


class Evaluator(Protocol):
    """Losses of one model on one evaluation set, over its weights as one flat vector.

    An evaluator owns its copy of everything: neither a call nor an exception in a call changes `base`, the
    user's model or the user's arrays. It can be pickled, and a copy gives the same losses.
    """

    @property
    def layout(self) -> Layout:
        """Where each parameter tensor lies in the vector."""
        ...

    @property
    def base(self) -> Weights:
        """(n_params,) the model's own weights, read-only."""
        ...

    @property
    def n_params(self) -> int:
        """Length of the vector."""
        ...

    @property
    def loss_name(self) -> str:
        """What is measured, for reports, e.g. "kl to the base model's outputs"."""
        ...

    def loss(self, theta: Weights) -> float:
        """Loss at a weight vector (n_params,)."""
        ...

    def losses_along(
        self, start: Weights, direction: Weights, steps: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Losses at `start + s direction` for every step s, always counted from `start`: no drift."""
        ...


class FunctionEvaluator:
    """A function of the weights as an evaluator: for a user's own objective, and for known answers.

    Example:
        >>> origin, layout = np.zeros(3, np.float32), Layout.of_shapes([(1, 3)])
        >>> bowl = FunctionEvaluator(lambda t: float(t @ t), origin, layout)
        >>> bowl.losses_along(bowl.base, np.ones(3, np.float32), np.array([0.0, 2.0])).tolist()
        [0.0, 12.0]
    """

    def __init__(
        self, function: Callable[[Weights], float], base: Weights, layout: Layout, *, loss_name: str = "user"
    ) -> None:
        self._function = function
        self._base = read_only(base, layout)
        self._layout = layout
        self._loss_name = loss_name

    @property
    def layout(self) -> Layout:
        """Where each parameter tensor lies in the vector."""
        return self._layout

    @property
    def base(self) -> Weights:
        """(n_params,) the starting weights, read-only."""
        return self._base

    @property
    def n_params(self) -> int:
        """Length of the vector."""
        return self._layout.n_params

    @property
    def loss_name(self) -> str:
        """The name given."""
        return self._loss_name

    def loss(self, theta: Weights) -> float:
        """Value of the function."""
        return float(self._function(theta))

    def losses_along(
        self, start: Weights, direction: Weights, steps: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Values of the function along a line."""
        return np.array([self.loss(start + np.float32(step) * direction) for step in steps])


def read_only(base: Weights, layout: Layout) -> Weights:
    """Return a private, read-only float32 copy of the weights.

    Raises:
        UsageError: The length does not fit the layout.
    """
    copy = np.array(base, dtype=np.float32)
    if copy.shape != (layout.n_params,):
        raise UsageError(f"weights: expected shape ({layout.n_params},), found {copy.shape}")
    copy.flags.writeable = False
    return copy
