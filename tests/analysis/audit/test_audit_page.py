from pathlib import Path

import pytest

from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.kinds import AUDIT_KINDS, SUPERSEDED, Section, kind_of
from emergraph.analysis.audit.page import with_table
from emergraph.exporters.onnxfile.findings import KINDS

PAGE = Path(__file__).parents[3] / "docs" / "audit.md"


def test_the_page_has_the_table_of_the_code():
    assert with_table(PAGE.read_text()) == PAGE.read_text()


def test_every_kind_says_what_it_means_and_what_to_do():
    for kind in AUDIT_KINDS.values():
        assert kind.meaning.endswith(".")
        assert kind.action.endswith(".")
        assert kind.id not in KINDS


def test_what_check_finds_is_a_finding_of_the_first_section():
    assert kind_of("ONNX-OP-PYTHON").section is Section.FILE
    assert KINDS.keys() >= SUPERSEDED
    with pytest.raises(KeyError):
        AuditFinding(id="NO-SUCH-KIND", sentence="", key=())


def test_a_fingerprint_depends_on_kind_and_key_alone():
    one = AuditFinding(id="DEAD-INPUT", sentence="a", key=(1, [2, 3]), tensors=["x"])
    other = AuditFinding(id="DEAD-INPUT", sentence="b", key=(1, [2, 3]), tensors=["y"])
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != AuditFinding(id="DEAD-INPUT", sentence="a", key=(1, [2])).fingerprint
