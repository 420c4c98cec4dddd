import json

import numpy as np
import onnx
import onnxruntime
import pytest
from plantednets import audited_fast, cnn, node, quantized, recurrent, transformer

from emergraph.analysis.audit import writing
from emergraph.analysis.audit.kinds import Grade
from emergraph.analysis.audit.network import rank_at
from emergraph.analysis.audit.redundant import is_worth
from emergraph.analysis.audit.subject import AGREEMENT, Given, elementwise
from emergraph.analysis.audit.writing import METADATA
from emergraph.errors import UsageError


def findings(net, tmp_path):
    return {f.id: f for f in audited_fast(net.save(tmp_path / "net.onnx")).findings}


def outputs(path, samples):
    return onnxruntime.InferenceSession(str(path)).run(None, samples)


def written(net, tmp_path, *, inputs=True, **choices):
    """The smaller model, which has to agree with the original on inputs that the audit has not seen."""
    path, out = net.save(tmp_path / "net.onnx"), tmp_path / "smaller.onnx"
    given = Given(inputs=net.samples if inputs else {})
    result = audited_fast(path, given, write=out, **choices)
    rng = np.random.default_rng(99)
    other = {name: rng.standard_normal(x.shape).astype(x.dtype) for name, x in net.samples.items()}
    if not choices.get("also_tested"):
        for a, b in zip(outputs(path, other), outputs(out, other), strict=True):
            assert elementwise(a, b) <= AGREEMENT
    assert result.smaller.bytes_after == out.stat().st_size
    return result.smaller, onnx.load(out)


@pytest.mark.parametrize("factor", [1.0, 0.5, 3.0])
def test_twins_up_to_a_positive_factor_are_found_and_merged(tmp_path, factor):
    net = cnn()
    for name in ("w2", "b2"):
        net.weights[name][7] = factor * net.weights[name][1]
    found = findings(net, tmp_path)["TWIN-UNITS"]
    assert found.units == {"conv2": [1, 7]}
    assert found.evidence["twins"][0]["factor"] == pytest.approx(factor)
    smaller, model = written(net, tmp_path)
    assert smaller.applied["TWIN-UNITS"] == 1
    shapes = {p.name: list(p.dims) for p in model.graph.initializer}
    assert [11, 12, 3, 3] in shapes.values()
    assert [12, 11] in shapes.values()


def test_a_factor_needs_a_nonlinearity_that_allows_it(tmp_path):
    net = quantized(coded=False)
    net.node("relu1").op_type = "Tanh"
    for name in ("w1", "b1"):
        net.weights[name][5] = 2 * net.weights[name][3]
        net.weights[name][9] = net.weights[name][8]
    assert findings(net, tmp_path)["TWIN-UNITS"].units == {"dense1": [8, 9]}


def test_a_negative_multiple_is_no_twin_and_neither_is_another_bias(tmp_path):
    net = cnn()
    net.weights["w2"][7] = -net.weights["w2"][1]
    net.weights["w3"][4] = net.weights["w3"][2]
    assert "TWIN-UNITS" not in findings(net, tmp_path)


def test_cells_of_a_recurrence_are_twins_when_all_their_gates_are(tmp_path):
    net = recurrent()
    for gate in range(4):
        net.weights["wi"][0, gate * 10 + 6] = net.weights["wi"][0, gate * 10 + 2]
        net.weights["wr"][0, gate * 10 + 6] = net.weights["wr"][0, gate * 10 + 2]
        net.weights["bi"][0, gate * 10 + 6] = net.weights["bi"][0, gate * 10 + 2]
    assert findings(net, tmp_path)["TWIN-UNITS"].units == {"lstm": [2, 6]}
    net.weights["wr"][0, 6, 0] += 0.5
    assert "TWIN-UNITS" not in findings(net, tmp_path)


def test_twins_in_codes_are_found(tmp_path):
    net = quantized()
    net.weights["w2_q"][5] = net.weights["w2_q"][3]
    net.weights["s2"][5] = 2 * net.weights["s2"][3]
    net.weights["b2"][5] = 2 * net.weights["b2"][3]
    assert findings(net, tmp_path)["TWIN-UNITS"].units == {"dense2": [3, 5]}


def test_equal_layers_and_tensors_are_found_and_stored_once(tmp_path):
    net = transformer(width=24)
    net.weights["wk"] = net.weights["wq"].copy()
    found = findings(net, tmp_path)
    assert set(found["TWIN-LAYERS"].units) == {"q", "k"}
    assert set(found["STORED-TWICE"].tensors) == {"wq", "wk"}
    smaller, _ = written(net, tmp_path)
    assert smaller.applied["STORED-TWICE"] == 1
    assert smaller.values_before - smaller.values_after == 24 * 24


def test_a_shared_tensor_is_not_a_twin(tmp_path):
    net = transformer()
    net.node("k").input[1] = "wq"
    assert "TWIN-LAYERS" not in findings(net, tmp_path)


def test_a_chain_of_linear_layers_is_found_and_folded(tmp_path):
    net = quantized(coded=False)
    net.nodes = [one for one in net.nodes if one.name != "relu1"]
    net.node("dense2").input[0] = "dense1"
    found = findings(net, tmp_path)["LINEAR-CHAIN"]
    assert found.operations == ["dense1", "dense2"]
    assert found.evidence["saved"] == 16 * 8 + 16 * 16 - 16 * 8
    smaller, model = written(net, tmp_path)
    assert smaller.applied["LINEAR-CHAIN"] == 1
    assert [one.op_type for one in model.graph.node] == ["Gemm", "Relu", "Gemm"]


def test_a_chain_that_would_grow_is_none(tmp_path):
    net = quantized(coded=False, width=3)
    net.nodes = [one for one in net.nodes if one.name != "relu1"]
    net.node("dense2").input[0] = "dense1"
    net.weights["w2"] = np.ones((40, 3), np.float32)
    net.weights["b2"] = np.ones(40, np.float32)
    net.weights["w3"] = np.ones((8, 40), np.float32)
    assert "LINEAR-CHAIN" not in findings(net, tmp_path)


def test_operations_that_change_nothing_are_found_and_left_out(tmp_path):
    net = cnn()
    net.weights["zero"], net.weights["ones"] = np.zeros(1, np.float32), np.ones((12, 1, 1), np.float32)
    net.put_after("relu2", node("Identity", [], "same"))
    net.put_after("conv2", node("Mul", ["ones"], "scaled"))
    net.put_after("relu1", node("Relu", [], "again"))
    net.put_after("flat", node("Transpose", [], "turned", perm=[0, 1]))
    net.put_after("dense3", node("Add", ["zero"], "added"))
    assert set(findings(net, tmp_path)["IDENTITY-OPERATION"].operations) == {
        *("same", "scaled", "again", "turned", "added")
    }
    smaller, model = written(net, tmp_path)
    assert smaller.applied["IDENTITY-OPERATION"] == 5
    assert len(model.graph.node) == 9  # with the normalisation folded


def test_what_changes_shape_type_or_values_stays(tmp_path):
    net = cnn()
    net.weights["wide"], net.weights["two"] = np.zeros((3, 1), np.float32), np.array([1, 2], np.float32)
    net.put_after("pool", node("Cast", [], "double", to=11))
    net.put_after("double", node("Cast", [], "single", to=1))
    net.put_after("relu3", node("LeakyRelu", [], "leaky"))
    net.put_after("leaky", node("LeakyRelu", [], "leakier"))
    assert "IDENTITY-OPERATION" not in findings(net, tmp_path)


def test_a_normalisation_behind_a_layer_is_found_and_folded(tmp_path):
    smaller, model = written(cnn(), tmp_path)
    assert smaller.applied["FOLDABLE-NORM"] == 1
    assert "BatchNormalization" not in {one.op_type for one in model.graph.node}
    net = cnn()
    net.nodes.insert(1, node("Relu", ["conv1"], "elsewhere"))
    net.nodes.append(node("GlobalMaxPool", ["elsewhere"], "more"))
    net.outputs.append(("more", ["N", 12, 1, 1], 1))
    assert "FOLDABLE-NORM" not in findings(net, tmp_path)


def test_dead_units_and_unread_initializers_are_cut(tmp_path):
    net = cnn()
    net.weights["w2"][[2, 7]] = 0
    net.weights["w4"][:, 5] = 0
    net.weights["spare"] = np.ones((9, 9), np.float32)
    smaller, model = written(net, tmp_path)
    assert smaller.applied["DEAD-UNREACHED or DEAD-UNREAD"] == 3
    assert sum(int(np.prod(p.dims)) for p in model.graph.initializer) == smaller.values_after
    # two of twelve channels of conv2, one unit of dense3, the normalisation, the spare tensor
    assert smaller.values_before - smaller.values_after == 81 + 4 * 12 + 2 * (108 + 1) + 2 * 11 + 13 + 5


def test_silent_units_are_cut_only_when_asked_and_the_file_says_so(tmp_path):
    net = cnn()
    net.weights["b2"][4] = -50
    smaller, model = written(net, tmp_path)
    assert "DEAD-SILENT" not in smaller.applied
    assert not model.metadata_props
    smaller, model = written(net, tmp_path, also_tested=True)
    assert smaller.applied["DEAD-SILENT"] >= 1
    (entry,) = model.metadata_props
    assert entry.key == METADATA
    assert json.loads(entry.value)["n_inputs"] == 12
    assert 4 in json.loads(entry.value)["cut"]["conv2"]


def test_tested_needs_inputs(tmp_path):
    with pytest.raises(UsageError, match="--inputs"):
        written(cnn(), tmp_path, inputs=False, also_tested=True)


def test_a_quantized_model_is_cut_bit_by_bit_or_as_tested(tmp_path, monkeypatch):
    net = quantized()
    net.weights["w3_q"][:, 5] = 0  # nothing reads a unit of the last layer but one
    net.weights["w3_q"][:, 6:] = 0
    out = tmp_path / "smaller.onnx"
    # sums in another order may round otherwise: on this machine they do not
    monkeypatch.setattr(writing, "agreement", lambda *_: (1e-8, False, 12))
    with pytest.raises(UsageError, match="bit by bit"):
        audited_fast(net.save(tmp_path / "net.onnx"), write=out)
    assert not out.exists()
    _, model = written(net, tmp_path, also_tested=True)
    assert {tuple(p.dims) for p in model.graph.initializer} >= {(5, 16), (8, 5)}
    assert json.loads(model.metadata_props[0].value)["grade"] == "tested"


def test_metadata_stays_and_nothing_is_written_that_depends_on_chance(tmp_path):
    net = quantized(coded=False)
    net.metadata["license"] = "MIT"
    _, model = written(net, tmp_path)
    assert {p.key: p.value for p in model.metadata_props} == {"license": "MIT"}
    net.nodes.insert(0, node("RandomNormalLike", ["x"], "noise"))
    net.nodes.insert(1, node("Add", ["x", "noise"], "noisy"))
    net.node("dense1").input[0] = "noisy"
    out = tmp_path / "not.onnx"
    with pytest.raises(UsageError, match="random numbers"):
        audited_fast(net.save(tmp_path / "chance.onnx"), write=out)
    assert not out.exists()


@pytest.mark.parametrize(("rank", "expected"), [(2, True), (4, True), (7, False)])
def test_low_rank_is_found_where_two_factors_are_smaller(tmp_path, rank, expected):
    rng = np.random.default_rng(5)
    net = quantized(coded=False)
    net.weights["w2"] = (rng.standard_normal((16, rank)) @ rng.standard_normal((rank, 16))).astype(np.float32)
    found = findings(net, tmp_path).get("LOW-RANK")
    assert (found is not None) is expected
    assert not expected or found.evidence["rank"] == rank


def test_rank_and_worth():
    assert rank_at(np.eye(8)) == 8
    assert rank_at(np.zeros((8, 8))) is None
    assert rank_at(np.ones((3, 8))) is None
    assert is_worth(6, (16, 16))
    assert not is_worth(7, (16, 16))


def test_agreement_is_element_by_element_and_exact_for_integers():
    a = np.array([1.0, 1000.0], np.float32)
    assert elementwise(a, a + np.float32(0.05)) == pytest.approx(5e-5, rel=0.01)
    assert elementwise(np.array([0.5]), np.array([0.5 + 9e-5])) == pytest.approx(9e-5)
    assert elementwise(np.array([1, 2]), np.array([1, 3])) == np.inf
    assert elementwise(np.array([np.nan]), np.array([np.nan])) == 0
    assert elementwise(np.array([np.nan]), np.array([0.0])) == np.inf
    assert elementwise(np.ones(2), np.ones(3)) == np.inf


@pytest.mark.parametrize(
    ("noise", "inputs", "grade"),
    [(0.0, True, Grade.TESTED), (0.0, False, Grade.SUSPECTED), (7e-4, True, Grade.SUSPECTED)],
)
def test_low_rank_is_tested_where_two_factors_agree_on_given_inputs(tmp_path, noise, inputs, grade):
    rng = np.random.default_rng(5)
    net = transformer()  # its weights lie the other way round
    low = rng.standard_normal((24, 2)) @ rng.standard_normal((2, 12))
    net.weights["w2"] = (low + noise * rng.standard_normal(low.shape)).astype(np.float32)
    given = Given(inputs=net.samples if inputs else {})
    result = audited_fast(net.save(tmp_path / "net.onnx"), given)
    (found,) = [one for one in result.findings if one.id == "LOW-RANK"]
    assert found.evidence["rank"] == 2
    assert found.grade is grade
    assert (found.evidence["difference"] <= AGREEMENT) is (noise == 0)
    assert ("which agrees" in found.sentence) is (noise == 0)
