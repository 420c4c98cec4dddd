"""p values along training runs: right under every null that a training shows, and able to find an effect."""

import itertools

import numpy as np
import pytest
from scipy import signal, stats

from emergraph.analysis.statistics.series import (
    EXACT_RUNS,
    MINIMUM_RUNS,
    MINIMUM_STEPS,
    drift,
    kpss,
    pair_correlations,
    paired_runs_p,
    stationary_p,
)
from emergraph.errors import UsageError


def autoregressive(rng, shape, memory):
    noise = rng.standard_normal((*shape[:-1], shape[-1] + 100))
    return signal.lfilter([1.0], [1.0, -memory], noise)[..., 100:]


NULLS = {
    "white noise": lambda rng, shape: (rng.standard_normal(shape), rng.standard_normal(shape)),
    "AR(.9)": lambda rng, shape: (autoregressive(rng, shape, 0.9), autoregressive(rng, shape, 0.9)),
    "random walk": lambda rng, shape: (
        rng.standard_normal(shape).cumsum(axis=-1),
        rng.standard_normal(shape).cumsum(axis=-1),
    ),
    "opposed trends": lambda rng, shape: (
        100 * np.exp(-np.arange(shape[-1]) / 10) + rng.standard_normal(shape),
        np.exp(-np.arange(shape[-1]) / 8) + 0.001 * rng.standard_normal(shape),
    ),
}


@pytest.mark.parametrize("null", NULLS)
def test_one_run_of_independent_series_is_rarely_significant(null):
    rng = np.random.default_rng(7)
    found = [stationary_p(*NULLS[null](rng, (60,)), draws=99).p for _ in range(300)]
    rejected = sum(p is not None and p <= 0.05 for p in found)
    # the 99 % lower bound of the rate does not exceed 0.05
    assert stats.binom.sf(rejected - 1, 300, 0.05) > 0.01


@pytest.mark.parametrize("null", NULLS)
def test_runs_of_independent_series_are_rarely_significant(null):
    rng = np.random.default_rng(8)
    found = [paired_runs_p(*NULLS[null](rng, (6, 15))).p for _ in range(120)]
    assert stats.binom.sf(sum(p <= 0.05 for p in found) - 1, 120, 0.05) > 0.01


def test_both_find_what_goes_together():
    rng = np.random.default_rng(9)
    x = rng.standard_normal((20, 60))
    alone = [stationary_p(one, one + rng.standard_normal(60), draws=199).p for one in x]
    assert np.mean([p is not None and p <= 0.05 for p in alone]) > 0.5
    trend = np.exp(-np.arange(15) / 5)
    powers = []
    for _ in range(20):
        own = 0.1 * rng.standard_normal((6, 15))
        powers.append(
            paired_runs_p(trend + own, -trend + own + 0.05 * rng.standard_normal((6, 15))).p <= 0.05
        )
    assert np.mean(powers) > 0.8


def test_forty_steps_are_the_least():
    rng = np.random.default_rng(3)
    while drift(noise := rng.standard_normal(MINIMUM_STEPS)):
        pass
    assert drift(noise[1:]) == "39 steps, fewer than 40"
    assert stationary_p(noise[1:], noise[1:]).p is None


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        (lambda t, e: np.ones(len(t)), "it is constant"),
        (lambda t, e: t.astype(float), "it bends"),  # its normal scores do
        (lambda t, e: (t - 50) ** 2 + e, "it bends"),
        (lambda t, e: np.sin(t / 1.5) + 0.1 * e, "are autocorrelated"),
        (lambda t, e: e * np.where(t < 50, 0.1, 3.0), "its variance changes"),
        (lambda t, e: e + 0.7 * np.sin(2 * np.pi * t / 53 + 1.6), "its level drifts"),
    ],
)
def test_what_drifts_is_named(series, reason):
    t = np.arange(100)
    noise = np.random.default_rng(0).standard_normal(100)
    found = drift(series(t, noise))
    assert found is not None
    assert reason in found


def test_kpss_of_white_noise_has_its_published_percentiles():
    rng = np.random.default_rng(4)
    values = [kpss(signal.detrend(rng.standard_normal(400))) for _ in range(800)]
    assert np.quantile(values, 0.9) == pytest.approx(0.119, abs=0.015)
    assert np.quantile(values, 0.95) == pytest.approx(0.146, abs=0.02)


def test_pairings_are_all_pairings():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, MINIMUM_RUNS, 9))
    table = stats.spearmanr(np.concatenate([x, y]).T).statistic[:6, 6:]
    means = [
        np.mean([table[i, j] for i, j in enumerate(order)]) for order in itertools.permutations(range(6))
    ]
    apart = np.abs(np.array(means) - np.mean(means))
    found = paired_runs_p(x, y)
    assert found.p == pytest.approx(np.mean(apart >= apart[0] - 1e-12))
    assert found.how == "all 720 pairings of 6 runs"


def test_six_runs_are_the_least_and_more_than_seven_are_drawn():
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((2, EXACT_RUNS + 1, 9))
    assert paired_runs_p(x[:5], y[:5]).p is None
    assert paired_runs_p(x[:7], y[:7]).how.startswith("all 5040")
    assert paired_runs_p(x, y, draws=99).how == "99 random pairings of 8 runs"
    assert paired_runs_p(np.ones((6, 9)), y[:6]).how == "no run in which both vary"
    x[0] = 1.0  # one run that does not vary goes with nothing
    assert 0 < paired_runs_p(x[:6], y[:6]).p <= 1
    with pytest.raises(UsageError, match="one shape"):
        paired_runs_p(x, y[:6])


def test_correlations_of_all_pairs_of_runs_are_spearmans():
    rng = np.random.default_rng(4)
    x, y = np.round(rng.standard_normal((3, 9)), 1), rng.standard_normal((4, 9))
    y[2] = 5.0  # a run that does not vary goes with nothing
    found = pair_correlations(x, y)
    assert found.shape == (3, 4)
    for i, j in itertools.product(range(3), (0, 1, 3)):
        assert found[i, j] == pytest.approx(stats.spearmanr(x[i], y[j]).statistic)
    assert (found[:, 2] == 0).all()
    assert (pair_correlations(x[:, :2], y[:, :2]) == 0).all()
