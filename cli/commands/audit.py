"""`emergraph audit`: what is in a model file, what is wrong with it, and what may go."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.analysis.audit.options import AuditOptions
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.links import Links, with_command
from emergraph.cli.output import Output, OutputFormat, emit, emit_text, say
from emergraph.cli.storeargs import ResultStore
from emergraph.errors import ExitCode
from emergraph.exporters.onnxfile.findings import Severity
from emergraph.exporters.runtime.inputwords import InputOptions
from emergraph.options import FileRole

if TYPE_CHECKING:
    from emergraph.analysis.audit.audit import AuditResult
    from emergraph.analysis.audit.subject import Given


class AuditFormat(StrEnum):
    """How an audit is written: as every result, for code scanning, as a bill of materials, or as a page."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    PARQUET = "parquet"
    SARIF = "sarif"
    CYCLONEDX = "cyclonedx"
    HTML = "html"


class Also(StrEnum):
    """What a written model lacks besides what is proved to be dispensable."""

    TESTED = "tested"


@dataclass(frozen=True, kw_only=True)
class Auditing:
    """How an audit is made."""

    budget: Annotated[str, typer.Option(metavar="TIME", help="Wall time for the whole audit.")] = "60s"
    fail_on: Annotated[
        Severity, typer.Option("--fail-on", help="Exit with 1 at findings of this severity, or a worse one.")
    ] = Severity.WARNING
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL", help="What the model was made from, such as the float one of a quantized one."
        ),
        FileRole.MODEL,
    ] = None
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Leave out the findings of this audit, which are accepted."),
    ] = None
    write: Annotated[
        Path | None,
        typer.Option(
            metavar="SMALLER.onnx", help="Write the model without what is proved to be dispensable."
        ),
        FileRole.WRITES,
    ] = None
    also: Annotated[
        Also | None,
        typer.Option(help="Leave out what is tested, too: units that were silent on all of --inputs."),
    ] = None
    full: Annotated[bool, typer.Option("--full", help="Print all findings, not the first ten.")] = False


@command(
    examples="""
    emergraph audit model.onnx
    emergraph audit model.onnx --inputs samples.npz --fail-on error
    emergraph audit model.onnx --format json --out audit.json
    emergraph audit model.onnx --baseline audit.json
    emergraph audit model.onnx --format sarif --out model.sarif
    emergraph audit model.onnx --out model.html
    emergraph audit model.onnx --write smaller.onnx
    emergraph audit model.onnx --inputs samples.npz --write smaller.onnx --also tested
    """,
    limits=LONG,
)
def audit(  # noqa: PLR0913 - a parameter for each group of options
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Model file, weight file, folder, or package.module:factory."),
        FileRole.MODEL,
    ],
    *,
    how: Auditing,
    words: InputOptions,
    options: AuditOptions,
    keeping: ResultStore,
    links: Links,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the result to FILE instead of stdout."),
        FileRole.WRITES,
    ] = None,
    form: Annotated[
        AuditFormat | None,
        typer.Option("--format", help="Format of the result.  [default: table, or what --out says]"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Say what is in a model, what is wrong with it and what may go; exit with 1 at a warning or an error.

    The file is checked first; where that finds something that forbids it, nothing is loaded. With --store,
    graphs of the store that have the same weights are named, and the findings are kept there.
    """
    from emergraph.analysis.audit.audit import audit_model
    from emergraph.analysis.audit.baseline import read_baseline
    from emergraph.optionforms import parse_seconds

    output = Output(out=out, quiet=quiet, debug=debug)
    accepted = frozenset() if how.baseline is None else read_baseline(how.baseline)
    result = audit_model(
        str(model),
        _given(options, words, links),
        seconds=parse_seconds(how.budget),
        baseline=accepted,
        reference=how.reference,
        store=keeping.store if keeping.store is not None and keeping.store.exists() else None,
        write=how.write,
        also_tested=how.also is not None,
    )
    if keeping.store is not None:
        from emergraph.analysis.audit.saving import save_audit

        save_audit(keeping.store, result, seed=options.seed, any_name=keeping.any_name, **words.kept())
    _show(_with_commands(result), form or _format_of(out), output, full=how.full)
    if result.at_least(how.fail_on):
        raise typer.Exit(ExitCode.FINDINGS)


def _with_commands(result: "AuditResult") -> "AuditResult":
    """The same with the command that follows a link, where one was not followed."""
    findings = [
        replace(found, action=with_command("Look where it leads first", str(found.evidence["root"])))
        if found.evidence.get("root")
        else found
        for found in result.findings
    ]
    return replace(result, findings=findings)


def _format_of(out: Path | None) -> AuditFormat:
    """The format that the name of a file asks for."""
    name = "" if out is None else out.name.lower()
    endings = {
        ".cdx.json": AuditFormat.CYCLONEDX,
        ".sarif": AuditFormat.SARIF,
        ".sarif.json": AuditFormat.SARIF,
        ".html": AuditFormat.HTML,
        ".json": AuditFormat.JSON,
        ".csv": AuditFormat.CSV,
        ".md": AuditFormat.MARKDOWN,
        ".parquet": AuditFormat.PARQUET,
    }
    return next((form for ending, form in endings.items() if name.endswith(ending)), AuditFormat.TABLE)


def _document(result: "AuditResult", form: AuditFormat) -> str | None:
    """The text of a format that only audits have; None for the others."""
    from emergraph.cli.jsonform import json_text

    if form is AuditFormat.SARIF:
        from emergraph.analysis.audit.sarif import sarif_document

        return json_text(sarif_document(result))
    if form is AuditFormat.CYCLONEDX:
        from emergraph.analysis.audit.cyclonedx import cyclonedx_document

        return json_text(cyclonedx_document(result))
    if form is AuditFormat.HTML:
        from emergraph.analysis.report.auditpage import audit_page
        from emergraph.analysis.report.html import page_html

        return page_html(audit_page(result))
    return None


def _show(result: "AuditResult", form: AuditFormat, output: Output, *, full: bool) -> None:
    from emergraph.analysis.audit.views import audit_notes, audit_text, audit_view
    from emergraph.safetext import escape_controls

    text = _document(result, form)
    if text is not None:
        emit_text(text, output)
        return
    if form is not AuditFormat.TABLE:
        emit(audit_view(result), replace(output, format=OutputFormat(form)))
        return
    emit_text(
        "".join(f"{escape_controls(line)}\n" for line in audit_text(result, full=full).splitlines()), output
    )
    for note in audit_notes(result):
        say(f"Note: {note}", output)


def _given(how: AuditOptions, words: InputOptions, links: Links) -> "Given":
    from emergraph.analysis.audit.subject import Given
    from emergraph.exporters.runtime.inputfile import read_input_file

    samples = {} if words.inputs is None else read_input_file(words.inputs).arrays
    return Given(inputs=samples, values=words.values(), shapes=words.shapes(), root=links.root, seed=how.seed)
