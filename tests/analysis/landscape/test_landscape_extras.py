"""Lines, runs, curvature and optima around a point, on functions whose answers are known."""

import numpy as np
import pytest

from emergraph.analysis.landscape.curvature import curvature
from emergraph.analysis.landscape.evaluator import FunctionEvaluator
from emergraph.analysis.landscape.extras import Extras
from emergraph.analysis.landscape.layout import Layout
from emergraph.analysis.landscape.lines import line_to
from emergraph.analysis.landscape.optima import optima_network
from emergraph.analysis.landscape.options import Norm, SurveyOptions
from emergraph.analysis.landscape.trajectories import trajectory_plane
from emergraph.errors import UsageError

N = 12
LAYOUT = Layout.of_shapes([(3, 4)])


class Quadratic(FunctionEvaluator):
    """(t - c)' A (t - c) / 2 with its gradient and Hessian."""

    def __init__(self, values, base, centre=0.0):
        rng = np.random.default_rng(0)
        q, _ = np.linalg.qr(rng.normal(size=(N, N)))
        self.matrix = q @ np.diag(values) @ q.T
        self.centre = np.full(N, centre)
        super().__init__(self.value, np.full(N, base, dtype=np.float32), LAYOUT)

    def value(self, theta):
        gap = theta.astype(float) - self.centre
        return float(gap @ self.matrix @ gap) / 2

    def gradient(self, theta):
        return self.matrix @ (np.asarray(theta, dtype=float) - self.centre)

    def hessian(self, theta=None):
        outer = self

        class Operator:
            n = N
            gradient = outer.gradient(outer.base if theta is None else theta)

            def product(self, vector):
                return outer.matrix @ vector

        return Operator()


VALUES = np.array([9.0, 4.0, *np.linspace(1, 0.1, 9), -0.5])


@pytest.fixture(scope="module")
def found():
    return curvature(
        Quadratic(VALUES, 1.0, centre=1.0),
        SurveyOptions(eigenvalues=2, rho=0.3, adaptive_rho=0.3, plane_points=5, radius=1.0),
    )


def test_curvature_of_a_quadratic(found):
    assert found.extremes.largest == pytest.approx((9, 4))
    assert found.extremes.smallest == pytest.approx((-0.5, 0.1))
    assert found.gradient_norm == pytest.approx(0, abs=1e-6)
    assert found.gradient_curvature is None
    for trace in (found.trace, found.trace_pp):
        assert trace.mean == pytest.approx(VALUES.sum(), rel=0.25)
    assert found.density.negative_mass.mean == pytest.approx(1 / N, abs=0.08)
    # All weights are 1: the adaptive ball is the plain one, and both maxima are rho^2 lambda_max / 2.
    for worst in (found.worst_case, found.adaptive):
        assert worst.rise == pytest.approx(0.3**2 * 9 / 2, rel=1e-4)
    assert found.products > 60


def test_the_plane_of_two_eigenvectors_shows_their_eigenvalues(found):
    length = N  # the squared norm of the weights
    assert found.plane[2, 2] == pytest.approx(0, abs=1e-9)
    assert found.plane[4, 2] == pytest.approx(9 * length / 2, rel=1e-4)
    assert found.plane[2, 4] == pytest.approx(4 * length / 2, rel=1e-4)
    assert found.plane[4, 4] == pytest.approx(13 * length / 2, rel=1e-4)


def test_curvature_along_the_gradient():
    bowl = Quadratic(np.full(N, 3.0), 1.0)
    found = curvature(bowl, SurveyOptions(eigenvalues=1, plane_points=3))
    assert found.gradient_norm == pytest.approx(3 * np.sqrt(N))
    assert found.gradient_curvature == pytest.approx(3.0)
    assert found.plane is None


def test_a_line_between_the_wells_of_a_double_well():
    def wells(theta):
        return float(np.sum((theta.astype(float) ** 2 - 1) ** 2))

    base = -np.ones(N, dtype=np.float32)
    line = line_to(FunctionEvaluator(wells, base, LAYOUT), -base, name="other")
    assert line.barrier.barrier == pytest.approx(N)
    assert line.barrier.at == 0.5
    assert line.distance == pytest.approx(2 * np.sqrt(N))
    assert line.losses[[0, -1]].tolist() == [0.0, 0.0]
    with pytest.raises(UsageError, match="one shape"):
        line_to(FunctionEvaluator(wells, base, LAYOUT), -base[:3], name="other")


def test_a_run_in_its_plane():
    rng = np.random.default_rng(3)
    bowl = Quadratic(np.full(N, 2.0), 0.0)
    points = np.cumsum(rng.normal(size=(6, N)), axis=0).astype(np.float32)
    run = trajectory_plane(bowl, points, "abcdef", n=7)
    assert run.path_losses == pytest.approx([bowl.value(p) for p in points], rel=1e-5)
    # Losses at the projections differ from those of the path by what lies outside the plane.
    centred = points - points.mean(axis=0)
    inside = centred @ run.pca.directions.T @ run.pca.directions + points.mean(axis=0)
    assert run.plane_losses == pytest.approx([bowl.value(p) for p in inside], rel=1e-4)
    assert run.losses.shape == (7, 7)
    assert run.losses[0, 0] == pytest.approx(
        bowl.value(
            points.mean(axis=0) + run.rows[0] * run.pca.directions[0] + run.columns[0] * run.pca.directions[1]
        ),
        rel=1e-4,
    )
    assert run.rows[0] < run.pca.coordinates[:, 0].min()
    named = Extras(trajectory=run).estimates()
    assert named["trajectory_explained_1"].null == pytest.approx(run.pca.random_walk[0])


class Wells(FunctionEvaluator):
    """Two wells, at all weights +0.4 and at all weights -0.4; the outputs tell them apart."""

    def __init__(self):
        super().__init__(self.value, np.full(2, 0.4, dtype=np.float32), Layout.of_shapes([(1, 2)]))

    def value(self, theta):
        mean, gap = float(theta.astype(float).mean()), float(theta[0]) - float(theta[1])
        return (mean**2 - 0.16) ** 2 + gap**2

    def gradient(self, theta):
        t = theta.astype(float)
        slope = 4 * t.mean() * (t.mean() ** 2 - 0.16) / 2
        return slope + 2 * (t[0] - t[1]) * np.array([1.0, -1.0])

    def outputs(self, theta):
        return [[np.array([theta.mean() + 1, theta.mean() - 1, 0.0])]]


@pytest.mark.parametrize("gradients", [True, False])
def test_both_wells_are_found_with_and_without_gradients(gradients):
    wells = Wells()
    found = optima_network(
        wells,
        SurveyOptions(optima=4, norm=Norm.NONE),
        floor=1e-4,
        gradient=wells if gradients else None,
        dimensions=2,
        patience=30,
    )
    assert found.gradients is gradients
    assert found.dimensions == 2
    assert found.summary.n_optima == 2
    assert sorted(np.round(found.sampled.graph.vs["loss"], 3)) == [0.0, 0.0]
    assert found.to_dict()["runs"] == 4


def test_a_bowl_has_one_optimum_in_one_funnel():
    class Bowl(Quadratic):
        def outputs(self, theta):
            return [[np.arange(3.0) + theta[:3]]]

    found = optima_network(Bowl(np.full(N, 2.0), 1.0, 1.0), SurveyOptions(optima=2), floor=1e-4, dimensions=3)
    assert (found.summary.n_optima, found.summary.n_funnels, found.summary.success) == (1, 1, 1.0)
