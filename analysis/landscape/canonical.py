"""One representative of all networks that are the same up to permuting and rescaling hidden units.

Permuting the hidden units of a dense layer, or scaling a ReLU unit's inputs by c > 0 and its outputs by
1/c, changes the weights and not the function: every optimum has m! such copies per layer. `canonical_dense`
maps them to one; `match_dense` permutes one network onto another (Ainsworth et al., arXiv 2209.04836,
algorithm 1), after which the barrier between two copies is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from emergraph.errors import UsageError

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class DenseNet:
    """A chain of dense layers: h_k = activation(W_k h_{k-1} + b_k)."""

    weights: tuple[Matrix, ...]
    """(out, in) each."""
    biases: tuple[Matrix, ...]
    """(out,) each."""

    def __post_init__(self) -> None:
        """Check that the shapes chain.

        Raises:
            UsageError: They do not.
        """
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if bias.shape != weight.shape[:1]:
                raise UsageError(f"layer {k}: bias {bias.shape} does not fit weights {weight.shape}")
            if k and weight.shape[1] != len(self.weights[k - 1]):
                raise UsageError(
                    f"layer {k}: expected {len(self.weights[k - 1])} inputs, found {weight.shape[1]}"
                )

    def flat(self) -> NDArray[np.float64]:
        """Return all parameters in one vector, weights and bias layer by layer."""
        pairs = zip(self.weights, self.biases, strict=True)
        return np.concatenate([part.ravel() for pair in pairs for part in pair])


def permuted(net: DenseNet, orders: Sequence[NDArray[np.intp]]) -> DenseNet:
    """Reorder the units of every hidden layer; the function stays the same.

    Args:
        net: With n layers.
        orders: n - 1 permutations; unit i of the result is unit `orders[k][i]` of the argument.
    """
    weights, biases = list(net.weights), list(net.biases)
    for k, order in enumerate(orders):
        weights[k], biases[k] = weights[k][order], biases[k][order]
        weights[k + 1] = weights[k + 1][:, order]
    return DenseNet(tuple(weights), tuple(biases))


def balanced(net: DenseNet) -> DenseNet:
    """Rescale every ReLU unit so that its incoming norm (with the bias) equals its outgoing norm.

    Units with no input or no output are left as they are.
    """
    weights, biases = [w.copy() for w in net.weights], [b.copy() for b in net.biases]
    # Neighbouring layers share weights, so one pass disturbs the balance of the last; this converges quickly.
    for _ in range(50):
        worst = 1.0
        for k in range(len(weights) - 1):
            incoming = np.sqrt(np.sum(weights[k] ** 2, axis=1) + biases[k] ** 2)
            outgoing = np.linalg.norm(weights[k + 1], axis=0)
            usable = (incoming > 0) & (outgoing > 0)
            c = np.sqrt(np.divide(outgoing, incoming, out=np.ones_like(incoming), where=usable))
            weights[k] *= c[:, None]
            biases[k] *= c
            weights[k + 1] /= c
            worst = max(worst, float(np.max(np.maximum(c, 1 / c), initial=1.0)))
        if worst - 1 < 1e-12:
            break
    return DenseNet(tuple(weights), tuple(biases))


def canonical_dense(net: DenseNet, *, homogeneous: bool = True) -> DenseNet:
    """Return the representative: balanced units (for ReLU), sorted by incoming norm, then by bias.

    Args:
        net: A chain of dense layers.
        homogeneous: The activation is positively homogeneous (ReLU, leaky ReLU), so scale is free.

    Returns:
        The same function; equal for all permuted (and rescaled) copies whose units have distinct norms.

    Example:
        >>> net = DenseNet((np.array([[1.0], [2.0]]), np.ones((1, 2))), (np.zeros(2), np.zeros(1)))
        >>> canonical_dense(net, homogeneous=False).weights[0].ravel().tolist()
        [2.0, 1.0]
    """
    result = balanced(net) if homogeneous else net
    for k in range(len(result.weights) - 1):
        norms = np.sum(result.weights[k] ** 2, axis=1) + result.biases[k] ** 2
        # Rounded, so that the last bits of a rescaling do not decide between units of equal norm.
        order = np.lexsort((-result.biases[k], -norms.round(12)))
        identity = [np.arange(len(w)) for w in result.weights[:-1]]
        identity[k] = order
        result = permuted(result, identity)
    return result


def match_dense(reference: DenseNet, other: DenseNet, *, sweeps: int = 50, seed: int = 0) -> DenseNet:
    """Permute the hidden units of `other` to lie as close to `reference` as coordinate descent gets.

    Maximises sum_k <W_k^ref, P_k W_k P_{k-1}'> by one linear assignment per layer, in random order, until no
    layer changes.

    Args:
        reference: Network to match.
        other: Network of the same shape.
        sweeps: Most passes over all layers.
        seed: Of the order of layers.

    Returns:
        The permuted `other`: the same function.

    Raises:
        UsageError: The shapes differ.
    """
    if [w.shape for w in reference.weights] != [w.shape for w in other.weights]:
        raise UsageError("matching: expected two networks with equal layer sizes")
    rng = np.random.default_rng(seed)
    current = other
    for _ in range(sweeps):
        changed = False
        for k in rng.permutation(len(current.weights) - 1):
            gain = reference.weights[k] @ current.weights[k].T
            gain += np.outer(reference.biases[k], current.biases[k])
            gain += reference.weights[k + 1].T @ current.weights[k + 1]
            _, order = linear_sum_assignment(gain, maximize=True)
            if not np.array_equal(order, np.arange(len(order))):
                identity = [np.arange(len(w)) for w in current.weights[:-1]]
                identity[k] = order
                current = permuted(current, identity)
                changed = True
        if not changed:
            break
    return current
