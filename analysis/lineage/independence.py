"""Two tests of "trained independently", which are never mixed.

The exact test takes units in their stored order. Where training does not care for the order of units, the
order in which a file stores a group is one of all, each as likely as any other, whatever the other file is.
Groups are matched one after the other, each by its weights to what keeps its order or was matched before.
Given those, its match is a random order: matches of groups are independent, and Fisher's sum holds.

The match test is for units that were renumbered. Each group is matched twice, from the inputs on and from
the outputs back, and what counts is how far the two agree. Networks that learnt the same agree more than
chance would have it: its p value is the share of independent pairs that agree as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from emergraph.analysis.comparison.aligned import Alignment
from emergraph.analysis.comparison.unitmatching import Link, in_turn, unit_products
from emergraph.analysis.statistics.orders import (
    bonferroni_log_p,
    fisher_log_p,
    least_log_p,
    order_correlation,
    order_log_p,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
FEWEST_UNITS = 10
"""Units of a group that contributes to a p value."""
FEWEST_WEIGHTS = 4
"""Weights of a unit by which the match test tells it from others: one of them, once scaled, is a sign."""
LARGEST = 2048
"""Units of a group that are matched, the first ones: the assignment takes cubic time."""
FOLLOWS = 0.01
"""p value of a dependence of a stored order below which the exact test does not use the group."""
DRAWS = 199
"""Random orders that the likeness of neighbours is compared with."""


@dataclass(frozen=True, kw_only=True)
class OrderTest:
    """The exact test on a pair."""

    log_p: float | None
    """Logarithm of the one-sided p value; None where there is none."""
    least: float | None
    """The smallest that it could have been."""
    rho: float | None
    """Mean rank correlation of matched units with the identity over units: the effect."""
    n_groups: int
    n_units: int
    refused: Sequence[str]
    """Why groups were not used."""


def stored_order_test(pair: Alignment, *, seed: int = 0) -> OrderTest:
    """Test whether two models were trained independently, by the order in which they store their units.

    Args:
        pair: The weights of both.
        seed: Of the order in which ties are broken, and of the check for neighbours that are alike.
    """
    if not pair.wired:
        reason = (
            "it is not known which units are inputs, outputs or joined: neither file says how it is wired"
        )
        return OrderTest(log_p=None, least=None, rho=None, n_groups=0, n_units=0, refused=(reason,))
    rng = np.random.default_rng(seed)
    found, sizes, refused, small = [], [], [], 0
    for group, links in in_turn(pair.balanced, pair.groups):
        n = _units(pair.raw, group)
        if n < FEWEST_UNITS or not links:
            small += 1
            continue
        if reason := _follows(pair, group, rng):
            refused.append(reason)
            continue
        found.append(_match(links, {}, group, rng))
        sizes.append(found[-1].size)
    if not found:
        reasons = refused or [f"no group of {FEWEST_UNITS} or more units has counterparts in both"]
        return OrderTest(log_p=None, least=None, rho=None, n_groups=0, n_units=0, refused=tuple(reasons))
    rhos = [order_correlation(order) for order in found]
    together = fisher_log_p if pair.traced else bonferroni_log_p
    return OrderTest(
        log_p=together([order_log_p(order) for order in found]),
        least=together([least_log_p(n) for n in sizes]),
        rho=float(np.average(rhos, weights=sizes)),
        n_groups=len(found),
        n_units=sum(sizes),
        refused=tuple(refused),
    )


def _units(links: Sequence[Link], group: str) -> int:
    return next(
        len(one.a) if one.dst == group else one.a.shape[1] for one in links if group in (one.src, one.dst)
    )


def _match(
    links: Sequence[Link], permutations: dict[str, Ints], group: str, rng: np.random.Generator
) -> Ints:
    """For each unit of B the unit of A that is likest; ties are broken at random, not by their order."""
    products = unit_products(links, permutations, group)[:LARGEST, :LARGEST]
    rows, columns = (rng.permutation(len(products)) for _ in range(2))
    chosen = linear_sum_assignment(-products[rows][:, columns])[1]
    order = np.empty(len(products), dtype=np.int64)
    order[rows] = columns[chosen]
    return order


# Whether the order in which a file stores its units follows something.


def _follows(pair: Alignment, group: str, rng: np.random.Generator) -> str:
    """What the stored order of a group follows in A or in B; empty for nothing."""
    for side in ("a", "b"):
        incoming = [getattr(one, side) for one in pair.raw if one.dst == group]
        outgoing = [getattr(one, side).swapaxes(0, 1) for one in pair.raw if one.src == group]
        for what, values in _measures(incoming, outgoing).items():
            if _trend_p(values) < FOLLOWS:
                return f"{side.upper()} stores units by {what}"
        scaled = [
            getattr(one, side) if one.dst == group else getattr(one, side).swapaxes(0, 1)
            for one in pair.balanced
            if group in (one.src, one.dst)
        ]
        if _neighbours_p(scaled, rng) < FOLLOWS:
            return f"{side.upper()} stores units beside those that are like them"
    return ""


def _measures(incoming: Sequence[Floats], outgoing: Sequence[Floats]) -> dict[str, Floats]:
    norms = [
        np.sqrt(np.sum([(one**2).sum(axis=(1, 2)) for one in side], axis=0))
        for side in (incoming, outgoing)
        if side
    ]
    zeros = np.sum([(one == 0).sum(axis=(1, 2)) for one in (*incoming, *outgoing)], axis=0)
    found = dict(zip(("norm", "outgoing norm"), norms, strict=False))
    found["sparsity"] = np.asarray(zeros, dtype=np.float64)
    if len(norms) > 1:
        found["importance"] = norms[0] * norms[1]
    return found


def _trend_p(values: Floats) -> float:
    """Two-sided p value of a rank correlation with the place in the file."""
    from scipy.stats import spearmanr

    if np.ptp(values) == 0:
        return 1.0
    return float(spearmanr(values, np.arange(values.size)).pvalue)


def _neighbours_p(weights: Sequence[Floats], rng: np.random.Generator) -> float:
    """P value of "units stored side by side are likelier to be alike", over random orders."""
    from emergraph.analysis.statistics.permutation import share_as_extreme

    units = np.concatenate([one[:LARGEST].reshape(min(LARGEST, len(one)), -1) for one in weights], axis=1)
    likeness = units @ units.T
    orders = rng.permuted(np.tile(np.arange(len(units)), (DRAWS, 1)), axis=1)
    drawn = likeness[orders[:, :-1], orders[:, 1:]].sum(axis=1)
    return share_as_extreme(drawn, float(np.trace(likeness, offset=1)))


# The match test.


def agreement(pair: Alignment, *, seed: int = 0) -> float | None:
    """Return how far two matches of the same units agree, one from the inputs on and one from the outputs.

    The mean over units of the rank correlation between the two; None where both reach no group.
    """
    rng = np.random.default_rng(seed)
    forth = _chain(pair, rng, forward=True)
    back = _chain(pair, rng, forward=False)
    rhos, sizes = [], []
    for group in forth.keys() & back.keys():
        inverse = np.argsort(back[group])
        order = inverse[forth[group]]
        if order.size > 1:
            rhos.append(order_correlation(order))
            sizes.append(order.size)
    return float(np.average(rhos, weights=sizes)) if rhos else None


def _chain(pair: Alignment, rng: np.random.Generator, *, forward: bool) -> dict[str, Ints]:
    """Groups matched one after the other, by weights that lead in from those before, or out to them."""
    found: dict[str, Ints] = {}
    left = list(pair.groups)
    while left:
        for group in left if forward else left[::-1]:
            links = [one for one in pair.balanced if _leads(one, group, left, forward=forward)]
            if links and _units(pair.raw, group) <= LARGEST:
                found[group] = _match(links, found, group, rng)
                left.remove(group)
                break
        else:
            break
    return found


def _leads(link: Link, group: str, left: Sequence[str], *, forward: bool) -> bool:
    """Whether a link leads to units of a group from matched ones, by enough weights to tell them."""
    near, far = (link.dst, link.src) if forward else (link.src, link.dst)
    weights = link.a.shape[1 if forward else 0] * link.a.shape[2]
    return near == group and far not in left and weights >= FEWEST_WEIGHTS
