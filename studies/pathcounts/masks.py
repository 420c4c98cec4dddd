"""Pruning by global magnitude: which weights stay."""

from collections.abc import Sequence

import torch


def global_masks(weights: Sequence[torch.Tensor], sparsity: float) -> list[torch.Tensor]:
    """Keep all but the round(s n) smallest weights of each network, compared over all its layers together.

    Equal weights go in the order of their place (stable), so exactly as many go as were asked for.

    Args:
        weights: Per layer (n_networks, ...); biases are not part of it.
        sparsity: Share to remove, 0 to 1.

    Returns:
        Per layer 0 or 1 as float32, shaped like the weights.
    """
    n_networks = len(weights[0])
    flat = torch.cat([w.reshape(n_networks, -1) for w in weights], dim=1).abs()
    order = torch.argsort(flat, dim=1, stable=True)
    masks = torch.ones_like(flat)
    masks.scatter_(1, order[:, : round(sparsity * flat.shape[1])], 0.0)
    parts = masks.split([w[0].numel() for w in weights], dim=1)
    return [part.reshape(w.shape) for part, w in zip(parts, weights, strict=True)]
