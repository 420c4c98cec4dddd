import numpy as np
from plantednets import quantized

from emergraph.analysis.audit.audit import audit_model
from emergraph.analysis.audit.kinds import Grade
from emergraph.analysis.audit.prunable import BOUND
from emergraph.analysis.audit.subject import Given


def test_the_better_scope_is_the_headline_and_why_the_other_collapses(tmp_path):
    net = quantized(width=32, coded=False)
    rng = np.random.default_rng(0)
    for name in ("w1", "w2", "w3"):
        small = rng.random(net.weights[name].shape) < 0.6
        net.weights[name][small] *= 1e-4
    net.weights["w2"] *= 1e-5  # a layer whose weights are all smaller than the others' smallest
    net.weights["b2"] *= 1e-5
    net.weights["w3"] *= 1e5
    result = audit_model(net.save(tmp_path / "net.onnx"), Given(inputs=net.samples))
    (found,) = [f for f in result.findings if f.id == "PRUNABLE-WEIGHTS"]
    assert found.evidence["scope"] == "layer"
    assert found.grade is Grade.TESTED
    levels = {one["scope"]: one["level"] for one in found.evidence["scopes"]}
    assert levels["layer"] > levels["global"]
    assert "'dense2' then loses" in found.sentence
    assert all(one["change"] <= BOUND for one in found.evidence["scopes"])


def test_fragile_layers_are_named_with_what_they_do(tmp_path):
    net = quantized(width=32, coded=False)
    net.weights["w2"] = np.eye(32, dtype=np.float32) + 1e-5  # half of it is nothing
    result = audit_model(net.save(tmp_path / "net.onnx"), Given(inputs=net.samples))
    (found,) = [f for f in result.findings if f.id == "FRAGILE-LAYERS"]
    assert "dense2" not in found.units
    assert found.evidence["changes"]["dense2"] < BOUND
    assert result.at_least(found.severity)
