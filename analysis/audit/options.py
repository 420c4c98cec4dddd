"""What decides the findings of an audit, and what is done with them."""

from enum import StrEnum
from pathlib import Path

from emergraph.optionforms import BUDGET
from emergraph.options import FileRole, Form, Options, member, option


def _severity(word: str) -> StrEnum:
    from emergraph.exporters.onnxfile.findings import Severity  # imports onnx, which declarations do without

    return member(Severity, word, "--fail-on")


class Also(StrEnum):
    """What a written model lacks besides what is proved to be dispensable."""

    TESTED = "tested"


class AuditOptions(Options):
    """How a model is audited."""

    budget: float | None = option(
        default=60.0, help="Wall time for the whole audit; 0 for no end.", metavar="TIME", form=BUDGET
    )
    reference: Path | None = option(
        default=None,
        help="What the model was made from, such as the float one of a quantized one.",
        metavar="MODEL",
        role=FileRole.MODEL,
    )
    baseline: Path | None = option(
        default=None, help="Leave out the findings of this audit, which are accepted.", metavar="FILE.json"
    )
    seed: int = option(default=0, least=0, help="Seed of random inputs.")


class AuditUse(Options):
    """What is done with the findings of an audit."""

    fail_on: str = option(
        default="warning",
        help="Exit with 1 at findings of this severity (info, warning or error), or a worse one.",
        metavar="SEVERITY",
        form=Form(_severity),
    )
    write: Path | None = option(
        default=None,
        help="Write the model without what is proved to be dispensable.",
        metavar="SMALLER.onnx",
        role=FileRole.WRITES,
    )
    annotate: Path | None = option(
        default=None,
        help="Write the ONNX file as it is, with the findings in its metadata.",
        metavar="ANNOTATED.onnx",
        role=FileRole.WRITES,
    )
    also: Also | None = option(
        default=None,
        help="Leave out what is tested, too: units that were silent on all of --inputs.",
        metavar="tested",
    )
