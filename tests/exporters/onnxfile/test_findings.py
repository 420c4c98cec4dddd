"""The registry of findings, its page, and how findings become errors."""

from pathlib import Path

import pytest

from emergraph.errors import InvalidInputError, UnsafeInputError
from emergraph.exporters.onnxfile.findings import KINDS, Finding, Severity, finding_of, refusal
from emergraph.exporters.onnxfile.findings_page import findings_page
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.report import FindingLog

ROOT = Path(__file__).parents[3]
SOURCES = sorted((ROOT / "exporters/onnxfile").glob("*.py"))


def test_the_page_is_the_one_in_the_docs():
    page = (ROOT / "docs/findings.md").read_text()
    assert page == findings_page(), "run `make docs`"


def test_every_id_is_used_and_every_used_id_is_registered():
    used = " ".join(path.read_text() for path in SOURCES if path.name not in {"registry.py"})
    own = [id_ for id_ in KINDS if id_.startswith("ONNX-")]
    assert [id_ for id_ in own if f'"{id_}"' not in used] == []


def test_every_id_that_stops_reading_is_tested():
    tested = " ".join(path.read_text() for path in Path(__file__).parent.glob("test_hostile_*.py"))
    own = [id_ for id_ in KINDS if id_.startswith("ONNX-")]
    assert [id_ for id_ in own if id_ not in tested] == []


def test_only_errors_stop_reading():
    assert all((kind.error is not None) == (kind.severity is Severity.ERROR) for kind in KINDS.values())


def test_a_refusal_carries_its_finding():
    error = refusal("ONNX-EXT-OUTSIDE", "leads outside", "tensor 'w'")
    assert isinstance(error, UnsafeInputError)
    assert str(error) == "tensor 'w': leads outside"
    assert finding_of(error) == Finding("ONNX-EXT-OUTSIDE", "leads outside", "tensor 'w'")
    assert finding_of(InvalidInputError("no such file")) is None


def test_findings_need_a_registered_id():
    with pytest.raises(ValueError, match="ONNX-NOTHING"):
        Finding("ONNX-NOTHING", "")
    with pytest.raises(ValueError, match="does not stop reading"):
        refusal("ONNX-CONTROL-FLOW", "")


def test_findings_as_plain_data():
    assert Finding("ONNX-CONTROL-FLOW", "2 subgraphs").to_dict() == {
        "id": "ONNX-CONTROL-FLOW",
        "severity": "info",
        "where": "",
        "message": "2 subgraphs",
    }


def test_reports_sort_by_severity_and_keep_the_order_otherwise():
    report = FindingLog(collect_all=True)
    for id_ in ("ONNX-CONTROL-FLOW", "ONNX-IR-VERSION", "ONNX-GRAPH-CYCLE", "ONNX-OPSET-RANGE"):
        report.add(Finding(id_, ""))
    assert [finding.id for finding in report.findings()] == [
        "ONNX-GRAPH-CYCLE",
        "ONNX-IR-VERSION",
        "ONNX-OPSET-RANGE",
        "ONNX-CONTROL-FLOW",
    ]


def test_a_strict_report_raises_the_first_error():
    report = FindingLog(collect_all=False)
    report.add(Finding("ONNX-IR-VERSION", ""))
    with pytest.raises(InvalidInputError, match="circle"):
        report.add(Finding("ONNX-GRAPH-CYCLE", "circle"))
    with pytest.raises(InvalidInputError, match="not about"):
        FindingLog(collect_all=True).add_error(InvalidInputError("not about a finding"))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("conv1", "conv1"),
        ("слой", "слой"),
        ("a\x1b[2J", "a\\x1b[2J"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
        (b"ok", "ok"),
        (b"\xff", "\\xff"),
        ("n" * 100, "n" * 80 + "… (100 characters)"),
        ("\n" * 50, "\\x0a" * 20 + "… (50 characters)"),
        (b"\xff" * 50, "\\xff" * 20 + "… (50 bytes)"),
    ],
)
def test_names_are_shown_on_one_line(name, shown):
    assert printable(name) == shown
