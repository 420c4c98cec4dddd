"""Models as lineage sees them, made without files: dense nets with known groups."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count, pairwise

import numpy as np

from emergraph.analysis.comparison.groups import FIXED, Groups, Segment
from emergraph.analysis.comparison.model import Model
from emergraph.analysis.comparison.weights import Weight

SIZES = (20, 24, 24, 24, 8)
_FILES = count()


def matrices(seed: int, sizes: Sequence[int] = SIZES) -> list[np.ndarray]:
    """Random (targets, sources) of each layer, with sizes of units that differ as those of trained nets."""
    rng = np.random.default_rng(seed)
    return [
        rng.standard_normal((b, a)) * rng.lognormal(0, 0.3, (b, 1)) / np.sqrt(a) for a, b in pairwise(sizes)
    ]


def dense_model(
    weights: Sequence[np.ndarray],
    *,
    sha256: str = "",
    wiring: str = "traced",
    first: int = 0,
    joints: Sequence[str] = (),
) -> Model:
    """A dense net as a model; its hidden layers are groups.

    Args:
        weights: (targets, sources) of each layer.
        sha256: Of its file.
        wiring: As graphs say it.
        first: Number in the name of the first layer.
        joints: The group between each layer and the next; a stream is one that comes back.
    """
    names = [f"layer{first + i}" for i in range(len(weights))]
    last = len(weights) - 1
    between = joints or [f"g{i}" for i in range(last)]

    def axis(size: int, group: int) -> tuple[Segment, ...]:
        hidden = 0 <= group < last
        return (Segment(group=between[group] if hidden else FIXED, places=np.arange(size)[:, None]),)

    axes = {
        name: (axis(len(one), i), axis(one.shape[1], i - 1))
        for i, (name, one) in enumerate(zip(names, weights, strict=True))
    }
    return Model(
        name="net",
        graph={"sha256": sha256 or str(next(_FILES))},
        weights=tuple(
            Weight(
                name=name,
                role="weight",
                dtype="float32",
                shape=one.shape,
                sha256=None,
                n_params=one.size,
                block=None,
                op="MatMul",
                layer=None,
            )
            for name, one in zip(names, weights, strict=True)
        ),
        values=dict(zip(names, weights, strict=True)),
        groups=Groups(
            axes=axes if wiring in ("traced", "declared") else {},
            sizes={group: len(one) for group, one in zip(between, weights[:-1], strict=True)},
            wiring=wiring,
        ),
    )


def renumbered(weights: Sequence[np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """The same net with other numbers for its hidden units."""
    rng = np.random.default_rng([seed, 99])
    orders = [np.arange(weights[0].shape[1]), *(rng.permutation(len(one)) for one in weights[:-1])]
    orders.append(np.arange(len(weights[-1])))
    return [one[after][:, before] for one, before, after in zip(weights, orders, orders[1:], strict=False)]


def rescaled(weights: Sequence[np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """The same net, units of ReLU scaled up before it and down after it."""
    rng = np.random.default_rng([seed, 98])
    factors = [np.ones(weights[0].shape[1]), *(rng.lognormal(0, 1, len(one)) for one in weights[:-1])]
    factors.append(np.ones(len(weights[-1])))
    return [
        one * after[:, None] / before
        for one, before, after in zip(weights, factors, factors[1:], strict=False)
    ]


def tuned(weights: Sequence[np.ndarray], size: float, seed: int = 0) -> list[np.ndarray]:
    """Trained on: noise of a size relative to the weights."""
    rng = np.random.default_rng([seed, 97])
    return [one + size * one.std() * rng.standard_normal(one.shape) for one in weights]


def without_units(weights: Sequence[np.ndarray], kept: Sequence[int]) -> list[np.ndarray]:
    """The same net with so many units of each hidden layer, those whose weights are the largest."""
    orders = [np.arange(weights[0].shape[1])]
    orders += [
        np.sort(np.argsort(-np.linalg.norm(one, axis=1))[:n]) for one, n in zip(weights, kept, strict=False)
    ]
    orders.append(np.arange(len(weights[-1])))
    return [one[after][:, before] for one, before, after in zip(weights, orders, orders[1:], strict=False)]


def with_wiring(model: Model, wiring: str) -> Model:
    """The same with another word for how its layers were joined."""
    return replace(model, groups=replace(model.groups, wiring=wiring))
