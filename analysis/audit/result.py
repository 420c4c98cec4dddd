"""What an audit found, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.kinds import About
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.exporters.onnxfile.findings import Severity

SCHEMA = "emergraph-audit-1"


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What a model seems to be."""

    family: str
    task: str
    grounds: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a file is."""

    name: str
    format: str
    sha256: str
    bytes: int
    producer: str
    opsets: Mapping[str, int]
    inputs: Mapping[str, str]
    """Name -> element type and declared shape."""
    outputs: Sequence[str]
    licence: str
    """As the file's metadata says; empty where it says nothing."""
    metadata: Mapping[str, str]
    guess: Guess | None
    same_as: Mapping[str, float] = field(default_factory=dict)
    """Graphs of a store that have weights of this network, by name: which share of its weights."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a model takes."""

    parameters: int | None
    """Of weights, biases, scales and shifts; None without a graph."""
    zeros: int | None
    """Exact zeros among them."""
    values: int
    """Elements of all stored tensors, scales, shapes and indices included."""
    bytes_by_dtype: Mapping[str, int]
    """Bytes of stored tensors by element type."""
    flops: float | None
    """Two for every multiply-add with a weight that is not zero, for one sample; contractions only."""
    activation_bytes: int | None
    """Bytes of all tensors that one sample's run makes; a runtime that frees them early holds less."""
    largest_activation_bytes: int | None
    layers: Mapping[str, int]
    """Parameters of the layers with most of them."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Smaller:
    """What a smaller model that was written lacks."""

    applied: dict[str, int]
    """By id of the finding, how many units, operations or tensors went."""
    values_before: int
    """Elements of all constants of the model as it runs, those that nothing reads included."""
    values_after: int
    bytes_before: int
    bytes_after: int
    n_inputs: int
    """Samples on which it agreed with the original."""
    difference: float
    """Largest difference of an output element, over the largest of its output (at least 1)."""
    bitwise: bool
    branches: Sequence[str]
    """Branches of If operations that it holds alone."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class AuditResult(ShownInNotebooks):
    """What an audit found."""

    path: str
    findings: Sequence[AuditFinding]
    """The worst first; among equals, what is proved before what is suspected."""
    identity: Identity | None
    size: Size | None
    n_inputs: int
    """Samples that the model ran on."""
    inputs_given: bool
    left_out: Mapping[str, str]
    """Sections that were not looked at to the end, and why."""
    notes: Sequence[str]
    seconds: float
    refused: bool = False
    """Whether the file was not loaded, for what `check` found."""
    accepted: int = 0
    """Findings that the baseline left out."""
    smaller: "Smaller | None" = None
    """What was left out of a model that was written."""

    def at_least(self, severity: Severity) -> list[AuditFinding]:
        """Return the findings that matter at least so much."""
        order = list(Severity)
        return [f for f in self.findings if order.index(f.severity) >= order.index(severity)]

    @property
    def fingerprints(self) -> frozenset[str]:
        """Of all findings: a baseline for the next audit."""
        return frozenset(finding.fingerprint for finding in self.findings)

    def about(self, about: About | str) -> list[AuditFinding]:
        """Return the findings about the network, or about its encoding."""
        return [finding for finding in self.findings if finding.about == about]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "schema": SCHEMA,
            "file": Path(self.path).name,
            "identity": None if self.identity is None else self.identity.to_dict(),
            "size": None if self.size is None else self.size.to_dict(),
            "inputs": {"n": self.n_inputs, "given": self.inputs_given},
            "findings": [finding.to_dict() for finding in self.findings],
            "accepted": self.accepted,
            "left_out": dict(self.left_out),
            "written": None if self.smaller is None else self.smaller.to_dict(),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 2),
        }
