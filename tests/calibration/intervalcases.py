"""Intervals of the house on simulated statistics."""

from functools import cache

import numpy as np
from casetypes import Interval, Rng
from scipy import signal, stats

from emergraph.analysis.audit.dead import silence_bound
from emergraph.analysis.emergence.intervals import sample_range
from emergraph.analysis.influence.knockouts import WIDENED
from emergraph.analysis.information.emergence import BlockInformation
from emergraph.analysis.information.measure import EstimatorName, EstimatorOptions, measure
from emergraph.analysis.landscape.autocorrelation import analyse_walks
from emergraph.analysis.landscape.fdc import fitness_distance
from emergraph.analysis.landscape.spectrum import hutch_pp_trace, hutchinson_trace
from emergraph.analysis.layerednets import layered_net
from emergraph.analysis.paths.options import Interior
from emergraph.analysis.paths.scaled import LOG10_BAND, Scaled
from emergraph.analysis.percolation.options import PercolationOptions
from emergraph.analysis.percolation.percolate import percolate
from emergraph.analysis.percolation.training import RunCurve, collapse_exponent, slope_exponent
from emergraph.analysis.skills.closedforms import emergence_time, multilinear_strength
from emergraph.analysis.skills.fit import (
    FAMILIES,
    Family,
    SkillCurves,
    _bands,
    _calibrate,
    _without_each,
    crossing,
)
from emergraph.analysis.skills.options import Axis
from emergraph.analysis.statistics.conditional import ConditionalCorrelation, conditional_correlation
from emergraph.analysis.statistics.intervals import Support, left_out_ends, student
from emergraph.analysis.statistics.permutation import (
    RankCorrelation,
    normal_scores,
    partial_spearman,
    rank_correlation,
)

Ends = tuple[float, float]
Floats = np.ndarray


def _student(values: np.ndarray, support: Support = Support.REAL) -> Ends:
    found = student(values, support=support)
    return found.low, found.high


def _uneven_share(rng: Rng, n: int = 10) -> np.ndarray:
    return rng.beta(9, 1, size=n)


def _per_sample(rng: Rng, n: int, decades: float) -> Ends:
    """Interval of the median of path counts of n samples, far beyond floats."""
    logs = 600 + decades * rng.standard_normal(n)
    bands = np.floor(logs / LOG10_BAND)
    counts = Scaled(10.0 ** (logs - bands * LOG10_BAND), bands.astype(np.int32)).normalise()
    found = sample_range(Interior.ANY, counts[0], counts, 0.95)
    return found.low.log10, found.high.log10


def _directions(rng: Rng, n: int = 10) -> tuple[np.ndarray, np.ndarray]:
    distances = rng.uniform(0, 1, size=(n, 20))
    bent = rng.lognormal(0, 0.6, size=(n, 1)) * distances**2
    return bent + 0.2 * rng.standard_normal(distances.shape), distances


@cache
def _fdc_truth(name: str) -> float:
    return getattr(fitness_distance(*_directions(np.random.default_rng(0), 8_000)), name).mean


def _fdc(rng: Rng, name: str) -> Ends:
    found = getattr(fitness_distance(*_directions(rng)), name)
    return found.low, found.high


def bowl_walks(rng: Rng, eigenvalues: tuple[float, ...], n: int, length: int, a: float) -> np.ndarray:
    """(n, length) losses of a quadratic bowl along stationary walks."""
    shape = (len(eigenvalues), n, length + 200)
    steps = np.sqrt(1 - a * a) * rng.standard_normal(shape)
    places = signal.lfilter([1.0], [1.0, -a], steps)[..., 200:]
    return np.einsum("k,knl->nl", np.array(eigenvalues), places**2)


def _rho(rng: Rng) -> Ends:
    found = analyse_walks(bowl_walks(rng, (1.0, 0.5, 0.2, 0.2), 10, 100, 0.9), a=0.9).rho_1
    return found.low, found.high


def _excess(rng: Rng) -> Ends:
    found = analyse_walks(bowl_walks(rng, (1.0, 0.5, 0.2, 0.2), 10, 100, 0.9), a=0.9).excess_ruggedness
    return found.low, found.high


@cache
def _hessian() -> np.ndarray:
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    return basis @ np.diag(rng.lognormal(0, 1.5, 60)) @ basis.T


def _trace(rng: Rng, estimator: object) -> Ends:
    matrix = _hessian()
    found = estimator(lambda v: matrix @ v, 60, seed=int(rng.integers(1 << 31)))  # type: ignore[operator]
    return found.low, found.high


@cache
def _orders() -> np.ndarray:
    """Thresholds of 2,000 random orders of one graph."""
    net = layered_net([np.ones((30, 20)), np.ones((20, 10))])
    found = percolate(net, "random", options=PercolationOptions(seeds=2000, nulls=0))
    return found.observed.thresholds


def _gaussians(rng: Rng, d: int, rho: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    x = rng.standard_normal((n, d))
    return x, rho * x + np.sqrt(1 - rho**2) * rng.standard_normal((n, d))


def _bits(d: int, rho: float) -> float:
    return float(-0.5 * d * np.log2(1 - rho**2))


def _information(rng: Rng, name: EstimatorName, d: int, rho: float, n: int) -> Ends:
    options = EstimatorOptions(estimator=name, dimensions=d, seed=int(rng.integers(1 << 31)))
    return measure(*_gaussians(rng, d, rho, n), options=options).interval


def _emergence_of_block(rng: Rng) -> Ends:
    """Two dimensions of the whole, correlated .7, and of three parts of it, .4 each."""
    options = EstimatorOptions(dimensions=2, seed=int(rng.integers(1 << 31)))
    whole, after = _gaussians(rng, 2, 0.7, 500)
    parts = [(whole + rng.standard_normal(whole.shape)) / np.sqrt(2) for _ in range(3)]
    micro = [0.4 * part + np.sqrt(1 - 0.4**2) * rng.standard_normal(part.shape) for part in parts]
    return BlockInformation(
        block="one",
        macro=measure(whole, after, options=options),
        micro=tuple(measure(part, one, options=options) for part, one in zip(parts, micro, strict=True)),
    ).interval


_WRONG, _STATES = 0.3, 6


def _channel_bits() -> float:
    joint = (1 - _WRONG) * np.eye(_STATES) / _STATES + _WRONG / _STATES**2
    return float(np.sum(joint * np.log2(joint * _STATES**2)))


def _channel(rng: Rng) -> Ends:
    x = rng.integers(0, _STATES, 800)
    y = np.where(rng.random(800) < _WRONG, rng.integers(0, _STATES, 800), x)
    options = EstimatorOptions(estimator=EstimatorName.CODES, seed=int(rng.integers(1 << 31)))
    return measure(x[:, None], y[:, None], options=options).interval


def _half_time() -> float:
    return float(emergence_time(1.0, share=0.5, target=5, start=0.05, rate=0.02))


def _calibrations(rng: Rng, runs: int = 4) -> tuple[Family, list[Floats]]:
    """Of all runs, and of all but one."""
    x = np.linspace(0, 60, 40)
    rates = 0.02 * rng.lognormal(0, 0.1, size=(runs, 1))
    strength = multilinear_strength(x, rates, target=5, start=0.05, rate=1.0)
    noisy = (strength + 0.3 * rng.standard_normal(strength.shape))[:, None, :]
    curves = SkillCurves(x=x, strength=noisy, frequency=np.ones(1))
    model = FAMILIES[Axis.TIME][0]
    return model, [_calibrate(model, x, noisy.mean(axis=0)[0], None)[0], *_without_each(model, curves, None)]


def _skill(rng: Rng) -> Ends:
    model, calibrated = _calibrations(rng)
    fine = np.linspace(0, 60, 4000)
    at, *each = (crossing(fine, model.curve(fine, 1.0, 1, p), 0.5) for p in calibrated)
    return left_out_ends(at, np.array(each), support=Support.POSITIVE)


_LATE = np.array([30.0])


def _late_share() -> float:
    return float(multilinear_strength(_LATE, 0.02, target=5, start=0.05, rate=1.0)[0] / 5)


def _skill_curve(rng: Rng) -> Ends:
    model, calibrated = _calibrations(rng)
    predicted, *left_out = (model.curve(_LATE, 1.0, 1, p) for p in calibrated)
    low, high = _bands(predicted, left_out)
    return float(low[0]), float(high[0])


_SIZES = np.repeat([18_000.0, 36_000.0, 72_000.0, 144_000.0], 3)


def _slope(rng: Rng) -> Ends:
    points = 7 * _SIZES**0.5 * np.exp(0.2 * rng.standard_normal(len(_SIZES)))
    found = slope_exponent("middle", _SIZES, points)
    return found.low, found.high


def _collapse(rng: Rng, sizes: np.ndarray = _SIZES) -> Ends:
    step = np.geomspace(1, 3000, 40)
    curves = []
    for size in sizes:
        middle = 0.5 * size**0.5 * np.exp(0.2 * rng.standard_normal())
        value = 1 / (1 + (step / middle) ** -3) + 0.03 * rng.standard_normal(40)
        curves.append(RunCurve(float(size), step, value))
    found = collapse_exponent(curves, draws=100, seed=int(rng.integers(1 << 31)))
    return found.low, found.high


@cache
def _rho_of_runs_truth() -> float:
    rng = np.random.default_rng(0)
    return float(np.mean([_run_rho(rng) for _ in range(8_000)]))


def _run_rho(rng: Rng) -> float:
    x = rng.standard_normal(15)
    return partial_spearman(x, x + rng.standard_normal(15))


def _effect(rng: Rng) -> Ends:
    return _wide(rng.lognormal(0, 1, 16), Support.POSITIVE)


def _target(rng: Rng) -> Ends:
    return _wide(rng.lognormal(0, 0.7, 16), Support.REAL)


def _wide(values: np.ndarray, support: Support) -> Ends:
    found = student(values, support=support, widen=WIDENED)
    return found.low, found.high


_WATCHED, _INPUTS = 200, 300


def _silence(rng: Rng) -> Ends:
    """Room between the bound and the most active of all units that happened to be silent."""
    bound = silence_bound(_INPUTS, _WATCHED)
    active = np.full(_WATCHED, 1.001 * bound)
    silent = rng.binomial(_INPUTS, active) == 0
    return 0.0, bound - float(active[silent].max(initial=0.0))


def _nets(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two measures of n nets of one architecture in 16, which differ in both."""
    place = np.arange(n) * 16 // n
    x = place / 8 + rng.standard_normal(n)
    return x, place / 8 + x + rng.standard_normal(n), place


def _correlation(rng: Rng) -> Ends:
    x = rng.standard_normal(80)
    return _known(rank_correlation(x, x + rng.standard_normal(80), n_permutations=1))


@cache
def _spearman_truth() -> float:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(400_000)
    return partial_spearman(x, x + rng.standard_normal(400_000))


def _correlation_within(rng: Rng) -> Ends:
    x, y, group = _nets(rng, 80)
    return _known(rank_correlation(x, y, within=group.tolist(), n_permutations=1))


@cache
def _within_truth() -> float:
    x, y, group = _nets(np.random.default_rng(0), 400_000)
    ranks = [stats.rankdata(values) for values in (x, y)]
    left, right = (r - (np.bincount(group, r) / np.bincount(group))[group] for r in ranks)
    return float(np.corrcoef(left, right)[0, 1])


_GIVEN = {"line": lambda z: z, "exponential": lambda z: np.exp(2 * z)}


def _correlation_given(rng: Rng, confounder: str) -> Ends:
    z, own, noise = rng.standard_normal((3, 80))
    common = _GIVEN[confounder](z)
    return _known(conditional_correlation(common + own, common + own + noise, given=z))


@cache
def _given_truth(confounder: str) -> float:
    """Neighbours of a very large sample hardly differ in what is given: their differences."""
    z, own, noise = np.random.default_rng(0).standard_normal((3, 1_000_000))
    z = np.sort(z)
    common = _GIVEN[confounder](z)
    left, right = (np.diff(normal_scores(v))[::2] for v in (common + own, common + own + noise))
    return float(left @ right / np.sqrt(left @ left * (right @ right)))


def _known(found: RankCorrelation | ConditionalCorrelation) -> Ends:
    return (np.nan, np.nan) if found.low is None or found.high is None else (found.low, found.high)


INTERVALS = (
    Interval("student", "10 normal values", lambda: 0.0, lambda rng: _student(rng.standard_normal(10))),
    Interval(
        "student, shares",
        "10 shares, Beta(9, 1)",
        lambda: 0.9,
        lambda rng: _student(_uneven_share(rng), Support.SHARE),
    ),
    Interval(
        "student, positive",
        "10 log-normal values, deviation 0.5",
        lambda: float(np.exp(0.125)),
        lambda rng: _student(rng.lognormal(0, 0.5, 10), Support.POSITIVE),
    ),
    Interval(
        "influence, effect",
        "16 samples, log-normal, deviation 1",
        lambda: float(np.exp(0.5)),
        _effect,
        conservative=WIDENED,
    ),
    Interval(
        "influence, squares",
        "16 samples, squares of normal changes",
        lambda: 1.0,
        lambda rng: _wide(rng.standard_normal(16) ** 2, Support.POSITIVE),
        conservative=WIDENED,
    ),
    Interval(
        "influence, change of the target",
        "16 samples, log-normal, deviation 0.7",
        lambda: float(np.exp(0.245)),
        _target,
        conservative=WIDENED,
    ),
    Interval(
        "student, correlations over runs",
        "Spearman's rho along 15 steps, 6 runs",
        _rho_of_runs_truth,
        lambda rng: _student(np.array([_run_rho(rng) for _ in range(6)]), Support.CORRELATION),
    ),
    *(
        Interval(
            f"E per sample, {n} samples, {decades:g} decades",
            "log-normal counts, their median; deviation in decades",
            lambda: 600.0,
            lambda rng, n=n, decades=decades: _per_sample(rng, n, decades),
        )
        for n, decades in ((300, 0.25), (300, 3.0), (40, 1.0))
    ),
    *(
        Interval(
            f"fitness-distance, {name}",
            "10 directions of 20 points, curvatures log-normal, deviation 0.6",
            lambda name=name: _fdc_truth(name),
            lambda rng, name=name: _fdc(rng, name),
            conservative=1.25,
        )
        for name in ("pearson", "spearman")
    ),
    Interval(
        "autocorrelation",
        "10 walks of 100 steps, bowl with few eigenvalues",
        lambda: 0.81,
        _rho,
        conservative=1.75,
    ),
    Interval(
        "excess ruggedness",
        "the same walks, through a monotone function",
        lambda: 0.0,
        _excess,
        conservative=1.75,
    ),
    Interval(
        "trace, Hutchinson",
        "30 probes of a matrix of 60, log-normal eigenvalues",
        lambda: float(np.trace(_hessian())),
        lambda rng: _trace(rng, hutchinson_trace),
        conservative=1.25,
    ),
    Interval(
        "trace, Hutch++",
        "30 products, the same matrix",
        lambda: float(np.trace(_hessian())),
        lambda rng: _trace(rng, hutch_pp_trace),
        conservative=1.25,
    ),
    Interval(
        "percolation threshold",
        "5 random orders of a 30-20-10 net",
        lambda: float(_orders().mean()),
        lambda rng: _student(rng.choice(_orders(), 5, replace=False), Support.POSITIVE),
    ),
    Interval(
        "information, gaussian",
        "500 samples, 2 dimensions, correlation .5",
        lambda: _bits(2, 0.5),
        lambda rng: _information(rng, EstimatorName.GAUSSIAN, 2, 0.5, 500),
    ),
    Interval(
        "information, ksg",
        "500 samples, 1 dimension, correlation .5",
        lambda: _bits(1, 0.5),
        lambda rng: _information(rng, EstimatorName.KSG, 1, 0.5, 500),
        conservative=1.2,
    ),
    Interval("information, codes", "800 samples of 6 states, 30 % drawn again", _channel_bits, _channel),
    Interval(
        "information emergence",
        "500 samples, 2 dimensions, correlated .7, less three parts correlated .4",
        lambda: _bits(2, 0.7) - _bits(2, 0.4),
        _emergence_of_block,
    ),
    Interval("skill's curve", "the same, share of S at 30 steps", _late_share, _skill_curve),
    Interval("skill's half-time", "4 runs of 40 points, rates and noise differ", _half_time, _skill),
    Interval("exponent, slope", "12 runs of 4 sizes, points off by 20 %", lambda: 0.5, _slope),
    Interval("exponent, collapse", "12 runs of 4 sizes, 100 draws", lambda: 0.5, _collapse),
    Interval(
        "exponent, collapse of four",
        "4 runs of 4 sizes, 100 draws",
        lambda: 0.5,
        lambda rng: _collapse(rng, _SIZES[::3]),
        conservative=1.4,
    ),
    Interval(
        "silence of units",
        "300 inputs, 200 units just above the bound, of which the silent ones are reported",
        lambda: 0.0,
        _silence,
    ),
    Interval("correlation of networks", "80 networks", _spearman_truth, _correlation),
    Interval(
        "correlation within groups",
        "16 groups of 5 networks, which differ in both",
        _within_truth,
        _correlation_within,
        conservative=1.2,
    ),
    *(
        Interval(
            f"correlation given one variable, {name}",
            f"80 networks, both follow a third: {name}",
            lambda name=name: _given_truth(name),
            lambda rng, name=name: _correlation_given(rng, name),
            conservative=1.15,
        )
        for name in _GIVEN
    ),
)
