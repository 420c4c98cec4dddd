"""Which hidden unit of one network stands for which of another.

Two trainings that learn the same thing number their hidden units differently: permuting them, with their
weights, leaves a network's function as it is. The permutations that bring the weights of A closest to those
of B are sought layer by layer, each an assignment problem, until nothing moves (arXiv 2209.04836, alg. 1).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Ints = NDArray[np.int64]
Matrix = NDArray[np.float64]
Weights = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Link:
    """The weights between two layers in both networks."""

    src: str
    """Name of the source layer."""
    dst: str
    a: Weights
    """(targets, sources, weights of each pair) of A: one for a matrix, several for kernels."""
    b: Weights
    """The same of B, which may have fewer units of a layer."""


@dataclass(frozen=True, kw_only=True)
class UnitMatching:
    """Permutations of hidden units."""

    permutations: Mapping[str, Ints]
    """By layer: unit i of B is unit permutations[layer][i] of A; not all of those, where B has fewer."""
    similarity_before: float
    """Cosine of all compared weights of A and B, as they are."""
    similarity_after: float
    """The same after permuting A."""

    @property
    def n_moved(self) -> int:
        """Units that stand for one with another number."""
        return sum(int((order != np.arange(order.size)).sum()) for order in self.permutations.values())


def match_units(
    links: Sequence[Link], layers: Sequence[str], *, seed: int = 0, restarts: int = 3, sweeps: int = 50
) -> UnitMatching:
    """Seek the permutations of hidden units under which the weights of A are closest to those of B.

    Args:
        links: All pairs of weight matrices.
        layers: Layers whose units may be permuted, sources first: nothing but weights of `links` may lead in
            or out of them.
        seed: Seed of the order in which layers are visited.
        restarts: Searches, the first from a pass over the layers, the others from no permutation; the best is
            taken.
        sweeps: Most visits of every layer.

    Returns:
        A local optimum: the identity where no permutation that was tried is better.
    """
    sizes = {link.dst: len(link.b) for link in links} | {link.src: link.b.shape[1] for link in links}
    wanted = [layer for layer in layers if layer in sizes]
    identity = {layer: np.arange(sizes[layer]) for layer in wanted}
    best, best_value = identity, _value(links, identity)
    for restart in range(restarts if wanted else 0):
        rng = np.random.default_rng([seed, restart])
        start = _forward(links, identity, wanted) if restart == 0 else dict(identity)
        found = _descend(links, start, wanted, rng, sweeps)
        value = _value(links, found)
        if value > best_value + 1e-12:
            best, best_value = found, value
    return UnitMatching(
        permutations=best,
        similarity_before=_cosine(links, identity),
        similarity_after=_cosine(links, best),
    )


def in_turn(links: Sequence[Link], layers: Sequence[str]) -> Iterator[tuple[str, list[Link]]]:
    """Yield layers one after the other, each with its links to what keeps its order or came before it.

    A layer without such a link comes last, without any.
    """
    known = {name for link in links for name in (link.src, link.dst)} - set(layers)
    left = list(layers)
    while left:
        for layer in left:
            others = [
                link
                for link in links
                if (link.dst == layer and link.src in known) or (link.src == layer and link.dst in known)
            ]
            if others:
                break
        else:
            layer, others = left[0], []
        left.remove(layer)
        known.add(layer)
        yield layer, others


def _forward(links: Sequence[Link], identity: Mapping[str, Ints], layers: Sequence[str]) -> dict[str, Ints]:
    """Each layer by its weights from and to those that are known: exact for units merely renumbered."""
    permutations = dict(identity)
    for layer, others in in_turn(links, layers):
        if others:
            gain = unit_products(others, permutations, layer)
            permutations[layer] = linear_sum_assignment(-gain)[1].astype(np.int64)
    return permutations


def _descend(
    links: Sequence[Link],
    permutations: dict[str, Ints],
    layers: Sequence[str],
    rng: np.random.Generator,
    sweeps: int,
) -> dict[str, Ints]:
    for _ in range(sweeps):
        moved = False
        for number in rng.permutation(len(layers)):
            layer = layers[number]
            gain = unit_products(links, permutations, layer)
            rows, columns = linear_sum_assignment(-gain)
            better = gain[rows, columns].sum() > gain[rows, permutations[layer]].sum() + 1e-12
            if better:
                permutations[layer] = columns.astype(np.int64)
                moved = True
        if not moved:
            break
    return permutations


def unit_products(links: Sequence[Link], permutations: Mapping[str, Ints], layer: str) -> Matrix:
    """Return (units of B, units of A): inner products of the weights of units of a layer.

    Args:
        links: Those that are counted; at least one leads into or out of the layer.
        permutations: Of the other layers, by which A is permuted.
        layer: The layer.
    """
    parts = []
    for link in links:
        if link.dst == layer:
            parts.append(_products(link.b, _columns(link.a, permutations.get(link.src))))
        if link.src == layer:
            ours = _rows(link.a, permutations.get(link.dst))
            parts.append(_products(link.b.swapaxes(0, 1), ours.swapaxes(0, 1)))
    return np.asarray(np.sum(parts, axis=0))


def _products(theirs: Weights, ours: Weights) -> Matrix:
    """Inner products of units; where A has more to choose from, what orders choices as distances do."""
    found = theirs.reshape(len(theirs), -1) @ ours.reshape(len(ours), -1).T
    if len(ours) > len(theirs):
        found = found - 0.5 * np.sum(ours**2, axis=(1, 2))
    return np.asarray(found)


def _value(links: Sequence[Link], permutations: Mapping[str, Ints]) -> float:
    """What is sought to be large: inner products, less half of what the chosen units of A have in length."""
    found = 0.0
    for link in links:
        ours = permuted(link, permutations)
        found += np.sum(link.b * ours)
        if ours.size < link.a.size:
            found -= 0.5 * np.sum(ours**2)
    return float(found)


def _cosine(links: Sequence[Link], permutations: Mapping[str, Ints]) -> float:
    ours = [permuted(link, permutations) for link in links]
    dot = sum(np.sum(link.b * one) for link, one in zip(links, ours, strict=True))
    norm = np.sqrt(sum(np.sum(one**2) for one in ours) * sum(np.sum(link.b**2) for link in links))
    return float(dot / norm) if norm else 0.0


def permuted(link: Link, permutations: Mapping[str, Ints]) -> Weights:
    """Return the weights of A with the units of both layers in the order of B."""
    return _rows(_columns(link.a, permutations.get(link.src)), permutations.get(link.dst))


def _rows(weights: Weights, order: Ints | None) -> Weights:
    return weights if order is None else weights[order]


def _columns(weights: Weights, order: Ints | None) -> Weights:
    return weights if order is None else weights[:, order]
