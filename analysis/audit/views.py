"""What people and programs see of an audit."""

import re
import textwrap
from collections import Counter

import polars as pl

from emergraph.analysis.audit.result import AuditResult
from emergraph.analysis.audit.words import bytes_text, count, share
from emergraph.analysis.view import View
from emergraph.exporters.onnxfile.findings import Severity
from emergraph.exporters.runtime.quoting import quoted

_SHOWN = 10
_WIDTH = 110
_COMMAND = re.compile(r"`[^`]*`")
_NO_BREAK = "\0"
"""Stands for a space; texts of findings have no such character."""


def audit_view(result: AuditResult) -> View:
    """Return all findings, in every format but the text for people (`audit_text`)."""
    rows = pl.DataFrame(
        [
            {
                "severity": str(found.severity),
                "grade": str(found.grade),
                "about": str(found.about),
                "id": found.id,
                "finding": found.sentence,
                "action": found.action,
                "fingerprint": found.fingerprint,
            }
            for found in result.findings
        ],
        schema=dict.fromkeys(_COLUMNS, pl.String),
    )
    return View(
        rows=rows,
        facts={"finding": verdict(result), **audit_facts(result)},
        document=result.to_dict(),
        notes=audit_notes(result),
        columns=("severity", "grade", "about", "id", "finding", "action"),
    )


def audit_text(result: AuditResult, *, full: bool = False) -> str:
    """Return an audit for people: the worst finding with what to do, the others, then what the file is.

    Args:
        result: An audit.
        full: All findings, not the first ten.
    """
    lines = [*_wrapped(verdict(result)), ""]
    shown = result.findings if full else result.findings[:_SHOWN]
    for found in shown:
        begin = f"{found.severity!s:<7}  {found.id} ({found.grade}, {found.about})"
        lines += [begin, *_wrapped(found.sentence, 9), *_wrapped(f"-> {found.action}", 9)]
    rest = len(result.findings) - len(shown)
    if rest:
        lines.append(f"{count(rest, 'finding')} more: --full")
    lines += [""] if shown else []
    width = max(map(len, audit_facts(result)))
    lines += [f"{name:<{width}}  {value}" for name, value in audit_facts(result).items()]
    return "\n".join(lines) + "\n"


def _wrapped(text: str, indent: int = 0) -> list[str]:
    """The lines of a text; commands, between grave accents, stay on one, so that they can be copied."""
    whole = _COMMAND.sub(lambda command: command[0].replace(" ", _NO_BREAK), text)
    lines = textwrap.wrap(whole, _WIDTH - indent, break_long_words=False, break_on_hyphens=False)
    return [" " * indent + line.replace(_NO_BREAK, " ") for line in lines]


_COLUMNS = ("severity", "grade", "about", "id", "finding", "action", "fingerprint")


def verdict(result: AuditResult) -> str:
    """Return the worst finding in plain words with what to do, or that there is nothing to do."""
    worst = result.findings[0] if result.findings else None
    if worst is None:
        looked = "on inputs of yours" if result.inputs_given else "on made-up inputs only"
        return f"Nothing was found; the model ran {looked}." if result.n_inputs else "Nothing was found."
    if worst.severity is Severity.INFO:
        return f"Nothing is wrong that was looked for. Worth knowing: {worst.sentence} {worst.action}"
    return f"{worst.sentence} {worst.action}"


def audit_facts(result: AuditResult) -> dict[str, object]:
    """Return what stands below the findings: counts, the file, its size and what it was run on."""
    facts: dict[str, object] = {}
    counts = Counter(str(found.severity) for found in result.findings)
    shown = ", ".join(count(counts[name], name) for name in ("error", "warning", "info") if counts[name])
    facts["findings"] = (shown or "none") + (f"; {result.accepted} accepted" if result.accepted else "")
    if (identity := result.identity) is not None:
        guess = identity.guess
        likely = f"; by guess a {guess.family} for {guess.task}" if guess is not None else ""
        facts["file"] = f"{identity.name}, {identity.format}, {bytes_text(identity.bytes)}{likely}"
        if identity.producer:
            facts["producer"] = identity.producer
        if identity.same_as:
            facts["same weights"] = ", ".join(
                f"{share(part, 1)} in graph {quoted(name)}" for name, part in identity.same_as.items()
            )
        facts["licence"] = identity.licence or "the file names none"
    if (size := result.size) is not None:
        parts = [] if size.parameters is None else [f"{size.parameters:,} parameters"]
        parts += [f"{name} {bytes_text(n)}" for name, n in size.bytes_by_dtype.items()]
        parts += [] if size.flops is None else [f"{size.flops:.3g} FLOPs for one sample"]
        facts["size"] = ", ".join(parts)
    if (written := result.smaller) is not None:
        gone = written.values_before - written.values_after
        said = ", ".join(f"{id_} {n}" for id_, n in written.applied.items()) or "nothing"
        sizes = f"{bytes_text(written.bytes_before)} -> {bytes_text(written.bytes_after)}"
        facts["written"] = (
            f"{gone:,} values fewer, {sizes}; "
            f"left out: {said}; agrees within {written.difference:.2g} on {count(written.n_inputs, 'input')}"
            f"{', bit by bit' if written.bitwise else ''}"
        )
        if written.branches:
            facts["branches"] = f"the written model holds only those taken: {', '.join(written.branches)}"
    if result.n_inputs:
        facts["inputs"] = f"{result.n_inputs} {'given' if result.inputs_given else 'random'}"
    return facts


def audit_notes(result: AuditResult) -> list[str]:
    """Return what a person should know besides."""
    notes = list(result.notes)
    if result.n_inputs and not result.inputs_given:
        notes.append(
            "random inputs: what rests on activity is only suspected; give your own with --inputs FILE.npz"
        )
    notes += [f"not looked at: {section} ({why})" for section, why in result.left_out.items()]
    return notes
