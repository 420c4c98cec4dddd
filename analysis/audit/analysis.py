"""`emergraph audit`: what is in a model file, what is wrong with it, and what may go."""

from typing import TYPE_CHECKING, Any

from emergraph.analysis.audit.options import AuditOptions, AuditUse
from emergraph.analysis.declaration import Analysis, Headline, Query, SectionSpec, Subject, TableSpec
from emergraph.exporters.runtime.inputwords import InputOptions
from emergraph.graphstore.results import Column, ResultTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from emergraph.analysis.audit.result import AuditResult

FINDINGS = ResultTable(
    "audit_findings",
    "One row per finding of an audit, the worst first.",
    (
        Column("place", "INTEGER", "From 1, in the order of severity, then of how sure it is."),
        Column("finding", "VARCHAR", "Id of its kind; docs/audit.md lists them."),
        Column("severity", "VARCHAR", "error, warning or info."),
        Column("grade", "VARCHAR", "proved, tested or suspected."),
        Column("about", "VARCHAR", "network, or the encoding of this file."),
        Column("sentence", "VARCHAR", "What was found."),
        Column("action", "VARCHAR", "What to do about it."),
        Column("layers", "VARCHAR[]", "Names of the layers whose units it is about."),
        Column("n_units", "BIGINT", "How many units it is about."),
        Column("fingerprint", "VARCHAR", "What the same finding has in another export of the network."),
    ),
)
UNITS = ResultTable(
    "audit_units",
    "One row per unit that a finding of an audit is about.",
    (
        Column("place", "INTEGER", "Of the finding: audit_findings.place."),
        Column("layer", "VARCHAR", "Name of the unit's layer: layers.name."),
        Column("position", "INTEGER", "Position within the layer: units.position."),
    ),
)
SECTION = SectionSpec(
    id="audit",
    title="Findings",
    lead="What is wrong with the model, what may go, and what is worth knowing. Proved: for every input; "
    "tested: on the inputs that the model ran on; suspected: for a person to look at.",
    tables=(
        TableSpec(
            name="audit",
            title="All findings",
            folded=True,
            definition="The worst first. docs/audit.md says what each kind means.",
            query=Query(
                name="rows",
                table="audit_findings",
                sql="""
SELECT severity, grade, about, sentence, action, finding AS id FROM audit_findings
WHERE run = {run} ORDER BY place""",
            ),
        ),
    ),
)


def _headline(rows: "Sequence[tuple[Any, ...]]", _parameters: "Mapping[str, Any]") -> str | None:
    if not rows:
        return None
    n, severity, sentence = rows[0]
    return f"{n} finding{'s' * (n > 1)}; the worst ({severity}): {str(sentence).rstrip('.')}"


AUDIT = Analysis(
    name="audit",
    summary="Say what is in a model, what is wrong with it and what may go; exit with 1 at a warning or an "
    "error.",
    of=Subject.MODEL,
    options=(InputOptions, AuditOptions),
    looks=(AuditUse,),
    tables=(FINDINGS, UNITS),
    section=SECTION,
    headline=Headline(
        query=Query(
            name="audit",
            table="audit_findings",
            sql="""
SELECT count(*) OVER (), severity, sentence FROM audit_findings WHERE run = {run} ORDER BY place LIMIT 1""",
        ),
        text=_headline,
    ),
)


def audit_rows(result: "AuditResult") -> "dict[str, pl.DataFrame]":
    """Return the findings, and the units that they are about, as rows of the result tables."""
    import polars as pl

    rows = [
        {
            "place": place,
            "finding": found.id,
            "severity": str(found.severity),
            "grade": str(found.grade),
            "about": str(found.about),
            "sentence": found.sentence,
            "action": found.action,
            "layers": list(found.units),
            "n_units": sum(len(units) for units in found.units.values()),
            "fingerprint": found.fingerprint,
        }
        for place, found in enumerate(result.findings, 1)
    ]
    units = [
        (place, layer, position)
        for place, found in enumerate(result.findings, 1)
        for layer, positions in found.units.items()
        for position in positions
    ]
    return {
        FINDINGS.name: pl.DataFrame(rows, schema=FINDINGS.schema),
        UNITS.name: pl.DataFrame(units, schema=UNITS.schema, orient="row"),
    }
