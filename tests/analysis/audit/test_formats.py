import hashlib
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from plantednets import audited_fast, cnn, transformer

from emergraph.analysis.audit.audit import STEPS, audit_model
from emergraph.analysis.audit.cyclonedx import cyclonedx_document
from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.kinds import Section
from emergraph.analysis.audit.sarif import FINGERPRINT, sarif_document
from emergraph.analysis.audit.subject import Given
from emergraph.analysis.report.auditpage import audit_page
from emergraph.analysis.report.html import page_html
from emergraph.errors import InvalidInputError

FOLDER = Path(__file__).parents[3] / "third_party" / "sarif"
SCHEMA = FOLDER / "sarif-schema-2.1.0.json"


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    net = cnn()
    net.weights["w2"][2] = 0
    net.weights["w3"][1, 1] = np.nan
    net.weights["spare <b>"] = np.ones((9, 9), np.float32)
    net.metadata["license"] = "MIT"
    path = net.save(tmp_path_factory.mktemp("audit") / "a model.onnx")
    return audit_model(path, Given(inputs=net.samples))


def test_the_schema_is_the_one_that_its_page_describes():
    assert hashlib.sha256(SCHEMA.read_bytes()).hexdigest() in (FOLDER / "README.md").read_text()


def test_sarif_fits_the_published_schema(result):
    document = sarif_document(result)
    jsonschema.Draft4Validator(json.loads(SCHEMA.read_text())).validate(json.loads(json.dumps(document)))
    (run,) = document["runs"]
    assert len(run["results"]) == len(result.findings)
    assert {r["partialFingerprints"][FINGERPRINT] for r in run["results"]} == result.fingerprints
    dead = next(r for r in run["results"] if r["ruleId"] == "DEAD-UNREACHED")
    assert (dead["level"], dead["rank"]) == ("warning", 100.0)
    assert dead["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "a%20model.onnx"
    assert dead["locations"][0]["logicalLocations"] == [{"fullyQualifiedName": "conv2"}]
    assert run["tool"]["driver"]["rules"][dead["ruleIndex"]]["id"] == "DEAD-UNREACHED"


def test_sarif_of_a_refused_file_fits_too(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    document = sarif_document(audit_model(path))
    jsonschema.Draft4Validator(json.loads(SCHEMA.read_text())).validate(document)
    assert document["runs"][0]["results"][0]["level"] == "error"
    with pytest.raises(InvalidInputError, match="was not read"):
        cyclonedx_document(audit_model(path))


def test_cyclonedx_has_a_model_card_and_fits_its_schema(result):
    document = cyclonedx_document(result)
    assert document["specVersion"] == "1.6"
    (component,) = document["components"]
    assert component["type"] == "machine-learning-model"
    assert component["hashes"][0]["content"] == result.identity.sha256
    assert component["licenses"] == [{"license": {"name": "MIT"}}]
    card = component["modelCard"]
    assert card["modelParameters"]["inputs"] == [{"format": f"x: {result.identity.inputs['x']}"}]
    assert len(card["considerations"]["technicalLimitations"]) == len(result.findings)


def test_the_page_begins_with_the_finding_and_names_are_text(result):
    page = page_html(audit_page(result))
    assert page.index("NaN or infinite") < page.index("DEAD-UNREACHED")
    assert "spare <b>" not in page
    assert "spare &lt;b&gt;" in page
    assert "<script" not in page


def test_a_page_of_nothing_found(tmp_path):
    net = transformer()
    result = audit_model(net.save(tmp_path / "net.onnx"), Given(inputs=net.samples))
    page = page_html(audit_page(result))
    assert "Nothing is wrong that was looked for" in page
    assert "Proved: " not in page


def test_a_section_ends_when_the_budget_is_spent_and_keeps_what_it_had_found(tmp_path, monkeypatch):
    def slow(subject):
        for k in range(3):
            subject.end = 0.0
            yield AuditFinding(id="DEAD-INPUT", sentence=f"Input {k}.", key=(k,))

    monkeypatch.setitem(STEPS, Section.DEAD, slow)
    net = cnn()
    result = audit_model(net.save(tmp_path / "net.onnx"))
    assert [one.id for one in result.findings] == ["DEAD-INPUT"]
    assert result.left_out["dead and unread"] == "the budget of 60 s was spent after 1 finding"
    assert result.left_out["prunable"] == "the budget of 60 s was spent"
    assert result.size is not None


def test_an_audit_without_an_end_looks_at_everything(tmp_path):
    assert audited_fast(cnn().save(tmp_path / "net.onnx"), seconds=None).left_out.keys() == {"prunable"}


def test_what_check_finds_in_many_places_is_one_finding(tmp_path):
    net = cnn()
    for name in ("a;b", "c;d", "e;f"):
        net.weights[name] = np.ones(3, np.float32)
    result = audited_fast(net.save(tmp_path / "net.onnx"))
    found = [one for one in result.findings if one.id == "ONNX-NAME-MARKUP"]
    assert len(found) == 1
    assert found[0].sentence.endswith(", and 2 more.")
    assert len(found[0].evidence["places"]) == 3
