"""Numbers beside those of reference libraries, in an environment of its own: `make test-twins`."""

from itertools import pairwise

import numpy as np
import pytest

from emergraph.analysis.landscape.merge_tree import merge_tree
from emergraph.analysis.layerednets import layered_net
from emergraph.analysis.percolation.options import PercolationOptions
from emergraph.analysis.percolation.percolate import percolate
from emergraph.analysis.statistics.intervals import student
from emergraph.analysis.statistics.permutation import holm, partial_spearman, student_p
from emergraph.analysis.statistics.series import kpss
from emergraph.analysis.topology.topology import neural_persistence
from emergraph.analysis.topology.weightspectra import power_law_tail

pytestmark = pytest.mark.twins


def gudhi_persistence(weights: np.ndarray, p: float) -> float:
    """Of all units of both sides of a layer: born at 0, edges at 1 - |w| / max, weights of 0 at 1."""
    import gudhi

    strength = np.abs(weights) / np.abs(weights).max()
    rows, columns = weights.shape
    tree = gudhi.SimplexTree()
    for unit in range(rows + columns):
        tree.insert([unit], 0.0)
    for i, j in np.ndindex(rows, columns):
        tree.insert([i, rows + j], 1.0 - strength[i, j])
    tree.persistence(homology_coeff_field=2, min_persistence=-1)
    pairs = tree.persistence_intervals_in_dimension(0)
    ends = pairs[np.isfinite(pairs[:, 1]), 1]
    return float((ends**p).sum() ** (1 / p) / (rows + columns - 1) ** (1 / p))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("density", [1.0, 0.5, 0.1])
def test_neural_persistence_is_gudhis(p, density):
    rng = np.random.default_rng(int(10 * density + p))
    weights = rng.standard_normal((7, 5)) * (rng.random((7, 5)) < density)
    weights[0, 0] = 2.0
    src, dst = np.nonzero(weights)
    found = neural_persistence(
        src, dst + 7, weights[src, dst], n_units=12, w_max=float(np.abs(weights).max()), p=p
    )
    assert found[1] == pytest.approx(gudhi_persistence(weights, p), rel=1e-9)


def test_a_unit_without_edges_counts_as_in_gudhi():
    weights = np.array([[1.0, 0.5], [0.0, 0.0]])
    assert gudhi_persistence(weights, 2.0) == pytest.approx(0.6455, abs=5e-5)
    src, dst = np.nonzero(weights)
    found = neural_persistence(src, dst + 2, weights[src, dst], n_units=4, w_max=1.0)
    assert found[1] == pytest.approx(gudhi_persistence(weights, 2.0))


@pytest.mark.parametrize("shape", [(6, 6), (15, 9)])
def test_minima_of_a_plane_die_where_gudhi_says(shape):
    import gudhi

    values = np.random.default_rng(shape[0]).standard_normal(shape)
    cells = gudhi.CubicalComplex(vertices=values)
    cells.compute_persistence(min_persistence=-1)
    pairs = cells.persistence_intervals_in_dimension(0)
    gaps = pairs[:, 1] - pairs[:, 0]
    theirs = np.sort(gaps[np.isfinite(gaps) & (gaps > 0)])
    ours = np.asarray(merge_tree(values).persistence, dtype=np.float64)
    assert np.sort(ours[np.isfinite(ours)]) == pytest.approx(theirs)


@pytest.mark.filterwarnings("ignore")  # powerlaw warns of its own deprecations
@pytest.mark.parametrize("seed", range(3))
def test_the_tail_of_a_spectrum_is_powerlaws(seed):
    import powerlaw

    values = np.random.default_rng(seed).pareto(1.5, 300) + 1
    alpha, d, x_min, n_tail = power_law_tail(values)
    fit = powerlaw.Fit(values, verbose=False)
    assert fit.xmin == pytest.approx(x_min)
    assert fit.alpha == pytest.approx(alpha)
    assert float(fit.D) == pytest.approx(d, abs=1e-9)
    assert int((values >= fit.xmin).sum()) == n_tail


def test_holms_correction_is_that_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(0).random(20) ** 3
    assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1])


def test_the_interval_and_the_p_value_of_a_mean_are_those_of_statsmodels():
    from statsmodels.stats.weightstats import DescrStatsW

    values = np.random.default_rng(1).standard_normal(9) + 0.5
    theirs = DescrStatsW(values)
    found = student(values)
    assert (found.low, found.high) == pytest.approx(theirs.tconfint_mean())
    assert student_p(values) == pytest.approx(theirs.ttest_mean(0)[1])


def test_limits_of_a_rate_are_those_of_statsmodels():
    from calibrate import limits
    from statsmodels.stats.proportion import proportion_confint

    for hits in (0, 250, 4750, 5000):
        assert limits(hits, 5000) == pytest.approx(
            proportion_confint(hits, 5000, alpha=0.01, method="beta"), abs=1e-12
        )


def test_ranks_less_the_ranks_of_others_are_residuals_of_statsmodels():
    import statsmodels.api as sm
    from scipy import stats

    x, y, *given = np.random.default_rng(2).standard_normal((4, 30))
    design = sm.add_constant(np.column_stack([stats.rankdata(g) for g in given]))
    left, right = (sm.OLS(stats.rankdata(v), design).fit().resid for v in (x, y))
    assert partial_spearman(x, y, given) == pytest.approx(np.corrcoef(left, right)[0, 1])


@pytest.mark.filterwarnings("ignore")  # statsmodels warns of p values outside of its table
@pytest.mark.parametrize("n", [60, 400])
def test_the_statistic_of_drift_is_that_of_statsmodels(n):
    from scipy import signal
    from statsmodels.tsa import stattools

    rng = np.random.default_rng(n)
    series = 0.1 * rng.standard_normal(n).cumsum() + rng.standard_normal(n)
    theirs = stattools.kpss(series, regression="ct", nlags=int(4 * (n / 100) ** 0.25))[0]
    assert kpss(signal.detrend(series)) == pytest.approx(theirs)


def test_components_along_an_order_are_networkxs():
    import networkx as nx

    sizes = (12, 8, 4)
    rng = np.random.default_rng(3)
    weights = [rng.standard_normal(shape) for shape in pairwise(sizes)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    edges = [
        (abs(w[i, j]), int(starts[k] + i), int(starts[k + 1] + j))
        for k, w in enumerate(weights)
        for i, j in np.ndindex(*w.shape)
    ]
    graph = nx.empty_graph(sum(sizes))
    susceptibility = []
    for _, src, dst in sorted(edges, reverse=True):
        graph.add_edge(src, dst)
        parts = sorted(map(len, nx.connected_components(graph)), reverse=True)
        susceptibility.append(sum(s * s for s in parts[1:]) / sum(sizes))
    found = percolate(layered_net(weights), options=PercolationOptions(seeds=1, nulls=0))
    assert found.observed.threshold == 1 + int(np.argmax(susceptibility))
