"""`docs/findings.md`, made from the registry."""

from emergraph.exporters.onnxfile.registry import KINDS, Severity

_INTRODUCTION = """# Findings

What `emergraph check FILE` can find in an ONNX file, by its stable id. `export` and every other command that
reads the file refuse the errors with the exit code given here, and go on after warnings and infos.
"""

_HEADINGS = {
    Severity.ERROR: "## Errors: the file is refused\n\n| id | exit code | what it means |\n|---|---|---|",
    Severity.WARNING: "## Warnings: read all the same, with care\n\n| id | what it means |\n|---|---|",
    Severity.INFO: "## Infos: worth knowing\n\n| id | what it means |\n|---|---|",
}


def findings_page() -> str:
    """Return the page as Markdown, one table per severity, ids in alphabetical order."""
    lines = [_INTRODUCTION]
    for severity in reversed(Severity):
        lines.append(_HEADINGS[severity])
        for kind in sorted(KINDS.values(), key=lambda kind: kind.id):
            if kind.severity is severity and kind.id.startswith("ONNX-"):
                code = f" {int(kind.error.exit_code)} |" if kind.error is not None else ""
                lines.append(f"| `{kind.id}` |{code} {kind.meaning} |")
        lines.append("")
    return "\n".join(lines)
