"""Local-optima network of a model: descents from kicked weights, optima told apart by what they compute.

With gradients the descents run in all weights; without, in a random subspace of normalised directions through
the base weights, with central differences. Two optima are one when their outputs on the evaluation set agree:
a network with its hidden units permuted or rescaled computes the same function, so copies are one node.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Protocol

import igraph
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from emergraph.analysis.landscape.descents import Differentiable, lbfgs_descent, scaled_kick
from emergraph.analysis.landscape.directions import perturbation_scale, random_directions
from emergraph.analysis.landscape.evaluator import Evaluator, Weights
from emergraph.analysis.landscape.lon import LonSummary, build_lon, summarise_lon
from emergraph.analysis.landscape.options import SurveyOptions

Vector = NDArray[np.float64]

# Sample a local-optima network by descents from kicked optima (basin hopping).


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


SUBSPACE_DRAWS = 3_000_000
"""Index of the first direction of subspaces within a seed."""

KICK = 0.5
"""Size of kicks and of the spread of the starts, in units of the perturbation scale."""


class WithOutputs(Evaluator, Protocol):
    """An evaluator that also gives the model's outputs."""

    def outputs(self, theta: Weights) -> list[list[NDArray[np.generic]]]:
        """Outputs at a weight vector, one list per batch."""
        ...


@dataclass(frozen=True, kw_only=True)
class Optima:
    """A sampled local-optima network of a model."""

    sampled: SampledLon
    summary: LonSummary
    dimensions: int
    """Dimensions in which the descents run: all parameters, or those of a random subspace."""
    gradients: bool
    """Whether the engine gave gradients."""
    tolerance: float
    """Root mean square difference of outputs, relative to their spread, up to which two optima are one."""
    precision: float
    """Losses at most this far apart are equal."""

    def to_dict(self) -> dict[str, object]:
        """Return the figures as plain values."""
        about = ("dimensions", "gradients", "tolerance", "precision")
        return {
            **self.summary.to_dict(),
            **{name: getattr(self, name) for name in about},
            "descents": self.sampled.descents,
            "unexplored": self.sampled.unexplored,
            "runs": int(self.sampled.final_losses.size),
        }


def subspace_descent(
    loss: Callable[[Vector], float], *, max_steps: int = 50, step: float = 1e-2
) -> Callable[[Vector], tuple[Vector, float]]:
    """Return a function that descends in a few coordinates by L-BFGS with central differences.

    Args:
        loss: Of the coordinates.
        max_steps: Of L-BFGS.
        step: Of the differences: large enough for losses in single precision.

    Example:
        >>> point, low = subspace_descent(lambda c: float((c[0] - 1) ** 2))(np.zeros(1))
        >>> round(float(point[0]), 4)
        1.0
    """

    def slope(point: Vector) -> Vector:
        units = step * np.eye(point.size)
        return np.array([(loss(point + unit) - loss(point - unit)) / (2 * step) for unit in units])

    def descend(start: Vector) -> tuple[Vector, float]:
        found = minimize(loss, start, jac=slope, method="L-BFGS-B", options={"maxiter": max_steps})
        return np.asarray(found.x, dtype=np.float64), float(found.fun)

    return descend


@dataclass(frozen=True, kw_only=True)
class _Space:
    """The coordinates in which descents run."""

    centre: Vector
    """The base weights in them."""
    scale: Vector
    """Standard deviation of a kick of size 1, per coordinate."""
    weights: Callable[[Vector], Weights]
    descend: Callable[[Vector], tuple[Vector, float]]


def _all_weights(gradient: Differentiable, options: SurveyOptions, max_steps: int) -> _Space:
    base = gradient.base.astype(np.float64)
    return _Space(
        centre=base,
        scale=perturbation_scale(base, gradient.layout, options.norm),
        weights=lambda point: point.astype(np.float32),
        descend=lbfgs_descent(gradient, max_steps=max_steps),
    )


def _subspace(evaluator: Evaluator, options: SurveyOptions, dimensions: int) -> _Space:
    base = evaluator.base.astype(np.float64)
    basis = random_directions(
        base,
        evaluator.layout,
        n=dimensions,
        seed=options.seed,
        norm=options.norm,
        orthogonal=True,
        first=SUBSPACE_DRAWS,
    ).vectors

    def weights(point: Vector) -> Weights:
        return (base + point @ basis).astype(np.float32)

    return _Space(
        centre=np.zeros(dimensions),
        scale=np.ones(dimensions),
        weights=weights,
        descend=subspace_descent(lambda point: evaluator.loss(weights(point))),
    )


def optima_network(
    evaluator: WithOutputs,
    options: SurveyOptions,
    *,
    floor: float,
    gradient: Differentiable | None = None,
    dimensions: int = 6,
    patience: int = 5,
    max_steps: int = 200,
    tolerance: float = 0.05,
) -> Optima:
    """Sample the local-optima network around the base weights.

    The first run starts at the base weights, the others around them.

    Args:
        evaluator: Gives losses and outputs.
        options: `optima` runs (at least 1), `norm`, `seed`.
        floor: Losses at most this far apart are equal.
        gradient: The evaluator again, where it has gradients.
        dimensions: Of the subspace without gradients.
        patience: A run ends after this many kicks without a lower loss.
        max_steps: Of L-BFGS with gradients.
        tolerance: See `Optima.tolerance`.

    Returns:
        The network.
    """
    if gradient is None:
        space = _subspace(evaluator, options, dimensions)
    else:
        space = _all_weights(gradient, options, max_steps)

    def outputs(point: Vector) -> Vector:
        found = evaluator.outputs(space.weights(point))
        return np.concatenate([np.asarray(a, dtype=np.float64).ravel() for batch in found for a in batch])

    seed, own = options.seed, outputs(space.centre)
    kick = scaled_kick(space.scale, sigma=KICK)
    runs = range(1, max(options.optima, 1))
    streams = [np.random.SeedSequence(seed, spawn_key=(SUBSPACE_DRAWS, run)) for run in runs]
    starts = [space.centre, *(kick(space.centre, np.random.default_rng(stream)) for stream in streams)]
    sampled = sample_lon(
        starts,
        space.descend,
        kick,
        matching_key(outputs, tolerance * float(own.std())),
        patience=patience,
        max_kicks=10 * patience,
        seed=seed,
    )
    return Optima(
        sampled=sampled,
        summary=summarise_lon(sampled.graph, precision=floor, final_losses=sampled.final_losses),
        dimensions=int(space.centre.size),
        gradients=gradient is not None,
        tolerance=tolerance,
        precision=floor,
    )
