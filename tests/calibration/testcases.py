"""p values of the house under their nulls, and with an effect."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
from casetypes import ChanceTest, Rng
from scipy import signal

from emergraph.analysis.audit.suspicious import discoveries, p_values, robust_z
from emergraph.analysis.comparison.aligned import Alignment
from emergraph.analysis.comparison.unitmatching import Link
from emergraph.analysis.emergence.nulls import compare
from emergraph.analysis.lineage.independence import agreement, stored_order_test
from emergraph.analysis.paths.options import Interior
from emergraph.analysis.paths.scaled import Scaled
from emergraph.analysis.statistics.conditional import conditional_correlation
from emergraph.analysis.statistics.intervals import is_clear
from emergraph.analysis.statistics.orders import order_log_p
from emergraph.analysis.statistics.permutation import (
    holm,
    rank_correlation,
    share_as_extreme,
    sign_flip_p,
    student_p,
)
from emergraph.analysis.statistics.series import paired_runs_p, stationary_p

Pair = tuple[np.ndarray, np.ndarray]


def _white(rng: Rng, shape: tuple[int, ...]) -> Pair:
    x, y = rng.standard_normal((2, *shape))
    return x, y


def _autoregressive(rng: Rng, shape: tuple[int, ...]) -> Pair:
    noise = rng.standard_normal((2, *shape[:-1], shape[-1] + 100))
    x, y = signal.lfilter([1.0], [1.0, -0.9], noise)[..., 100:]
    return x, y


def _walk(rng: Rng, shape: tuple[int, ...]) -> Pair:
    x, y = rng.standard_normal((2, *shape)).cumsum(axis=-1)
    return x, y


def _opposed(rng: Rng, shape: tuple[int, ...]) -> Pair:
    """E decays while the metric saturates: its changes decay, too."""
    steps = np.arange(shape[-1])
    x = 100 * np.exp(-steps / 10) + rng.standard_normal(shape)
    return x, np.exp(-steps / 8) + 0.001 * rng.standard_normal(shape)


SERIES = {
    "white noise": _white,
    "AR(.9)": _autoregressive,
    "random walks": _walk,
    "opposed trends": _opposed,
}


def _seed(rng: Rng) -> int:
    return int(rng.integers(1 << 31))


def _alone(rng: Rng, pair: Pair) -> float | None:
    return stationary_p(*pair, draws=999, seed=_seed(rng)).p


def _with_effect(rng: Rng, shape: tuple[int, ...]) -> Pair:
    x = rng.standard_normal(shape)
    return x, x + rng.standard_normal(shape)


def _runs_with_effect(rng: Rng) -> Pair:
    own = 0.1 * rng.standard_normal((6, 15))
    trend = np.exp(-np.arange(15) / 5)
    return trend + own, -trend + own + 0.1 * rng.standard_normal((6, 15))


CONFOUNDERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "line": lambda z: z,
    "exponential": lambda z: np.exp(2 * z),
    "cube": lambda z: z**3,
    "step": lambda z: 3.0 * (z > 0),
}
"""What one variable adds to both."""


def _given(rng: Rng, confounder: str, n: int, effect: float) -> float | None:
    z, own, noise = rng.standard_normal((3, n))
    common = CONFOUNDERS[confounder](z)
    return conditional_correlation(common + own, common + effect * own + noise, given=z).p


def _within(rng: Rng, effect: float) -> float | None:
    groups = np.repeat(np.arange(8), 5)
    own, noise = rng.standard_normal((2, 40))
    found = rank_correlation(
        groups + own,
        groups**2 + effect * own + noise,
        within=groups.tolist(),
        n_permutations=499,
        seed=_seed(rng),
    )
    return found.p


def _unrelated(rng: Rng, effect: float) -> float | None:
    x, noise = rng.standard_normal((2, 40))
    return rank_correlation(x, effect * x + noise, n_permutations=499, seed=_seed(rng)).p


def _order(rng: Rng, n: int, mixed: int) -> float:
    """Of n units of which some are in a random order, and the others matched with themselves."""
    order = np.arange(n)
    chosen = rng.permutation(n)[:mixed]
    order[chosen] = chosen[rng.permutation(mixed)]
    return float(np.exp(order_log_p(order)))


def _dense_pair(rng: Rng, sizes: tuple[int, ...], common: float) -> Alignment:
    """Two dense nets that share a part of their weights, as lineage aligns them."""
    links = []
    for i, (n, m) in enumerate(pairwise(sizes)):
        ours, theirs, both = rng.standard_normal((3, m, n, 1))
        ends = ["" if j in (0, len(sizes) - 1) else f"g{j}" for j in (i, i + 1)]
        links.append(Link(src=ends[0], dst=ends[1], a=ours + common * both, b=theirs + common * both))
    groups = tuple(f"g{i}" for i in range(1, len(sizes) - 1))
    return Alignment(
        raw=links, balanced=links, groups=groups, wired=True, traced=True, only_a=(), only_b=(), share=1.0
    )


def _exact_test(rng: Rng, common: float, *, traced: bool) -> float | None:
    pair = replace(_dense_pair(rng, (12, 16, 16, 16, 6), common), traced=traced)
    log_p = stored_order_test(pair, seed=_seed(rng)).log_p
    return None if log_p is None else float(np.exp(log_p))


def _match_score(rng: Rng, common: float) -> float:
    others = [agreement(_dense_pair(rng, (5, 8, 8, 5), 0.0)) or 0.0 for _ in range(99)]
    return share_as_extreme(np.array(others), agreement(_dense_pair(rng, (5, 8, 8, 5), common)) or 0.0)


def _odd_unit(rng: Rng, shift: float) -> float | None:
    values = 0.1 * rng.standard_t(4, size=64)
    values[0] += 0.1 * shift
    return float(p_values(robust_z(values))[0])


def _discovery(rng: Rng, shift: float) -> float | None:
    """The least rate of false discoveries at which a net of four layers has an odd unit."""
    values = 0.1 * rng.standard_t(4, size=(4, 64))
    values[0, 0] += 0.1 * shift
    p = np.concatenate([p_values(robust_z(layer)) for layer in values])
    return next((rate for rate in (0.01, 0.05) if discoveries(p, rate).any()), 1.0)


def _clear(rng: Rng, draws: int, shift: float) -> float | None:
    """At one level only: no distance is called clear at another."""
    null = rng.standard_normal(draws)
    z = (rng.standard_normal() + shift - null.mean()) / null.std(ddof=1)
    return 0.05 if is_clear(float(z), draws) else 1.0


def _null_model(rng: Rng, shift: float) -> float | None:
    counts = np.round(1000 * rng.lognormal(0, 0.2, size=100))
    observed = Scaled(np.array([counts[0] * (1 + shift)]))
    return compare(Interior.ANY, observed, Scaled(counts[1:])).p_two_sided


def _least_of_family(rng: Rng, effect: float) -> float | None:
    values = rng.standard_normal((5, 8))
    values[0] += effect
    return min(p for p in holm([student_p(one) for one in values]) if p is not None)


TESTS = (
    *(
        ChanceTest(
            f"one run, {name}",
            "60 steps, stationary or none",
            lambda rng, draw=draw: _alone(rng, draw(rng, (60,))),
            lambda rng: _alone(rng, _with_effect(rng, (60,))),
            "white noise, correlation .71",
        )
        for name, draw in SERIES.items()
    ),
    *(
        ChanceTest(
            f"six runs, {name}",
            "15 steps each, all pairings",
            lambda rng, draw=draw: paired_runs_p(*draw(rng, (6, 15))).p,
            lambda rng: paired_runs_p(*_runs_with_effect(rng)).p,
            "opposed trends, own part correlated .71",
        )
        for name, draw in SERIES.items()
    ),
    ChanceTest(
        "rank correlation of networks",
        "40 networks, 499 permutations",
        lambda rng: _unrelated(rng, 0.0),
        lambda rng: _unrelated(rng, 0.5),
        "correlation .45",
    ),
    ChanceTest(
        "rank correlation within groups",
        "8 groups of 5 networks, which differ in both, 499 permutations",
        lambda rng: _within(rng, 0.0),
        lambda rng: _within(rng, 0.5),
        "correlation .45 within groups",
    ),
    *(
        ChanceTest(
            f"given one variable, {confounder}, {n}",
            f"{n} networks, both follow a third: {confounder}",
            lambda rng, c=confounder, n=n: _given(rng, c, n, 0.0),
            lambda rng, c=confounder, n=n: _given(rng, c, n, 1.0),
            "partial correlation .71",
        )
        for confounder in CONFOUNDERS
        for n in (10, 20, 40, 60)
    ),
    ChanceTest(
        "null model",
        "99 draws",
        lambda rng: _null_model(rng, 0.0),
        lambda rng: _null_model(rng, 1.0),
        "twice the count, deviation 20 %",
    ),
    ChanceTest(
        "Student's t over seeds",
        "8 normal seeds",
        lambda rng: student_p(rng.standard_normal(8)),
        lambda rng: student_p(1 + rng.standard_normal(8)),
        "one deviation",
    ),
    ChanceTest(
        "sign flips over seeds",
        "8 normal seeds",
        lambda rng: sign_flip_p(rng.standard_normal(8)),
        lambda rng: sign_flip_p(1 + rng.standard_normal(8)),
        "one deviation",
    ),
    ChanceTest(
        "Holm's least p",
        "5 tests of 8 seeds",
        lambda rng: _least_of_family(rng, 0.0),
        lambda rng: _least_of_family(rng, 1.5),
        "one of five, 1.5 deviations",
    ),
    *(
        ChanceTest(
            f"order of matched units, {n}",
            f"{n} units in a random order",
            lambda rng, n=n: _order(rng, n, n),
            lambda rng, n=n: _order(rng, n, n // 2),
            "half of the units matched with themselves",
        )
        for n in (4, 10, 13, 64)
    ),
    *(
        ChanceTest(
            f"order of matched units, {word} over layers",
            "two dense nets, three hidden layers of 16 units",
            lambda rng, traced=traced: _exact_test(rng, 0.0, traced=traced),
            lambda rng, traced=traced: _exact_test(rng, 1.0, traced=traced),
            "half of the variance of weights in common",
        )
        for word, traced in (("Fisher's sum", True), ("Bonferroni", False))
    ),
    ChanceTest(
        "match score of two models",
        "dense nets of two hidden layers, 99 independent pairs",
        lambda rng: _match_score(rng, 0.0),
        lambda rng: _match_score(rng, 2.0),
        "four fifths of the variance of weights in common",
    ),
    ChanceTest(
        "robust z of units",
        "layers of 64 units, log norms with Student's tails of 4 degrees",
        lambda rng: _odd_unit(rng, 0.0),
        lambda rng: _odd_unit(rng, 20.0),
        "20 robust deviations",
    ),
    ChanceTest(
        "false discoveries among units",
        "any found in four such layers, at that rate of false discoveries",
        lambda rng: _discovery(rng, 0.0),
        lambda rng: _discovery(rng, 30.0),
        "one unit, 30 robust deviations",
    ),
    *(
        ChanceTest(
            f"clear distance, {draws} draws",
            "one more draw called clearly different, normal draws; one level only",
            lambda rng, draws=draws: _clear(rng, draws, 0.0),
            lambda rng, draws=draws: _clear(rng, draws, 10.0),
            "10 deviations",
        )
        for draws in (3, 5)
    ),
)
