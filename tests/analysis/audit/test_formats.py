import hashlib
import json
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from plantednets import audited_fast, cnn, transformer

from emergraph.analysis.audit import annotating
from emergraph.analysis.audit.annotating import PREFIX, write_annotated
from emergraph.analysis.audit.audit import STEPS, audit_model
from emergraph.analysis.audit.cyclonedx import cyclonedx_document
from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.kinds import Section
from emergraph.analysis.audit.sarif import FINGERPRINT, sarif_document
from emergraph.analysis.audit.subject import Given
from emergraph.analysis.report.auditpage import audit_page
from emergraph.analysis.report.html import page_html
from emergraph.errors import EmergraphError, InvalidInputError, LimitError, UsageError

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


def annotations(path):
    """The model of a file, and its metadata by key: the model is read by the onnx package."""
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model)  # no key twice
    return model, {entry.key: entry.value for entry in model.metadata_props}


def test_an_annotated_model_is_the_model_with_its_findings(result, tmp_path):
    out = tmp_path / "annotated.onnx"
    original = Path(result.path).read_bytes()
    write_annotated(result, out)
    content = out.read_bytes()
    assert content.startswith(original)  # and so is its graph, byte by byte
    model, metadata = annotations(out)
    assert metadata["license"] == "MIT"
    told = {key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)}
    assert told["sha256"] == hashlib.sha256(original).hexdigest()
    lines = [value for key, value in told.items() if key.startswith("finding.")]
    assert [line.rpartition("[")[2].rstrip("]") for line in lines] == [f.id for f in result.findings]
    kept = json.loads(told["json"])["findings"]
    assert [one["fingerprint"] for one in kept] == [f.fingerprint for f in result.findings]
    del model.metadata_props[:]
    plain = onnx.load(result.path)
    del plain.metadata_props[:]
    assert model == plain


def test_annotating_again_replaces_what_was_there(result, tmp_path):
    """Entries of a file that call themselves ours, too: a model cannot bring its own audit."""
    model = onnx.load(result.path)
    model.metadata_props.add(key=f"{PREFIX}finding.9", value="nothing found")
    onnx.save(model, tmp_path / "forged.onnx")
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    audit_model(tmp_path / "forged.onnx", only=(), annotate=first)
    audit_model(first, only=(), annotate=second)
    assert first.read_bytes() == second.read_bytes()
    _, metadata = annotations(second)
    assert f"{PREFIX}finding.9" not in metadata
    assert metadata["license"] == "MIT"


def test_a_model_with_values_elsewhere_keeps_its_references(tmp_path):
    net = cnn()
    path = net.save(tmp_path / "net.onnx")
    folder = tmp_path / "apart"
    folder.mkdir()
    onnx.save(onnx.load(path), folder / "net.onnx", save_as_external_data=True, size_threshold=0)
    result = audit_model(folder / "net.onnx", only=())
    with pytest.raises(UsageError, match="name a file in the folder of"):
        write_annotated(result, tmp_path / "elsewhere.onnx")
    write_annotated(result, folder / "annotated.onnx")
    inputs = {"x": net.samples["x"][:2]}
    sessions = [ort.InferenceSession(file) for file in (path, folder / "annotated.onnx")]
    for before, after in zip(*(session.run(None, inputs) for session in sessions), strict=True):
        np.testing.assert_array_equal(before, after)


def test_only_onnx_files_that_may_be_loaded_are_annotated(tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(UsageError, match="metadata of an ONNX file"):
        audit_model(weights, annotate=tmp_path / "out.onnx")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(cnn().save(tmp_path / "net.onnx").read_bytes()[:-40])
    with pytest.raises(EmergraphError, match="nothing was written"):
        audit_model(damaged, annotate=tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(("room", "code"), [(0, 0), (-1, 6)])
def test_what_would_be_larger_than_a_file_can_be_is_refused(result, tmp_path, monkeypatch, room, code):
    write_annotated(result, tmp_path / "whole.onnx")
    size = (tmp_path / "whole.onnx").stat().st_size
    monkeypatch.setattr(annotating, "MAX_BYTES", size + room)
    if code == 0:
        write_annotated(result, tmp_path / "again.onnx")
        return
    with pytest.raises(LimitError, match="2 GiB"):
        write_annotated(result, tmp_path / "again.onnx")
    assert not (tmp_path / "again.onnx").exists()
