"""Ruggedness of single tensors, rises on balls, and groups for masks, on known functions."""

import numpy as np
import pytest

from emergraph.analysis.landscape.evaluator import FunctionEvaluator
from emergraph.analysis.landscape.layers import layer_ruggedness, layer_tasks, perturbed_blocks
from emergraph.analysis.landscape.layout import Layout
from emergraph.analysis.landscape.options import Norm, SurveyOptions
from emergraph.analysis.landscape.survey import weight_groups
from emergraph.analysis.landscape.sweep import run_sweep
from emergraph.analysis.landscape.tasks import BallTask

LAYOUT = Layout.of_shapes([(5, 8), (5,), (4, 5)], ["bowl", "bias", "waves"])
BASE = np.random.default_rng(0).normal(size=LAYOUT.n_params).astype(np.float32)


def mixed(theta):
    """A bowl in the first tensor, high waves in the last."""
    gap = theta.astype(float) - BASE
    bowl, waves = gap[LAYOUT.blocks[0].span], gap[LAYOUT.blocks[2].span]
    return float(bowl @ bowl + np.sum(1 - np.cos(60 * waves)))


def test_the_rugged_tensor_is_told_from_the_smooth_one():
    options = SurveyOptions(layer_walk_length=200)
    evaluator = FunctionEvaluator(mixed, BASE, LAYOUT)
    parts = layer_tasks(LAYOUT, options)
    found = {name: run_sweep(evaluator, tasks) for name, tasks in parts.items()}
    smooth, rugged = layer_ruggedness(LAYOUT, options, found, base_loss=0.0)
    assert (smooth.tensor, rugged.tensor) == ("bowl", "waves")
    assert smooth.rho_1.low <= 0.81 <= smooth.rho_1.high
    assert smooth.excess.low <= 0 <= smooth.excess.high
    assert rugged.excess.low > 0.3
    squares = float(np.sum(BASE[LAYOUT.blocks[0].span].astype(float) ** 2))
    assert smooth.rise.mean == pytest.approx(squares, rel=1e-4)
    assert smooth.to_dict()["rho_1"]["null"] == pytest.approx(0.81)


def test_vectors_are_moved_by_the_norms_that_cover_them():
    assert [b.name for b in perturbed_blocks(LAYOUT, Norm.FILTER)] == ["bowl", "waves"]
    assert [b.name for b in perturbed_blocks(LAYOUT, Norm.ELEMENT)] == ["bowl", "bias", "waves"]


@pytest.mark.parametrize("adaptive", [False, True])
def test_mean_rise_on_a_ball_is_the_trace_over_the_dimension(adaptive):
    """E L(theta + e) - L(theta) = rho^2 tr(T A T) / (2 n) on the ball |T^-1 e| = rho of a quadratic."""
    curvatures = np.random.default_rng(1).uniform(0.5, 3, LAYOUT.n_params)
    evaluator = FunctionEvaluator(
        lambda t: float(curvatures @ (t.astype(float) - BASE) ** 2) / 2, BASE, LAYOUT
    )
    tasks = [BallTask(0.4, adaptive, Norm.ELEMENT, 0, i) for i in range(300)]
    rises = np.array(run_sweep(evaluator, tasks))
    metric = BASE.astype(float) ** 2 if adaptive else 1.0
    expected = 0.4**2 * float(np.sum(curvatures * metric)) / (2 * LAYOUT.n_params)
    error = rises.mean(axis=1).std() / np.sqrt(len(rises))
    assert rises.mean() == pytest.approx(expected, abs=4 * error)
    assert rises.max() <= 0.4**2 * np.max(curvatures * metric) / 2
    assert rises[:, 0] == pytest.approx(rises[:, 1], rel=1e-3)


def test_balls_move_only_what_the_norm_moves():
    seen = []
    evaluator = FunctionEvaluator(lambda t: seen.append(t - BASE) or 0.0, BASE, LAYOUT)
    BallTask(0.4, False, Norm.FILTER, 0, 0).run(evaluator)
    assert not seen[0][LAYOUT.blocks[1].span].any()
    assert float(np.linalg.norm(seen[0])) == pytest.approx(0.4, rel=1e-4)


@pytest.mark.parametrize("m", [1, 2, 3, 6, 9])
def test_groups_cover_all_weights_once_whether_tensors_are_many_or_few(m):
    groups = weight_groups(LAYOUT, m=m)
    assert len(groups) == m
    weights = np.concatenate([np.arange(0, 40), np.arange(45, 65)])
    assert np.array_equal(np.sort(np.concatenate(list(groups.values()))), weights)


def test_there_are_never_more_groups_than_filters():
    assert len(weight_groups(LAYOUT, m=14)) == 9


def test_every_repeated_statistic_has_at_least_ten_repetitions_by_default():
    options = SurveyOptions()
    counts = (options.directions, options.planes, options.walks, options.pairs, options.balls)
    assert min(*counts, options.layer_directions, options.layer_walks) >= 10
