"""The table of findings in `docs/audit.md`, made from the table of kinds."""

import sys
from pathlib import Path

from emergraph.analysis.audit.kinds import AUDIT_KINDS, AuditKind, Section

BEGIN, END = "<!-- findings: made by `make docs` -->", "<!-- end of findings -->"


def findings_table() -> str:
    """Return the table as Markdown, a part for each section."""
    parts = []
    for section in Section:
        kinds = [kind for kind in AUDIT_KINDS.values() if kind.section is section]
        if kinds:
            parts.append(f"**{str(section).capitalize()}**\n\n{_HEAD}\n" + "\n".join(map(_row, kinds)))
    return "\n\n".join(parts)


_HEAD = "| id | severity | grade | about | what it means | what to do |\n|---|---|---|---|---|---|"


def _row(kind: AuditKind) -> str:
    cells = [f"`{kind.id}`", kind.severity, kind.grade, kind.about, kind.meaning, kind.action]
    return f"| {' | '.join(map(str, cells))} |"


def with_table(page: str) -> str:
    """Return a page with the table between its marks made again."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{findings_table()}\n\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text()))
