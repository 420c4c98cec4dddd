"""`emergraph lineage`: which models are the same, derived from one another, or independent."""

from pathlib import Path
from typing import TYPE_CHECKING

from emergraph.analysis.declaration import Analysis, Subject
from emergraph.analysis.lineage.options import LineageOptions
from emergraph.graphstore.results import Column, ResultTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from emergraph.analysis.figures.figure import Figure
    from emergraph.analysis.lineage.lineage import Lineage

RELATIONS = ResultTable(
    "relations",
    "One row per pair of models that was compared; related ones first.",
    (
        Column("a", "VARCHAR", "Name of the first model."),
        Column("b", "VARCHAR", "Name of the second one."),
        Column("kind", "VARCHAR", "What they are to each other; docs/lineage.md lists the kinds."),
        Column(
            "origin", "VARCHAR", "Which of the two the other seems to be made of; NULL where that is open."
        ),
        Column("related", "BOOLEAN", "Whether they are said to be related."),
        Column(
            "said_by",
            "VARCHAR",
            "What says so: exact test, equal numbers, likeness, match score, family or outputs.",
        ),
        Column("test", "VARCHAR", "The exact test: decided, undecidable at the level, refused, or none."),
        Column("p", "DOUBLE", "One-sided p value of the exact test for independent training; NULL for none."),
        Column("p_corrected", "DOUBLE", "The same times the number of all pairs, at most 1."),
        Column("rho", "DOUBLE", "Mean rank correlation of matched units with the identity, in [-1, 1]."),
        Column("n_units", "INTEGER", "Units that the exact test used."),
        Column("cosine", "DOUBLE", "Of balanced weights, as they are stored, in [-1, 1]."),
        Column("matched", "DOUBLE", "The same after the best numbering of hidden units that was found."),
        Column(
            "match_score",
            "DOUBLE",
            "Agreement of two matches of units, in [-1, 1]; NULL above cosine 0.9.",
        ),
        Column(
            "match_p", "DOUBLE", "Share of unrelated pairs with such a score; NULL for under 300 of them."
        ),
        Column("share", "DOUBLE", "Share of the smaller model's weights that have a counterpart, in [0, 1]."),
        Column(
            "outputs",
            "VARCHAR",
            "Whether outputs follow each other: follow, unclear, no sign, undecided; NULL: not looked at.",
        ),
        Column(
            "output_score",
            "DOUBLE",
            "Correlation of outputs given those of other networks of the task, in [-1, 1].",
        ),
        Column("family", "INTEGER", "Number of the family, from 1; NULL for unrelated models."),
        Column(
            "parent", "VARCHAR", "Which of the two is above the other in the family tree; NULL outside it."
        ),
        Column("evidence", "VARCHAR", "What the kind is said by."),
    ),
)


def _figures() -> "Sequence[Figure]":
    from emergraph.analysis.lineage.figures import FIGURES

    return FIGURES


LINEAGE = Analysis(
    name="lineage",
    summary="Find which models are the same, derived from one another, or independent.",
    of=Subject.MODELS,
    options=(LineageOptions,),
    tables=(RELATIONS,),
    figures=_figures,
)


def relation_rows(found: "Lineage") -> "pl.DataFrame":
    """Return the relations as rows of the result table."""
    import polars as pl

    family = {member: place for place, one in enumerate(found.families, 1) for member in one.members}
    above = {frozenset(pair): pair[1] for one in found.families for pair in one.parents.items()}
    rows = []
    for one in found.relations:
        sides = {"a": found.names[one.a], "b": found.names[one.b]}
        parent = above.get(frozenset((one.a, one.b))) if one.related else None
        rows.append(
            {
                **sides,
                "kind": one.judged.kind.value,
                "origin": sides.get(one.judged.origin),
                "related": one.related,
                "said_by": one.by or None,
                "test": one.test_says,
                "p": one.p,
                "p_corrected": one.p_corrected,
                "rho": None if one.test is None else one.test.rho,
                "n_units": None if one.test is None else one.test.n_units,
                "cosine": None if one.alike is None else one.alike.cosine,
                "matched": None if one.alike is None else one.alike.matched,
                "match_score": one.score,
                "match_p": one.match_p,
                "share": one.share,
                "outputs": one.outputs or None,
                "output_score": one.output_score,
                "family": family.get(one.a) if one.related else None,
                "parent": None if parent is None else found.names[parent],
                "evidence": one.judged.evidence,
            }
        )
    return pl.DataFrame(rows, schema=RELATIONS.schema)


def save_lineage(
    path: str | Path,
    found: "Lineage",
    options: LineageOptions,
    *,
    models: "Sequence[str]",
    duration: float,
    any_name: bool = False,
) -> int:
    """Keep relations in a store, which is made when missing; return the id of the run.

    Args:
        path: The store.
        found: The relations.
        options: How they were sought.
        models: What was named, without folders.
        duration: Seconds.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
    """
    from emergraph.graphstore.store import open_store

    with open_store(path, mode="create", any_name=any_name) as store:
        return store.record_run(
            None,
            LINEAGE.name,
            {**options.kept(), "models": list(models), "n_pairs": found.n_pairs},
            seed=options.seed,
            duration=duration,
            result_tables={RELATIONS.name: relation_rows(found)},
        )
