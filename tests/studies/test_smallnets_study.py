"""What is measured of small networks is what it is called, and cells that are left out are left out."""

import itertools

import numpy as np
import polars as pl
import pytest
import torch
from ruggedness.nets import Digits, Group
from smallnets.findings import exponents, gains, held_out, ridge
from smallnets.measure import counts, expected_counts, outcomes, weights_say


def group(level=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(2, a, b, generator=generator) for a, b in ((5, 4), (4, 3))]
    weights = [w * (torch.rand(w.shape, generator=generator) > level) for w in weights]
    return Group((5, 4, 3), (0, 1), (level, level), weights, [torch.zeros(2, 1, n) for n in (4, 3)])


def test_the_expected_count_is_the_mean_over_all_masks():
    """Of a net of 2, 2 and 1 units with two of four and one of two weights: twelve masks."""
    active = np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.array([1.0])
    totals = []
    for first in itertools.combinations(range(4), 2):
        for second in range(2):
            m1, m2 = np.zeros(4), np.zeros(2)
            m1[list(first)], m2[second] = 1, 1
            direct = (1 - active[1]) @ m2 + (1 - active[0]) @ m1.reshape(2, 2) @ active[1]
            both = [(1 - active[0]) @ m1.reshape(2, 2) @ (inner * m2) for inner in (active[1], np.ones(2))]
            totals.append([direct + path for path in both])
    found = expected_counts((2, 2, 1), np.array([[1.0, 1.0, 1.0]]), np.array([[0.5, 0.5]]))
    assert [float(value[0]) for value in found] == pytest.approx(np.mean(totals, axis=0).tolist())


def test_without_pruning_e_is_what_is_expected():
    x = torch.rand(20, 5, generator=torch.Generator().manual_seed(1))
    found = counts(group(level=0.0), x)
    for name in ("active", "any"):
        assert found[f"E_{name}"] == pytest.approx(found[f"expected_{name}"])
        assert found[f"half_{name}"] == pytest.approx(found[f"half_expected_{name}"])
    assert found["E_printed"] == pytest.approx(found["E_any"])


def test_path_norm_and_rank_of_known_matrices():
    weights = [torch.tensor([[[1.0, 3.0], [-2.0, 0.0]]]), torch.tensor([[[2.0], [-1.0]]])]
    own = Group((2, 2, 1), (0,), (0.0,), weights, [torch.zeros(1, 1, 2), torch.zeros(1, 1, 1)])
    found = weights_say(own)
    assert 10 ** found["path_norm"][0] == pytest.approx(5.385165, abs=1e-6)
    values = np.linalg.svd(weights[0][0].numpy(), compute_uv=False)
    share = values / values.sum()
    assert found["effective_rank"][0] == pytest.approx((np.exp(-(share * np.log(share)).sum()) / 2 + 1) / 2)


def test_weights_that_do_not_matter_may_go():
    """Of fourteen weights two decide for class 0, and a bias for class 1: twelve may go, and not thirteen."""
    first, second = torch.full((1, 5, 2), 0.001), torch.full((1, 2, 2), 0.001)
    first[0, 0, 0] = second[0, 0, 0] = 2.0
    biases = [torch.zeros(1, 1, 2), torch.tensor([[[0.0, 0.5]]])]
    own = Group((5, 2, 2), (0,), (0.0,), [first, second], biases)
    x, y = torch.eye(5)[:2].repeat(50, 1), torch.tensor([0, 1] * 50)
    found = outcomes(own, Digits(x, y, x, y))
    assert found["test_accuracy"][0] == 1.0
    assert found["gap"][0] == 0.0
    assert found["prunability"][0] == pytest.approx(0.88)  # round(0.88 * 14) is 12, round(0.9 * 14) is 13


def test_ridge_without_penalty_is_least_squares():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    coefficients = np.linalg.lstsq(np.column_stack([np.ones(30), x]), y, rcond=None)[0]
    at = rng.normal(size=(4, 3))
    assert ridge(x, y, at, penalty=0.0) == pytest.approx(np.column_stack([np.ones(4), at]) @ coefficients)
    assert ridge(np.ones((30, 1)), y, np.ones((2, 1)), penalty=1.0) == pytest.approx([y.mean()] * 2)


@pytest.fixture
def frame():
    """Twelve cells of six networks: E tells the target, or nothing."""
    rng = np.random.default_rng(0)
    n, cells = 72, [f"c{k // 6}" for k in range(72)]
    e, base = rng.normal(size=n), rng.normal(size=n)
    noise = rng.normal(size=n)
    return pl.DataFrame({
        "cell": cells, "log_E_active": e, "over_chance": rng.normal(size=n), "base": base,
        "told": base + e + noise / 2, "untold": base + noise / 2,
    })  # fmt: skip


def test_what_e_adds_shows_in_cells_that_were_left_out(frame):
    told, untold = (gains(frame, ["base"], target) for target in ("told", "untold"))
    assert told.mean() > 0.4
    assert abs(untold.mean()) < 0.1
    moved = frame.with_columns(pl.when(pl.col("cell") == "c3").then(100.0).otherwise("told").alias("told"))
    kept = frame["cell"].to_numpy() == "c3"
    # what a cell's own networks have does not enter what is predicted of them
    before, after = (held_out(own, ["base"], "told")[kept] for own in (frame, moved))
    assert before == pytest.approx(after)


def test_exponents_of_powers_are_found():
    rows = [
        {"cell": f"{d}{w}{level}{images}", "depth": d, "width": w, "level": level, "images": images,
         "seed": seed, "E": 7.0 * w**d - 1}
        for d in (1, 2, 3) for w in (8, 16, 32) for level in (0.0, 0.5, 0.8) for images in (1, 2)
        for seed in range(3)
    ]  # fmt: skip
    found = exponents(pl.DataFrame(rows), "E")
    assert all(found[d, level] == pytest.approx([d] * 3) for d, level in found)
