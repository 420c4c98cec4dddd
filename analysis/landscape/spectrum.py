"""Spectra of symmetric operators that are only known by their products with vectors.

Lanczos with full reorthogonalisation gives both ends of the spectrum in one run; Hutchinson's estimator and
Hutch++ (arXiv 2010.09649, algorithm 1) the trace; stochastic Lanczos quadrature (arXiv 1901.10159, section
2) the density, with the Ritz values as nodes and the squared first components of the tridiagonal
eigenvectors as weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

from emergraph.analysis.statistics.estimate import Estimate, Method, plain
from emergraph.analysis.statistics.intervals import student
from emergraph.errors import UsageError

Vector = NDArray[np.float64]
Product = Callable[[Vector], Vector]

EAGER_STEPS = 100
"""Lanczos steps up to which convergence is looked at after every product."""

WIDENED = 1.25
"""Quadratic forms are skewed where few eigenvalues are large: Student's interval of a trace covers 93 %."""
BASIS_BYTES = 2 << 30
"""Most memory that the Lanczos basis may take."""


@dataclass(frozen=True, kw_only=True)
class Extremes:
    """Both ends of a spectrum."""

    largest: tuple[float, ...]
    """Descending algebraically (not by magnitude)."""
    smallest: tuple[float, ...]
    """Ascending; empty when only the largest were asked for."""
    residuals: tuple[float, ...]
    """|H v - l v| / |l| of the largest, then of the smallest, as Lanczos bounds them."""
    converged: bool
    """All residuals are at most the tolerance."""
    products: int
    seed: int

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a plain dictionary."""
        return plain(self)


@dataclass(frozen=True, kw_only=True)
class SpectralDensity:
    """Stochastic Lanczos quadrature: a discrete density per probe."""

    nodes: NDArray[np.float64]
    """(probes, steps) Ritz values."""
    weights: NDArray[np.float64]
    """(probes, steps) non-negative, each row sums to 1."""
    mean: Estimate
    """Mean eigenvalue (trace / n) over probes; the interval is that of the trace."""
    negative_mass: Estimate
    """Share of eigenvalues below minus the tolerance, 0 .. 1, mean over probes. Few steps do not tell
    small eigenvalues of either sign apart: the mean is biased and has a spread (`sd`), but no interval."""
    tolerance: float
    """|eigenvalue| up to which it counts as zero: 1e-6 of the largest."""
    seed: int

    def on_grid(self, grid: NDArray[np.float64], *, width: float) -> NDArray[np.float64]:
        """Return the density on a grid, smoothed by a Gaussian of standard deviation `width`."""
        return np.asarray(smoothed_density(self.nodes, self.weights, grid, width=width).mean(axis=0))


def smoothed_density(
    nodes: NDArray[np.float64], weights: NDArray[np.float64], grid: NDArray[np.float64], *, width: float
) -> NDArray[np.float64]:
    """Return the density of weighted points on a grid, smoothed by a Gaussian of standard deviation `width`.

    Args:
        nodes: (..., steps) places of the points.
        weights: (..., steps) their masses.
        grid: (n,) where the density is wanted.
        width: In units of the grid.

    Returns:
        (..., n) densities.
    """
    gaps = (grid - nodes[..., None]) / width
    bells = np.exp(-(gaps**2) / 2) / (width * np.sqrt(2 * np.pi))
    return np.asarray((bells * weights[..., None]).sum(axis=-2))


def _dot(a: Vector, b: Vector) -> float:
    """Inner product by einsum: threads of a BLAS would fight for the cores with those of the engine."""
    return float(np.einsum("i,i->", a, b))


@dataclass
class _Lanczos:
    """A growing Krylov basis with its tridiagonal matrix."""

    product: Product
    basis: NDArray[np.float64]
    """(capacity, n); the first `steps + 1` rows are used."""
    diagonal: list[float]
    off: list[float]
    """off[i] couples rows i and i + 1; the last one is the norm of the rest vector."""

    @classmethod
    def start(cls, product: Product, first: Vector, capacity: int) -> "_Lanczos":
        basis = np.empty((capacity + 1, first.size))
        basis[0] = first / np.linalg.norm(first)
        return cls(product, basis, [], [])

    @property
    def steps(self) -> int:
        return len(self.diagonal)

    def advance(self) -> bool:
        """Add one vector; False when the Krylov space is exhausted."""
        m = self.steps
        w = self.product(self.basis[m])
        self.diagonal.append(_dot(self.basis[m], w))
        used = self.basis[: m + 1]
        # Without reorthogonalisation copies of converged eigenvalues appear. Twice is enough, and once where
        # little was taken off (Daniel, Gragg, Kaufman, Stewart 1976).
        for _ in range(2):
            before = _dot(w, w)
            w = w - np.einsum("ij,i->j", used, np.einsum("ij,j->i", used, w))
            if _dot(w, w) > 0.5 * before:
                break
        rest = float(np.sqrt(_dot(w, w)))
        self.off.append(rest)
        scale = max(map(abs, self.diagonal)) + max(self.off[:-1], default=0.0)
        if rest <= 1e-12 * scale or rest == 0:
            self.off[-1] = 0.0
            return False
        self.basis[m + 1] = w / rest
        return True

    def ritz(self) -> tuple[Vector, NDArray[np.float64]]:
        """Return Ritz values ascending and the eigenvectors of the tridiagonal matrix, as columns."""
        values, vectors = eigh_tridiagonal(np.array(self.diagonal), np.array(self.off[:-1]))
        return np.asarray(values, dtype=np.float64), np.asarray(vectors, dtype=np.float64)


def extreme_eigenvalues(
    product: Product,
    n: int,
    *,
    k: int = 5,
    both_ends: bool = True,
    tolerance: float = 1e-3,
    max_products: int = 500,
    seed: int = 0,
) -> Extremes:
    """Find the k algebraically largest (and smallest) eigenvalues in one Lanczos run.

    A single starting vector cannot see that an eigenvalue is repeated: of equal eigenvalues one is reported.
    The error of an eigenvalue is at most its residual, and of the order of its square over the gap.

    Args:
        product: v -> H v, H symmetric.
        n: Size.
        k: Per end.
        both_ends: Also find the smallest.
        tolerance: Largest |H v - l v| / max(|l|, 1e-3 of the largest |l|).
        max_products: Most products; also bounded by the memory of the basis.
        seed: Of the starting vector.

    Returns:
        The eigenvalues with residuals; `converged` says whether the tolerance was met.

    Example:
        >>> found = extreme_eigenvalues(lambda v: np.arange(10.0) * v, 10, k=2)
        >>> [round(x, 6) for x in found.largest]
        [9.0, 8.0]
    """
    return _extremes(
        product, n, k=k, both_ends=both_ends, tolerance=tolerance, max_products=max_products, seed=seed
    )[0]


def extreme_eigenvectors(
    product: Product,
    n: int,
    *,
    k: int = 2,
    both_ends: bool = False,
    tolerance: float = 1e-3,
    max_products: int = 500,
    seed: int = 0,
) -> tuple[Extremes, NDArray[np.float64]]:
    """Find the extreme eigenvalues with their eigenvectors, as `extreme_eigenvalues` does.

    Returns:
        The eigenvalues, and the orthonormal eigenvectors (k or 2 k, n): of the largest, descending, then of
        the smallest, ascending. The sign of a vector is such that its largest component is positive.

    Example:
        >>> found, vectors = extreme_eigenvectors(lambda v: np.arange(4.0) * v, 4, k=1)
        >>> np.abs(vectors).round(6).tolist()
        [[0.0, 0.0, 0.0, 1.0]]
    """
    found, run, ritz = _extremes(
        product, n, k=k, both_ends=both_ends, tolerance=tolerance, max_products=max_products, seed=seed
    )
    chosen = (
        np.concatenate([ritz[:, -k:][:, ::-1], ritz[:, :k]], axis=1) if both_ends else ritz[:, -k:][:, ::-1]
    )
    vectors = np.einsum("ij,ik->jk", chosen, run.basis[: run.steps])
    heaviest = np.argmax(np.abs(vectors), axis=1)
    return found, vectors * np.sign(vectors[np.arange(len(vectors)), heaviest])[:, None]


def _extremes(
    product: Product,
    n: int,
    *,
    k: int,
    both_ends: bool,
    tolerance: float,
    max_products: int,
    seed: int,
) -> tuple[Extremes, _Lanczos, NDArray[np.float64]]:
    """The eigenvalues, the run that found them, and the eigenvectors of its tridiagonal matrix."""
    if not 1 <= k <= n:
        raise UsageError(f"eigenvalues: expected 1 <= k <= {n}, found {k}")
    capacity = max(min(n, max_products, BASIS_BYTES // (8 * n) - 1), k)
    run = _Lanczos.start(product, np.random.default_rng(seed).standard_normal(n), capacity)
    values, residuals, vectors = np.empty(0), np.empty(0), np.empty((0, 0))
    while run.steps < capacity:
        more = run.advance()
        if run.steps < min(2 * k, capacity) and more:
            continue
        # Solving the small problem costs little, but not nothing: look less often where it is larger.
        if more and run.steps > EAGER_STEPS and run.steps % 5 and run.steps < capacity:
            continue
        values, vectors = run.ritz()
        scale = np.maximum(np.abs(values), 1e-3 * np.abs(values).max())
        residuals = np.abs(run.off[-1] * vectors[-1]) / np.where(scale > 0, scale, 1.0)
        wanted = residuals[-k:] if not both_ends else np.concatenate([residuals[-k:], residuals[:k]])
        if not more or (values.size >= k and np.all(wanted <= tolerance)):
            break
    top = values[-k:][::-1]
    bottom = values[:k] if both_ends else values[:0]
    kept = np.concatenate([residuals[-k:][::-1], residuals[:k] if both_ends else residuals[:0]])
    found = Extremes(
        largest=tuple(float(v) for v in top),
        smallest=tuple(float(v) for v in bottom),
        residuals=tuple(float(r) for r in kept),
        converged=bool(np.all(kept <= tolerance)),
        products=run.steps,
        seed=seed,
    )
    return found, run, vectors


def _rademacher(rng: np.random.Generator, n: int) -> Vector:
    return np.asarray(rng.integers(0, 2, size=n) * 2.0 - 1.0, dtype=np.float64)


def hutchinson_trace(
    product: Product, n: int, *, probes: int = 30, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Estimate the trace as the mean of z'Hz over Rademacher vectors z.

    Variance 2 sum_{i != j} H_ij^2 per probe: exact for diagonal matrices.

    Args:
        product: v -> H v.
        n: Size.
        probes: Products.
        seed: Of the vectors.
        level: Coverage of the interval.

    Returns:
        Mean over probes with its interval.

    Example:
        >>> hutchinson_trace(lambda v: np.array([1.0, 2.0]) * v, 2, probes=3).mean
        3.0
    """
    rng = np.random.default_rng(seed)
    values = [float(z @ product(z)) for z in (_rademacher(rng, n) for _ in range(probes))]
    return student(values, widen=WIDENED, seed=seed, level=level)


def hutch_pp_trace(
    product: Product, n: int, *, products: int = 30, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Estimate the trace by Hutch++: exactly on a sketch of the top, by Hutchinson on the rest.

    tr H = tr(Q'HQ) + tr((I - QQ')H(I - QQ')), Q an orthonormal basis of H S for random S; error 1/m instead
    of 1/sqrt(m) in the number m of products. With few products it is no better than Hutchinson.

    Args:
        product: v -> H v.
        n: Size.
        products: In total, at least 6; a third each for the sketch, its trace, and the rest.
        seed: Of the vectors.
        level: Coverage of the interval.

    Returns:
        The estimate; its interval is that of the rest.
    """
    if products < 6:
        raise UsageError(f"Hutch++: expected at least 6 products, found {products}")
    rng = np.random.default_rng(seed)
    third = min(products // 3, n)
    sketch = np.column_stack([product(_rademacher(rng, n)) for _ in range(third)])
    q, _ = np.linalg.qr(sketch)
    exact = sum(float(column @ product(column)) for column in q.T)
    rest = []
    for _ in range(products - 2 * third):
        z = _rademacher(rng, n)
        z = z - q @ (q.T @ z)
        rest.append(exact + float(z @ product(z)))
    return student(rest, widen=WIDENED, seed=seed, level=level)


def _without_interval(values: Vector, seed: int) -> Estimate:
    """Mean and spread over probes."""
    return replace(student(values, seed=seed), low=float("nan"), high=float("nan"), method=Method.NONE)


def spectral_density(
    product: Product, n: int, *, probes: int = 5, steps: int = 50, seed: int = 0
) -> SpectralDensity:
    """Density of the eigenvalues by stochastic Lanczos quadrature.

    Args:
        product: v -> H v.
        n: Size.
        probes: Random starting vectors.
        steps: Lanczos steps per probe; moments up to 2 steps - 1 are exact per probe.
        seed: Of the vectors.

    Returns:
        Nodes and weights per probe; rows of exhausted Krylov spaces are filled up with weight 0.
    """
    rng = np.random.default_rng(seed)
    steps = min(steps, n)
    nodes, weights = np.zeros((probes, steps)), np.zeros((probes, steps))
    for probe in range(probes):
        run = _Lanczos.start(product, rng.standard_normal(n), steps)
        while run.steps < steps and run.advance():
            pass
        values, vectors = run.ritz()
        nodes[probe, : values.size], weights[probe, : values.size] = values, vectors[0] ** 2
    tolerance = 1e-6 * float(np.abs(nodes).max())
    return SpectralDensity(
        nodes=nodes,
        weights=weights,
        mean=_without_interval((nodes * weights).sum(axis=1), seed),
        negative_mass=_without_interval((weights * (nodes < -tolerance)).sum(axis=1), seed),
        tolerance=tolerance,
        seed=seed,
    )
