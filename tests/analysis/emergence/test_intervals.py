"""Bootstrap over samples against naive draws."""

import json
import math

import numpy as np
import pytest
from scipy.stats import binom

from emergraph.analysis.activity.rules import activity
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.emergence.intervals import bootstrap_emergence, sample_range
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.paths.options import Interior
from emergraph.analysis.paths.scaled import LOG10_BAND, Scaled, weighted_mean
from emergraph.analysis.statistics.intervals import median_rank
from emergraph.analysis.unitgraph import UnitBlock, UnitLayer, from_arrays
from emergraph.errors import UsageError
from emergraph.graphstore.records import EdgeKind, LayerKind

SIZES = (5, 6, 4)


def weighted_net(seed=0):
    rng = np.random.default_rng(seed)
    firsts = np.cumsum([0, *SIZES])
    layers = [
        UnitLayer(
            id=k,
            name=f"l{k}",
            kind=LayerKind.DENSE if k else LayerKind.INPUT,
            first_unit=int(firsts[k]),
            n_units=n,
        )
        for k, n in enumerate(SIZES)
    ]
    blocks, columns = [], {}
    for k in range(2):
        src, dst = np.nonzero(rng.random((SIZES[k], SIZES[k + 1])) < 0.6)
        blocks.append(UnitBlock(id=k, kind=EdgeKind.WEIGHT, layer=k + 1, n_edges=len(src)))
        columns[k] = {
            "src": src + firsts[k],
            "dst": dst + firsts[k + 1],
            "weight": rng.standard_normal(len(src)),
        }
    return from_arrays(layers, blocks, columns)


def trace(n=12, seed=1):
    samples = np.random.default_rng(seed).standard_normal((n, sum(SIZES)))
    samples[:, 7] = np.nan
    return UnitTrace.from_samples(samples)


@pytest.mark.parametrize("rule", ["mean", "mean_abs", "majority", "contribution"])
def test_draws_equal_counts_on_resampled_traces(rule):
    graph, full = weighted_net(), trace()
    threshold = {"mean_abs": 0.8}.get(rule)
    result = bootstrap_emergence(graph, full, rule, threshold=threshold, n_draws=25, seed=7)
    n = len(full.samples)
    weights = np.random.default_rng(7).multinomial(n, np.full(n, 1 / n), size=25)
    for interior in ("active", "any"):
        expected = []
        for row in weights:
            resampled = UnitTrace.from_samples(np.repeat(full.samples, row, axis=0))
            again = activity(rule, graph, threshold=threshold, trace=resampled)
            expected.append(path_count_emergence(graph, again).count(interior).exact)
        drawn = [0 if x is None else round(10**x) for x in result.draws[f"log10_{interior}"]]
        assert drawn == expected
        interval = result.range(interior)
        ordered = sorted(expected)
        assert interval.low.value == ordered[math.floor(0.025 * 24)]
        assert interval.high.value == ordered[math.ceil(0.975 * 24)]
        observed = path_count_emergence(graph, activity(rule, graph, threshold=threshold, trace=full))
        assert interval.observed.value == observed.count(interior).exact
        assert set(interval.to_dict()) == {"interior", "observed", "spread_low", "spread_high"}
    json.dumps(result.to_dict(), allow_nan=False)


def test_per_sample_gives_the_mean_over_samples():
    graph, full = weighted_net(), trace()
    result = bootstrap_emergence(graph, full, "per_sample", n_draws=50, seed=3)
    known = np.arange(graph.n_units) != 7
    single = []
    for sample in full.samples:
        act = activity("mean", graph, trace=UnitTrace.from_samples(sample[None, :]))
        single.append(path_count_emergence(graph, act).any.exact)
    assert [0 if x is None else round(10**x) for x in result.samples["log10_any"]] == single
    assert result.samples["n_active"].to_list() == [(s[known] > 0.05).sum() for s in full.samples]
    interval = result.range("any")
    assert interval.observed.value == pytest.approx(np.mean(single))
    ordered = sorted(single)
    rank = median_rank(len(single), 0.95)
    assert interval.median.value == ordered[(len(single) - 1) // 2]
    assert (interval.low.value, interval.high.value) == (ordered[rank - 1], ordered[-rank])
    assert set(interval.to_dict()) == {"interior", "observed", "median", "low", "high"}
    assert result.n_draws == 0


def test_counts_beyond_floats_have_an_interval():
    logs = np.array([400.0, 400.5, 401.0, 401.5, 402.0, 403.0])
    each = Scaled(10.0 ** (logs - 3 * LOG10_BAND), np.full(6, 3, dtype=np.int32)).normalise()
    mean = weighted_mean(each.reshape(1, 6), np.full((1, 6), 1 / 6))[0, 0]
    found = sample_range(Interior.ANY, mean, each, 0.95)
    assert (found.low.log10, found.median.log10, found.high.log10) == pytest.approx((400, 401, 403))


@pytest.mark.parametrize(("n", "ends"), [(5, (None, None)), (6, (1.0, 1.0))])
def test_five_samples_are_too_few_for_an_interval_and_six_are_not(n, ends):
    counts = Scaled(np.ones(n))
    found = sample_range(Interior.ANY, counts[0], counts, 0.95)
    assert (found.low and found.low.value, found.high and found.high.value) == ends
    assert found.median.value == 1


def test_the_rank_of_the_median_is_that_of_the_binomial_distribution():
    for n in range(1, 400):
        rank = median_rank(n, 0.95)
        assert 2 * binom.cdf(rank - 1, n, 0.5) <= 0.05 < 2 * binom.cdf(rank, n, 0.5)


def test_the_interval_of_per_sample_holds_the_median_and_any_is_refused():
    """1,000 networks' worth of samples; counts repeat, so that it may hold more often than 95 %."""
    rng = np.random.default_rng(5)
    graph = weighted_net()
    samples = rng.standard_normal((40_000, graph.n_units)) * rng.gamma(2.0, size=(40_000, 1))
    counts = 10.0 ** _logs(graph, samples)
    truth, hits = np.quantile(counts, 0.5, method="inverted_cdf"), 0
    for start in range(0, 40_000, 40):
        some = Scaled(counts[start : start + 40])
        found = sample_range(Interior.ANY, some[0], some, 0.95)
        hits += found.low.value <= truth <= found.high.value
        if start == 0:
            part = UnitTrace.from_samples(samples[:40])
            ends = bootstrap_emergence(graph, part, "per_sample").range("any")
            assert (ends.low.value, ends.high.value) == pytest.approx((found.low.value, found.high.value))
    assert hits / 1000 >= 0.932
    with pytest.raises(UsageError, match="no larger maximum"):
        bootstrap_emergence(graph, part, "any")


def _logs(graph, samples):
    result = bootstrap_emergence(graph, UnitTrace.from_samples(samples), "per_sample")
    return result.samples["log10_any"].fill_null(-300).to_numpy()


def test_same_seed_same_draws():
    graph, full = weighted_net(), trace()
    first, second, other = (bootstrap_emergence(graph, full, "mean", n_draws=20, seed=s) for s in (1, 1, 2))
    assert first.draws.equals(second.draws)
    assert not first.draws.equals(other.draws)


def test_what_cannot_be_drawn_is_refused():
    graph, full = weighted_net(), trace()
    with pytest.raises(UsageError, match="per-sample values"):
        bootstrap_emergence(graph, UnitTrace(statistics={"mean": np.zeros(15)}, n_samples=3), "mean")
    with pytest.raises(UsageError, match="nothing to draw"):
        bootstrap_emergence(graph, full, "weight_change")
    with pytest.raises(UsageError, match="at least 2 draws"):
        bootstrap_emergence(graph, full, "mean", n_draws=1)
