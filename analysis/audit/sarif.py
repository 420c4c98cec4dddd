"""An audit as SARIF 2.1.0, which code scanning services and editors read."""

from pathlib import Path
from typing import Any

from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.kinds import Grade, kind_of
from emergraph.analysis.audit.result import AuditResult
from emergraph.exporters.onnxfile.findings import Severity
from emergraph.version import __version__

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT = "emergraphAudit/v1"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_RANKS = {Grade.PROVED: 100.0, Grade.TESTED: 75.0, Grade.SUSPECTED: 25.0}
"""SARIF's rank says how much to trust and regard a result, from 0 to 100."""


def sarif_document(result: AuditResult) -> dict[str, Any]:
    """Return an audit as a SARIF log with one run."""
    ids = sorted({found.id for found in result.findings})
    artifact: dict[str, Any] = {"location": {"uri": _uri(result)}}
    if result.identity is not None:
        artifact["hashes"] = {"sha-256": result.identity.sha256}
        artifact["length"] = result.identity.bytes
    notes = [*result.notes, *(f"not looked at: {name} ({why})" for name, why in result.left_out.items())]
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "emergraph",
                        "semanticVersion": __version__,
                        "rules": [_rule(id_) for id_ in ids],
                    }
                },
                "artifacts": [artifact],
                "invocations": [
                    {
                        "executionSuccessful": not result.refused,
                        "toolExecutionNotifications": [
                            {"level": "note", "message": {"text": note}} for note in notes
                        ],
                    }
                ],
                "results": [_result(found, ids.index(found.id), result) for found in result.findings],
            }
        ],
    }


def _uri(result: AuditResult) -> str:
    """The file's name as a relative reference, its unusual characters escaped."""
    from urllib.parse import quote

    return quote(Path(result.path).name)


def _rule(finding_id: str) -> dict[str, Any]:
    kind = kind_of(finding_id)
    return {
        "id": finding_id,
        "shortDescription": {"text": kind.meaning},
        "help": {"text": kind.action},
        "defaultConfiguration": {"level": _LEVELS[kind.severity]},
        "properties": {"section": str(kind.section), "about": str(kind.about)},
    }


def _result(found: AuditFinding, rule: int, result: AuditResult) -> dict[str, Any]:
    places = [*found.units, *found.tensors, *found.operations]
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": _uri(result), "index": 0}},
    }
    if places:
        location["logicalLocations"] = [{"fullyQualifiedName": name} for name in dict.fromkeys(places)]
    return {
        "ruleId": found.id,
        "ruleIndex": rule,
        "level": _LEVELS[found.severity],
        "rank": _RANKS[found.grade or Grade.SUSPECTED],
        "message": {"text": f"{found.sentence} {found.action}"},
        "locations": [location],
        "partialFingerprints": {FINGERPRINT: found.fingerprint},
        "properties": {
            "grade": str(found.grade),
            "about": str(found.about),
            "evidence": dict(found.evidence),
        },
    }
