"""Many small convolutional networks trained at once, as groups of one convolution.

28 x 28 -> conv 5x5, stride 2, 4 channels -> 14 x 14, ReLU, max pooling 2 -> 7 x 7 -> conv 3x3, 8 channels,
ReLU, max pooling 2 -> 3 x 3 -> dense, 10 classes.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

from pathcounts.images import Part

Tensors = list[torch.Tensor]

SIDE = 28
CHANNELS = (4, 8)
KERNELS = (5, 3)
DENSE_INPUTS = CHANNELS[1] * 9


class ConvNets:
    """Weights of seeds x variants networks, and plain gradient descent on them."""

    def __init__(self, weights: Tensors, biases: Tensors, masks: Tensors, *, n_variants: int) -> None:
        """Take weights per layer, variants running fastest.

        Args:
            weights: (networks, 4, 1, 5, 5), (networks, 8, 4, 3, 3) and (networks, 72, 10).
            biases: (networks, 4), (networks, 8), (networks, 10).
            masks: Like the weights, 0 or 1; masked weights stay 0.
            n_variants: Networks of a seed.
        """
        self.n_networks, self.n_variants = len(weights[0]), n_variants
        self.n_seeds = self.n_networks // n_variants
        self.masks = [m.clone() for m in masks]
        self._weights = [w * m for w, m in zip(weights, masks, strict=True)]
        self.biases = [b.clone() for b in biases]

    @property
    def weights(self) -> Tensors:
        """Per layer, as they were given."""
        return [w.clone() for w in self._weights]

    def _forward(self, x: torch.Tensor, weights: Tensors, biases: Tensors) -> Tensors:
        """Activations of channels after ReLU, before pooling; then logits (networks, n, 10).

        Args:
            x: (n, networks, 28, 28).
            weights: Per layer.
            biases: Per layer.
        """
        r = self.n_networks
        z = F.conv2d(x, weights[0].flatten(0, 1), biases[0].flatten(), stride=2, padding=2, groups=r)
        first = z.relu()
        z = F.conv2d(
            F.max_pool2d(first, 2), weights[1].flatten(0, 1), biases[1].flatten(), padding=1, groups=r
        )
        second = z.relu()
        features = F.max_pool2d(second, 2).reshape(len(x), r, DENSE_INPUTS).transpose(0, 1)
        return [first, second, torch.baddbmm(biases[2][:, None], features, weights[2])]

    def activations(self, x: torch.Tensor) -> Tensors:
        """Inputs (1, n, 1, 28, 28), channels (networks, n, channels, height, width), logits.

        Args:
            x: (n, pixels), the same images for all networks.
        """
        n = len(x)
        images = x.reshape(n, 1, SIDE, SIDE)
        with torch.no_grad():
            first, second, logits = self._forward(
                images.expand(n, self.n_networks, SIDE, SIDE), self._weights, self.biases
            )
        apart = [a.reshape(n, self.n_networks, -1, *a.shape[2:]).transpose(0, 1) for a in (first, second)]
        return [images[None], *apart, logits]

    def train_epoch(self, part: Part, orders: torch.Tensor, *, batch: int, rate: float) -> torch.Tensor:
        """One pass of gradient descent on the cross entropy; as `DenseNets.train_epoch`."""
        total = torch.zeros(self.n_networks)
        n_steps = orders.shape[1] // batch
        for step in range(n_steps):
            at = orders[:, step * batch : (step + 1) * batch]
            total += self._step(part.x[at], part.y[at], rate)
        return total / n_steps

    def _step(self, x: torch.Tensor, y: torch.Tensor, rate: float) -> torch.Tensor:
        parameters = [p.requires_grad_() for p in (*self._weights, *self.biases)]
        images = x.transpose(0, 1).repeat_interleave(self.n_variants, dim=1)
        logits = self._forward(images.reshape(x.shape[1], -1, SIDE, SIDE), parameters[:3], parameters[3:])[-1]
        targets = y.repeat_interleave(self.n_variants, dim=0)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        losses = losses.reshape(self.n_networks, -1).mean(dim=1)
        gradients = torch.autograd.grad(losses.sum(), parameters)
        with torch.no_grad():
            for p in parameters:
                p.requires_grad_(requires_grad=False)
            for w, g, m in zip(self._weights, gradients[:3], self.masks, strict=True):
                w.addcmul_(g, m, value=-rate)
            for b, g in zip(self.biases, gradients[3:], strict=True):
                b.sub_(g, alpha=rate)
        return losses.detach()


def he_kernels(seeds: Sequence[int]) -> tuple[Tensors, Tensors]:
    """Normal weights with variance 2 / fan-in (arXiv 1502.01852), zero biases; one network per seed."""
    weights: list[Tensors] = [[], [], []]
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        shapes = (
            ((CHANNELS[0], 1, KERNELS[0], KERNELS[0]), KERNELS[0] ** 2),
            ((CHANNELS[1], CHANNELS[0], KERNELS[1], KERNELS[1]), CHANNELS[0] * KERNELS[1] ** 2),
            ((DENSE_INPUTS, 10), DENSE_INPUTS),
        )
        for layer, (shape, fan_in) in zip(weights, shapes, strict=True):
            layer.append(torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5)
    stacked = [torch.stack(layer) for layer in weights]
    return stacked, [torch.zeros(len(seeds), n) for n in (*CHANNELS, 10)]
