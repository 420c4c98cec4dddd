"""`docs/findings.md`, made from the registries of ONNX files and of weight files."""

from collections.abc import Iterable, Iterator

from emergraph.exporters.onnxfile.findings import FILE_KINDS, KINDS, FindingKind, Severity
from emergraph.exporters.weightfiles.registry import WEIGHT_KINDS

_INTRODUCTION = """# Findings

What can be found in a third-party model file, by stable id. `emergraph check FILE` lists the
findings of a file. Every command that reads the file refuses errors with the exit code given here, and goes
on after warnings and infos.
"""

_HEADINGS = {
    Severity.ERROR: "### Errors: the file is refused\n\n| id | exit code | what it means |\n|---|---|---|",
    Severity.WARNING: "### Warnings: read all the same, with care\n\n| id | what it means |\n|---|---|",
    Severity.INFO: "### Infos: worth knowing\n\n| id | what it means |\n|---|---|",
}


def findings_page() -> str:
    """Return the page as Markdown: a table per kind of file and severity, ids in alphabetical order."""
    onnx_kinds = [kind for id_, kind in KINDS.items() if id_ not in WEIGHT_KINDS.keys() | FILE_KINDS.keys()]
    lines = [_INTRODUCTION, "## Any file or folder\n", *_tables(FILE_KINDS.values())]
    lines += ["## ONNX files\n", *_tables(onnx_kinds)]
    lines += ["## Weight files\n", *_tables(WEIGHT_KINDS.values())]
    return "\n".join(lines)


def _tables(kinds: Iterable[FindingKind]) -> Iterator[str]:
    in_order = sorted(kinds, key=lambda kind: kind.id)
    for severity in reversed(Severity):
        chosen = [kind for kind in in_order if kind.severity is severity]
        if not chosen:
            continue
        yield _HEADINGS[severity]
        for kind in chosen:
            code = f" {int(kind.error.exit_code)} |" if kind.error is not None else ""
            yield f"| `{kind.id}` |{code} {kind.meaning} |"
        yield ""
