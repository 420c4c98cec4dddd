"""Transitions of training runs and their exponent, on curves whose answer is known."""

import numpy as np
import polars as pl
import pytest

from emergraph.analysis.percolation.predictions import bipartite_giant
from emergraph.analysis.percolation.training import (
    Exponent,
    LogColumns,
    RunCurve,
    collapse_exponent,
    slope_exponent,
    training_transitions,
)
from emergraph.analysis.percolation.transitions import _likely, fit_transition, pair_order_parameter
from emergraph.errors import InvalidInputError, UsageError

STEP = np.geomspace(1, 2000, 45)


def noise(seed, size=0.01):
    return size * np.random.default_rng(seed).standard_normal(len(STEP))


def logistic(step, middle, steepness):
    return 1 / (1 + (step / middle) ** -steepness)


def test_order_parameter_is_the_product_of_both_giants():
    x = np.array([0.5, 1.0, 1.25, 2.0, 7.0])
    expected = [np.prod(bipartite_giant(900, 18000, value * 16_200_000**0.5)) for value in x]
    assert pair_order_parameter(x, 900, 18000) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("rise", [0.8, -3.0])
def test_a_percolating_run_is_known_as_such(rise):
    value = 2 + rise * pair_order_parameter(STEP / 60, 90, 400) + noise(0)
    fit = fit_transition(STEP, value, n_entities=90, n_properties=400)
    assert fit.best == "percolation"
    assert fit.evidence > 6
    assert fit.percolation.point == pytest.approx(60, rel=0.05)
    assert fit.percolation.spread_low < fit.percolation.point < fit.percolation.spread_high
    assert fit.percolation.spread_high - fit.percolation.spread_low < 6
    assert fit.percolation.rise == pytest.approx(rise, rel=0.05)
    assert fit.percolation.before == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("steepness", [1.5, 8.0])
def test_a_smooth_run_is_known_as_such(steepness):
    value = 0.1 + 0.8 * logistic(STEP, 100, steepness) + noise(1)
    fit = fit_transition(STEP, value, n_entities=90, n_properties=400)
    assert fit.best == "smooth"
    assert fit.logistic.point == pytest.approx(100, rel=0.06)
    assert fit.logistic.spread_low < 100 < fit.logistic.spread_high
    assert fit.logistic.shape == pytest.approx(steepness, rel=0.1)


def test_runs_without_a_transition():
    sizes = {"n_entities": 90, "n_properties": 400}
    assert fit_transition(STEP, 0.3 + noise(2), **sizes).best in ("constant", "undecided")
    power = fit_transition(STEP, STEP**0.5 + noise(3), **sizes)
    assert power.best == "smooth"
    assert power.power.shape == pytest.approx(0.5, abs=0.02)
    assert power.power.bic < power.logistic.bic
    flat = fit_transition(STEP, np.zeros_like(STEP), **sizes)
    assert flat.best in ("constant", "undecided")
    with pytest.raises(InvalidInputError, match="5 steps with a value"):
        fit_transition(STEP[:5], STEP[:5], **sizes)
    with pytest.raises(InvalidInputError, match="positive"):
        fit_transition(STEP, STEP, n_entities=0, n_properties=4)


def test_the_grid_finds_what_an_exhaustive_search_finds():
    value = 0.2 + 0.5 * logistic(STEP, 37, 3) + noise(4, 0.05)
    fit = fit_transition(STEP, value, n_entities=90, n_properties=400)
    best = np.inf
    for middle in np.geomspace(20, 70, 120):
        for steepness in np.linspace(1, 8, 120):
            design = np.stack([np.ones_like(STEP), logistic(STEP, middle, steepness)], axis=1)
            rest = value - design @ np.linalg.lstsq(design, value, rcond=None)[0]
            best = min(best, float(rest @ rest))
    assert fit.logistic.rss <= best * (1 + 1e-6)
    assert fit.logistic.rss >= best * 0.98


def runs(exponent, shape=None, *, sizes=(200, 400, 800, 1600), seeds=3):
    """Logs of runs whose transitions move as |K|^exponent."""
    frames = []
    for size in sizes:
        for seed in range(seeds):
            shift = np.exp(0.03 * np.random.default_rng(size + seed).standard_normal())
            middle = 100 * (size / 400) ** exponent * shift
            value = shape(STEP / middle, size) if shape else logistic(STEP, middle, 5)
            about = [
                pl.lit(v).alias(k) for k, v in (("n_entities", 90), ("n_properties", size), ("seed", seed))
            ]
            table = {"step": STEP, "metric": value + noise(size + seed)}
            frames.append(pl.DataFrame(table).select(*about, pl.all()))
    return pl.concat(frames)


@pytest.mark.parametrize(
    ("exponent", "verdict"), [(0.5, "compatible"), (0.25, "incompatible"), (1.0, "incompatible")]
)
def test_the_exponent_of_smooth_runs_is_found_and_judged(exponent, verdict):
    result = training_transitions(runs(exponent), draws=100)
    assert len(result.fits) == 12
    threshold, middle, collapse = result.exponents
    for found in (middle, collapse):
        assert found.exponent == pytest.approx(exponent, abs=0.04)
        assert found.low - 0.03 < exponent < found.high + 0.03
        assert found.verdict == verdict
    assert (threshold.doubtful, middle.doubtful, collapse.doubtful) == (True, False, False)
    assert result.exponent == collapse
    assert middle.factor == pytest.approx(100 / (90 * 400) ** exponent, rel=0.6)
    assert "exponent 0.5 only" in result.to_dict()["statement"]


def test_the_exponent_of_percolating_runs_is_that_of_their_thresholds():
    """The curve widens with |K|, so its middle moves faster than its threshold: that method is doubtful."""
    result = training_transitions(runs(0.5, lambda x, size: pair_order_parameter(x, 90, size)), draws=20)
    assert result.exponent.method == "threshold"
    assert result.exponent.exponent == pytest.approx(0.5, abs=0.04)
    assert result.exponent.verdict == "compatible"
    assert result.exponents[1].doubtful
    assert result.exponents[1].exponent > 0.6


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.05, 0.51, "undecided"),  # once "confirmed": it holds 0.5, and neither 0 nor 1
        (0.4, 0.6, "compatible"),
        (0.39, 0.6, "undecided"),
        (0.45, 0.61, "undecided"),
        (0.2, 0.39, "incompatible"),
        (0.61, 0.9, "incompatible"),
        (0.2, 0.41, "undecided"),
        (-0.1, 1.2, "undecided"),
    ],
)
def test_words_follow_the_margin(low, high, verdict):
    about = {"method": "middle", "factor": None, "n_runs": 9, "n_sizes": 3}
    found = Exponent(exponent=(low + high) / 2, low=low, high=high, **about)
    assert found.verdict == verdict
    assert Exponent(exponent=0.3, low=0.2, high=0.8, margin=0.3, **about).verdict == "compatible"


def test_an_interval_that_holds_everything_decides_nothing():
    rng = np.random.default_rng(0)
    sizes = np.repeat([1e4, 2e4], 3)
    found = slope_exponent("middle", sizes, sizes**0.5 * np.exp(0.6 * rng.standard_normal(6)))
    assert found.low < 0 < 1 < found.high
    assert found.verdict == "undecided"


def test_curves_of_one_size_do_not_count_and_too_few_are_refused():
    curve = RunCurve(100.0, STEP, logistic(STEP, 50, 4))
    with pytest.raises(InvalidInputError, match="3 runs of 1 sizes"):
        collapse_exponent([curve] * 3)
    with pytest.raises(InvalidInputError, match="2 runs of 2 sizes"):
        slope_exponent("middle", np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    other = RunCurve(400.0, STEP, logistic(STEP, 100, 4))
    assert collapse_exponent([curve, curve, other], draws=20).exponent == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("runs_of_sizes", "known"),
    [
        ((2, 1), False),
        ((3, 1), False),
        ((1, 1, 6), False),
        ((2, 2), True),
        ((1, 1, 1), True),
        ((1, 5, 5), True),
    ],
)
def test_a_collapse_of_runs_mostly_of_one_size_has_no_interval(runs_of_sizes, known):
    rng = np.random.default_rng(3)
    curves = [
        RunCurve(400.0 * 4**k, STEP, logistic(STEP, 50 * 2**k * np.exp(0.1 * rng.standard_normal()), 4))
        for k, n in enumerate(runs_of_sizes)
        for _ in range(n)
    ]
    found = collapse_exponent(curves, draws=20)
    assert (found.low < found.exponent < found.high) == known
    assert ("no interval" in found.text) != known
    assert known or (found.to_dict()["low"], found.verdict) == (None, "undecided")


def test_logs_and_their_refusals():
    log = runs(0.5, seeds=1)
    single = training_transitions(log.filter(pl.col("n_properties") == 200))
    assert single.exponents == ()
    assert single.exponent_table().is_empty()
    short = pl.concat([log, log.filter(pl.col("n_properties") == 200).head(3).with_columns(seed=7)])
    assert "seed=7" in training_transitions(short, draws=5).left_out[0]
    with pytest.raises(UsageError, match="unknown column 'accuracy'; available: "):
        training_transitions(log, columns=LogColumns(metric="accuracy"))
    with pytest.raises(InvalidInputError, match="is not a number"):
        training_transitions(log.with_columns(pl.lit("high").alias("metric")))
    with pytest.raises(InvalidInputError, match="no run can be fitted"):
        training_transitions(log.head(3))
    joined = training_transitions(log, columns=LogColumns(run=()), draws=5)
    assert [fit.n_properties for fit in joined.fits] == [200, 400, 800, 1600]


@pytest.mark.parametrize(
    ("size", "sound"),
    [(1.0, True), (0.0, False), (-3.0, False), (float("inf"), False), (1e15, True), (1.01e15, False)],
)
def test_sizes_of_runs_are_counts(size, sound):
    steps = np.arange(30)
    metric = 1 / (1 + np.exp(-(steps - 10) / 2))
    log = pl.DataFrame(
        {"step": steps, "metric": metric, "n_entities": [size] * 30, "n_properties": [40] * 30}
    )
    if sound:
        assert training_transitions(log, draws=2).fits
    else:
        with pytest.raises(InvalidInputError, match=r"'n_entities': .*expected whole numbers from 1"):
            training_transitions(log, draws=2)


def test_short_runs_allow_more():
    assert _likely(6, 4) == pytest.approx(1 + 4.302653**2 / 2, rel=1e-6)
    assert 4000 * np.log(_likely(4000, 3)) == pytest.approx(3.84, abs=0.02)


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}], ids=str)
def test_runs_that_are_named_by_lists_or_records_are_refused(value):
    log = runs(0.5)
    assert "run" not in log.columns
    odd = log.with_columns(pl.Series("run", [value] * len(log)))
    with pytest.raises(InvalidInputError, match="column 'run' holds"):
        training_transitions(odd)
