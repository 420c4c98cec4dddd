"""One finding of an audit."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from emergraph.analysis.audit.kinds import About, AuditKind, Grade, kind_of
from emergraph.exporters.onnxfile.findings import Severity

Key = tuple[object, ...]
"""What a finding is about in terms that another export of the network shares: no names of the file."""


@dataclass(frozen=True, kw_only=True)
class AuditFinding:
    """One thing that a user of the model should know.

    Example:
        >>> found = AuditFinding(id="DEAD-INPUT", sentence="Nothing reads input 'sr'.", key=("sr",))
        >>> str(found.severity), str(found.about)
        ('info', 'encoding')
    """

    id: str
    """Of `kinds.AUDIT_KINDS`, or of a finding of `check`."""
    sentence: str
    """One line in plain words; names out of the file are made printable."""
    key: Key
    units: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Positions of units by the name of their layer."""
    tensors: Sequence[str] = ()
    operations: Sequence[str] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Figures behind the sentence, plain values."""
    grade: Grade | None = None
    """None: that of the kind."""
    action: str = ""
    """Empty: that of the kind."""

    def __post_init__(self) -> None:
        """Fill in what the kind says.

        Raises:
            KeyError: There is no such kind.
        """
        if self.grade is None:
            object.__setattr__(self, "grade", self.kind.grade)
        if not self.action:
            object.__setattr__(self, "action", self.kind.action)

    @property
    def kind(self) -> AuditKind:
        """Return what the table says of findings of this id."""
        return kind_of(self.id)

    @property
    def severity(self) -> Severity:
        """How much it matters; fixed by the id."""
        return self.kind.severity

    @property
    def about(self) -> About:
        """Whether it is about the network or about this file; fixed by the id."""
        return self.kind.about

    @property
    def fingerprint(self) -> str:
        """What the same finding has in another export of the network: 16 hexadecimal digits."""
        text = json.dumps([self.id, self.key], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def only_suspected(self) -> "AuditFinding":
        """The same, where what it rests on was made up."""
        return replace(self, grade=Grade.SUSPECTED)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "id": self.id,
            "fingerprint": self.fingerprint,
            "section": str(self.kind.section),
            "severity": str(self.severity),
            "grade": str(self.grade),
            "about": str(self.about),
            "sentence": self.sentence,
            "action": self.action,
            "units": [{"layer": name, "positions": list(found)} for name, found in self.units.items()],
            "tensors": list(self.tensors),
            "operations": list(self.operations),
            "evidence": dict(self.evidence),
        }
