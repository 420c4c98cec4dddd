"""The functions of two vectors that MINE trains: a Gaussian one, and two towers of a small network."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from emergraph.analysis.information.estimate import Floats

if TYPE_CHECKING:
    from emergraph.analysis.information.options import MineOptions

LARGEST_CORRELATION = 0.995
"""Canonical correlations count as no larger: a Gaussian critic of a deterministic relation is infinite."""
RANK_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Pairs:
    """Samples of two vectors; row i of both belongs together."""

    x: Floats
    y: Floats


class Start(Protocol):
    """A critic that needs no training."""

    @property
    def name(self) -> str:
        """For diagnostics."""
        ...

    def scores(self, pairs: Pairs) -> Floats:
        """(n, n) critic of all pairs, nats."""
        ...


@dataclass(frozen=True)
class Zero:
    """The critic that knows nothing."""

    name: str = "zero"

    def scores(self, pairs: Pairs) -> Floats:
        """(n, n) zeros."""
        return np.zeros((len(pairs.x), len(pairs.y)))


@dataclass(frozen=True, eq=False)
class GaussianCritic:
    """The log density ratio of two Gaussians in canonical coordinates u and v with correlations r.

    `T = sum_i -1/2 log(1 - r^2) + [r u v - r^2 (u^2 + v^2) / 2] / (1 - r^2)`, the best critic there is for
    Gaussian samples.
    """

    to_u: Floats
    """(p, k)."""
    to_v: Floats
    """(q, k)."""
    correlations: Floats
    """(k,) in [0, LARGEST_CORRELATION]."""
    name: str = "gaussian"

    @classmethod
    def fitted(cls, pairs: Pairs) -> Self | None:
        """Return the critic of the samples' covariance; None where one side does not vary."""
        whiteners = [_whitener(values) for values in (pairs.x, pairs.y)]
        if any(whitener.shape[1] == 0 for whitener in whiteners):
            return None
        u, v = pairs.x @ whiteners[0], pairs.y @ whiteners[1]
        left, r, right = np.linalg.svd(u.T @ v / len(u), full_matrices=False)
        return cls(whiteners[0] @ left, whiteners[1] @ right.T, np.minimum(r, LARGEST_CORRELATION))

    def scores(self, pairs: Pairs) -> Floats:
        """(n, n) log density ratios of all pairs, nats."""
        u, v, r = pairs.x @ self.to_u, pairs.y @ self.to_v, self.correlations
        rest = 1 - r**2
        own = r**2 / (2 * rest)
        crossed = (u * (r / rest)) @ v.T
        return np.asarray(crossed - (u**2 @ own)[:, None] - (v**2 @ own) - 0.5 * np.log(rest).sum())


def _whitener(values: Floats) -> Floats:
    sizes, directions = np.linalg.eigh(values.T @ values / len(values))
    there = sizes > RANK_TOLERANCE * max(float(sizes.max(initial=0.0)), 1e-300)
    return np.asarray(directions[:, there] / np.sqrt(sizes[there]))


class Towers:
    """`f(x) . g(y) + a(x) + b(y)`: the critic of all pairs costs one matrix product.

    Args:
        torch: The module.
        sizes: Dimensions of x and y.
        options: Width and features.
        generator: Draws the first weights.
    """

    def __init__(self, torch: Any, sizes: tuple[int, int], options: "MineOptions", generator: Any) -> None:  # noqa: ANN401 - torch's own types
        self._torch = torch
        self._towers = [_tower(torch, size, options, generator) for size in sizes]
        self.parameters = [parameter for tower in self._towers for parameter in tower.parameters()]

    def scores(self, x: Any, y: Any) -> Any:  # noqa: ANN401
        """(n, n) critic of all pairs; the last feature of each tower belongs to it alone."""
        f, g = (tower(values) for tower, values in zip(self._towers, (x, y), strict=True))
        return f[:, :-1] @ g[:, :-1].T + f[:, -1:] + g[:, -1:].T

    def table(self, pairs: Pairs) -> Floats:
        """The same without gradients, as an array."""
        x, y = (self._torch.as_tensor(values, dtype=self._torch.float32) for values in (pairs.x, pairs.y))
        with self._torch.no_grad():
            return np.asarray(self.scores(x, y).double().numpy())


def _tower(torch: Any, inputs: int, options: "MineOptions", generator: Any) -> Any:  # noqa: ANN401
    sizes = (inputs, options.width, options.width, options.features + 1)
    layers: list[Any] = []
    for before, after in pairwise(sizes):
        linear = torch.nn.utils.skip_init(torch.nn.Linear, before, after)
        gain = 0.1 if after == sizes[-1] else 2**0.5
        with torch.no_grad():
            linear.weight.normal_(0, gain / before**0.5, generator=generator)
            linear.bias.zero_()
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])
