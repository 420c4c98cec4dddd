"""The one way to refuse a file that is not what a reader expects: what it is, and what to do next."""

from emergraph.errors import EmergraphError
from emergraph.exporters.formats import Format
from emergraph.exporters.mappedfile import MappedFile
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.globals import Policy, Verdict
from emergraph.exporters.weightfiles.inside import CODE, Known, code_inside
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.registry import refusal

_CHECKPOINTS = frozenset({"torch_zip", "legacy_torch"})
"""Formats whose further classes are read around by their reader, which the message points to."""


def wrong_format(found: Format, mapped: MappedFile, *, expected: str, where: str = "") -> EmergraphError:
    """Return the error for a file that is of another format than a reader expects.

    Args:
        found: What the file is.
        mapped: The file.
        expected: What it should be, with its article: "an ONNX model".
        where: How to name it where the message does not start with its name.

    Returns:
        An error about the code in it where it is a pickle or holds one that would run code
        (UnsafeInputError), else one that names what it is and what to do next (InvalidInputError).
    """
    around = frozenset({Verdict.CLASS}) if found.name in _CHECKPOINTS else frozenset()
    policy = Policy(around=around)
    for finding in code_inside(mapped.path.name, mapped.content, policy=policy, where=where):
        if finding.id in CODE:
            return refusal(finding.id, finding.message, finding.where)
    return refusal("FILE-FORMAT", format_message(found, mapped.path.name, expected=expected), where)


def format_message(found: Format, name: str, *, expected: str) -> str:
    """Say what a file is and what to do next.

    Args:
        found: What it is.
        name: Its name without folders.
        expected: What it should be, with its article.
    """
    return f"not {expected} but {found.title}; {found.step.replace('FILE', printable(name))}"


def refuse_code(
    mapped: MappedFile,
    limits: WeightLimits,
    where: str,
    *,
    policy: Policy,
    known: Known | None = None,
) -> None:
    """Refuse a file in which a pickle that would run code stands where its reader does not come to.

    Args:
        mapped: The file.
        limits: Caps on each pickle and on what is unpacked.
        where: How to name it where the message does not start with its name.
        policy: Which classes from elsewhere may pass.
        known: Whether the reader has dealt with a record of the archive, by its name.

    Raises:
        UnsafeInputError: There is one.
    """
    for finding in code_inside(
        mapped.path.name, mapped.content, limits=limits, policy=policy, where=where, known=known
    ):
        if finding.id in CODE:
            raise refusal(finding.id, finding.message, finding.where)
