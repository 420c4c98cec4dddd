"""PyTorch modules of a factory: inputs, engines, other checkpoints."""

import numpy as np
import pytest
from landscapes import SERIAL, TINY

from emergraph.analysis.landscape.modelsurvey import ModelOptions, survey_model
from emergraph.analysis.landscape.options import SurveyOptions
from emergraph.errors import UsageError

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from emergraph.analysis.landscape.engine_torch import VmapEvaluator  # noqa: E402 - needs torch
from emergraph.analysis.landscape.modulemodels import prepare_module  # noqa: E402 - needs torch

SOURCE = """
import torch


class Twice(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, first, second):
        return self.layer(first + second)


class Stubborn(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, x):
        y = self.layer(x)
        return y * float(y.abs().max().item() > 0)


def seeded(make):
    torch.manual_seed(0)
    return make()


def dense():
    return seeded(lambda: torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)))


def normed():
    parts = (torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    return seeded(lambda: torch.nn.Sequential(*parts)), (torch.randn(8, 3),)


def twice():
    return seeded(Twice)


def stubborn():
    return seeded(Stubborn), (torch.ones(2, 3),)


def number():
    return 3
"""
X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def factories(tmp_path_factory):
    folder = tmp_path_factory.mktemp("factories")
    (folder / "landscape_factories.py").write_text(SOURCE)
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(folder)
    yield
    patch.undo()


def prepared(name, **how):
    return prepare_module(f"landscape_factories:{name}", SurveyOptions(), ModelOptions(**how), None)


def test_inputs_are_taken_by_name_drawn_by_shape_or_given_by_the_factory():
    assert prepared("dense", inputs={"anything": X}).samples == 8
    drawn = prepare_module(
        "landscape_factories:dense", SurveyOptions(seed=5), ModelOptions(input_shapes={"x": (1, 3)}), 6
    )
    assert (drawn.samples, drawn.probes_seed) == (6, 5)
    assert prepared("normed").samples == 8
    both = prepared("twice", inputs={"second": X, "first": 2 * X})
    weight = both.evaluator.base[:6].reshape(2, 3)
    assert both.evaluator.outputs(both.evaluator.base)[0][0] == pytest.approx(
        3 * X @ weight.T + both.evaluator.base[6:], abs=1e-5
    )


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("dense", {}, "a module needs inputs"),
        ("number", {}, "made a int"),
        ("twice", {"inputs": {"third": X, "first": X}}, "unknown argument of the module 'third'"),
        ("twice", {"inputs": {"second": X}}, "expected the first arguments"),
        ("dense", {"inputs": {"x": X}, "outputs": ("y",)}, "goes with an ONNX file"),
    ],
)
def test_what_does_not_fit_is_one_line(name, how, message):
    with pytest.raises(UsageError, match=message):
        prepared(name, **how)


def test_small_nets_may_be_evaluated_many_at_a_time_and_others_are_not():
    (name, engine), *_ = prepared("dense", inputs={"x": X}).alternatives
    assert name == "vmap"
    assert isinstance(engine, VmapEvaluator)
    assert prepared("stubborn").alternatives == ()


def test_a_line_with_batch_norm_recomputes_its_statistics(tmp_path):
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    # Statistics that have nothing to do with the weights: recomputed, they do not matter.
    other[1].running_mean.fill_(100.0)
    safetensors.save_file(other.state_dict(), tmp_path / "far.safetensors")
    how = ModelOptions(to=tmp_path / "far.safetensors", parallelism=SERIAL, budget=None)
    found = survey_model("landscape_factories:normed", TINY, how).survey
    assert any("running statistics recomputed" in note for note in found.notes)
    assert found.extras.line.barrier.ends[1] < 10
    assert found.extras.line.other == "far.safetensors"


def test_the_same_seed_gives_the_same_survey_of_a_module():
    how = ModelOptions(parallelism=SERIAL, budget=None)
    options = SurveyOptions(**{**vars(TINY), "eigenvalues": 1})
    first, second = (survey_model("landscape_factories:normed", options, how).survey for _ in range(2))
    assert first.to_dict() == second.to_dict()
    assert first.extras.curvature.extremes.converged
