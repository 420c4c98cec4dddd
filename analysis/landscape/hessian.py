"""Products of a Hessian with vectors by double backward through a cached graph.

H v = d/dtheta (g . v) (Pearlmutter 1994, Neural Computation 6:147). The graph of the gradient is built once
and kept, so a product costs one backward pass through it: less than half of building it anew each time.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import UsageError
from emergraph.exporters.pytorch.tensors import require_torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


class HessianOperator:
    """The Hessian of a scalar with respect to a list of parameters, in their flat concatenation.

    Args:
        loss: Scalar tensor with its graph. Build it in eval mode: batch norm in train mode couples the
            samples.
        parameters: Leaf tensors that require gradients.

    Raises:
        MissingExtraError: torch is not installed.
        UsageError: The loss is not a scalar, or depends on none of the parameters.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> HessianOperator((x[0] ** 2 * x[1]).sum(), [x]).product(np.array([1.0, 0.0])).tolist()
        [4.0, 2.0]
    """

    def __init__(self, loss: "torch.Tensor", parameters: "Sequence[torch.Tensor]") -> None:
        torch = require_torch("a Hessian")
        if loss.ndim != 0:
            raise UsageError(f"Hessian: expected a scalar loss, found shape {tuple(loss.shape)}")
        if not loss.requires_grad:
            raise UsageError("Hessian: the loss does not depend on the parameters")
        self._parameters = list(parameters)
        gradients = torch.autograd.grad(loss, self._parameters, create_graph=True, allow_unused=True)
        self._gradients = [
            torch.zeros_like(p) if g is None else g for p, g in zip(self._parameters, gradients, strict=True)
        ]
        # A gradient that is constant in the weights has no graph; it adds nothing to a product.
        self._curved = [i for i, g in enumerate(self._gradients) if g.requires_grad]
        self._sizes = [p.numel() for p in self._parameters]

    @property
    def n(self) -> int:
        """Number of parameters."""
        return sum(self._sizes)

    @property
    def gradient(self) -> NDArray[np.float64]:
        """(n,) gradient of the loss."""
        return self._flat([g.detach() for g in self._gradients])

    def product(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return H v, (n,).

        Args:
            vector: (n,); products are computed in the precision of the parameters.

        Raises:
            UsageError: Wrong length.
        """
        import torch

        if vector.shape != (self.n,):
            raise UsageError(f"Hessian: expected a vector of shape ({self.n},), found {vector.shape}")
        if not self._curved:
            return np.zeros(self.n)
        whole = torch.from_numpy(np.asarray(vector)).to(self._parameters[0].dtype)
        parts = torch.split(whole, self._sizes)
        shaped = [part.view_as(p) for part, p in zip(parts, self._parameters, strict=True)]
        products = torch.autograd.grad(
            [self._gradients[i] for i in self._curved],
            self._parameters,
            grad_outputs=[shaped[i] for i in self._curved],
            retain_graph=True,
            allow_unused=True,
        )
        return self._flat(
            [torch.zeros_like(p) if h is None else h for p, h in zip(self._parameters, products, strict=True)]
        )

    def dense(self) -> NDArray[np.float64]:
        """Return the whole matrix, (n, n): for a few hundred parameters."""
        return np.array([self.product(unit) for unit in np.eye(self.n)])

    @staticmethod
    def _flat(parts: "Sequence[torch.Tensor]") -> NDArray[np.float64]:
        import torch

        return np.asarray(torch.cat([part.reshape(-1) for part in parts]).double().numpy())
