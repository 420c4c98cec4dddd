"""Nulls of walks from a measured spectrum, against closed forms and direct simulation."""

import numpy as np
import pytest

from emergraph.analysis.landscape.autocorrelation import against, analyse_walks, autocorrelation
from emergraph.analysis.landscape.information_content import information_content
from emergraph.analysis.landscape.modelsurvey import WalkSpectrum, bowl_null, walk_spectrum
from emergraph.analysis.landscape.walks import WalkPlan, ou_walk

PLAN = WalkPlan(n_walks=10, length=100, a=0.9, seed=0)


def survey_means(eigenvalues, surveys=40):
    """rho(1) and M(0) of surveys of a bowl, walked as models are."""
    rho, m_0 = [], []
    for seed in range(surveys):
        plan = WalkPlan(n_walks=10, length=100, a=0.9, seed=seed)
        walks = np.array(
            [
                [float(eigenvalues @ z.astype(float) ** 2) for z in ou_walk(len(eigenvalues), plan, walk)]
                for walk in range(10)
            ]
        )
        rho.append(autocorrelation(walks, max_lag=1)[1])
        m_0.append(np.mean([information_content(walk).m_0 for walk in walks]))
    return np.mean(rho), np.mean(m_0)


def test_few_large_eigenvalues_turn_more_often_than_many_equal_ones():
    few = np.concatenate([[10.0, 3.0, 1.0], np.full(200, 0.001)])
    null = bowl_null(
        WalkSpectrum(eigenvalues=few[:3], rest=float(np.sqrt(np.sum(few[3:] ** 2)))),
        a=0.9,
        n_walks=10,
        length=100,
    )
    rho, m_0 = survey_means(few)
    assert null.m_0 == pytest.approx(m_0, abs=0.006)
    assert null.rho_1 == pytest.approx(rho, abs=0.012)
    equal = np.arccos(-(1 - 0.81) / 2) / np.pi
    assert null.m_0 > equal + 0.01
    many = bowl_null(WalkSpectrum(eigenvalues=np.zeros(0), rest=1.0), a=0.9, n_walks=10, length=100)
    assert many.m_0 == pytest.approx(equal, abs=0.003)


def test_the_spectrum_is_that_of_the_scaled_hessian():
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    hessian = basis @ np.diag(np.r_[20.0, 5.0, -3.0, np.full(37, 0.1)]) @ basis.T
    scale = rng.uniform(0.5, 2.0, 40)
    found = walk_spectrum(lambda v: hessian @ v, scale, k=3, seed=0)
    true = np.linalg.eigvalsh(scale[:, None] * hessian * scale)
    expected = np.r_[true[-3:], true[:3]]
    np.testing.assert_allclose(np.sort(found.eigenvalues), np.sort(expected), rtol=1e-2, atol=1e-2)
    assert found.rest < 3


def test_excess_ruggedness_is_measured_from_the_bowl_it_stands_beside():
    walks = np.random.default_rng(0).standard_normal((10, 100)).cumsum(axis=1)
    found = analyse_walks(walks, a=0.9)
    moved = against(found, rho_1=0.7, length=2 * found.correlation_length.mean)
    assert moved.excess_ruggedness.mean == pytest.approx(0.5)
    assert moved.excess_ruggedness.low < 0.5 < moved.excess_ruggedness.high
    assert (moved.rho_1.null, moved.excess_ruggedness.null) == (0.7, 0.0)
