"""`emergraph audit`: what is in a model file, what is wrong with it, and what may go."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emergraph.analysis.audit.options import AuditOptions, AuditUse
from emergraph.analysis.view import View
from emergraph.cli.app import command
from emergraph.cli.jsonform import json_text
from emergraph.cli.limits import LONG
from emergraph.cli.links import Links, with_command
from emergraph.cli.output import TABLES, Output, OutputFormat, emit
from emergraph.cli.storeargs import ResultStore
from emergraph.errors import ExitCode
from emergraph.exporters.onnxfile.findings import Severity
from emergraph.exporters.runtime.inputwords import InputOptions
from emergraph.options import FileRole
from emergraph.safetext import escape_controls

if TYPE_CHECKING:
    from collections.abc import Callable

    from emergraph.analysis.audit.finding import AuditFinding
    from emergraph.analysis.audit.result import AuditResult
    from emergraph.analysis.audit.subject import Given


class AuditOutput(Output):
    """Where an audit goes: as every result, for code scanning, as a bill of materials, or as a page."""

    formats = (*TABLES, OutputFormat.SARIF, OutputFormat.CYCLONEDX, OutputFormat.HTML)


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
    emergraph audit model.onnx --annotate annotated.onnx
    """,
    limits=LONG,
)
def audit(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Model file, weight file, folder, or package.module:factory."),
        FileRole.MODEL,
    ],
    *,
    options: AuditOptions,
    use: AuditUse,
    words: InputOptions,
    keeping: ResultStore,
    links: Links,
    output: AuditOutput,
) -> None:
    """Say what is in a model, what is wrong with it and what may go; exit with 1 at a warning or an error.

    The file is checked first; where that finds something that forbids it, nothing is loaded. With --store,
    graphs of the store that have the same weights are named, and the findings are kept there.
    """
    from emergraph.analysis.audit.audit import audit_model
    from emergraph.analysis.audit.baseline import read_baseline

    accepted = frozenset() if options.baseline is None else read_baseline(options.baseline)
    result = audit_model(
        str(model),
        _given(options, words, links),
        seconds=options.budget,
        baseline=accepted,
        reference=options.reference,
        store=keeping.store if keeping.store is not None and keeping.store.exists() else None,
        write=use.write,
        also_tested=use.also is not None,
        annotate=use.annotate,
    )
    if keeping.store is not None:
        from emergraph.analysis.audit.saving import save_audit

        about: dict[str, Any] = {**words.kept(), **options.kept()}
        save_audit(keeping.store, result, any_name=keeping.any_name, **about)
    named = replace(
        result, findings=[_with_command(found, model, options, words, keeping) for found in result.findings]
    )
    emit(_view(named, full=output.full), output)
    if result.at_least(Severity(use.fail_on)):
        raise typer.Exit(ExitCode.FINDINGS)


def _with_command(
    found: "AuditFinding", model: Path, options: AuditOptions, words: InputOptions, keeping: ResultStore
) -> "AuditFinding":
    """The same with commands that can be typed: to follow a link where one was not followed, and to write."""
    from emergraph.analysis.audit.words import spelled_out

    if found.evidence.get("root"):
        return replace(found, action=with_command("Look where it leads first", str(found.evidence["root"])))
    action = spelled_out(
        found.action,
        model=str(model),
        parameters={**words.to_dict(), **options.to_dict()},
        store=None if keeping.store is None else str(keeping.store),
    )
    return replace(found, action=action)


def _view(result: "AuditResult", *, full: bool) -> View:
    """The findings, with the formats that only audits have."""
    from emergraph.analysis.audit.views import audit_text, audit_view

    def sarif() -> str:
        from emergraph.analysis.audit.sarif import sarif_document

        return json_text(sarif_document(result))

    def cyclonedx() -> str:
        from emergraph.analysis.audit.cyclonedx import cyclonedx_document

        return json_text(cyclonedx_document(result))

    def page() -> str:
        from emergraph.analysis.report.auditpage import audit_page
        from emergraph.analysis.report.html import page_html

        return page_html(audit_page(result))

    def table() -> str:
        lines = audit_text(result, full=full).splitlines()
        return "".join(f"{escape_controls(line)}\n" for line in lines)

    texts: dict[str, Callable[[], str]] = {
        OutputFormat.SARIF: sarif,
        OutputFormat.CYCLONEDX: cyclonedx,
        OutputFormat.HTML: page,
        OutputFormat.TABLE: table,
    }
    return replace(audit_view(result), texts=texts)


def _given(how: AuditOptions, words: InputOptions, links: Links) -> "Given":
    from emergraph.analysis.audit.subject import Given
    from emergraph.exporters.runtime.inputfile import read_input_file

    samples = {} if words.inputs is None else read_input_file(words.inputs).arrays
    return Given(inputs=samples, values=words.values(), shapes=words.shapes(), root=links.root, seed=how.seed)
