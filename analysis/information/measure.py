"""One call for every estimator: project, estimate, resample, compare with the ceiling."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.information.codes import code_information, distinct_states
from emergraph.analysis.information.estimate import Floats, MutualInformation
from emergraph.analysis.information.gaussian import (
    canonical_correlations,
    gaussian_information,
    whitened,
    whitened_information,
)
from emergraph.analysis.information.ksg import ksg_information
from emergraph.analysis.information.mine import mine_information
from emergraph.analysis.information.options import EstimatorName, EstimatorOptions, Projection
from emergraph.analysis.information.projection import project
from emergraph.analysis.information.resampling import half_sample_deviations
from emergraph.errors import UsageError
from emergraph.steps import steps

LARGEST = 1e100
"""Magnitude of the values of samples: far beyond it, squares and their sums leave the range of floats."""


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
            finite, or beyond `LARGEST`.
        MissingExtraError: mine without torch.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> x = rng.standard_normal((4000, 2))
        >>> found = measure(x, rng.standard_normal((4000, 2)))
        >>> found.interval[0] < 0 < found.interval[1]
        True
    """
    options, inputs = options or EstimatorOptions(), inputs or Inputs()
    if len(x) != len(y) or x.ndim != 2 or y.ndim != 2:
        raise UsageError(f"samples of shapes {x.shape} and {y.shape}: expected (n, p) and (n, q)")
    if len(x) < 4:
        raise UsageError(f"{len(x)} samples; expected at least 4")
    x, y = _real(x), _real(y)
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


def _real(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Samples that can be computed with: real, finite, within range; truth values as 0 and 1."""
    if values.dtype.kind == "c":
        raise UsageError("samples of complex numbers: mutual information needs real states")
    if not np.isfinite(values).all():
        raise UsageError("samples that are not finite: mutual information needs finite states")
    if float(np.abs(values).max(initial=0)) > LARGEST:
        raise UsageError(f"samples with values beyond {LARGEST:g}: mutual information needs smaller states")
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


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
