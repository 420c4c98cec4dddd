"""Relations between models as a page: the family tree, and all pairs that were compared."""

from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl

from emergraph.analysis.declaration import Caption
from emergraph.analysis.figures.figure import FigureData
from emergraph.analysis.lineage.analysis import relation_rows
from emergraph.analysis.lineage.figures import TREE
from emergraph.analysis.lineage.lineage import Lineage
from emergraph.analysis.lineage.views import finding, lineage_view
from emergraph.analysis.report.document import Page, Section, Table
from emergraph.version import __version__

ROWS = 500
"""Most rows of the table of unrelated pairs."""
RELATED = Caption(
    name="related",
    title="Related models",
    definition=(
        "Origin: what the other seems to be made of, where that can be told. P corrected: of the exact test "
        "for independent training, over all pairs. Cosine: of weights, units as stored; matched: in the best "
        "numbering. "
        "docs/lineage.md says what each kind means."
    ),
)
OTHERS = Caption(
    name="unrelated",
    title="Pairs that were compared and not found to be related",
    definition="Undecided: neither can be said. Pairs whose fingerprints are far apart are not listed.",
    folded=True,
)


def lineage_page(found: Lineage, *, notes: Sequence[str] = ()) -> Page:
    """Return relations as a page.

    Args:
        found: The relations.
        notes: What a reader should know besides.
    """
    rows = relation_rows(found)
    facts = lineage_view(found).facts
    tree = rows.filter(pl.col("parent").is_not_null()).select(
        pl.when(pl.col("parent") == pl.col("a")).then("b").otherwise("a").alias("child"),
        "parent",
        "kind",
        "family",
    )
    drawn = (FigureData(figure=TREE, frames={"rows": tree}, sql={}, runs=()),) if tree.height else ()
    shown = (
        "a",
        "b",
        "kind",
        "origin",
        "said_by",
        "p_corrected",
        "cosine",
        "matched",
        "match_score",
        "evidence",
    )
    related, others = (rows.filter(pl.col("related") == wanted).select(shown) for wanted in (True, False))
    tables = [
        Table(spec=spec, frame=frame.head(ROWS))
        for spec, frame in ((RELATED, related), (OTHERS, others))
        if frame.height
    ]
    summary = Section(
        id="summary",
        title="Finding",
        lead="",
        finding=finding(found, len(notes)),
        facts=facts,
        notes=(*notes, *found.notes),
    )
    section = Section(
        id="relations",
        title="Relations",
        lead="What each model is to the others, by its weights.",
        figures=drawn,
        tables=tuple(tables),
    )
    return Page(
        kind="lineage",
        title=f"Lineage of {len(found.names)} models",
        tool_version=__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        sections=(summary, section),
    )
