"""What is known of a network from its weights and its training images, and what is to be foretold."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pathcounts.counting import dense_counts
from pathcounts.masks import global_masks
from pathcounts.rules import RuleSetting, active_by_samples
from ruggedness.nets import Digits, Group, Tensors, activations, train_group

from emergraph.analysis.topology.topology import neural_persistence
from emergraph.analysis.topology.weightspectra import squared_singular_values
from smallnets.design import LEVELS, SEEDS, STEPS, Family

Floats = NDArray[np.float64]

MEAN = RuleSetting("mean", 0.05)
NOISE, DRAWS = 0.2, 20
"""Deviation of the noise relative to each weight, and its draws."""
GRID = tuple(round(0.02 * k, 2) for k in range(50))
"""Shares of the remaining weights that are removed to see how many may go."""
TOLERATED = 0.02
"""Test accuracy that may be lost by it."""


def family_rows(family: Family, data: Digits) -> pl.DataFrame:
    """Train the networks of a family and measure each: one row per network."""
    part = Digits(data.train_x[: family.images], data.train_y[: family.images], data.test_x, data.test_y)
    levels = [level for level in LEVELS for _ in range(SEEDS)]
    first = 10_000 * family.depth + 100 * family.width + family.images
    seeds = [1_000_000 + 100 * first + k for k in range(len(levels))]
    group = train_group(family.sizes, seeds, levels, part, steps=STEPS)
    about = {
        "depth": family.depth,
        "width": family.width,
        "images": family.images,
        "level": levels,
        "seed": seeds,
    }
    return pl.DataFrame(about | counts(group, part.train_x) | weights_say(group) | outcomes(group, part))


def counts(group: Group, x: torch.Tensor) -> dict[str, Floats]:
    """E of each network with the activity of its training images, and E that chance would give it.

    Expected: with as many active units per layer, and as many weights per layer at random places.
    """
    layers = [x[None], *activations(group.weights, group.biases, x)]
    active = [active_by_samples(MEAN, layer) for layer in layers]
    found = dense_counts(active, [(w != 0).float() for w in group.weights])
    on = np.stack([np.broadcast_to(h.sum(dim=(1, 2)).numpy(), len(group.seeds)) for h in active], axis=1)
    density = np.stack([(w != 0).double().mean(dim=(1, 2)).numpy() for w in group.weights], axis=1)
    expected = expected_counts(group.sizes, on.astype(np.float64), density)
    # as many active units as half of each layer, those of the highest mean
    half = [_strongest(layer.mean(dim=1)) for layer in layers]
    fixed = dense_counts(half, [(w != 0).float() for w in group.weights])
    halves = np.broadcast_to([n // 2 for n in group.sizes], on.shape).astype(np.float64)
    at_half = expected_counts(group.sizes, halves, density)
    return {
        "E_active": found.active.numpy(),
        "E_any": found.any.numpy(),
        "E_printed": found.printed.numpy(),
        "expected_active": expected[0],
        "expected_any": expected[1],
        "half_active": fixed.active.numpy(),
        "half_any": fixed.any.numpy(),
        "half_expected_active": at_half[0],
        "half_expected_any": at_half[1],
        "share_active": (found.n_active / found.n_units).numpy(),
        "active_inputs": on[:, 0].astype(np.float64),
        "active_outputs": on[:, -1].astype(np.float64),
        "active_hidden": on[:, 1:-1].sum(axis=1) / sum(group.sizes[1:-1]),
    }


def _strongest(means: torch.Tensor) -> torch.Tensor:
    """(networks, 1, units): half of the units, with the highest means; the first where they are equal."""
    order = means.argsort(dim=1, descending=True, stable=True)[:, : means.shape[1] // 2]
    return torch.zeros_like(means, dtype=torch.bool).scatter(1, order, value=True)[:, None]


def expected_counts(sizes: Sequence[int], on: Floats, density: Floats) -> tuple[Floats, Floats]:
    """E, interiors `active` and `any`, expected of masks that are uniform among those of their density.

    A path uses one edge of each layer that it crosses, and layers are independent: its probability is the
    product of their densities, exactly.

    Args:
        sizes: Units per layer.
        on: (networks, layers) active units.
        density: (networks, layers - 1) share of weights that are not zero.
    """
    totals = []
    for through in (on, np.broadcast_to(np.asarray(sizes, dtype=np.float64), on.shape)):
        total, arriving = np.zeros(len(on)), np.zeros(len(on))
        for layer, size in enumerate(sizes):
            if layer:
                arriving = arriving * density[:, layer - 1]
            total = total + arriving * on[:, layer]
            arriving = arriving * through[:, layer] + (size - on[:, layer])
        totals.append(total)
    return totals[0], totals[1]


def weights_say(group: Group) -> dict[str, list[float]]:
    """Path norm, effective rank and neural persistence of each network."""
    found: dict[str, list[float]] = {"path_norm": [], "effective_rank": [], "neural_persistence": []}
    for net in range(len(group.seeds)):
        matrices = [m.astype(np.float64) for m in group.matrices(net)]
        paths = np.ones(group.sizes[0])
        for matrix in matrices:
            paths = paths @ matrix**2
        found["path_norm"].append(float(np.log10(paths.sum()) / 2))
        found["effective_rank"].append(float(np.mean([_effective_rank(m) for m in matrices])))
        largest = max(np.abs(m).max() for m in matrices)
        found["neural_persistence"].append(float(np.mean([_persistence(m, largest) for m in matrices])))
    return found


def _effective_rank(matrix: Floats) -> float:
    """Exp of the entropy of the singular values, as a share of the smaller side."""
    values = np.sqrt(squared_singular_values(matrix))
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()) / min(matrix.shape))


def _persistence(matrix: Floats, largest: float) -> float:
    src, dst = np.nonzero(matrix)
    n_in, n_out = matrix.shape
    return neural_persistence(src, n_in + dst, matrix[src, dst], n_units=n_in + n_out, w_max=largest)[1]


@torch.no_grad()
def outcomes(group: Group, data: Digits) -> dict[str, Floats]:
    """Sharpness and training figures, and what is to be foretold: test accuracy, gap, prunability."""
    train = _losses(group.weights, group.biases, data.train_x, data.train_y)
    test = _losses(group.weights, group.biases, data.test_x, data.test_y)
    generator = torch.Generator().manual_seed(0)
    rise = torch.zeros(len(group.seeds))
    for _ in range(DRAWS):
        moved = [w * (1 + NOISE * torch.randn(w.shape, generator=generator)) for w in group.weights]
        rise += _losses(moved, group.biases, data.train_x, data.train_y)[0] - train[0]
    return {
        "sharpness": np.log10((rise / DRAWS).clamp(min=1e-8).double().numpy()),
        "train_loss": train[0].double().numpy(),
        "train_accuracy": train[1].double().numpy(),
        "test_accuracy": test[1].double().numpy(),
        "gap": (test[0] - train[0]).double().numpy(),
        "prunability": _prunability(group, data, test[1]).double().numpy(),
    }


def _losses(
    weights: Tensors, biases: Tensors, x: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(networks,) mean cross entropy, and accuracy."""
    logits = activations(weights, biases, x)[-1]
    log_p = logits.log_softmax(dim=-1)
    loss = -log_p[:, torch.arange(len(y)), y].mean(dim=1)
    return loss, (logits.argmax(dim=-1) == y).float().mean(dim=1)


def _prunability(group: Group, data: Digits, accuracy: torch.Tensor) -> torch.Tensor:
    """The largest share of what is left up to which the smallest may go for 2 points of accuracy."""
    found = torch.zeros_like(accuracy)
    going = torch.ones_like(accuracy, dtype=torch.bool)
    levels = torch.tensor(group.levels)
    for share in GRID:
        left = [torch.empty_like(w) for w in group.weights]
        for level in sorted(set(group.levels)):
            chosen = levels == level
            own = [w[chosen] for w in group.weights]
            for whole, w, mask in zip(left, own, global_masks(own, level + (1 - level) * share), strict=True):
                whole[chosen] = w * mask
        going &= _losses(left, group.biases, data.test_x, data.test_y)[1] >= accuracy - TOLERATED
        found[going] = share
    return found


def design_cells(nets: pl.DataFrame) -> list[str]:
    """The cell of each network, by name."""
    return [f"{depth}x{width}, {level:g}, {images}" for depth, width, level, images in
            nets.select("depth", "width", "level", "images").rows()]  # fmt: skip
