"""Two models compared in full: both tests, likeness, and what follows."""

from dataclasses import dataclass, replace
from math import exp, log

from emergraph.analysis.comparison.aligned import align
from emergraph.analysis.comparison.cutting import on_common_units
from emergraph.analysis.comparison.model import Model
from emergraph.analysis.comparison.unitmatching import match_units
from emergraph.analysis.lineage.independence import OrderTest, agreement, stored_order_test
from emergraph.analysis.lineage.kinds import Judged, Kind, Likeness, kind_of, likeness
from emergraph.analysis.statistics.permutation import SIGNIFICANT

SETTLED = 0.9
"""Cosine of weights as they are stored from which no other numbering of units is sought."""
COVERED = 0.5
"""Share of the smaller model's weights that must have a counterpart for the two to be compared."""
ALIKE = 0.5
"""Cosine of weights as they are stored from which two models are related where no test can tell."""
AGREES = 0.9
"""Match score from which two models are related whose units are numbered otherwise."""
MATCHED = 0.8
"""Cosine after matching that such models have besides."""
RENUMBERED = 0.95
"""Cosine after matching that alone is enough."""


@dataclass(frozen=True, kw_only=True)
class Relation:
    """What two models are to each other."""

    a: int
    """Number of the first model."""
    b: int
    test: OrderTest | None
    """The exact test; None where too little has a counterpart."""
    alike: Likeness | None
    share: float
    """Of the smaller model's weights that have a counterpart."""
    score: float | None
    """Agreement of two matches of the same units; None where no group is reached from both ends, or units are
    alike as they are stored."""
    judged: Judged
    """What they are to each other."""
    alternative: Judged | None = None
    """What they would be, if they were related."""
    related: bool = False
    by: str = ""
    """What says so: exact test, equal numbers, likeness, match score, family (through others) or outputs."""
    log_p: float | None = None
    """Logarithm of the corrected p value of the exact test."""
    match_p: float | None = None
    """Share of independent pairs of the architecture whose score is as high; None: too few of them."""
    cut: bool = False
    """Whether units of one were left out that the other may lack."""
    test_says: str = ""
    """decided, undecidable at the level, refused, or none."""
    outputs: str = ""
    """follow, unclear, no sign or undecided; nothing where the two are related by weights or were not run."""
    output_score: float | None = None
    """Correlation of outputs given those of other networks of the task."""

    @property
    def p(self) -> float | None:
        """Of the exact test, before correction."""
        return None if self.test is None or self.test.log_p is None else _number(self.test.log_p)

    @property
    def p_corrected(self) -> float | None:
        """The same over all pairs."""
        return None if self.log_p is None else _number(self.log_p)


def _number(log_p: float) -> float:
    return exp(max(log_p, log(1e-300)))


def compared(numbers: tuple[int, int], a: Model, b: Model, *, seed: int) -> Relation:
    """Compare two models.

    Args:
        numbers: Their numbers.
        a: The first.
        b: The second.
        seed: Of the searches.
    """
    a, b, cut = on_common_units(a, b, seed=seed)
    pair = align(a, b)
    if pair.share < COVERED:
        nothing = Judged(
            kind=Kind.INDEPENDENT,
            origin="",
            evidence=f"{100 * pair.share:.0f} % of the smaller one's weights have a counterpart in the other",
        )
        return Relation(
            a=numbers[0], b=numbers[1], test=None, alike=None, share=pair.share, score=None, judged=nothing
        )
    matching = match_units(pair.balanced, pair.groups, seed=seed, restarts=0)
    searched = matching.similarity_before < SETTLED
    if searched:
        matching = match_units(pair.balanced, pair.groups, seed=seed)
    alike = likeness(pair, matching)
    return Relation(
        a=numbers[0],
        b=numbers[1],
        test=stored_order_test(pair, seed=seed),
        alike=alike,
        share=pair.share,
        score=agreement(pair, seed=seed) if searched else None,
        judged=kind_of(a, b, pair, alike, renumbered=matching.n_moved, cut=cut),
        cut=bool(cut[0]),
    )


def decided(found: Relation, *, n_pairs: int, level: float) -> Relation:
    """Say whether two compared models are related.

    Args:
        found: The pair.
        n_pairs: All pairs that there are, compared or not.
        level: Corrected p value below which they are.
    """
    if found.alike is None or found.test is None:
        return replace(found, test_says="none")
    test, alike = found.test, found.alike
    log_p = None if test.log_p is None else min(0.0, test.log_p + log(n_pairs))
    says = "decided"
    if test.log_p is None or test.least is None:
        says = "refused" if test.refused else "none"
    elif test.least + log(n_pairs) >= log(level):
        says = "undecidable"
    by = ""
    if found.judged.kind is Kind.SAME:
        by = "equal numbers"
    elif log_p is not None and log_p < log(level):
        by = "exact test"
    elif says != "decided" and alike.cosine >= ALIKE and not found.cut:
        by = "likeness"
    elif alike.matched >= RENUMBERED or (
        (found.score or 0.0) >= AGREES and alike.matched >= MATCHED and not found.cut
    ):  # units that were chosen for their likeness are alike and agree
        by = "match score"
    judged = found.judged if by else _unrelated(found, log_p, says)
    return replace(
        found,
        related=bool(by),
        by=by,
        log_p=log_p,
        test_says=says,
        judged=judged,
        alternative=None if by else found.judged,
    )


def _unrelated(found: Relation, log_p: float | None, says: str) -> Judged:
    assert found.alike is not None  # noqa: S101 - of pairs that were compared
    cosine = f"cosine of weights {found.alike.cosine:.2g}"
    if says == "decided" and log_p is not None and log_p >= log(SIGNIFICANT):
        return Judged(kind=Kind.INDEPENDENT, origin="", evidence=f"{cosine}, units in no common order")
    why = {
        "decided": "the exact test is below 0.05, and not below the level",
        "undecidable": "too few units for the level",
    }.get(says, "; ".join(found.test.refused) if found.test is not None else "")
    return Judged(kind=Kind.UNDECIDED, origin="", evidence=f"{cosine}; {why}")
