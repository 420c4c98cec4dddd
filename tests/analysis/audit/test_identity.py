import numpy as np
import pytest
from plantednets import Net, audited_fast, cnn, quantized, recurrent, transformer

from emergraph.exporters.export import export_onnx
from emergraph.graphstore.store import open_store


@pytest.mark.parametrize(
    ("net", "family"),
    [
        (cnn(), "convolutional network"),
        (transformer(), "transformer"),
        (recurrent(), "recurrent network"),
        (quantized(), "network of dense layers"),
    ],
    ids=["cnn", "transformer", "recurrent", "quantized"],
)
def test_what_a_file_is_and_takes(tmp_path, net: Net, family: str):
    net.metadata["license"] = "MIT"
    result = audited_fast(net.save(tmp_path / "net.onnx"))
    identity, size = result.identity, result.size
    assert identity.guess.family == family
    assert identity.guess.grounds
    assert identity.licence == "MIT"
    assert list(identity.inputs) == ["x"]
    assert identity.opsets == {"ai.onnx": 17}
    assert size.values == sum(int(np.size(value)) for value in net.weights.values())
    stored = sum(np.asarray(value).nbytes for value in net.weights.values())
    assert sum(size.bytes_by_dtype.values()) == stored
    assert size.activation_bytes >= size.largest_activation_bytes > 0


def test_flops_are_two_for_every_weight_that_is_not_zero(tmp_path):
    net = quantized(coded=False)
    net.weights["w1"][0] = 0
    size = audited_fast(net.save(tmp_path / "net.onnx")).size
    n_weights = sum(np.count_nonzero(net.weights[name]) for name in ("w1", "w2", "w3"))
    assert size.flops == 2 * n_weights


def test_graphs_of_a_store_with_the_same_weights_are_named(tmp_path):
    net, store = quantized(coded=False), tmp_path / "net.duckdb"
    with open_store(store, mode="create") as opened:
        export_onnx(net.save(tmp_path / "same.onnx"), opened)
        changed = quantized(coded=False)
        changed.weights["w2"] = changed.weights["w2"] + 1
        export_onnx(changed.save(tmp_path / "part.onnx"), opened)
        export_onnx(transformer().save(tmp_path / "other.onnx"), opened)
    net.metadata["note"] = "another file"
    result = audited_fast(net.save(tmp_path / "net.onnx"), store=store)
    sizes = {name: net.weights[name].size for name in ("w1", "w2", "w3")}
    expected = (sizes["w1"] + sizes["w3"]) / sum(sizes.values())
    assert result.identity.same_as == {"same": 1.0, "part": pytest.approx(expected)}


def test_the_library_audits_and_writes(tmp_path):
    import emergraph

    net = quantized(coded=False)
    net.weights["w2"][3] = 0
    path, out = net.save(tmp_path / "net.onnx"), tmp_path / "smaller.onnx"
    first = emergraph.audit(path, inputs=net.samples, write=out)
    assert out.exists()
    assert first.smaller.values_after < first.smaller.values_before
    again = emergraph.audit(path, inputs=net.samples, baseline=first)
    assert not again.findings
    assert again.accepted == len(first.findings)
