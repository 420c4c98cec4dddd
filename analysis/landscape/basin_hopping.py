"""Sample a local-optima network by descents from kicked optima (basin hopping).

A run starts at a point, descends to an optimum, kicks it, descends again, and moves when the new optimum is
not worse. Every kick is an edge from the optimum that was left to the one that was reached. Which optima
are the same is the caller's decision: the coordinate precision decides how many there are, and networks
have many copies of one optimum (permuted and rescaled units), so keys come from canonical weights
(`canonical`) or from the outputs on probe inputs.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import igraph
import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.landscape.lon import build_lon

Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SampledLon:
    """A sampled local-optima network and how it was sampled."""

    graph: igraph.Graph
    """See `lon.build_lon`; only optima that were kicked at least once are nodes, the others would be
    false sinks."""
    positions: NDArray[np.float64]
    """(n_optima, n_params) the first point at which each optimum was met."""
    final_losses: NDArray[np.float64]
    """(runs,) loss at which each run ended."""
    descents: int
    unexplored: int
    """Optima that were reached and never kicked."""
    seed: int


def position_key(precision: float) -> Callable[[Vector, float], Hashable]:
    """Return a key that rounds positions to multiples of `precision`.

    Example:
        >>> position_key(0.1)(np.array([0.52, -0.04]), 0.0)
        (5, 0)
    """

    def key(point: Vector, _loss: float) -> Hashable:
        return tuple(np.rint(point / precision).astype(np.int64).tolist())

    return key


def matching_key(
    outputs: Callable[[Vector], NDArray[np.float64]], tolerance: float
) -> Callable[[Vector, float], Hashable]:
    """Return a key that numbers functions: the first known one within `tolerance`, or a new one.

    Rounding outputs would part equal functions that lie on both sides of a rounding boundary.

    Args:
        outputs: Maps weights to the outputs on fixed inputs, flat.
        tolerance: Largest root mean square difference, in units of the outputs.

    Example:
        >>> key = matching_key(lambda point: point, 0.1)
        >>> key(np.zeros(2), 0.0), key(np.full(2, 0.09), 0.0), key(np.ones(2), 0.0)
        (0, 0, 1)
    """
    known: list[NDArray[np.float64]] = []

    def key(point: Vector, _loss: float) -> Hashable:
        found = outputs(point)
        for number, other in enumerate(known):
            if float(np.sqrt(np.mean((found - other) ** 2))) <= tolerance:
                return number
        known.append(found)
        return len(known) - 1

    return key


class _Optima:
    """The optima met so far, numbered in the order of meeting."""

    def __init__(
        self,
        descend: Callable[[Vector], tuple[Vector, float]],
        key: Callable[[Vector, float], Hashable],
    ) -> None:
        self.losses: list[float] = []
        self.positions: list[Vector] = []
        self._descend, self._key = descend, key
        self._numbers: dict[Hashable, int] = {}

    def settle(self, point: Vector) -> tuple[int, Vector, float]:
        """Descend from a point and return the optimum's number, position and loss."""
        optimum, loss = self._descend(point)
        number = self._numbers.setdefault(self._key(optimum, loss), len(self.losses))
        if number == len(self.losses):
            self.losses.append(loss)
            self.positions.append(optimum)
        self.losses[number] = min(self.losses[number], loss)
        return number, optimum, loss


def sample_lon(
    starts: Iterable[Vector],
    descend: Callable[[Vector], tuple[Vector, float]],
    kick: Callable[[Vector, np.random.Generator], Vector],
    key: Callable[[Vector, float], Hashable],
    *,
    patience: int = 20,
    max_kicks: int = 1000,
    seed: int = 0,
) -> SampledLon:
    """Run basin hopping from every start and record optima and escapes.

    Args:
        starts: Starting points, one run each.
        descend: Maps a point to a local optimum and its loss.
        kick: Maps an optimum to a nearby point.
        key: Identifies optima, see `position_key` and `matching_key`.
        patience: A run ends after this many successive kicks without a lower loss.
        max_kicks: Per run.
        seed: Of the kicks; every run has its own stream.

    Returns:
        The network; an optimum's loss is the lowest at which it was met.
    """
    found = _Optima(descend, key)
    edges: list[tuple[int, int]] = []
    final: list[float] = []
    for run, start in enumerate(starts):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(run,)))
        here, optimum, loss = found.settle(start)
        idle = 0
        for _ in range(max_kicks):
            there, reached, new_loss = found.settle(kick(optimum, rng))
            edges.append((here, there))
            idle = 0 if new_loss < loss else idle + 1
            if new_loss <= loss:
                here, optimum, loss = there, reached, new_loss
            if idle >= patience:
                break
        final.append(loss)
    explored = sorted({source for source, _ in edges})
    number = {optimum: i for i, optimum in enumerate(explored)}
    kept = [(number[a], number[b]) for a, b in edges if b in number]
    return SampledLon(
        graph=build_lon([found.losses[i] for i in explored], [a for a, _ in kept], [b for _, b in kept]),
        positions=np.array([found.positions[i] for i in explored]),
        final_losses=np.array(final),
        descents=len(final) + len(edges),
        unexplored=len(found.losses) - len(explored),
        seed=seed,
    )
