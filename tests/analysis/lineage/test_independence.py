"""The exact test: what it may use, its level, and that it is refused where the order means something."""

from math import exp, log

import numpy as np
import pytest
from lineagemodels import SIZES, dense_model, matrices, renumbered, rescaled, tuned

from emergraph.analysis.comparison.aligned import align
from emergraph.analysis.lineage import independence
from emergraph.analysis.lineage.independence import FEWEST_UNITS, agreement, stored_order_test


def exact_test(ours, theirs, **how):
    return stored_order_test(align(dense_model(ours, **how), dense_model(theirs, **how)))


def test_independent_nets_reject_at_most_their_level():
    p = [exact_test(matrices(2 * i), matrices(2 * i + 1)).log_p for i in range(150)]
    known = np.array([0.0 if one is None else one for one in p])
    for level in (0.01, 0.05, 0.2):
        assert np.mean(known <= log(level)) <= level + 3 * np.sqrt(level / 150)
    assert np.mean([one is None for one in p]) < 0.05


@pytest.mark.parametrize("change", [lambda w: tuned(w, 0.5), rescaled])
def test_a_derived_net_is_seen(change):
    found = exact_test(matrices(0), change(matrices(0)))
    assert found.rho > 0.95
    assert found.log_p < log(1e-30)
    assert found.n_units == sum(SIZES[1:-1])


def test_renumbered_units_are_for_the_other_test():
    ours = matrices(0)
    pair = align(dense_model(ours), dense_model(renumbered(ours)))
    assert stored_order_test(pair).log_p > log(0.001)
    assert agreement(pair) == pytest.approx(1.0)
    unrelated = [agreement(align(dense_model(ours), dense_model(matrices(i)))) for i in range(1, 9)]
    assert max(unrelated) < 0.6


def sorted_by(weights, measure):
    """The same net, each hidden layer in the order of a measure of (incoming, outgoing)."""
    found = [one.copy() for one in weights]
    for i in range(len(found) - 1):
        order = np.argsort(measure(found[i], found[i + 1]))
        found[i], found[i + 1] = found[i][order], found[i + 1][:, order]
    return found


def sparse(weights):
    rng = np.random.default_rng(5)
    return [np.where(rng.random(one.shape) < rng.random((len(one), 1)), 0, one) for one in weights]


def smooth(weights):
    """Units in the order of a frequency, as in a filter bank."""
    found = [one.copy() for one in weights]
    for i in range(len(found) - 1):
        rows, columns = found[i].shape
        tones = np.cos(np.pi * np.outer(np.linspace(1, 4, rows), np.arange(columns)) / columns)
        found[i] = 0.2 * found[i] + tones
    return found


@pytest.mark.parametrize(
    ("order", "word"),
    [
        (lambda w: sorted_by(w, lambda into, out: np.linalg.norm(into, axis=1)), "norm"),
        (lambda w: sorted_by(w, lambda into, out: np.linalg.norm(out, axis=0)), "outgoing norm"),
        (
            lambda w: sorted_by(
                w, lambda into, out: np.linalg.norm(into, axis=1) * np.linalg.norm(out, axis=0)
            ),
            "importance",
        ),
        (lambda w: sorted_by(sparse(w), lambda into, out: (into == 0).sum(axis=1)), "sparsity"),
        (smooth, "beside those that are like them"),
    ],
)
def test_an_order_that_means_something_is_refused(order, word):
    found = exact_test(order(matrices(0)), matrices(1))
    assert found.log_p is None
    assert all(reason.startswith("A stores units") for reason in found.refused)
    assert any(word in reason for reason in found.refused) or word in (
        "importance",
        "sparsity",
        "outgoing norm",
    )
    assert any("B stores units" in reason for reason in exact_test(matrices(1), order(matrices(0))).refused)


def test_without_the_refusal_sorted_units_would_reject(monkeypatch):
    """What the check is for: the order alone relates networks that have nothing else in common."""
    nets = [[np.abs(one) for one in matrices(i)] for i in range(20)]
    ordered = [sorted_by(one, lambda into, out: np.linalg.norm(into, axis=1)) for one in nets]
    monkeypatch.setattr(independence, "FOLLOWS", 0.0)
    monkeypatch.setattr("emergraph.analysis.comparison.aligned.balanced", lambda weights: weights)
    p = [exact_test(ordered[2 * i], ordered[2 * i + 1]).log_p for i in range(10)]
    assert np.mean([one < log(0.05) for one in p]) > 0.5


@pytest.mark.parametrize(("units", "used"), [(FEWEST_UNITS - 1, 0), (FEWEST_UNITS, FEWEST_UNITS)])
def test_small_groups_contribute_nothing(units, used):
    ours = matrices(0, (20, units, 8))
    found = exact_test(ours, ours)
    assert found.n_units == used
    assert (found.log_p is None) == (not used)


def test_units_that_are_all_alike_are_no_sign_of_a_relation():
    ones = [np.ones((30, 20)), np.ones((8, 30))]
    assert exact_test(ones, ones).log_p is None or exact_test(ones, ones).log_p > log(0.001)


def test_fishers_sum_is_for_graphs_whose_joints_are_known():
    ours = matrices(3)
    traced, declared = (exact_test(ours, tuned(ours, 0.1), wiring=word) for word in ("traced", "declared"))
    assert traced.log_p < declared.log_p
    assert declared.log_p == pytest.approx(max(declared.log_p, declared.least))
    nothing = exact_test(ours, ours, wiring="none")
    assert nothing.log_p is None
    assert "not known" in nothing.refused[0]


def test_one_known_wiring_is_enough():
    ours = matrices(3)
    pair = align(dense_model(ours, wiring="none"), dense_model(tuned(ours, 0.1)))
    assert exp(stored_order_test(pair).log_p) < 1e-20
