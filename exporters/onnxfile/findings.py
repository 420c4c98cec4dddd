"""Findings: one thing each that a user of a file should know, and the error that a refusal becomes."""

from dataclasses import dataclass

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.registry import KINDS, Severity


@dataclass(frozen=True)
class Finding:
    """One thing that a user of the file should know."""

    id: str
    """Stable id, a key of `registry.KINDS`, e.g. "ONNX-EXT-OUTSIDE"."""
    message: str
    """One line; names out of the file are made printable."""
    where: str = ""
    """Tensor, operation or part of the file, made printable; "" for the file as a whole."""
    root: str = ""
    """Folder that has to be named as root for a link to be followed; "" where it is about none."""

    @property
    def severity(self) -> Severity:
        """How much it matters; fixed by the id."""
        return KINDS[self.id].severity

    def __post_init__(self) -> None:
        if self.id not in KINDS:
            raise ValueError(f"{self.id} is not a registered finding")

    def line(self) -> str:
        """Return where and what in one line."""
        return f"{self.where}: {self.message}" if self.where else self.message

    def to_dict(self) -> dict[str, str]:
        """Return the finding as plain text fields."""
        return {"id": self.id, "severity": str(self.severity), "where": self.where, "message": self.message}


def refusal(finding_id: str, message: str, where: str = "", *, root: str = "") -> EmergraphError:
    """Return the error to raise for a finding that stops reading.

    The error's class, hence the exit code, is the registry's; `finding_id` and `where` travel with it.
    """
    finding = Finding(finding_id, message, where, root)
    error_class = KINDS[finding_id].error
    if error_class is None:
        raise ValueError(f"{finding_id} does not stop reading")
    error = error_class(finding.line())
    error.finding = finding
    return error


def finding_of(error: EmergraphError) -> Finding | None:
    """Return the finding behind an error that `refusal` made; None for any other error."""
    return error.finding if isinstance(error.finding, Finding) else None
