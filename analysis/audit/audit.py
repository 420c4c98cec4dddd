"""The audit: every kind of finding in turn, as far as the budget goes."""

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from emergraph.analysis.audit.dead import dead
from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.identity import identity_of, same_networks, size_of
from emergraph.analysis.audit.kinds import SUPERSEDED, Grade, Section, kind_of
from emergraph.analysis.audit.numbers import numbers
from emergraph.analysis.audit.opening import opened, run_subject
from emergraph.analysis.audit.prunable import prunable
from emergraph.analysis.audit.quantization import quantization
from emergraph.analysis.audit.redundant import redundant
from emergraph.analysis.audit.result import AuditResult
from emergraph.analysis.audit.subject import BudgetSpentError, Given, Subject
from emergraph.analysis.audit.suspicious import suspicious
from emergraph.analysis.audit.words import count
from emergraph.errors import EmergraphError, UsageError
from emergraph.exporters.onnxfile.findings import Finding, Severity, refusal
from emergraph.exporters.runtime.quoting import quoted
from emergraph.exporters.sourcekinds import SourceKind, source_kind

if TYPE_CHECKING:
    from emergraph.analysis.audit.result import Smaller

SHARE_OF_RUNS = 0.25
"""Part of the budget that running the samples may take."""

Step = Callable[[Subject], Iterator[AuditFinding]]
"""Finds the kinds of one section, until the budget of the subject is spent."""


STEPS: dict[Section, Step] = {
    Section.DEAD: dead,
    Section.NUMBERS: numbers,
    Section.REDUNDANT: redundant,
    Section.QUANTIZATION: quantization,
    Section.SUSPICIOUS: suspicious,
    Section.PRUNABLE: prunable,
}
"""What is looked at, in this order, after the file itself was checked."""


def audit_model(  # noqa: PLR0913 - the options of one call, all but two by keyword
    model: str | Path,
    given: Given | None = None,
    *,
    seconds: float | None = 60.0,
    only: Collection[Section] = tuple(Section),
    baseline: frozenset[str] = frozenset(),
    reference: str | Path | None = None,
    store: Path | None = None,
    write: Path | None = None,
    also_tested: bool = False,
    annotate: Path | None = None,
) -> AuditResult:
    """Audit a model.

    Args:
        model: An ONNX file, a weight file, a folder, or `package.module:factory`.
        given: Inputs to run it on; random ones by default.
        seconds: Budget; None for no end. What is not looked at to the end is named.
        only: Sections that are looked at, besides the file itself.
        baseline: Fingerprints of findings that are accepted.
        reference: The model that this one was made from, such as the float one of a quantized one.
        store: Where graphs are looked for that have the same weights.
        write: Where to write a model without what is proved to be dispensable.
        also_tested: Leave out, too, what was silent on all inputs given.
        annotate: Where to write the ONNX file as it is, with the findings in its metadata.

    Raises:
        InvalidInputError: There is no such file.
        UsageError: No smaller model can be written, or it does not agree with the original; or what is to
            be annotated is no ONNX file.
        LimitError: A limit of memory or time was hit.
    """
    given = given or Given()
    _check_use(model, given, write, annotate, also_tested=also_tested)
    begin = time.monotonic()
    budget = math.inf if seconds is None else seconds
    with opened(model, given) as subject, _reference(reference, given) as other:
        subject.reference = other
        for one in (subject, other):
            if one is not None:
                one.end = begin + budget
        found = list(of_checks(subject.checks))
        left_out: dict[str, str] = {}
        identity = size = None
        if subject.refused:
            left_out = {str(section): "the file was not loaded" for section in STEPS}
        else:
            run_subject(subject, given, seconds=SHARE_OF_RUNS * budget)
            identity = identity_of(subject)
            if store is not None and identity is not None and subject.network is not None:
                identity = replace(identity, same_as=same_networks(subject.network, store))
            left_out = _looked_at(subject, only, found, spent=f"the budget of {budget:g} s was spent")
            size = size_of(subject)
            if subject.network is not None:
                found = [finding for finding in found if finding.id not in SUPERSEDED]
        smaller = None
        if write is not None:
            smaller = _written(subject, given, found, write, also_tested=also_tested)
    kept = [finding for finding in found if finding.fingerprint not in baseline]
    result = AuditResult(
        path=str(model),
        findings=sorted(kept, key=_order),
        identity=identity,
        size=size,
        n_inputs=subject.n_samples,
        inputs_given=subject.given,
        left_out=left_out,
        notes=tuple(subject.notes),
        seconds=time.monotonic() - begin,
        refused=subject.refused,
        accepted=len(found) - len(kept),
        smaller=smaller,
    )
    if annotate is not None:
        _annotate(subject, result, annotate, given.root)
    return result


def _check_use(
    model: str | Path, given: Given, write: Path | None, annotate: Path | None, *, also_tested: bool
) -> None:
    """Refuse, before any work, to write what cannot be.

    Raises:
        UsageError: It cannot.
    """
    if also_tested and not (given.inputs and write):
        raise UsageError("--also tested goes with --inputs FILE.npz and --write SMALLER.onnx")
    if annotate is not None and source_kind(model) is not SourceKind.ONNX:
        name = quoted(Path(model).name)
        raise UsageError(
            f"{name}: --annotate writes metadata of an ONNX file; keep findings with --format json"
        )


def _annotate(subject: Subject, result: AuditResult, out: Path, root: Path | None) -> None:
    from emergraph.analysis.audit.annotating import write_annotated

    if subject.refused:
        raise _refusal(subject, "nothing was written")
    write_annotated(result, out, root=root)


def _looked_at(
    subject: Subject, only: Collection[Section], found: list[AuditFinding], *, spent: str
) -> dict[str, str]:
    """Add the findings of every section; return what was not looked at to the end, and why."""
    left_out: dict[str, str] = {}
    for section, step in STEPS.items():
        if section not in only:
            left_out[str(section)] = "not asked for"
        elif subject.time_is_over():
            left_out[str(section)] = spent
        else:
            before = len(found)
            try:
                for finding in step(subject):
                    found.append(finding)
                    subject.check_time()
            except BudgetSpentError:
                n = len(found) - before
                left_out[str(section)] = f"{spent} after {count(n, 'finding')}" if n else spent
    return left_out


@contextlib.contextmanager
def _reference(model: str | Path | None, given: Given) -> Iterator[Subject | None]:
    """What the model is compared with.

    Raises:
        EmergraphError: `check` finds something with which it is not loaded.
    """
    if model is None:
        yield None
        return
    with opened(model, given) as subject:
        if subject.refused:
            raise _refusal(subject, "the reference is not loaded")
        yield subject


def _refusal(subject: Subject, what: str) -> EmergraphError:
    """The error of what `check` refuses, with its exit code."""
    first = next(finding for finding in subject.checks if finding.severity is Severity.ERROR)
    return refusal(first.id, f"{what}: {first.line()}", root=first.root)


def _written(
    subject: Subject, given: Given, findings: Sequence[AuditFinding], out: Path, *, also_tested: bool
) -> "Smaller":
    from emergraph.analysis.audit.writing import write_smaller

    if subject.refused:
        raise _refusal(subject, "nothing was written")
    return write_smaller(subject, given, findings, out, also_tested=also_tested)


def of_checks(findings: Sequence[Finding]) -> Iterator[AuditFinding]:
    """Yield what `check` found as findings of an audit: one for each kind, with the first place of many."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.id, finding.root), []).append(finding)
    for (id_, root), group in groups.items():
        more = f", and {len(group) - 1:,} more" if len(group) > 1 else ""
        yield AuditFinding(
            id=id_,
            sentence=f"{kind_of(id_).meaning.rstrip('.')}: {group[0].line()}{more}.",
            key=tuple(part for one in group for part in (one.where, one.message)),
            evidence={
                "where": group[0].where,
                "message": group[0].message,
                "root": root,
                "places": [one.where for one in group],
            },
        )


def _order(finding: AuditFinding) -> tuple[int, int, int]:
    severities, grades, sections = list(reversed(Severity)), list(Grade), list(Section)
    grade = finding.grade or Grade.SUSPECTED
    return (
        severities.index(finding.severity),
        grades.index(grade),
        sections.index(finding.kind.section),
    )
