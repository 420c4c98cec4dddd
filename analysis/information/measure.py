"""One call for every estimator: project, estimate, resample, compare with the ceiling."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import digamma

from emergraph.analysis.information.codes import code_information, distinct_states, real_states
from emergraph.analysis.information.estimate import BITS, Floats, MutualInformation
from emergraph.analysis.information.mine import mine_information
from emergraph.analysis.information.options import MAX_DIMENSIONS, EstimatorName, EstimatorOptions, Projection
from emergraph.errors import UsageError
from emergraph.steps import steps

# Intervals by random halves of the samples.
#
# A bootstrap with replacement repeats samples, which estimators of mutual information take for dependence (a
# repeated sample is at distance zero of itself, and lowers the rank of a covariance). A random half without
# replacement repeats nothing, and its estimate deviates from the mean over halves as much as the estimate of
# all samples deviates from the truth: the factor (n - m) / m of the delete-d jackknife is 1 for m = n / 2
# (Politis and Romano 1994, doi:10.1214/aos/1176325770; McCarthy 1969, balanced half-samples).

Estimator = Callable[[NDArray[np.int64]], float]
"""Gives the estimate, in bits, of the samples of these numbers."""


def half_sample_deviations(estimator: Estimator, n: int, *, repeats: int, seed: int) -> Floats:
    """Return how estimates of random halves deviate from their mean.

    Halves come in complementary pairs, and depend on `n` and the seed only, so that two estimates of the same
    samples can be subtracted repeat by repeat.

    Args:
        estimator: Is called with the numbers of about half of the samples.
        n: Samples in all.
        repeats: Halves; 0 for none.
        seed: Of the draw.

    Returns:
        (repeats,) bits; infinite estimates give NaN.
    """
    rng = np.random.default_rng(seed)
    values: list[float] = []
    while len(values) < repeats:
        order = rng.permutation(n)
        halves = (order[: n // 2], order[n // 2 :])[: repeats - len(values)]
        values.extend(estimator(np.sort(half)) for half in halves)
    found = np.array(values, np.float64)
    found[~np.isfinite(found)] = np.nan
    if not np.isfinite(found).any():
        return found
    return np.asarray(found - np.nanmean(found))


# Fewer dimensions, where the samples do not suffice for all: principal components or random directions.


@dataclass(frozen=True, eq=False)
class Projected:
    """Vectors with fewer dimensions."""

    values: Floats
    """(n, dimensions)."""
    share: float
    """Share of the variance that is left, in [0, 1]."""


def project(values: Floats, dimensions: int, *, how: Projection = Projection.PCA, seed: int = 0) -> Projected:
    """Project samples of vectors to fewer dimensions; those that have no more stay as they are.

    A projection can only lose information: what is estimated afterwards is about less than the whole state.

    Args:
        values: (n, d) samples.
        dimensions: To keep, at least 1.
        how: Principal components of these samples, or random directions.
        seed: Of random directions.

    Raises:
        UsageError: No dimension would be left.
    """
    if dimensions < 1:
        raise UsageError(f"projection: {dimensions} dimensions; expected at least 1")
    if dimensions >= values.shape[1]:
        return Projected(values, 1.0)
    centred = values - values.mean(axis=0)
    if how == Projection.PCA:
        covariance = centred.T @ centred
        directions = np.linalg.eigh(covariance)[1][:, ::-1][:, :dimensions]
    else:
        normal = np.random.default_rng(seed).standard_normal((values.shape[1], dimensions))
        directions = np.linalg.qr(normal)[0]
    kept = centred @ directions
    total = float((centred**2).sum())
    return Projected(kept, float((kept**2).sum()) / total if total > 0 else 1.0)


# Mutual information of two jointly Gaussian vectors, with the exact bias of the plug-in taken off.

SINGULAR = 1e-12
"""A squared canonical correlation this close to 1 is a deterministic relation: infinite information."""
RANK_TOLERANCE = 1e-10
"""Directions whose standard deviation is below this share of the largest are not directions."""


def log_det_bias(dimensions: int, n: int) -> float:
    """Return E[log det S] - log det Sigma of a sample covariance S with divisor n - 1, in nats.

    `sum_{i<d} digamma((n - 1 - i) / 2) + d log(2 / (n - 1))`: the determinant of a Wishart matrix is a
    product of independent chi-squared variables (Misra, Singh and Demchuk 2005,
    doi:10.1016/j.jmva.2003.11.005).
    """
    return float(digamma((n - 1 - np.arange(dimensions)) / 2).sum() + dimensions * np.log(2 / (n - 1)))


def canonical_correlations(x: Floats, y: Floats) -> tuple[Floats, int, int]:
    """Return the canonical correlations of two samples of vectors, largest first, and both ranks.

    Args:
        x: (n, p).
        y: (n, q).

    Returns:
        (min(rank x, rank y),) in [0, 1]; rank of x; rank of y.
    """
    bases = [_basis(values) for values in (x, y)]
    ranks = [basis.shape[1] for basis in bases]
    if 0 in ranks:
        return np.zeros(0), ranks[0], ranks[1]
    found = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    return np.minimum(found, 1.0), ranks[0], ranks[1]


def _basis(values: Floats) -> Floats:
    """Orthonormal columns that span the centred columns."""
    centred = values - values.mean(axis=0)
    scale = centred.std(axis=0)
    there = scale > RANK_TOLERANCE * max(float(np.abs(values).max(initial=0.0)), 1e-300)
    if not there.any():
        return np.zeros((len(values), 0))
    left, sizes, _ = np.linalg.svd(centred[:, there] / scale[there], full_matrices=False)
    return np.asarray(left[:, sizes > RANK_TOLERANCE * sizes[0]])


def whitened(values: Floats) -> Floats:
    """Return (n, rank) coordinates of the samples that are uncorrelated with variance 1.

    Information is invariant under this; covariances of parts of the samples are then well conditioned.
    """
    return np.asarray(_basis(values) * np.sqrt(len(values) - 1))


def whitened_information(x: Floats, y: Floats) -> float:
    """`gaussian_information` of part of a sample that is `whitened` as a whole, from determinants: faster.

    Args:
        x: (n, p) samples, the covariance close to the identity.
        y: (n, q) samples.
    """
    n, p, q = len(x), x.shape[1], y.shape[1]
    if p == 0 or q == 0:
        return 0.0
    both = np.concatenate([x, y], axis=1)
    both = both - both.mean(axis=0)
    covariance = both.T @ both / (n - 1)
    parts = (covariance[:p, :p], covariance[p:, p:], covariance)
    log_x, log_y, log_both = (float(np.linalg.slogdet(part)[1]) for part in parts)
    bias = 0.5 * (log_det_bias(p, n) + log_det_bias(q, n) - log_det_bias(p + q, n))
    return (0.5 * (log_x + log_y - log_both) - bias) * BITS


def gaussian_information(x: Floats, y: Floats) -> float:
    """Return the mutual information of two Gaussian vectors from samples, in bits.

    `I = -1/2 sum_i log(1 - r_i^2)` over the canonical correlations r_i, which is
    `1/2 [log det Sx + log det Sy - log det Sxy]`, less its exact bias
    `1/2 [w(p) + w(q) - w(p + q)]` (see `log_det_bias`). Unbiased for Gaussian samples; for others it is what
    a Gaussian with the same covariance would have. Invariant under invertible linear maps of x and of y.

    Args:
        x: (n, p) samples.
        y: (n, q) samples of the same draws.

    Returns:
        Bits; may be negative near zero; infinite where a direction of y is a linear function of x; 0 where
        one of them is constant.

    Raises:
        UsageError: There are not more samples than dimensions.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, noise = rng.standard_normal((2, 20000, 1))
        >>> round(gaussian_information(x, 0.8 * x + 0.6 * noise), 1)
        0.7
    """
    correlations, p, q = canonical_correlations(x, y)
    n = len(x)
    if p == 0 or q == 0:
        return 0.0
    if n - 1 <= p + q:
        raise UsageError(
            f"{n} samples do not suffice for {p} + {q} dimensions: expected more than {p + q + 1}; use more "
            "samples or project to fewer dimensions"
        )
    rest = 1 - correlations**2
    if rest.min() < SINGULAR:
        return float("inf")
    bias = 0.5 * (log_det_bias(p, n) + log_det_bias(q, n) - log_det_bias(p + q, n))
    return float((-0.5 * np.log(rest).sum() - bias) * BITS)


# Mutual information from distances to nearest neighbours, for one or two dimensions.

NEIGHBOURS = 3


def ksg_information(x: Floats, y: Floats, *, neighbours: int = NEIGHBOURS, force: bool = False) -> float:
    """Return the mutual information of two continuous or discrete variables, in bits.

    Kraskov, Stögbauer and Grassberger (arXiv cond-mat/0305641, eq. 8) in the maximum norm:
    `psi(k) + psi(n) - <psi(n_x + 1) + psi(n_y + 1)>`, with n_x and n_y the neighbours strictly within the
    distance of the k-th joint one. Where that distance is 0 (discrete values) k, n_x and n_y count what is at
    distance 0 (Gao and others, arXiv 1709.06212). Each column is scaled to standard deviation 1 first.

    Args:
        x: (n, p) samples.
        y: (n, q) samples of the same draws.
        neighbours: k; more means less variance and more bias.
        force: Go on with more than two dimensions; the estimate is then far too low.

    Raises:
        UsageError: More than two dimensions, or fewer than k + 2 samples.

    Example:
        >>> codes = np.repeat(np.arange(8.0), 50)[:, None]
        >>> round(ksg_information(codes, codes**2), 1)
        3.0
    """
    widest = max(x.shape[1], y.shape[1])
    if widest > MAX_DIMENSIONS and not force:
        raise UsageError(
            f"ksg: expected at most {MAX_DIMENSIONS} dimensions each, found {x.shape[1]} and {y.shape[1]}; "
            "its estimates are far too low beyond that: project, or use the estimator gaussian or mine"
        )
    n = len(x)
    if n < neighbours + 2:
        raise UsageError(f"ksg: {n} samples; expected at least {neighbours + 2}")
    x, y = _scaled(x), _scaled(y)
    both = np.concatenate([x, y], axis=1)
    distance = cKDTree(both).query(both, k=neighbours + 1, p=np.inf)[0][:, -1]
    tied = distance == 0
    inside = np.where(tied, 0.0, np.nextafter(distance, 0.0))
    n_x, n_y = (_within(values, inside) for values in (x, y))
    k = np.full(n, float(neighbours))
    if tied.any():
        k[tied] = _within(both, inside)[tied]
    total = digamma(k) + digamma(n) - digamma(n_x + 1) - digamma(n_y + 1)
    # at distance 0 all counts include the same ties, the sample itself left out as in the formula
    total[tied] = np.log(k[tied] + 1) + np.log(n) - np.log(n_x[tied] + 1) - np.log(n_y[tied] + 1)
    return float(total.mean() * BITS)


def _scaled(values: Floats) -> Floats:
    scale = values.std(axis=0)
    return np.asarray((values - values.mean(axis=0)) / np.where(scale > 0, scale, 1.0))


def _within(values: Floats, radius: Floats) -> Floats:
    """How many other samples lie within the radius."""
    if values.shape[1] == 1:
        return _within_on_a_line(values[:, 0], radius)
    counts = cKDTree(values).query_ball_point(values, radius, p=np.inf, return_length=True)
    return np.asarray(counts - 1, np.float64)


def _within_on_a_line(values: Floats, radius: Floats) -> Floats:
    """The same of one column, whose neighbours lie between two places of the sorted values.

    Places are guessed a little too far out, as `value + radius` is rounded, and come in by one distinct value
    at a time.
    """
    ordered = np.sort(values)
    reach = radius + 4 * np.spacing(np.abs(values) + radius)
    low, high = (
        np.searchsorted(ordered, values - reach),
        np.searchsorted(ordered, values + reach, side="right"),
    )
    while (out := values - ordered[low] > radius).any():
        low[out] = np.searchsorted(ordered, ordered[low[out]], side="right")
    while (out := ordered[high - 1] - values > radius).any():
        high[out] = np.searchsorted(ordered, ordered[high[out] - 1])
    return np.asarray(high - low - 1, np.float64)


@dataclass(frozen=True)
class Inputs:
    """What went in: how many distinct inputs there are, and how often two draws are the same one."""

    distinct: int | None = None
    """None where inputs are continuous: there is no ceiling then."""
    collision: float = 0.0
    """How much likelier two draws are the same input than two different samples are: above 0 where samples
    were drawn without repeats."""

    @property
    def ceiling(self) -> float:
        """log2 of the distinct inputs, in bits."""
        return float("inf") if self.distinct is None else float(np.log2(max(self.distinct, 1)))

    @classmethod
    def of_codes(cls, codes: NDArray[np.int64], *, population: int | None = None) -> "Inputs":
        """Return what is known of discrete inputs from a sample of them.

        Args:
            codes: (n,) which input each sample is.
            population: Distinct inputs there are, all as likely; by default those in the sample.
        """
        counts = np.unique(codes, return_counts=True)[1].astype(np.float64)
        distinct = len(counts) if population is None else population
        pairs = len(codes) * (len(codes) - 1)
        seen = float((counts * (counts - 1)).sum() / pairs) if pairs else 0.0
        return cls(distinct, max(0.0, (1 / distinct - seen) / (1 - seen)) if seen < 1 else 0.0)


def measure(
    x: NDArray[np.generic],
    y: NDArray[np.generic],
    *,
    inputs: Inputs | None = None,
    options: EstimatorOptions | None = None,
) -> MutualInformation:
    """Estimate the mutual information of two samples of vectors.

    Args:
        x: (n, p) samples.
        y: (n, q) samples of the same draws.
        inputs: What both were computed from; gives the ceiling.
        options: Estimator, projection, resampling.

    Returns:
        The estimate with interval, ceiling and diagnostics. A sample without variance has information 0.

    Raises:
        UsageError: x and y have other numbers of samples, or too few; or values that are not real, not
            finite, or beyond `codes.LARGEST`.
        MissingExtraError: mine without torch.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> x = rng.standard_normal((4000, 2))
        >>> found = measure(x, rng.standard_normal((4000, 2)))
        >>> found.interval[0] == 0 < found.interval[1] < 0.01
        True
    """
    options, inputs = options or EstimatorOptions(), inputs or Inputs()
    if len(x) != len(y) or x.ndim != 2 or y.ndim != 2:
        raise UsageError(f"samples of shapes {x.shape} and {y.shape}: expected (n, p) and (n, q)")
    if len(x) < 4:
        raise UsageError(f"{len(x)} samples; expected at least 4")
    x, y = real_states(x), real_states(y)
    about: dict[str, object] = {"distinct_inputs": inputs.distinct}
    if is_constant(x) or is_constant(y):
        about["constant"] = True
        return _estimate(0.0, np.zeros(options.repeats), inputs, options, len(x), about)
    if options.estimator == EstimatorName.CODES:
        a, b = distinct_states(x), distinct_states(y)
        seen = int(a.max()) + 1, int(b.max()) + 1
        about |= {"distinct_x": seen[0], "distinct_y": seen[1]}
        # counting n samples tells at most log2 of the distinct states among them, however many there are
        inputs = replace(inputs, distinct=min(*seen, inputs.distinct or min(seen)))
        deviations = _halves(lambda half: code_information(a[half], b[half]), len(x), options)
        return _estimate(code_information(a, b), deviations, inputs, options, len(x), about)
    raws, deviations, told = _repeated(x, y, inputs, options)
    return _estimate(float(np.mean(raws)), deviations, inputs, options, len(x), about | told)


def is_constant(values: NDArray[np.generic]) -> bool:
    """Whether samples of vectors are all the same but for the last bits."""
    scale = float(np.abs(values).max(initial=0.0))
    return bool(np.ptp(values, axis=0).max(initial=0.0) <= 1e-6 * scale)


def _repeated(
    x: NDArray[np.generic], y: NDArray[np.generic], inputs: Inputs, options: EstimatorOptions
) -> tuple[list[float], Floats, dict[str, object]]:
    """Estimates over seeds, where a seed matters, with their deviations taken in turn."""
    random = options.estimator == EstimatorName.MINE or options.projection == Projection.RANDOM
    seeds = range(options.seed, options.seed + (options.seeds if random else 1))
    raws, deviations, told = [], [], []
    for seed in steps(seeds, "seeds"):
        raw, deviation, about = _once(x, y, inputs, options, seed)
        raws.append(raw)
        deviations.append(deviation)
        told.append(about)
    turn = np.arange(options.repeats) % len(raws)
    with np.errstate(invalid="ignore"):  # infinite estimates have no deviations
        between = (np.array(raws) - np.mean(raws))[turn]
    together = np.stack(deviations)[turn, np.arange(options.repeats)] + between
    about = dict(told[0])
    if len(raws) > 1:
        about["seeds"] = [{"seed": seed, "raw": raw} for seed, raw in zip(seeds, raws, strict=True)]
    return raws, together, about


def _once(
    x: NDArray[np.generic], y: NDArray[np.generic], inputs: Inputs, options: EstimatorOptions, seed: int
) -> tuple[float, Floats, dict[str, object]]:
    dimensions = options.kept_dimensions(len(x))
    px, py = (
        project(np.asarray(values, np.float64), dimensions, how=options.projection, seed=seed + place)
        for place, values in enumerate((x, y))
    )
    a, b = px.values, py.values
    told: dict[str, object] = {
        "dimensions_x": a.shape[1],
        "dimensions_y": b.shape[1],
        "share_x": px.share,
        "share_y": py.share,
    }
    if options.estimator == EstimatorName.MINE:
        found = mine_information(a, b, seed=seed, collision=inputs.collision, options=options.mine)
        told |= {
            "steps": found.steps,
            "training_value": found.training_value,
            "validation_value": found.validation_value,
            "n_test": len(found.scores),
        }
        # a trained critic bounds the information from below: how far, resampling does not see
        return found.value, np.full(options.repeats, np.nan), told
    if options.estimator == EstimatorName.KSG:
        deviations = _halves(lambda half: ksg_information(a[half], b[half]), len(a), options)
        return ksg_information(a, b), deviations, told
    correlations, rank_x, rank_y = canonical_correlations(a, b)
    told |= {"rank_x": rank_x, "rank_y": rank_y, "largest_correlation": float(correlations.max(initial=0.0))}
    value = gaussian_information(a, b)
    if not np.isfinite(value):
        return value, np.full(options.repeats, np.nan), told
    a, b = whitened(a), whitened(b)
    deviations = _halves(lambda half: whitened_information(a[half], b[half]), len(a), options)
    return value, deviations, told


def _halves(estimator: Callable[[NDArray[np.int64]], float], n: int, options: EstimatorOptions) -> Floats:
    return half_sample_deviations(estimator, n, repeats=options.repeats, seed=options.seed)


def _estimate(
    raw: float,
    deviations: Floats,
    inputs: Inputs,
    options: EstimatorOptions,
    n: int,
    diagnostics: dict[str, object],
) -> MutualInformation:
    return MutualInformation(
        raw=raw,
        deviations=deviations,
        ceiling=inputs.ceiling,
        estimator=str(options.estimator),
        n_samples=n,
        seed=options.seed,
        diagnostics=diagnostics,
    )
