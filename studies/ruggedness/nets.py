"""Small dense nets on the 8 x 8 digits, many trained at once, each with its own seed and pruning level."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812 - its usual name

Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class Digits:
    """Images of digits, split once and for good."""

    train_x: torch.Tensor
    """(n, 64) pixels in [0, 1]."""
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor

    def evaluation_set(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first `n` training images: what all landscapes are evaluated on."""
        return self.train_x[:n], self.train_y[:n]


def digits() -> Digits:
    """The 1797 digits that come with scikit-learn: 1297 to train on, 500 to test on."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.data))
    x = torch.from_numpy((data.data[order] / 16).astype(np.float32))
    y = torch.from_numpy(data.target[order].astype(np.int64))
    return Digits(x[:1297], y[:1297], x[1297:], y[1297:])


@dataclass(frozen=True)
class Group:
    """Trained nets of one architecture."""

    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    levels: tuple[float, ...]
    """Share of weights that was removed, per net."""
    weights: Tensors
    """(nets, n_in, n_out) per layer; removed weights are 0."""
    biases: Tensors
    """(nets, 1, n_out) per layer."""

    def module(self, net: int) -> torch.nn.Sequential:
        """One net as a module."""
        layers: list[torch.nn.Module] = []
        for (n_in, n_out), weight, bias in zip(pairwise(self.sizes), self.weights, self.biases, strict=True):
            layer = torch.nn.Linear(n_in, n_out)
            with torch.no_grad():
                layer.weight.copy_(weight[net].T)
                layer.bias.copy_(bias[net, 0])
            layers += [layer, torch.nn.ReLU()]
        return torch.nn.Sequential(*layers[:-1])

    def matrices(self, net: int) -> list[NDArray[np.float32]]:
        """Weight matrices (n_in, n_out) of one net."""
        return [weight[net].numpy() for weight in self.weights]


def activations(weights: Tensors, biases: Tensors, x: torch.Tensor) -> Tensors:
    """Activations of all nets, per layer after the input: ReLU in between, logits at the end."""
    found: Tensors = []
    h = x.expand(len(weights[0]), *x.shape)
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        h = torch.baddbmm(bias, h, weight)
        h = h if k == len(weights) - 1 else F.relu(h)
        found.append(h)
    return found


def train_group(
    sizes: Sequence[int], seeds: Sequence[int], levels: Sequence[float], data: Digits, *, steps: int
) -> Group:
    """Train nets for `steps` full-batch Adam steps, remove the smallest weights of each, train on as long.

    Args:
        sizes: Units per layer.
        seeds: One per net: no two nets share their start.
        levels: Share of all weights of a net to remove, one per net.
        data: The digits.
        steps: Before and after.
    """
    weights, biases = _start(sizes, seeds)
    _descend(weights, biases, [torch.ones_like(w) for w in weights], data, steps)
    masks = _masks(weights, levels)
    with torch.no_grad():
        for weight, mask in zip(weights, masks, strict=True):
            weight.mul_(mask)
    _descend(weights, biases, masks, data, steps)
    return Group(
        tuple(sizes),
        tuple(seeds),
        tuple(levels),
        [w.detach() * m for w, m in zip(weights, masks, strict=True)],
        [b.detach() for b in biases],
    )


def _start(sizes: Sequence[int], seeds: Sequence[int]) -> tuple[Tensors, Tensors]:
    """He initialisation, one generator per net."""
    drawn = []
    for seed in seeds:
        random = torch.Generator().manual_seed(seed)
        drawn.append([torch.randn(a, b, generator=random) * (2 / a) ** 0.5 for a, b in pairwise(sizes)])
    weights = [torch.stack(layer).requires_grad_() for layer in zip(*drawn, strict=True)]
    return weights, [torch.zeros(len(seeds), 1, n).requires_grad_() for n in sizes[1:]]


def _descend(weights: Tensors, biases: Tensors, masks: Tensors, data: Digits, steps: int) -> None:
    optimiser = torch.optim.Adam([*weights, *biases], lr=0.01)
    targets = data.train_y.expand(len(weights[0]), -1).reshape(-1)
    for _ in range(steps):
        optimiser.zero_grad()
        kept = [w * m for w, m in zip(weights, masks, strict=True)]
        logits = activations(kept, biases, data.train_x)[-1]
        # The sum over nets of each net's mean: their gradients do not mix.
        loss = F.cross_entropy(logits.flatten(0, 1), targets, reduction="sum") / len(data.train_y)
        loss.backward()
        optimiser.step()


def _masks(weights: Tensors, levels: Sequence[float]) -> Tensors:
    """0 for the smallest weights of each net, over all its layers together."""
    sizes = [
        np.abs(np.concatenate([w[i].detach().numpy().ravel() for w in weights])) for i in range(len(levels))
    ]
    cuts = [
        np.sort(size)[round(level * size.size) - 1] if level else -1.0
        for size, level in zip(sizes, levels, strict=True)
    ]
    bound = torch.tensor(np.array(cuts), dtype=torch.float32)[:, None, None]
    return [(w.detach().abs() > bound).float() for w in weights]
