import numpy as np
import pytest
from plantednets import audited_fast, cnn, node, quantized, recurrent, transformer

from emergraph.analysis.audit.numbers import VARIANCE_SHARE, tiny_variances
from emergraph.analysis.audit.subject import Given


def findings(net, tmp_path, *, inputs=False):
    path = net.save(tmp_path / "net.onnx")
    return {f.id: f for f in audited_fast(path, Given(inputs=net.samples if inputs else {})).findings}


def test_a_nan_is_found_with_the_unit_that_reads_it_and_the_output_that_shows_it(tmp_path):
    net = transformer()
    net.weights["w1"][2, 5] = np.nan
    found = findings(net, tmp_path, inputs=True)
    assert found["NUM-NONFINITE"].units == {"dense1": [5]}
    assert found["NUM-NONFINITE"].tensors == ["w1"]
    assert "NUM-NAN-OUTPUT" in found
    assert "ONNX-VALUE-NONFINITE" not in found


def test_subnormals_limits_and_values_beyond_float16_are_told_apart(tmp_path):
    net = quantized(coded=False)
    net.weights["w1"][0, 0] = 1e-40
    net.weights["w2"][1, 1] = 7e4
    net.weights["w3"][2, 2] = np.finfo(np.float32).max
    found = findings(net, tmp_path)
    assert found["NUM-SUBNORMAL"].tensors == ["w1"]
    assert found["NUM-FLOAT16-WEIGHT"].tensors == ["w2"]
    assert found["NUM-LIMIT"].tensors == ["w3"]


def test_65504_is_within_float16(tmp_path):
    net = quantized(coded=False)
    net.weights["w2"][1, 1] = 65504
    assert "NUM-FLOAT16-WEIGHT" not in findings(net, tmp_path)


def test_an_activation_beyond_float16_is_found(tmp_path):
    net = quantized(coded=False)
    net.weights["w1"][4] *= 1e6
    net.weights["w2"][:, 4] *= 1e-6
    found = findings(net, tmp_path, inputs=True)
    assert found["NUM-FLOAT16-ACTIVATION"].units["dense1"] == [4]


@pytest.mark.parametrize("op", ["Sigmoid", "Tanh"])
def test_saturated_units_are_found(tmp_path, op):
    net = quantized(coded=False)
    net.node("relu2").op_type = op
    net.weights["b2"][3] = 50
    found = findings(net, tmp_path, inputs=True)
    assert found["NUM-SATURATED"].units == {"dense2": [3]}


def test_a_gate_without_weights_is_found(tmp_path):
    net = recurrent()
    net.weights["wi"][0, 3] = 0
    net.weights["wr"][0, 3] = 0
    assert findings(net, tmp_path)["NUM-DEAD-GATE"].evidence["gates"] == 1


def test_variances_near_zero_are_found(tmp_path):
    net = cnn()
    net.weights["var"][6] = 0
    assert findings(net, tmp_path)["NUM-VARIANCE"].units == {"norm1": [6]}
    epsilon = 1e-5
    edge = np.array([VARIANCE_SHARE * epsilon * 0.999, VARIANCE_SHARE * epsilon * 1.001])
    assert tiny_variances(edge, epsilon).tolist() == [0]


def test_random_operations_are_found_where_an_output_depends_on_them(tmp_path):
    net = quantized(coded=False)
    net.nodes.insert(0, node("RandomNormalLike", ["x"], "noise"))
    assert "NUM-RANDOM" not in findings(net, tmp_path)
    net.nodes.insert(1, node("Add", ["x", "noise"], "noisy"))
    net.node("dense1").input[0] = "noisy"
    assert findings(net, tmp_path)["NUM-RANDOM"].operations == ["noise"]


def test_a_mask_of_minus_infinity_is_no_broken_weight(tmp_path):
    net = transformer()
    net.weights["mask"] = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    net.put_after("scores", node("Add", ["mask"], "masked"))
    assert "NUM-NONFINITE" not in findings(net, tmp_path)
    net.weights["mask"][0, 0] = np.nan
    assert "NUM-NONFINITE" in findings(net, tmp_path)
