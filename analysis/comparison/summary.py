"""A difference in words: its verdict, single values and notes."""

from collections.abc import Mapping
from enum import StrEnum

import polars as pl

from emergraph.analysis.comparison.difference import Difference, Verdict

MEANING: Mapping[Verdict, str] = {
    Verdict.EQUAL: "A and B are equal: the same numbers, to the last bit, on as many connections.",
    Verdict.REORDERED: "A and B hold the same numbers, some of their tensors in another order.",
    Verdict.SAME_WEIGHTS: "A and B hold the same numbers, on more or fewer connections.",
    Verdict.CHANGED: "Every weight tensor of A has a counterpart in B, and some numbers differ.",
    Verdict.DIFFERENT: "Some weight tensors of A have no counterpart in B, or the other way round.",
}
DERIVED = 0.5
"""Cosine of all compared weights from which one network is said to come from the other: fine-tuning, pruning
of up to 90 % by size and quantization stay above it, other trainings of an architecture below `UNRELATED`."""
UNRELATED = 0.2
"""Cosine below which nothing speaks for a relation, unless units were renumbered."""
RENUMBERED = 0.95
"""Cosine after permuting hidden units from which B is A with other numbers for its units."""
CUT = 0.8
"""Cosine of the weights of the units that both have from which one is the other without some of its units.
They were chosen for their likeness, so that those of small unrelated networks reach more than `DERIVED`."""
COVERED = 0.5
"""Share of the parameters that must have a counterpart for two networks to have one architecture."""
NAMED = 5
"""Tensors that a note names one by one."""


class Relation(StrEnum):
    """How two networks are related, as far as their weights tell."""

    SAME = "same weights"
    DERIVED = "derived"
    """One comes from the other, or both from a third."""
    UNDECIDED = "undecided"
    UNRELATED = "same architecture, unrelated weights"
    OTHER = "different networks"


def relation(found: Difference) -> Relation:
    """Return how two networks are related.

    It goes by the cosine of all compared weights, unit by unit as they are numbered. What a search for a
    better numbering finds (`Difference.matching`) counts only where it is nearly 1: independent networks that
    learnt the same reach 0.7.
    """
    if found.verdict in (Verdict.EQUAL, Verdict.REORDERED, Verdict.SAME_WEIGHTS):
        return Relation.SAME
    if _is_cut(found):
        return Relation.DERIVED
    if found.cosine is None or _covered(found) < COVERED:
        return Relation.OTHER
    if found.cosine >= DERIVED or _renumbered(found):
        return Relation.DERIVED
    return Relation.UNRELATED if found.cosine < UNRELATED else Relation.UNDECIDED


def _renumbered(found: Difference) -> bool:
    return found.matching is not None and found.matching.similarity_after >= RENUMBERED


def _is_cut(found: Difference) -> bool:
    return found.cut_cosine is not None and found.cut_cosine >= CUT


def _covered(found: Difference) -> float:
    """The share of A's parameters in layers that B has, too."""
    layers = found.layers.select("state", "parameters_a").drop_nulls()
    whole = float(layers["parameters_a"].sum())
    there = float(layers.filter(pl.col("state").is_in(["same", "changed"]))["parameters_a"].sum())
    return there / whole if whole else 0.0


def finding(found: Difference) -> str:
    """Return what a difference says, in a sentence."""
    match relation(found):
        case Relation.SAME:
            return MEANING[found.verdict]
        case Relation.DERIVED if _is_cut(found):
            return (
                f"One is derived from the other: {found.cut_out} (cosine of the weights of the others "
                f"{found.cut_cosine:.4g})."
            )
        case Relation.DERIVED:
            n = changed_tensors(found).height
            return (
                f"One is derived from the other: {n} of {found.tensors.height} matched tensors changed, by "
                f"{100 * (found.relative_change or 0):.3g} % of their size (cosine {found.cosine:.3g}, "
                f"{found.sign_flips:,} sign flips)."
            )
        case Relation.UNRELATED:
            return (
                f"Same architecture, unrelated weights (cosine {found.cosine:.2g}): trained from "
                "another start, or far away from it."
            )
        case Relation.UNDECIDED:
            return f"Undecided whether one comes from the other: the cosine of weights is {found.cosine:.2g}."
        case Relation.OTHER:
            return (
                f"Different networks: {len(found.only_a)} weight tensors only in A, {len(found.only_b)} only "
                f"in B, {found.tensors.height} with a counterpart."
            )


def changed_tensors(found: Difference) -> pl.DataFrame:
    """Return the rows of the tensors that changed."""
    return found.tensors.filter(pl.col("max_change") > 0)


def difference_facts(found: Difference) -> dict[str, object]:
    """Return the single values of a difference by what a person calls them."""
    states = dict(found.layers["state"].value_counts().iter_rows())
    facts: dict[str, object] = {
        "A": found.a,
        "B": found.b,
        "verdict": found.verdict.value,
        "relation": relation(found).value,
        "layers": ", ".join(f"{n} {state}" for state, n in sorted(states.items())),
        "weight tensors": f"{found.tensors.height} matched, {changed_tensors(found).height} of them changed; "
        f"{len(found.only_a)} only in A, {len(found.only_b)} only in B",
    }
    if found.relative_change is not None:
        facts["change of weights"] = f"{100 * found.relative_change:.4g} % (rms of B - A over rms of A)"
        facts["sign flips"] = found.sign_flips
        facts["cosine of weights"] = found.cosine
    if found.cut_out:
        facts["units that only one has"] = f"{found.cut_out}, if it is the other: cosine {found.cut_cosine}"
    if found.matching is not None:
        matched = found.matching
        facts["units that stand for others"] = (
            f"{matched.n_moved}; cosine {matched.similarity_before:.4g} before, "
            f"{matched.similarity_after:.4g} after permuting hidden units"
        )
    return facts


def difference_notes(found: Difference) -> list[str]:
    """Return what a difference leaves out: what one side lacks, has no scales, or is not finite; plug-ins."""
    return [
        *found.problems,
        *(
            f"{len(names)} tensors {what}: {', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''}"
            for names, what in (
                (found.only_a, "only in A"),
                (found.only_b, "only in B"),
                (found.not_compared, "cannot be compared, for their scales are not known"),
                (found.not_finite, "hold values that are not finite, which are left out of what is measured"),
            )
            if names
        ),
    ]
