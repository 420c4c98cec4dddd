import numpy as np
import pytest
from scipy import stats

from emergraph.analysis.landscape.fdc import WIDENED, fitness_distance, uniform_radii
from emergraph.errors import UsageError


def radii(n, directions=1):
    return uniform_radii(directions, n, radius=1.0, seed=0)


def test_loss_equal_to_distance_gives_exactly_one():
    d = radii(500)
    found = fitness_distance(d, d)
    assert found.pearson.mean == pytest.approx(1, abs=1e-12)
    assert found.spearman.mean == pytest.approx(1, abs=1e-12)


def test_square_of_the_distance():
    d = radii(200_000)
    assert fitness_distance(d**2, d).pearson.mean == pytest.approx(np.sqrt(15) / 4, abs=1e-3)
    assert fitness_distance(d**2, d).spearman.mean == pytest.approx(1)


def test_deceptive_landscape_gives_minus_one():
    d = radii(100)
    assert fitness_distance(3 - d, d).pearson.mean == pytest.approx(-1)


def test_noise_gives_zero_within_its_interval():
    d = radii(200, 10)
    found = fitness_distance(np.random.default_rng(1).normal(size=(10, 200)), d)
    assert found.null_sd == pytest.approx(1 / np.sqrt(10 * 199))
    assert abs(found.pearson.mean) < 3 * found.null_sd
    assert found.pearson.low < 0 < found.pearson.high
    assert found.pearson.null == 0


def test_is_the_mean_over_directions_of_scipys_correlations():
    rng = np.random.default_rng(2)
    d = radii(30, 8)
    f = d * rng.lognormal(size=(8, 1)) + 0.3 * rng.normal(size=(8, 30))
    found = fitness_distance(f, d)
    each = [stats.pearsonr(one, at).statistic for one, at in zip(f, d, strict=True)]
    assert found.pearson.mean == pytest.approx(np.mean(each))
    reach = WIDENED * stats.t.ppf(0.975, 7) * np.std(each, ddof=1) / np.sqrt(8) / (1 - np.mean(each) ** 2)
    assert np.arctanh(found.pearson.high) == pytest.approx(np.arctanh(np.mean(each)) + reach)
    each = [stats.spearmanr(one, at).statistic for one, at in zip(f, d, strict=True)]
    assert found.spearman.mean == pytest.approx(np.mean(each))
    assert (found.pearson.n, found.spearman.n) == (8, 8)


def test_one_direction_has_no_interval():
    found = fitness_distance(radii(20) ** 2, radii(20))
    assert found.pearson.n == 1
    assert np.isnan(found.pearson.low)


@pytest.mark.parametrize("unevenness", [0.3, 1.2])
def test_interval_over_directions_covers(unevenness):
    """Curvatures differ between directions, as in networks: Fisher's formula covered .34 to .60."""
    rng = np.random.default_rng(3)

    def losses(directions):
        d = rng.uniform(0, 1, (directions, 20))
        bent = rng.lognormal(0, unevenness, size=(directions, 1)) * d**2
        return bent + 0.2 * rng.normal(size=d.shape), d

    truth = fitness_distance(*losses(20_000)).pearson.mean
    found = [fitness_distance(*losses(10)).pearson for _ in range(1000)]
    hits = sum(one.low <= truth <= one.high for one in found)
    assert stats.binom.cdf(hits, 1000, 0.92) > 0.99  # more often than in 92 %
    assert stats.binom.cdf(hits, 1000, 0.94) > 0.005


def test_flat_loss_is_undefined_and_broken_points_are_left_out():
    d = radii(50)
    assert np.isnan(fitness_distance(np.ones((1, 50)), d).pearson.mean)
    f = d**2
    f[0, 3] = np.nan
    kept = np.delete(d[0], 3)
    assert fitness_distance(f, d).pearson.mean == pytest.approx(np.corrcoef(kept**2, kept)[0, 1])


def test_two_points_of_a_direction_have_no_correlation():
    d = radii(2, 4)
    assert np.isnan(fitness_distance(d**2, d).pearson.mean)
    d = radii(3, 4)
    assert fitness_distance(d**2, d).pearson.n == 4


def test_shapes_must_fit():
    with pytest.raises(UsageError, match="two arrays"):
        fitness_distance([1.0, 2.0, 3.0], [1.0, 2.0])
