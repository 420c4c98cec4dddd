"""What one model is to another, from their weights side by side."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from emergraph.analysis.comparison.aligned import Alignment
from emergraph.analysis.comparison.model import Model
from emergraph.analysis.comparison.unitmatching import UnitMatching, permuted

ROUNDING = 2e-6
"""1 - cosine of balanced weights that another type of number explains: half precision leaves 1e-7 to 1e-6."""
MORE_ROUNDED = 0.3
"""Share of the weights that must lie on a grid of 8 bits in one model and not in the other."""
MORE_ZEROS = 0.03
"""Share of the weights that must be zero in one model and not in the other."""
NEVER_ZERO = 0.98
"""Share of the zeros of the sparser model that the other must not have, for zeros that were made."""
NAMED = 3
"""Matrices without a counterpart that the evidence names."""


class Kind(StrEnum):
    """What one model is to another."""

    SAME = "same"
    """One file, bit by bit."""
    RE_ENCODED = "re-encoded"
    """The same network in another file: other names or types, other numbers for its units, other scales."""
    QUANTIZED = "quantized"
    PRUNED = "pruned"
    FINE_TUNED = "fine-tuned"
    """Trained on, or both from one start."""
    AVERAGED = "averaged"
    LAYERS = "layers added or cut"
    DISTILLED = "distilled"
    """Its outputs follow the other's, and its weights do not."""
    INDEPENDENT = "independent"
    UNDECIDED = "undecided"
    """Too few units for the level that was asked for, and no sign of a relation beside it."""


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How alike the weights of two models are."""

    cosine: float
    """Of balanced weights, unit by unit as they are stored."""
    matched: float
    """The same after the best numbering of hidden units that was found."""
    survivors: float
    """Of weights that are zero in neither, in that numbering."""
    equal: bool
    """Whether all numbers that have a counterpart are equal in that numbering."""
    zeros_a: float
    """Share of the compared weights that are zero in A only."""
    zeros_b: float


def likeness(pair: Alignment, matching: UnitMatching) -> Likeness:
    """Compare the weights of two models in the numbering in which they are closest."""
    orders = matching.permutations
    zeros_a = zeros_b = n = 0
    dots = np.zeros(3)
    equal = bool(pair.raw)
    for raw, even in zip(pair.raw, pair.balanced, strict=True):
        ours, scaled = permuted(raw, orders), permuted(even, orders)
        equal = equal and bool(np.array_equal(ours, raw.b))
        zeros_a += int(np.count_nonzero((ours == 0) & (raw.b != 0)))
        zeros_b += int(np.count_nonzero((ours != 0) & (raw.b == 0)))
        n += ours.size
        both = (ours != 0) & (raw.b != 0)
        x, y = scaled[both], even.b[both]
        dots += (x @ y, x @ x, y @ y)
    return Likeness(
        cosine=matching.similarity_before,
        matched=matching.similarity_after,
        survivors=float(dots[0] / np.sqrt(dots[1] * dots[2])) if dots[1] and dots[2] else 0.0,
        equal=equal,
        zeros_a=zeros_a / max(1, n),
        zeros_b=zeros_b / max(1, n),
    )


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The kind of a relation, with its evidence."""

    kind: Kind
    origin: str
    """Which of the two the other was made of: a, b, or nothing where it cannot be told. A heuristic."""
    evidence: str


def kind_of(
    a: Model, b: Model, pair: Alignment, alike: Likeness, *, renumbered: int, cut: tuple[str, str] = ("", "")
) -> Judged:
    """Say what kind of relation two related models have.

    Args:
        a: The first model.
        b: The second one.
        pair: Their weights side by side.
        alike: How alike those are.
        renumbered: Units that have another number in B.
        cut: Which of the two was the larger one before units were left out that the other lacks, and how
            many those are.
    """
    moved = f"; {renumbered} units have other numbers" if renumbered else ""
    larger, left_out = cut
    moved += f"; {left_out}" if left_out else ""
    left = [weight.name for weight in (*pair.only_a, *pair.only_b)]
    if a.graph["sha256"] == b.graph["sha256"]:
        return Judged(kind=Kind.SAME, origin="", evidence="one file, bit by bit")
    if left:
        listed = ", ".join(left[:NAMED]) + (", ..." if len(left) > NAMED else "")
        moved = (
            f"; {len(pair.only_a)} matrices are only in A and {len(pair.only_b)} only in B: {listed}{moved}"
        )
    elif alike.equal and not larger:
        return Judged(kind=Kind.RE_ENCODED, origin="", evidence=f"the same numbers in another file{moved}")
    if (found := _rounded(a, b, alike, moved) or _sparser(alike, moved)) is not None:
        return found
    if larger or left:
        return _of_other_shape(a, b, pair, alike, cut, moved)
    if 1 - alike.matched <= ROUNDING:
        how = f"equal up to the scale of units and rounding (1 - cosine {1 - alike.matched:.1e}){moved}"
        return Judged(kind=Kind.RE_ENCODED, origin="", evidence=how)
    return Judged(
        kind=Kind.FINE_TUNED,
        origin="",
        evidence=f"cosine of weights {alike.matched:.4g}, other numbers in all matrices{moved}",
    )


def _of_other_shape(
    a: Model, b: Model, pair: Alignment, alike: Likeness, cut: tuple[str, str], moved: str
) -> Judged:
    larger, left_out = cut
    if larger:
        how = f"{left_out}; cosine of the weights of the others {alike.matched:.4g}"
        return Judged(kind=Kind.PRUNED, origin=larger, evidence=how)
    how = f"{len(pair.names)} matrices have a counterpart (cosine {alike.matched:.4g}){moved}"
    return Judged(kind=Kind.LAYERS, origin="a" if a.size > b.size else "b", evidence=how)


def _rounded(a: Model, b: Model, alike: Likeness, moved: str) -> Judged | None:
    shares = a.share_rounded, b.share_rounded
    if abs(shares[0] - shares[1]) < MORE_ROUNDED:
        return None
    coarse = "A" if shares[0] > shares[1] else "B"
    how = (
        f"{100 * max(shares):.0f} % of the weights of {coarse} lie on a grid of at most 8 bits, "
        f"{100 * min(shares):.0f} % of the other's; cosine {alike.matched:.4g}{moved}"
    )
    return Judged(kind=Kind.QUANTIZED, origin="b" if coarse == "A" else "a", evidence=how)


def _sparser(alike: Likeness, moved: str) -> Judged | None:
    a, b = alike.zeros_a, alike.zeros_b
    if max(a, b) < MORE_ZEROS or max(a, b) < NEVER_ZERO * (a + b):
        return None
    sparse = "A" if a > b else "B"
    how = (
        f"{100 * max(a, b):.3g} % of the weights are zero in {sparse} only; cosine of the others "
        f"{alike.survivors:.4g}{moved}"
    )
    return Judged(kind=Kind.PRUNED, origin="b" if sparse == "A" else "a", evidence=how)
