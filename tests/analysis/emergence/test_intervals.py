"""Bootstrap over samples against naive draws, and the spread over repetitions."""

import json
import math

import numpy as np
import pytest

from emergraph.analysis.activity.rules import activity
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.emergence.intervals import bootstrap_emergence, spread
from emergraph.analysis.emergence.pathcount import path_count_emergence
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


@pytest.mark.parametrize("rule", ["mean", "mean_abs", "any", "majority", "contribution"])
def test_draws_equal_counts_on_resampled_traces(rule):
    graph, full = weighted_net(), trace()
    threshold = {"any": 1.5, "mean_abs": 0.8}.get(rule)
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
        interval = result.interval(interior)
        ordered = sorted(expected)
        assert interval.low.value == ordered[math.floor(0.025 * 24)]
        assert interval.high.value == ordered[math.ceil(0.975 * 24)]
        observed = path_count_emergence(graph, activity(rule, graph, threshold=threshold, trace=full))
        assert interval.observed.value == observed.count(interior).exact
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
    interval = result.interval("any")
    assert interval.observed.value == pytest.approx(np.mean(single))
    weights = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=50)
    means = np.sort(weights @ np.array(single) / 12)
    assert interval.low.value == pytest.approx(means[math.floor(0.025 * 49)])
    assert interval.high.value == pytest.approx(means[math.ceil(0.975 * 49)])


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


def test_spread_is_students_interval():
    # t(0.975, 4) = 2.7764451051977987
    values = [2.0, 4.0, 4.0, 5.0, 10.0]
    result = spread(values)
    sd = np.std(values, ddof=1)
    assert result.mean == 5.0
    assert result.sd == pytest.approx(sd)
    assert result.high - result.mean == pytest.approx(2.7764451051977987 * sd / np.sqrt(5))
    assert result.mean - result.low == pytest.approx(result.high - result.mean)
    assert (result.median, result.smallest, result.largest) == (4.0, 2.0, 10.0)


def test_spread_of_one_value_has_no_interval():
    result = spread([3.0])
    assert math.isnan(result.low)
    assert result.to_dict()["sd"] is None
    with pytest.raises(UsageError):
        spread([])
    with pytest.raises(UsageError):
        spread([1.0, math.inf])
