"""Mutual information by a trained critic (MINE), evaluated on samples that it has not seen.

Belghazi and others, arXiv 1801.04062: `I >= E_p(x,y)[T] - log E_p(x)p(y)[exp T]` for every function T. What
is reported elsewhere is often the largest value over a training, of the training samples, with one
permutation of a batch as the product of the marginals: for 50 independent dimensions and 500 samples
that gives 8.8 bits.
Here samples are split in three: T is trained on one half, the training stops when the bound on a quarter no
longer rises, and the bound on the last quarter, which is held out, is the estimate.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, Self

import numpy as np

from emergraph.analysis.information.estimate import BITS, Floats
from emergraph.analysis.information.options import ALL_PAIRS, MineOptions
from emergraph.errors import UsageError
from emergraph.exporters.pytorch.tensors import require_torch

# The functions of two vectors that MINE trains: a Gaussian one, and two towers of a small network.

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


MIN_SAMPLES = 64
EVERY = 25
"""Training steps between two looks at the validation samples."""


@dataclass(frozen=True, eq=False)
class MineResult:
    """What a trained critic gives on samples that it has not seen."""

    value: float
    """Bits."""
    scores: Floats
    """(n_test, n_test) critic of all pairs, in nats; the diagonal are the pairs that belong together."""
    training_value: float
    """The bound on the training samples at the same point: how much of it is learned by heart."""
    validation_value: float
    steps: int
    """Steps of training until the critic that was kept."""
    start: str
    """What the towers were added to: "gaussian" or "zero"."""


def bound(scores: Floats, collision: float, weights: Floats | None = None) -> float:
    """Return the Donsker-Varadhan bound of a matrix of critic values, in bits.

    `mean_i T_ii - log[(1 - c) mean_{i != j} exp T_ij + c mean_i exp T_ii]`. c is the probability that two
    draws are the same input: with N equally likely inputs the product of the marginals meets a pair that
    belongs together with probability 1/N, and the bound cannot exceed log2 N. For continuous inputs c = 0.

    Args:
        scores: (n, n) nats.
        collision: c, in [0, 1].
        weights: (n,) how often each sample counts; once by default.
    """
    w = np.ones(len(scores)) if weights is None else weights
    total, squares = w.sum(), (w**2).sum()
    own, off = np.diag(scores), scores.copy()
    np.fill_diagonal(off, -np.inf)
    top, top_own = float(off.max()), float(own.max())
    with np.errstate(divide="ignore"):  # the logarithm of no weight at all
        crossed = top + np.log(w @ np.exp(off - top) @ w / (total**2 - squares))
        together = top_own + np.log((w * np.exp(own - top_own)).sum() / total)
        product = np.logaddexp(np.log1p(-collision) + crossed, np.log(collision) + together)
    return float((w * own).sum() / total - product) * BITS


def mine_information(
    x: Floats, y: Floats, *, seed: int = 0, collision: float = 0.0, options: MineOptions | None = None
) -> MineResult:
    """Estimate the mutual information of two vectors by a critic that is trained on half of the samples.

    The critic is a sum: what two Gaussians with the covariance of the training samples would have, where that
    helps on the validation samples, and two towers that learn the rest, `f(x) . g(y) + a(x) + b(y)`. A critic
    that nothing was learned by is 0 everywhere, and so is its bound.

    Args:
        x: (n, p) samples.
        y: (n, q) samples of the same draws.
        seed: Of the split, the first weights and the batches.
        collision: See `bound`.
        options: The critic and its training.

    Raises:
        UsageError: Too few samples.
        MissingExtraError: torch is not installed.
    """
    options = options or MineOptions()
    torch = require_torch()
    if len(x) < MIN_SAMPLES:
        raise UsageError(f"mine: {len(x)} samples; expected at least {MIN_SAMPLES}")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator).numpy()
    half, quarter = len(x) // 2, len(x) // 4
    parts = (order[:half], order[half : half + quarter], order[half + quarter :])
    train, validation, test = (
        Pairs(_scaled(x[part], x[parts[0]]), _scaled(y[part], y[parts[0]])) for part in parts
    )
    start = _best_start(train, validation, collision)
    critic = Towers(torch, (x.shape[1], y.shape[1]), options, generator)
    step, validated = _train(torch, (critic, start), train, validation, collision, options, generator)
    if validated <= 0:
        step, validated, start, scores = 0, 0.0, Zero(), np.zeros((len(test.x), len(test.x)))
        learned = np.zeros_like(scores)
    else:
        few = Pairs(train.x[: len(test.x)], train.y[: len(test.x)])
        scores, learned = (start.scores(pairs) + critic.table(pairs) for pairs in (test, few))
    return MineResult(
        value=bound(scores, collision),
        scores=scores,
        training_value=bound(learned, collision),
        validation_value=validated,
        steps=step,
        start=start.name,
    )


def _scaled(values: Floats, train: Floats) -> Floats:
    """Samples centred and scaled by the training samples."""
    scale = train.std(axis=0)
    return np.asarray((values - train.mean(axis=0)) / np.where(scale > 0, scale, 1.0), np.float64)


def _best_start(train: Pairs, validation: Pairs, collision: float) -> Start:
    """The Gaussian critic if it is better than none on the validation samples."""
    gaussian = GaussianCritic.fitted(train)
    if gaussian is None or bound(gaussian.scores(validation), collision) <= 0:
        return Zero()
    return gaussian


def _train(
    torch: Any,  # noqa: ANN401 - torch's own types, here and below
    critic: tuple[Towers, Start],
    train: Pairs,
    validation: Pairs,
    collision: float,
    options: MineOptions,
    generator: Any,  # noqa: ANN401
) -> tuple[int, float]:
    """Train until the bound on the validation samples stops rising; leave the critic of its best moment."""
    towers, start = critic
    optimiser = torch.optim.Adam(towers.parameters, lr=options.rate)
    given, known = start.scores(validation), start.scores(train)
    best, best_step, since = bound(given + towers.table(validation), collision), 0, 0
    kept = [p.detach().clone() for p in towers.parameters]
    x, y = (torch.as_tensor(values, dtype=torch.float32) for values in (train.x, train.y))
    for step in range(1, options.steps + 1):
        batch = torch.randperm(len(x), generator=generator)[: options.batch].numpy()
        scores = towers.scores(x[batch], y[batch])
        scores = scores + torch.as_tensor(known[np.ix_(batch, batch)], dtype=torch.float32)
        loss = _loss(torch, scores, collision, options, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % EVERY:
            continue
        value = bound(given + towers.table(validation), collision)
        since += 1
        if value > best:
            best, best_step, since = value, step, 0
            kept = [p.detach().clone() for p in towers.parameters]
        if since >= options.patience:
            break
    with torch.no_grad():
        for parameter, value in zip(towers.parameters, kept, strict=True):
            parameter.copy_(value)
    return best_step, best


def _loss(torch: Any, scores: Any, collision: float, options: MineOptions, generator: Any) -> Any:  # noqa: ANN401
    """The negative bound of a batch, in nats."""
    n = len(scores)
    own = scores.diagonal()
    if options.permutations == ALL_PAIRS:
        off = scores.masked_fill(torch.eye(n, dtype=torch.bool), float("-inf")).reshape(-1)
        crossed = torch.logsumexp(off, 0) - float(np.log(n * (n - 1)))
    else:
        rows = torch.arange(n).repeat(options.permutations)
        shifts = torch.cat([torch.randperm(n, generator=generator) for _ in range(options.permutations)])
        crossed = torch.logsumexp(scores[rows, shifts], 0) - float(np.log(len(rows)))
    if collision > 0:
        same = torch.logsumexp(own, 0) - float(np.log(n) - np.log(collision))
        crossed = torch.logaddexp(crossed + float(np.log1p(-min(collision, 1 - 1e-9))), same)
    return crossed - own.mean()
