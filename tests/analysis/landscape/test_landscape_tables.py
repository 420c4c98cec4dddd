"""Curves, networks and lines of a survey as tables."""

import numpy as np
import pytest

from emergraph.analysis.landscape.curvature import curvature
from emergraph.analysis.landscape.evaluator import FunctionEvaluator
from emergraph.analysis.landscape.extras import Extras
from emergraph.analysis.landscape.hypercube import exact_autocorrelation
from emergraph.analysis.landscape.layout import Layout
from emergraph.analysis.landscape.lines import line_to
from emergraph.analysis.landscape.lon import build_lon
from emergraph.analysis.landscape.options import SurveyOptions
from emergraph.analysis.landscape.saving import (
    curve_points,
    edge_rows,
    network_forms,
    node_rows,
    survey_frames,
)
from emergraph.analysis.landscape.survey import run_survey

LAYOUT = Layout.of_shapes([(6, 5)])
BASE = np.random.default_rng(0).normal(size=30).astype(np.float32)


def rough(theta):
    return float(np.sum(np.cos(7 * theta.astype(float))))


class Rough(FunctionEvaluator):
    def gradient(self, theta):
        return -7 * np.sin(7 * np.asarray(theta, dtype=float))

    def hessian(self, theta=None):
        at = np.asarray(self.base if theta is None else theta, dtype=float)
        outer = self

        class Operator:
            n = at.size
            gradient = outer.gradient(at)

            def product(self, vector):
                return -49 * np.cos(7 * at) * vector

        return Operator()


@pytest.fixture(scope="module")
def survey():
    options = SurveyOptions(planes=0, directions=2, walks=3, walk_length=30, masks=5, eigenvalues=2, pairs=2)
    evaluator = Rough(rough, BASE, LAYOUT)
    found = run_survey(evaluator, options)
    extras = Extras(line=line_to(evaluator, -BASE, name="far"), curvature=curvature(evaluator, options))
    return __import__("dataclasses").replace(found, extras=extras)


def test_curves_hold_what_the_survey_says(survey):
    curves: dict[str, dict[float, float]] = {}
    for name, number, x, y in curve_points(survey):
        if number == 0:
            curves.setdefault(name, {})[x] = y
    assert curves["rho"][0] == 1.0
    assert curves["rho"][1] == pytest.approx(survey.autocorrelation.rho[1])
    exact = exact_autocorrelation(survey.masks.losses, max_lag=10)
    assert list(curves["mask_rho"].values()) == pytest.approx(exact.tolist())
    assert sum(curves["mask_spectrum"].values()) == pytest.approx(1)
    assert curves["hessian_largest"][1] == pytest.approx(
        np.max(-49 * np.cos(7 * BASE.astype(float))), rel=1e-3
    )
    assert sum(curves["hessian_density"].values()) == pytest.approx(1)


def test_lines_and_planes_are_points(survey):
    points = survey_frames(survey)["landscape_points"]
    assert points.filter(kind="line").height == 25
    assert points.filter(kind="line", x=0.0)["loss"].to_list() == [pytest.approx(survey.base_loss)]
    assert points.filter(kind="hessian_plane").height == 21**2


def test_single_figures_have_no_interval(survey):
    table = survey_frames(survey)["landscape"]
    row = table.filter(statistic="line_barrier").row(0, named=True)
    assert (row["n"], row["low"]) == (1, None)
    shares = [f"mask_epistasis_{kind}" for kind in ("none", "magnitude", "sign", "reciprocal_sign")]
    assert sum(table.filter(statistic=s)["mean"][0] for s in shares) == pytest.approx(1)
    assert table.filter(statistic="mask_rho_1")["null_value"].to_list() == [pytest.approx(1 - 2 / 5)]


def test_networks_have_three_forms():
    # 0 and 1 are equal and joined, 2 lies above them, 3 is a funnel of its own.
    lon = build_lon([0.0, 0.0, 1.0, 0.5], [2, 0, 1, 3, 2], [0, 1, 0, 2, 3], [4, 1, 2, 1, 3])
    full, downhill, small = network_forms("descents", lon, precision=0.0)
    assert [n.graph.ecount() for n in (full, downhill, small)] == [5, 4, 2]
    nodes = list(node_rows(small))
    assert [node["optima"] for node in nodes] == [2, 1, 1]
    assert [node["sink"] for node in nodes] == [True, False, True]
    assert [node["in_strength"] for node in nodes] == [4.0, 0.0, 3.0]
    assert [node["part_of"] for node in node_rows(full)] == [0, 0, 1, 2]
    assert sum(edge["weight"] for edge in edge_rows(full)) == 11
    assert {edge["form"] for edge in edge_rows(small)} == {"compressed"}


def test_nodes_of_mask_networks_say_which_masks(survey):
    frames = survey_frames(survey)
    nodes = frames["landscape_optima"].filter(network="masks", form="full")
    assert nodes["basin"].sum() == 2**5
    states = dict(zip(frames["landscape_masks"]["state"], frames["landscape_masks"]["loss"], strict=True))
    assert nodes["loss"].to_list() == [states[state] for state in nodes["state"]]
