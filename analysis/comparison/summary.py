"""A difference in words: its verdict, single values and notes."""

from collections.abc import Mapping

import polars as pl

from emergraph.analysis.comparison.difference import Difference, Verdict

MEANING: Mapping[Verdict, str] = {
    Verdict.EQUAL: "A and B are equal: the same numbers, to the last bit, on as many connections.",
    Verdict.REORDERED: "A and B hold the same numbers, some of their tensors in another order.",
    Verdict.SAME_WEIGHTS: "A and B hold the same numbers, on more or fewer connections.",
    Verdict.CHANGED: "Every weight tensor of A has a counterpart in B, and some numbers differ.",
    Verdict.DIFFERENT: "Some weight tensors of A have no counterpart in B, or the other way round.",
}
NAMED = 5
"""Tensors that a note names one by one."""


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
        "layers": ", ".join(f"{n} {state}" for state, n in sorted(states.items())),
        "weight tensors": f"{found.tensors.height} matched, {changed_tensors(found).height} of them changed; "
        f"{len(found.only_a)} only in A, {len(found.only_b)} only in B",
    }
    if found.relative_change is not None:
        facts["change of weights"] = f"{100 * found.relative_change:.4g} % (rms of B - A over rms of A)"
        facts["sign flips"] = found.sign_flips
        facts["cosine of weights"] = found.cosine
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
