"""`emergraph check`: what a user of a model file should know, without exporting it."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.analysis.view import View
from emergraph.cli.app import command
from emergraph.cli.links import Links, with_command
from emergraph.cli.output import Output, emit
from emergraph.errors import ExitCode
from emergraph.options import FileRole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@command(
    examples="""
    emergraph check model.onnx
    emergraph check weights.pt
    emergraph check cache/models--org--net/snapshots/main --root cache/models--org--net
    emergraph check model.onnx --format json --quiet || echo findings
    """
)
def check(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Model file, weight file, or folder."),
        FileRole.MODEL,
    ],
    *,
    links: Links,
    plugin: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Format plug-in that reads the file, where nothing built in does."),
    ] = None,
    output: Output,
) -> None:
    """List what a user of a model file should know; exit with 1 when there is a warning or an error.

    Nothing in the file is run, and no store is needed. Every file of a folder is checked.
    """
    import polars as pl

    from emergraph.exporters.checking import check_any
    from emergraph.exporters.onnxfile.findings import Severity

    found = check_any(file, root=links.root, plugin=plugin)
    findings = [
        {**finding.to_dict(), "message": with_command(finding.message, finding.root)} for finding in found
    ]
    schema = ["severity", "id", "where", "message"]
    rows = pl.DataFrame(findings, schema=dict.fromkeys(schema, pl.String)) if findings else pl.DataFrame()
    serious = [finding for finding in findings if finding["severity"] != Severity.INFO]
    emit(View(finding=_finding(file, findings), rows=rows, document=findings), output)
    if serious:
        raise typer.Exit(ExitCode.FINDINGS)


def _finding(file: Path, findings: "Sequence[Mapping[str, object]]") -> str:
    """How many findings of each severity, and what to do next."""
    if not findings:
        return f"nothing found in {file}: `emergraph export` or `emergraph report` may read it"
    counts = Counter(str(finding["severity"]) for finding in findings)
    told = ", ".join(
        f"{n} {severity}{'s' * (n > 1 and severity != 'info')}" for severity, n in counts.items()
    )
    if counts["error"]:
        return f"{told} in {file}: do not load it with other tools before the errors are understood"
    return f"{told} in {file}: no error" + (
        "; read the warnings before you use it" if counts["warning"] else ""
    )
