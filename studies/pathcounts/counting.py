"""Path-count emergence of many networks at once: the recursions of `emergraph`, batched.

For unit v, p(v) counts the paths that start at v and end at an active unit, over masks with 1 where a weight
is not zero. E sums, over inactive units, the paths that start at their successors. A test compares these
numbers with `emergraph.analysis.emergence` on the graph of the same network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

Tensors = list[torch.Tensor]
Back = Callable[[int, torch.Tensor], torch.Tensor]
"""Sums over the edges of a layer: what comes back to its sources from its targets."""


@dataclass(frozen=True)
class Counts:
    """E of each network, the mean over samples where activity is one per sample."""

    active: torch.Tensor
    """(networks,) float64, interior `active`."""
    any: torch.Tensor
    """(networks,) float64, interior `any`."""
    printed: torch.Tensor
    """(networks,) float64, the formula as the paper prints it: as if all layers were fully connected. NaN
    where units are positions, or a layer's activity is unknown."""
    n_active: torch.Tensor
    """(networks,) float64, active units."""
    n_units: int
    """Units that count."""


def dense_counts(active: Sequence[torch.Tensor | None], masks: Tensors) -> Counts:
    """Count the paths of dense networks.

    Args:
        active: Per layer, inputs to outputs: (networks or 1, n_samples or 1, units) bool; None for a layer
            whose activity is unknown: its units are transparent.
        masks: Per layer (networks, n_in, n_out), 0 or 1.
    """

    def back(layer: int, p: torch.Tensor) -> torch.Tensor:
        return torch.matmul(p, masks[layer].double().transpose(1, 2))

    return _count(active, back, torch.float64)


def channel_masks(kernels: Tensors) -> Tensors:
    """Masks of the graph of channels: an edge wherever some weight between two channels is not zero.

    Args:
        kernels: Masks of a `ConvNets`, per layer.
    """
    first, second, dense = kernels
    r, _, n_out = dense.shape
    by_channel = dense.reshape(r, second.shape[1], -1, n_out).amax(dim=2)
    return [k.amax(dim=(3, 4)).transpose(1, 2) for k in (first, second)] + [by_channel]


def position_counts(active: Sequence[torch.Tensor | None], masks: Tensors) -> Counts:
    """Count the paths of convolutional networks between all positions; pooling is transparent.

    Args:
        active: (1, n, 1, 28, 28); (networks, n, channels, height, width) for both convolutions;
            (networks, n, 10).
        masks: Of the kernels, as in `ConvNets`.
    """
    first, second, dense = masks  # counts from one unit stay below 2**24 in these nets, exact as float32
    r = len(dense)

    def spread(p: torch.Tensor, size: int) -> torch.Tensor:
        """From pooled positions to those of each window of 2; rows that no window covers get nothing."""
        p = p.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
        return F.pad(p, (0, size - p.shape[-1], 0, size - p.shape[-2]))

    def through(p: torch.Tensor, kernel: torch.Tensor, stride: int, padding: int, extra: int) -> torch.Tensor:
        n, (c_out, c_in, k, _) = p.shape[1], kernel.shape[1:]
        side = p.shape[-1]
        grouped = p.transpose(0, 1).reshape(n, r * c_out, side, side)
        sums = F.conv_transpose2d(
            grouped,
            kernel.reshape(r * c_out, c_in, k, k),
            stride=stride,
            padding=padding,
            output_padding=extra,
            groups=r,
        )
        return sums.reshape(n, r, c_in, *sums.shape[-2:]).transpose(0, 1)

    def back(layer: int, p: torch.Tensor) -> torch.Tensor:
        if layer == 2:
            features = torch.matmul(p, dense.transpose(1, 2))
            return spread(features.reshape(r, p.shape[1], -1, 3, 3), 7)
        if layer == 1:
            return spread(through(p, second, 1, 1, 0), 14)
        return through(p, first, 2, 2, 1)

    return _count(active, back, torch.float32)


def _count(active: Sequence[torch.Tensor | None], back: Back, dtype: torch.dtype) -> Counts:
    """Run both recursions from the last layer to the first; sums over units are float64."""
    last = active[-1]
    if last is None:
        raise ValueError("the activity of the last layer must be known")
    p_active = q_any = last.to(dtype)
    ends = last.flatten(2).sum(dim=2).double()
    n_active, n_units = ends, last[0, 0].numel()
    totals = [torch.zeros_like(ends), torch.zeros_like(ends)]
    printed = _printed(active)
    for layer in range(len(active) - 2, -1, -1):
        from_active, from_any = back(layer, p_active), back(layer, q_any)
        h = active[layer]
        if h is None:
            p_active, q_any = from_active, from_any
            continue
        on = h.to(dtype)
        n_active = n_active + h.flatten(2).sum(dim=2)
        n_units += on[0, 0].numel()
        totals[0] = totals[0] + ((1 - on) * from_active).flatten(2).sum(dim=2, dtype=torch.float64)
        totals[1] = totals[1] + ((1 - on) * from_any).flatten(2).sum(dim=2, dtype=torch.float64)
        p_active = on * (1 + from_active)
        q_any = on + from_any
    return Counts(
        active=totals[0].mean(dim=1),
        any=totals[1].mean(dim=1),
        printed=printed.mean(dim=1),
        n_active=n_active.mean(dim=1),
        n_units=n_units,
    )


def _printed(active: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """(networks, samples) `sum over i < j of (n_i - a_i) a_j prod over i < k < j of n_k`, or NaN.

    From the last layer to the first: `r_i = a_(i+1) + n_(i+1) r_(i+1)` paths start at each unit of layer i.
    """
    known = [h for h in active if h is not None]
    total = torch.zeros(1, 1, dtype=torch.float64)
    if len(known) < len(active) or any(h.ndim != 3 for h in known):
        return total + torch.nan
    starting = total
    for here, behind in zip(known[-2::-1], known[:0:-1], strict=True):
        starting = behind.sum(dim=2).double() + behind.shape[2] * starting
        total = total + (here.shape[2] - here.sum(dim=2).double()) * starting
    return total
