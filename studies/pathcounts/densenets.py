"""Many dense ReLU networks trained at once: seeds x variants, every step one batched product per layer.

Variants are what a seed is compared under (pruning levels, initialisations): they see the same batches.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch

from pathcounts.images import Part

Tensors = list[torch.Tensor]


class DenseNets:
    """Weights of seeds x variants networks, and plain gradient descent on them.

    The first layer's weights lie as (seeds, inputs, variants, units), so that all variants of a seed share
    one product with their batch; the others as (seeds * variants, units, units).
    """

    def __init__(self, weights: Tensors, biases: Tensors, masks: Tensors, *, n_variants: int) -> None:
        """Take weights, per layer (seeds * variants, n_in, n_out), variants running fastest.

        Args:
            weights: As above.
            biases: Per layer (seeds * variants, n_out).
            masks: Like the weights, 0 or 1; masked weights stay 0.
            n_variants: Networks of a seed.
        """
        self.n_networks, self.n_variants = len(weights[0]), n_variants
        self.n_seeds = self.n_networks // n_variants
        self._first = self._side_by_side(weights[0] * masks[0])
        self._first_mask = self._side_by_side(masks[0])
        self._rest = [w * m for w, m in zip(weights[1:], masks[1:], strict=True)]
        self._rest_masks = [m.contiguous() for m in masks[1:]]
        self.biases = [b.clone() for b in biases]

    def _side_by_side(self, first: torch.Tensor) -> torch.Tensor:
        n_in, n_out = first.shape[1:]
        apart = first.reshape(self.n_seeds, self.n_variants, n_in, n_out)
        return apart.permute(0, 2, 1, 3).reshape(self.n_seeds, n_in, -1).contiguous()

    def _apart(self, first: torch.Tensor) -> torch.Tensor:
        """(seeds, a, variants * b) -> (networks, a, b)."""
        a = first.shape[1]
        split = first.reshape(self.n_seeds, a, self.n_variants, -1).permute(0, 2, 1, 3)
        return split.reshape(self.n_networks, a, -1)

    @property
    def weights(self) -> Tensors:
        """Per layer (networks, n_in, n_out)."""
        return [self._apart(self._first).clone(), *(w.clone() for w in self._rest)]

    @property
    def masks(self) -> Tensors:
        """Per layer, like the weights."""
        return [self._apart(self._first_mask), *self._rest_masks]

    def activations(self, x: torch.Tensor) -> Tensors:
        """Inputs (1, n, pixels), then activations of layers (networks, n, units) after the ReLU, then logits.

        Args:
            x: (n, pixels), the same images for all networks.
        """
        found = [x[None]]
        for layer, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = torch.matmul(found[-1], w) + b[:, None]
            found.append(z if layer == len(self._rest) else z.relu_())
        return found

    def train_epoch(self, part: Part, orders: torch.Tensor, *, batch: int, rate: float) -> torch.Tensor:
        """One pass of gradient descent on the cross entropy; return the mean loss of each network.

        Args:
            part: Images and classes.
            orders: (seeds, n) order of the images for each seed; what does not fill a batch is left out.
            batch: Images per step.
            rate: Step size.
        """
        total = torch.zeros(self.n_networks)
        n_steps = orders.shape[1] // batch
        for step in range(n_steps):
            at = orders[:, step * batch : (step + 1) * batch]
            total += self._step(part.x[at], part.y[at], rate)
        return total / n_steps

    def _step(self, x: torch.Tensor, y: torch.Tensor, rate: float) -> torch.Tensor:
        z = self._apart(torch.bmm(x, self._first)).add_(self.biases[0][:, None])
        hidden = [z.relu_()]
        for layer, w in enumerate(self._rest, start=1):
            z = torch.baddbmm(self.biases[layer][:, None], hidden[-1], w)
            hidden.append(z.relu_() if layer < len(self._rest) else z)
        log_p = hidden.pop().log_softmax(dim=-1)
        targets = y.repeat_interleave(self.n_variants, dim=0)[..., None]
        loss = -log_p.gather(2, targets).mean(dim=(1, 2))
        back = log_p.exp_().scatter_add_(2, targets, torch.full(targets.shape, -1.0)).div_(y.shape[1])
        for layer in range(len(self._rest), 0, -1):
            w, a = self._rest[layer - 1], hidden[layer - 1]
            gradient = torch.bmm(a.transpose(1, 2), back)
            self.biases[layer].sub_(back.sum(dim=1), alpha=rate)
            back = torch.bmm(back, w.transpose(1, 2)).mul_(a > 0)
            w.addcmul_(gradient, self._rest_masks[layer - 1], value=-rate)
        self.biases[0].sub_(back.sum(dim=1), alpha=rate)
        shape = (self.n_seeds, self.n_variants, *back.shape[1:])
        together = back.reshape(shape).permute(0, 2, 1, 3).reshape(self.n_seeds, back.shape[1], -1)
        self._first.addcmul_(torch.bmm(x.transpose(1, 2), together), self._first_mask, value=-rate)
        return loss


def he_weights(sizes: Sequence[int], seeds: Sequence[int]) -> tuple[Tensors, Tensors]:
    """Normal weights with variance 2 / fan-in (arXiv 1502.01852), zero biases; one network per seed."""
    drawn = [list(_he(sizes, torch.Generator().manual_seed(seed))) for seed in seeds]
    weights = [torch.stack(layer) for layer in zip(*drawn, strict=True)]
    return weights, [torch.zeros(len(seeds), n_out) for n_out in sizes[1:]]


def _he(sizes: Sequence[int], generator: torch.Generator) -> Iterator[torch.Tensor]:
    for n_in, n_out in pairwise(sizes):
        yield torch.randn(n_in, n_out, generator=generator) * (2 / n_in) ** 0.5
