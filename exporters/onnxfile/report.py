"""Where findings go while a file is read: the first refusal ends it, or all are collected."""

from collections import Counter

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.findings import Finding, Severity, finding_of, refusal


class FindingLog:
    """Collects findings.

    Args:
        collect_all: Whether findings that stop reading are collected too, or raised.
        per_id: Findings of one id that are kept; the rest is counted.
    """

    def __init__(self, *, collect_all: bool, per_id: int = 20) -> None:
        self._collect_all = collect_all
        self._per_id = per_id
        self._kept: list[Finding] = []
        self._counts: Counter[str] = Counter()

    def add(self, finding: Finding) -> None:
        """Take a finding.

        Raises:
            EmergraphError: It stops reading, and not all are wanted.
        """
        if finding.severity is Severity.ERROR and not self._collect_all:
            raise refusal(finding.id, finding.message, finding.where)
        self._counts[finding.id] += 1
        if self._counts[finding.id] <= self._per_id:
            self._kept.append(finding)

    def add_error(self, error: EmergraphError) -> None:
        """Take the finding behind an error.

        Raises:
            EmergraphError: Not all are wanted, or the error is not about a finding.
        """
        finding = finding_of(error)
        if finding is None or not self._collect_all:
            raise error
        self.add(finding)

    def findings(self) -> list[Finding]:
        """Return the findings, the worst first, otherwise in the order in which they were made."""
        more = [
            Finding(id_, f"{count - self._per_id} more like this")
            for id_, count in self._counts.items()
            if count > self._per_id
        ]
        order = list(reversed(Severity))
        return sorted([*self._kept, *more], key=lambda finding: order.index(finding.severity))
