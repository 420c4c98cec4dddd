"""Pieces of a sweep: what is evaluated together, saved together, and sent to a worker together.

Every task is a frozen value that can be pickled and hashed; `run` gives the same losses wherever it runs.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.landscape.directions import gaussian, normalise, perturbation_scale
from emergraph.analysis.landscape.evaluator import Evaluator, Weights
from emergraph.analysis.landscape.hypercube import MAX_GROUPS
from emergraph.analysis.landscape.layout import Layout, ParameterBlock
from emergraph.analysis.landscape.options import Norm
from emergraph.analysis.landscape.walks import WalkPlan, ou_walk
from emergraph.errors import UsageError


class Task(Protocol):
    """A piece of a sweep."""

    @property
    def cost(self) -> int:
        """Evaluations that it takes."""
        ...

    def run(self, evaluator: Evaluator) -> NDArray[np.float64]:
        """Evaluate; the shape depends on the task alone."""
        ...


@dataclass(frozen=True, eq=False)
class LineTask:
    """Losses at base + offset + s direction for every step s: a slice, or one row of a plane."""

    direction: Weights
    """(n_params,)."""
    steps: NDArray[np.float64]
    """(n,)."""
    row: Weights | None = None
    """(n_params,) direction of the rows of a plane; None for a slice."""
    at: float = 0.0
    """Which row: the coefficient of `row`."""

    @property
    def cost(self) -> int:
        """Evaluations that it takes."""
        return len(self.steps)

    def run(self, evaluator: Evaluator) -> NDArray[np.float64]:
        """Evaluate; (n,)."""
        start = evaluator.base
        if self.row is not None and self.at != 0:
            start = start + np.float32(self.at) * self.row
        return evaluator.losses_along(start, self.direction, self.steps)


@dataclass(frozen=True, eq=False)
class SliceTask:
    """Losses at base + s direction for a random direction that is drawn where it is used.

    Directions are as long as the model: drawing them anew costs less than keeping or sending many.
    """

    steps: NDArray[np.float64]
    """(n,)."""
    norm: Norm
    seed: int
    index: int
    """Which direction of the seed."""
    tensor: str | None = None
    """Move this tensor alone; None for all."""

    @property
    def cost(self) -> int:
        """Evaluations that it takes."""
        return len(self.steps)

    def run(self, evaluator: Evaluator) -> NDArray[np.float64]:
        """Evaluate; (n,)."""
        layout, base = evaluator.layout, evaluator.base
        if self.tensor is None:
            drawn = gaussian(layout.n_params, seed=self.seed, index=self.index)
            direction = normalise(drawn, base, layout, self.norm).astype(np.float32)
            return evaluator.losses_along(base, direction, self.steps)
        block, alone = _tensor_alone(layout, self.tensor)
        drawn = gaussian(block.size, seed=self.seed, index=self.index)
        direction = np.zeros_like(base)
        direction[block.span] = normalise(drawn, base[block.span], alone, self.norm)
        return evaluator.losses_along(base, direction, self.steps)


@dataclass(frozen=True, eq=False)
class WalkTask:
    """Losses along one stationary random walk around the base weights."""

    plan: WalkPlan
    walk: int
    scale: Weights
    """(n_params,) perturbation scale N; entries where it is 0 are not walked."""

    @property
    def cost(self) -> int:
        """Evaluations that it takes."""
        return self.plan.length

    def run(self, evaluator: Evaluator) -> NDArray[np.float64]:
        """Evaluate; (length,)."""
        moving = np.flatnonzero(self.scale)
        spread = np.float32(self.plan.sigma) * self.scale[moving]
        theta = evaluator.base.copy()
        start = evaluator.base[moving]
        values = np.empty(self.plan.length)
        for t, position in enumerate(ou_walk(moving.size, self.plan, self.walk)):
            theta[moving] = start + spread * position
            values[t] = evaluator.loss(theta)
        return values


@dataclass(frozen=True, eq=False)
class TensorWalkTask:
    """Losses along a stationary random walk that perturbs one tensor alone."""

    plan: WalkPlan
    walk: int
    norm: Norm
    tensor: str

    @property
    def cost(self) -> int:
        """Evaluations that it takes."""
        return self.plan.length

    def run(self, evaluator: Evaluator) -> NDArray[np.float64]:
        """Evaluate; (length,)."""
        block, alone = _tensor_alone(evaluator.layout, self.tensor)
        scale = np.zeros_like(evaluator.base)
        scale[block.span] = perturbation_scale(evaluator.base[block.span], alone, self.norm)
        return WalkTask(self.plan, self.walk, scale).run(evaluator)


@dataclass(frozen=True, eq=False)
class BallTask:
    """Losses at the two ends of a random diameter of the ball |e / T| <= rho."""

    rho: float
    adaptive: bool
    """T = |w| (arXiv 2102.11600) instead of 1 (arXiv 2010.01412)."""
    norm: Norm
    """Only parameters that this normalisation scales are perturbed."""
    seed: int
    index: int

    @property
    def cost(self) -> int:
        """Evaluations that it takes."""
        return 2

    def run(self, evaluator: Evaluator) -> NDArray[np.float64]:
        """Evaluate; (2,) losses at base + e and base - e."""
        base = evaluator.base
        step = gaussian(base.size, seed=self.seed, index=self.index)
        step[perturbation_scale(base, evaluator.layout, self.norm) == 0] = 0.0
        if self.adaptive:
            step[base == 0] = 0.0
        length = float(np.linalg.norm(step))
        step *= self.rho / length if length > 0 else 0.0
        if self.adaptive:
            step *= np.abs(base)
        return evaluator.losses_along(base, step.astype(np.float32), np.array([1.0, -1.0]))


@dataclass(frozen=True, eq=False)
class PointsTask:
    """Losses at base + sigma N z for fresh z ~ N(0, I): a cloud, in antithetic pairs."""

    scale: Weights
    """(n_params,)."""
    sigma: float
    seed: int
    index: int
    """Which pair of the cloud."""

    @property
    def cost(self) -> int:
        """Evaluations that it takes."""
        return 2

    def run(self, evaluator: Evaluator) -> NDArray[np.float64]:
        """Evaluate; (2,) losses at base + e and base - e."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(self.index,)))
        step = rng.standard_normal(evaluator.n_params, dtype=np.float32)
        step *= np.float32(self.sigma) * self.scale
        return evaluator.losses_along(evaluator.base, step, np.array([1.0, -1.0]))


@dataclass(frozen=True, eq=False)
class MasksTask:
    """Losses with groups of parameters set to zero: a range of states of the mask hypercube."""

    groups: tuple[NDArray[np.int64], ...]
    """Indices into the weights, non-overlapping."""
    first: int
    stop: int

    @property
    def cost(self) -> int:
        """Evaluations that it takes."""
        return self.stop - self.first

    def run(self, evaluator: Evaluator) -> NDArray[np.float64]:
        """Evaluate; (stop - first,), bit i of a state removes group i."""
        values = np.empty(self.cost)
        for at, state in enumerate(range(self.first, self.stop)):
            theta = evaluator.base.copy()
            for i, group in enumerate(self.groups):
                if state >> i & 1:
                    theta[group] = 0.0
            values[at] = evaluator.loss(theta)
        return values


def _tensor_alone(layout: Layout, tensor: str) -> tuple[ParameterBlock, Layout]:
    """Where a tensor is, and the layout of a buffer that holds nothing else."""
    block = next(block for block in layout.blocks if block.name == tensor)
    return block, Layout((replace(block, offset=0),))


def plane_tasks(rows: Weights, columns: Weights, positions: NDArray[np.float64]) -> list[LineTask]:
    """One task per row of the plane base + a rows + b columns, a and b in `positions`."""
    return [LineTask(columns, positions, rows, float(at)) for at in positions]


def mask_tasks(groups: tuple[NDArray[np.int64], ...], *, chunk: int = 64) -> list[MasksTask]:
    """All 2^m masks of m groups in chunks.

    Raises:
        UsageError: No groups, too many, or two that share a parameter.
    """
    m = len(groups)
    if not 1 <= m <= MAX_GROUPS:
        raise UsageError(f"mask landscape: expected 1 to {MAX_GROUPS} groups, found {m}; merge some of them")
    together = np.concatenate(groups)
    if np.unique(together).size != together.size:
        raise UsageError("mask landscape: two groups share a parameter; expected non-overlapping groups")
    n = 2**m
    return [MasksTask(groups, first, min(first + chunk, n)) for first in range(0, n, chunk)]
