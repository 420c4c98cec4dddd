"""What walks would show on the quadratic bowl that the model's own curvature makes.

Along a stationary walk of parameter a a bowl with eigenvalues `l_i` (in the walk's coordinates) has the
losses `sum l_i z_i(t)^2`, with independent Gaussian z_i of correlation a. Many equal eigenvalues make that a
Gaussian process with correlation a^2, for which M(0) = arccos(-(1 - a^2)/2)/pi; networks have few large ones,
whose chi-squared losses change direction more often (M(0) .556 where many equal ones give .530). So the
measured spectrum is simulated, with as many walks of the same length: what is small in number in the survey,
or biased by a short walk, is so in its null.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from emergraph.analysis.landscape.autocorrelation import against, autocorrelation, correlation_length
from emergraph.analysis.landscape.curvature import Curved
from emergraph.analysis.landscape.directions import perturbation_scale
from emergraph.analysis.landscape.spectrum import extreme_eigenvalues
from emergraph.analysis.landscape.surveyresult import Survey

Vector = NDArray[np.float64]

DRAWS = 200
"""Simulated surveys."""
RESOLVED = 10
"""Fewest eigenvalues of each end that are resolved."""
PROBES = 10
"""Products for the squares of the eigenvalues that are not resolved."""
BURN_IN = 200


@dataclass(frozen=True, kw_only=True)
class WalkSpectrum:
    """Curvature in the coordinates of the walk, theta = theta* + sigma N z."""

    eigenvalues: Vector
    """Those that were resolved: both ends of the spectrum of N H N."""
    rest: float
    """Root of the sum of squares of all others, which together look Gaussian."""


@dataclass(frozen=True, kw_only=True)
class BowlNull:
    """Means over simulated surveys of a bowl."""

    rho_1: float
    correlation_length: float
    h_0: float
    m_0: float


def walk_spectrum(product: Callable[[Vector], Vector], scale: Vector, *, k: int, seed: int) -> WalkSpectrum:
    """Measure the spectrum of N H N.

    Args:
        product: v -> H v.
        scale: (n,) N, see `directions.perturbation_scale`.
        k: Eigenvalues of each end, at least 1.
        seed: Of the probes.
    """

    def scaled(vector: Vector) -> Vector:
        return np.asarray(scale * product(scale * vector))

    n = len(scale)
    k = min(k, n)
    ends = extreme_eigenvalues(scaled, n, k=k, both_ends=2 * k <= n, seed=seed)
    found = np.array([*ends.largest, *ends.smallest])
    rng = np.random.default_rng(seed)
    probes = rng.integers(0, 2, size=(PROBES, n)) * 2.0 - 1.0
    squares = float(np.mean([np.sum(scaled(probe) ** 2) for probe in probes]))
    return WalkSpectrum(eigenvalues=found, rest=float(np.sqrt(max(squares - float(np.sum(found**2)), 0.0))))


def bowl_null(
    spectrum: WalkSpectrum, *, a: float, n_walks: int, length: int, seed: int = 0, draws: int = DRAWS
) -> BowlNull:
    """Simulate surveys of a bowl.

    Args:
        spectrum: Of the bowl.
        a: Correlation of successive positions of a walk.
        n_walks: Of a survey.
        length: Points of a walk, at least 3.
        seed: Of the walks.
        draws: Surveys.

    Example:
        >>> many = WalkSpectrum(eigenvalues=np.zeros(1), rest=1.0)
        >>> abs(bowl_null(many, a=0.9, n_walks=10, length=200).m_0 - 0.53) < 0.003
        True
    """
    rng = np.random.default_rng(seed)
    shape = (n_walks, length)
    rho, m_0, h_0 = [], [], []
    for _ in range(draws):
        walks = np.sqrt(2) * spectrum.rest * _walks(rng, shape, a * a)
        for eigenvalue in spectrum.eigenvalues:
            walks += eigenvalue * _walks(rng, shape, a) ** 2
        rho.append(float(autocorrelation(walks, max_lag=1)[1]))
        turns = np.diff(np.sign(np.diff(walks, axis=1)), axis=1)
        up, down = (turns > 0).mean(axis=1), (turns < 0).mean(axis=1)
        m_0.append(float((up + down).mean()))
        h_0.append(float((_part(up) + _part(down)).mean()))
    mean = float(np.nanmean(rho)) if np.isfinite(rho).any() else float("nan")
    return BowlNull(
        rho_1=mean,
        correlation_length=correlation_length(mean),
        h_0=float(np.mean(h_0)),
        m_0=float(np.mean(m_0)),
    )


def beside_its_bowl(survey: Survey, curved: Curved) -> Survey:
    """A survey whose walks stand beside the bowl of the model's own curvature.

    Args:
        survey: Of the model.
        curved: Gives Hessian products at its weights.
    """
    options = survey.options
    scale = perturbation_scale(curved.base, curved.layout, options.norm).astype(np.float64)
    k = max(options.eigenvalues, RESOLVED)
    spectrum = walk_spectrum(curved.hessian().product, scale, k=k, seed=options.seed)
    n_walks, length = survey.walk_losses.shape
    null = bowl_null(spectrum, a=options.a, n_walks=n_walks, length=length, seed=options.seed)
    information = survey.information
    return replace(
        survey,
        autocorrelation=against(survey.autocorrelation, rho_1=null.rho_1, length=null.correlation_length),
        information=replace(
            information, h_0=information.h_0.with_null(null.h_0), m_0=information.m_0.with_null(null.m_0)
        ),
    )


def _walks(rng: np.random.Generator, shape: tuple[int, int], a: float) -> Vector:
    steps = np.sqrt(1 - a * a) * rng.standard_normal((shape[0], shape[1] + BURN_IN))
    return np.asarray(lfilter([1.0], [1.0, -a], steps, axis=1)[:, BURN_IN:], dtype=np.float64)


def _part(share: Vector) -> Vector:
    """-p log_6 p; 0 for 0."""
    return np.asarray(-share * np.log(np.where(share > 0, share, 1.0)) / np.log(6))
