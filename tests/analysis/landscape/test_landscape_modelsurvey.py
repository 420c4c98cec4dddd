"""From a model file to a survey: budgets, and models that do harm where they are opened."""

import os
import time

import numpy as np
import onnx
import pytest
from landscapes import SERIAL, TINY
from onnx import TensorProto, helper, numpy_helper

from emergraph.analysis.landscape.modelsurvey import ModelOptions, survey_model
from emergraph.analysis.landscape.onnxmodels import rehearse
from emergraph.analysis.landscape.options import SurveyOptions
from emergraph.errors import InvalidInputError, LimitError, UsageError


class Deadly:
    def __reduce__(self):
        return os._exit, (3,)


class Slow:
    def __reduce__(self):
        return time.sleep, (60,)


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["s"], name="dense"),
            helper.make_node("Softmax", ["s"], ["p"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(rng.normal(size=(3, 4)).astype(np.float32), "w")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_a_model_that_kills_its_process_is_one_error():
    with pytest.raises(InvalidInputError, match="crashed or ran out of memory"):
        rehearse(Deadly(), {}, seconds=60)


def test_a_model_that_hangs_is_stopped():
    start = time.monotonic()
    with pytest.raises(LimitError, match=r"longer than 0\.5 s"):
        rehearse(Slow(), {}, seconds=0.5)
    assert time.monotonic() - start < 30


def test_a_survey_says_where_it_is_from(file):
    found = survey_model(file, TINY, ModelOptions(parallelism=SERIAL, samples=5))
    assert (found.source, found.samples, found.probes_seed) == ("m.onnx", 5, 0)
    assert found.survey.loss_name == "kl to the base model's outputs (probabilities)"
    assert found.expected_seconds == pytest.approx(TINY.cost(1) / found.rates[found.variant])
    assert found.to_dict()["base_loss"] == 0.0


def test_samples_are_cut_where_even_the_smallest_survey_is_too_long(file):
    found = survey_model(file, TINY, ModelOptions(parallelism=SERIAL, samples=500, budget=1e-6))
    assert found.samples == 2
    assert found.survey.notes[0].startswith("samples reduced from 500 to 2")


def test_the_norm_may_be_given_by_its_name():
    assert SurveyOptions(norm="element").cost(1) > 0
    with pytest.raises(UsageError, match="sphere"):
        SurveyOptions(norm="sphere")


def test_nothing_to_evaluate_on_is_refused(file):
    with pytest.raises(UsageError, match="neither inputs nor samples given"):
        survey_model(file, TINY, ModelOptions(samples=None))


def test_probes_of_free_sizes_are_told(tmp_path):
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 3, 1, 1])],
        [numpy_helper.from_array(rng.normal(size=(3, 2, 3, 3)).astype(np.float32), "w")],
    )
    path = tmp_path / "conv.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    found = survey_model(path, TINY, ModelOptions(parallelism=SERIAL, samples=4))
    assert "input 'x' has free sizes and ran at [4, 2, 2, 3]" in found.survey.notes[-1]
    decided = ModelOptions(parallelism=SERIAL, samples=4, input_shapes={"x": (1, 2, 8, 8)})
    assert not any("free sizes" in note for note in survey_model(path, TINY, decided).survey.notes)
