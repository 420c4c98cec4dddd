"""What is shown of relations between models."""

from collections import Counter
from collections.abc import Sequence

import polars as pl

from emergraph.analysis.lineage.analysis import relation_rows
from emergraph.analysis.lineage.kinds import Kind
from emergraph.analysis.lineage.lineage import Family, Lineage
from emergraph.analysis.lineage.pairs import Relation
from emergraph.analysis.view import BRIEF_ROWS, View

NAMED = 4
"""Relations that the finding names."""
COLUMNS = ("a", "b", "kind", "said_by", "p_corrected", "cosine", "matched", "evidence")
_VERBS = {
    Kind.SAME: "{child} is {parent}, bit by bit",
    Kind.RE_ENCODED: "{child} is {parent} in another encoding",
    Kind.QUANTIZED: "{child} is {parent} quantized",
    Kind.PRUNED: "{child} is {parent} pruned",
    Kind.FINE_TUNED: "{child} and {parent} are trained on from one start",
    Kind.LAYERS: "{child} is {parent} with layers added or cut",
    Kind.DISTILLED: "outputs of {child} and {parent} follow each other, and no weights do (distilled)",
}


def finding(found: Lineage, left_out: int = 0) -> str:
    """Return what was found, in a sentence or a few.

    Args:
        found: The relations.
        left_out: Files that could not be read.
    """
    lost = f" {left_out} more could not be read." if left_out else ""
    n = len(found.names)
    if not found.families:
        open_ones = sum(one.judged.kind is Kind.UNDECIDED for one in found.relations)
        more = f"; {open_ones} pairs are undecided" if open_ones else ""
        compared = f"{len(found.relations)} of {found.n_pairs} pairs compared"
        return f"Nothing is related among {n} models ({compared}){more}.{lost}"
    many = f"{len(found.families)} families" if len(found.families) > 1 else "1 family"
    parts = [f"{many} among {n} models"]
    told = _told(found)
    parts += told[:NAMED]
    if len(told) > NAMED:
        parts.append(f"{len(told) - NAMED} more relations")
    related = {member for one in found.families for member in one.members}
    undecided = sum(one.judged.kind is Kind.UNDECIDED for one in found.relations)
    if undecided:
        parts.append(f"{undecided} pairs are undecided")
    elif len(related) < n:
        parts.append("nothing else is related")
    return "; ".join(parts) + f".{lost}"


def _told(found: Lineage) -> list[str]:
    """A sentence for each relation of the family trees."""
    pairs = {frozenset((one.a, one.b)): one for one in found.relations}
    sentences: dict[str, None] = {}
    for family in found.families:
        for child, parent in family.parents.items():
            one = pairs[frozenset((child, parent))]
            if one.judged.kind is Kind.AVERAGED:
                sentences[_average(found, one)] = None
                continue
            if one.judged.origin == ("a" if one.a == child else "b"):  # the tree is the other way round
                child, parent = parent, child  # noqa: PLW2901
            named = {"child": found.names[child], "parent": found.names[parent]}
            sentences[_VERBS[one.judged.kind].format(**named)] = None
    return list(sentences)


def _average(found: Lineage, pair: Relation) -> str:
    child = pair.b if pair.judged.origin == "a" else pair.a
    parents = [
        found.names[other]
        for one in found.relations
        if one.judged.kind is Kind.AVERAGED and child in (one.a, one.b)
        for other in (one.a if one.b == child else one.b,)
        if one.judged.origin == ("a" if other == one.a else "b")
    ]
    return f"{found.names[child]} is an average of {' and '.join(parents)}"


def family_trees(found: Lineage) -> pl.DataFrame:
    """Return the families as indented lines: family, tree, kind (of the relation to the one above)."""
    kinds = {frozenset((one.a, one.b)): one.judged.kind.value for one in found.relations}
    rows: list[dict[str, object]] = []

    def below(place: int, family: Family, member: int, above: int | None, depth: int) -> None:
        kind = "" if above is None else kinds[frozenset((member, above))]
        name = f"{'   ' * max(0, depth - 1)}{'`- ' if depth else ''}{found.names[member]}"
        rows.append({"family": place, "tree": name, "kind": kind})
        for child, parent in family.parents.items():
            if parent == member:
                below(place, family, child, member, depth + 1)

    for place, family in enumerate(found.families, 1):
        below(place, family, family.root, None, 0)
    return pl.DataFrame(rows, schema={"family": pl.Int64, "tree": pl.String, "kind": pl.String})


def lineage_view(found: Lineage, run: int | None = None, *, notes: Sequence[str] = ()) -> View:
    """Return the relations as a view."""
    rows, trees = relation_rows(found), family_trees(found)
    said = finding(found, len(notes))
    counts = Counter(one.judged.kind.value for one in found.relations)
    facts: dict[str, object] = {
        "models": len(found.names),
        "pairs": f"{found.n_pairs:,}, of which {len(found.relations):,} were compared",
        "level": f"corrected p < {found.level:g}",
        "kinds": ", ".join(f"{n} {kind}" for kind, n in counts.most_common()),
        "fingerprint": f"at most {found.fingerprint_bytes:,} bytes per model",
    }
    if run is not None:
        facts["run"] = run
    short = rows.filter(pl.col("related")).select(COLUMNS[:-1])
    return View(
        finding=said,
        rows=rows,
        details=trees if trees.height else None,
        brief=[short.head(BRIEF_ROWS), trees.head(5 * BRIEF_ROWS)],
        facts=facts,
        document={"finding": said, **found.to_dict()},
        notes=(*notes, *found.notes),
        columns=COLUMNS,
    )


def to_dict(found: Lineage) -> dict[str, object]:
    """Return plain values, for JSON."""
    return {
        "models": list(found.names),
        "n_pairs": found.n_pairs,
        "level": found.level,
        "relations": relation_rows(found).to_dicts(),
        "families": [
            {
                "members": [found.names[one] for one in family.members],
                "root": found.names[family.root],
                "parents": {found.names[child]: found.names[up] for child, up in family.parents.items()},
            }
            for family in found.families
        ],
    }
