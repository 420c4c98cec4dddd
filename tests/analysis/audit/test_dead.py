import numpy as np
import pytest
from plantednets import Net, audited_fast, cnn, node, quantized, recurrent, transformer

from emergraph.analysis.audit.dead import BULK_BYTES, is_bulk
from emergraph.analysis.audit.kinds import Grade
from emergraph.analysis.audit.result import AuditResult
from emergraph.analysis.audit.subject import Given


def audited(net: Net, tmp_path, *, inputs: bool = False) -> AuditResult:
    path = net.save(tmp_path / "net.onnx")
    return audited_fast(path, Given(inputs=net.samples if inputs else {}))


def of(result: AuditResult, finding_id: str) -> list:
    return [found for found in result.findings if found.id == finding_id]


def test_units_without_a_path_are_named_with_their_layer(tmp_path):
    net = cnn()
    net.weights["w2"][[2, 7]] = 0
    net.weights["w4"][:, 5] = 0
    result = audited(net, tmp_path)
    (unreached,) = of(result, "DEAD-UNREACHED")
    (unread,) = of(result, "DEAD-UNREAD")
    assert unreached.units == {"conv2": [2, 7]}
    assert unread.units == {"dense3": [5]}
    assert unreached.grade is Grade.PROVED


def test_a_whole_chain_is_dead_behind_a_unit_that_nothing_reads(tmp_path):
    net = transformer()
    net.weights["w2"][[1, 4], :] = 0  # features of the hidden layer that nothing reads
    assert of(audited(net, tmp_path), "DEAD-UNREAD")[0].units == {"dense1": [1, 4]}


def test_a_unit_that_only_decides_is_not_unread(tmp_path):
    net = quantized(coded=False)
    net.nodes += [node("ArgMax", ["y"], "best", axis=1, keepdims=0)]
    net.outputs = [("best", ["N"], 7)]
    result = audited(net, tmp_path)
    assert not of(result, "DEAD-UNREAD")
    assert not of(result, "DEAD-OUTPUT")


def test_a_mask_that_depends_on_the_input_makes_nothing_constant(tmp_path):
    net = quantized(coded=False)
    net.weights["w1"][3] = 0
    net.weights["zero"], net.weights["minus"] = np.float32(0), np.float32(-1)
    net.nodes.insert(0, node("ReduceMax", ["x"], "top", axes=[1], keepdims=1))
    net.nodes.insert(1, node("Greater", ["top", "zero"], "positive"))
    net.put_after("relu1", node("Where", [], "masked"))
    net.node("masked").input[:] = ["positive", "relu1", "minus"]
    net.weights["w2"][:] = 0
    net.weights["w2"][:, 3] = 1  # the next layer reads only the constant unit, which the mask moves
    result = audited(net, tmp_path, inputs=True)
    assert [found.units for found in of(result, "DEAD-UNREACHED")] == [{"dense1": [3]}]
    assert np.ptp(net.samples["x"].max(axis=1)) > 0


def test_a_constant_output_element_is_found(tmp_path):
    net = cnn()
    net.weights["w4"][3] = 0
    result = audited(net, tmp_path, inputs=True)
    assert of(result, "DEAD-OUTPUT")[0].units == {"y": [3]}
    assert not of(result, "DEAD-FLAT-OUTPUT")


def test_silence_on_given_inputs_has_a_bound_for_samples_not_positions(tmp_path):
    net = cnn()
    net.weights["b2"][4] = -1e3
    (found, *_) = [f for f in of(audited(net, tmp_path, inputs=True), "DEAD-SILENT") if "conv2" in f.units]
    assert found.units == {"conv2": [4]}
    assert found.evidence["n_inputs"] == 12
    assert (watched := found.evidence["n_watched"]) > 8
    assert found.evidence["active_at_most"] == pytest.approx(1 - (0.05 / watched) ** (1 / 12))
    assert f"all {watched} units watched at once" in found.sentence
    assert found.grade is Grade.TESTED


def test_silence_on_random_inputs_is_one_info_that_is_only_suspected(tmp_path):
    net = cnn()
    net.weights["b2"][4] = -1e3
    result = audited(net, tmp_path)
    assert not of(result, "DEAD-SILENT")
    (found,) = of(result, "DEAD-SILENT-RANDOM")
    assert 4 in found.units["conv2"]
    assert (str(found.severity), found.grade) == ("info", Grade.SUSPECTED)


def test_what_nothing_reads_is_found(tmp_path):
    net = recurrent()
    net.weights["spare"] = np.ones((4, 4), np.float32)
    net.inputs.append(("extra", ["N", 2], 1))
    net.nodes.append(node("Tanh", ["final"], "unused"))
    result = audited(net, tmp_path)
    assert of(result, "DEAD-INITIALIZER")[0].tensors == ["spare"]
    assert "'extra'" in of(result, "DEAD-INPUT")[0].sentence
    assert of(result, "DEAD-OPERATION")[0].operations == ["unused"]


@pytest.mark.parametrize(
    ("n_bytes", "total", "expected"),
    [
        (BULK_BYTES, 1 << 30, True),
        (BULK_BYTES - 1, 1 << 30, False),
        (4096, 80_000, True),
        (4096, 90_000, False),
        (4095, 4095, False),
    ],
)
def test_a_large_initializer_that_nothing_reads_is_suspicious(n_bytes, total, expected):
    assert is_bulk(n_bytes, total) is expected


def test_a_healthy_net_has_no_warnings(tmp_path):
    for net in (transformer(), recurrent()):
        assert not [f for f in audited(net, tmp_path).findings if str(f.severity) != "info"]


def test_a_pruned_chain_of_layers_is_one_finding_that_names_it(tmp_path):
    net = quantized(coded=False)
    net.weights["w1"][[2, 3]] = 0
    net.weights["w2"][[4, 5]] = 0
    net.weights["w2"][:, [2, 3]] = 0
    net.weights["w3"][:, [4, 5]] = 0
    result = audited(net, tmp_path)
    (unreached,) = of(result, "DEAD-UNREACHED")
    assert unreached.units == {"dense1": [2, 3], "dense2": [4, 5]}
    assert "4 of the 32 units of 2 layers in a row ('dense1', 'dense2') are reached" in unreached.sentence
    (unread,) = of(result, "DEAD-UNREAD")
    assert unread.evidence["layers"] == 2


def test_layers_with_a_whole_one_between_them_are_no_chain(tmp_path):
    net = cnn()
    net.weights["w1"][1] = 0  # behind a normalisation
    net.weights["w3"][2] = 0  # conv2 lies between
    found = of(audited(net, tmp_path), "DEAD-UNREACHED")
    assert [one.units for one in found] == [{"conv1": [1]}, {"dense3": [2]}]
