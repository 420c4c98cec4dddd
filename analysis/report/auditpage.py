"""An audit as a page: the sections, tables and looks of a report."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from emergraph.analysis.audit.kinds import Grade, Section
from emergraph.analysis.audit.result import AuditResult
from emergraph.analysis.audit.views import audit_facts, audit_notes, verdict
from emergraph.analysis.declaration import Caption
from emergraph.analysis.report.document import Page, Table
from emergraph.analysis.report.document import Section as PageSection
from emergraph.version import __version__

_GRADES = {
    Grade.PROVED: "Proved: follows from structure and weights, for every input",
    Grade.TESTED: "Tested: held on the inputs given, within the bound stated",
    Grade.SUSPECTED: "Suspected: a sign that a person should look at",
}


def audit_page(result: AuditResult) -> Page:
    """Return an audit as a page: the verdict, then each kind of finding, grade by grade."""
    summary = PageSection(
        id="summary",
        title="Finding",
        lead=verdict(result),
        facts=audit_facts(result),
        notes=tuple(audit_notes(result)),
    )
    sections = [_section(result, section) for section in Section]
    return Page(
        kind="audit",
        title=Path(result.path).name,
        tool_version=__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        sections=(summary, *(section for section in sections if section is not None)),
    )


def _section(result: AuditResult, section: Section) -> PageSection | None:
    own = [found for found in result.findings if found.kind.section is section]
    if not own:
        return None
    tables = []
    for grade, title in _GRADES.items():
        rows = [
            {
                "severity": str(found.severity),
                "about": str(found.about),
                "id": found.id,
                "finding": found.sentence,
                "what to do": found.action,
            }
            for found in own
            if found.grade is grade
        ]
        if rows:
            name = f"{section.name.lower()}-{grade}"
            caption = Caption(name=name, title=title, definition=f"{len(rows)} in this section.")
            tables.append(Table(spec=caption, frame=pl.DataFrame(rows)))
    return PageSection(
        id=section.name.lower(), title=str(section).capitalize(), lead=own[0].sentence, tables=tuple(tables)
    )
