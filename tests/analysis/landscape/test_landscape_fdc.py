import numpy as np
import pytest
from scipy import stats

from emergraph.analysis.landscape.fdc import fitness_distance, uniform_radii
from emergraph.errors import UsageError


def radii(n):
    return uniform_radii(1, n, radius=1.0, seed=0).ravel()


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
    d = radii(2000)
    found = fitness_distance(np.random.default_rng(1).normal(size=2000), d)
    assert abs(found.pearson.mean) < 3 * found.null_sd
    assert found.pearson.low < 0 < found.pearson.high
    assert found.pearson.null == 0


def test_agrees_with_scipy():
    rng = np.random.default_rng(2)
    d = radii(300)
    f = d + rng.normal(size=300)
    found = fitness_distance(f, d)
    reference = stats.pearsonr(f, d)
    low, high = reference.confidence_interval()
    assert (found.pearson.mean, found.pearson.low, found.pearson.high) == pytest.approx(
        (reference.statistic, low, high)
    )
    assert found.spearman.mean == pytest.approx(stats.spearmanr(f, d).statistic)


def test_flat_loss_is_undefined_and_broken_points_are_left_out():
    d = radii(50)
    assert np.isnan(fitness_distance(np.ones(50), d).pearson.mean)
    f = d.copy()
    f[3] = np.nan
    assert fitness_distance(f, d).pearson.n == 49


def test_shapes_must_fit():
    with pytest.raises(UsageError, match="two arrays"):
        fitness_distance([1.0, 2.0, 3.0], [1.0, 2.0])
