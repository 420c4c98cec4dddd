"""Random directions in weight space, scaled to the weights and orthogonal in the metric of that scaling.

Normalisation after Li et al. 2018 (arXiv 1712.09913, section 4): d_f <- d_f |w_f| / |d_f| for every filter f,
or per tensor; biases and normalisation vectors are left alone (`biasbn` in that paper's code). Element
normalisation d <- d * |w| is the geometry of ASAM (arXiv 2102.11600, section 3) and covers all parameters.

Two such directions are orthogonalised after scaling, under the inner product that the scaling defines,
<a, b> = sum_i a_i b_i / N_i^2 with N from `perturbation_scale`: the plain dot product is not invariant
under a rescaling of layers, so a Gram-Schmidt step in it would undo what the normalisation is for.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.landscape.layout import Layout, group_ids, vector_mask
from emergraph.analysis.landscape.options import Norm
from emergraph.errors import UsageError

Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Directions:
    """Directions in weight space, with what is needed to draw them again and to judge their angles."""

    vectors: NDArray[np.float64]
    """(n, n_params)."""
    norm: Norm
    seed: int | None
    """None for directions that were not drawn (trajectories, eigenvectors)."""
    orthogonal: bool
    gram: NDArray[np.float64]
    """(n, n) cosines in the metric of the normalisation; the identity after orthogonalisation."""
    cosines: NDArray[np.float64]
    """(n, n) cosines in the plain dot product."""


def _group_norms(values: Vector, ids: NDArray[np.int64]) -> Vector:
    return np.sqrt(np.bincount(ids, weights=values * values))


def perturbation_scale(base: NDArray[np.floating], layout: Layout, norm: Norm) -> Vector:
    """Return N, the standard deviation that a perturbation of relative size 1 has in every parameter.

    `none`: 1. `filter`, `layer`: |w_g| / sqrt(size of g), 0 for vectors, so that E|N z|_g^2 = |w_g|^2 for
    z ~ N(0, I). `element`: |w|.

    Args:
        base: (n_params,) weights.
        layout: Of the flat buffer.
        norm: Normalisation.

    Returns:
        (n_params,) non-negative.

    Example:
        >>> layout = Layout.of_shapes([(2, 2)])
        >>> perturbation_scale(np.array([3.0, 4.0, 0.0, 0.0]), layout, Norm.LAYER).tolist()
        [2.5, 2.5, 2.5, 2.5]
    """
    weights = np.asarray(base, dtype=np.float64)
    if weights.shape != (layout.n_params,):
        raise UsageError(f"base weights: expected shape ({layout.n_params},), found {weights.shape}")
    if norm == Norm.NONE:
        return np.ones_like(weights)
    if norm == Norm.ELEMENT:
        return np.abs(weights)
    ids = group_ids(layout, norm)
    scale = (_group_norms(weights, ids) / np.sqrt(np.bincount(ids)))[ids]
    scale[vector_mask(layout)] = 0.0
    return scale


def normalise(direction: Vector, base: NDArray[np.floating], layout: Layout, norm: Norm) -> Vector:
    """Scale one direction to the weights: exactly |d_g| = |w_g| for every filter or tensor g.

    Args:
        direction: (n_params,).
        base: (n_params,) weights.
        layout: Of the flat buffer.
        norm: Normalisation.

    Returns:
        (n_params,) the scaled direction; groups in which the direction vanishes stay zero.

    Example:
        >>> base, layout = np.array([3.0, 4.0, 0.0, 5.0]), Layout.of_shapes([(2, 2)])
        >>> normalise(np.ones(4), base, layout, Norm.FILTER).round(3)
        array([3.536, 3.536, 3.536, 3.536])
    """
    weights = np.asarray(base, dtype=np.float64)
    if norm in (Norm.NONE, Norm.ELEMENT):
        return direction * perturbation_scale(weights, layout, norm)
    ids = group_ids(layout, norm)
    own, target = _group_norms(direction, ids), _group_norms(weights, ids)
    factor = np.divide(target, own, out=np.zeros_like(own), where=own > 0)[ids]
    factor[vector_mask(layout)] = 0.0
    return direction * factor


def inner_products(vectors: NDArray[np.float64], scale: Vector) -> NDArray[np.float64]:
    """Return <a, b> = sum_i a_i b_i / N_i^2 for all pairs; entries with N_i = 0 are left out, as (n, n)."""
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    unit = vectors * inverse
    return np.asarray(unit @ unit.T)


def _cosines(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.sqrt(np.diag(gram))
    outer = np.outer(norms, norms)
    cosines: NDArray[np.float64] = np.divide(gram, outer, out=np.zeros_like(gram), where=outer > 0)
    return cosines


def orthogonalise(vectors: NDArray[np.float64], scale: Vector) -> NDArray[np.float64]:
    """Gram-Schmidt in the metric of `scale`; every vector keeps its length in that metric.

    d_k <- d_k - sum_{j<k} <d_k, d_j>/<d_j, d_j> d_j, done twice, which is enough for full accuracy.

    Args:
        vectors: (n, n_params), n at most the number of parameters with a positive scale.
        scale: (n_params,) from `perturbation_scale`.

    Returns:
        (n, n_params) orthogonal vectors; the first one is unchanged.

    Raises:
        UsageError: The vectors are linearly dependent.
    """
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    done: list[Vector] = []
    for vector in vectors:
        length = float(np.linalg.norm(vector * inverse))
        rest = vector.copy()
        for _ in range(2):
            for other in done:
                ratio = float((rest * inverse) @ (other * inverse)) / float(np.sum((other * inverse) ** 2))
                rest -= ratio * other
        left = float(np.linalg.norm(rest * inverse))
        if left <= 1e-9 * length:
            raise UsageError(
                "directions: linearly dependent; draw fewer than the number of perturbed parameters"
            )
        done.append(rest * (length / left) if done else vector.copy())
    return np.array(done)


def gaussian(n_params: int, *, seed: int, index: int) -> Vector:
    """Draw direction `index` of a seed, (n_params,) standard normal, whatever else is drawn.

    Example:
        >>> gaussian(2, seed=0, index=3).round(3)
        array([-1.037,  0.083])
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(index,))
    return np.random.default_rng(sequence).standard_normal(n_params)


def random_directions(
    base: NDArray[np.floating],
    layout: Layout,
    *,
    n: int,
    seed: int,
    norm: Norm = Norm.FILTER,
    orthogonal: bool = False,
    first: int = 0,
) -> Directions:
    """Draw `n` Gaussian directions, normalise them, and orthogonalise them if asked.

    Equal seeds give equal draws before scaling, so two models with one layout are compared with common random
    numbers.

    Args:
        base: (n_params,) weights.
        layout: Of the flat buffer.
        n: How many.
        seed: Of the draws.
        norm: Normalisation.
        orthogonal: Orthogonalise after normalising, in the metric of the normalisation.
        first: Index of the first draw within the seed.

    Returns:
        The directions with their Gram matrices.

    Example:
        >>> d = random_directions(np.ones(6), Layout.of_shapes([(2, 3)]), n=2, seed=1, orthogonal=True)
        >>> bool(abs(d.gram[0, 1]) < 1e-12)
        True
    """
    drawn = np.array(
        [
            normalise(gaussian(layout.n_params, seed=seed, index=first + i), base, layout, norm)
            for i in range(n)
        ]
    )
    scale = perturbation_scale(base, layout, norm)
    vectors = orthogonalise(drawn, scale) if orthogonal else drawn
    return Directions(
        vectors=vectors,
        norm=norm,
        seed=seed,
        orthogonal=orthogonal,
        gram=_cosines(inner_products(vectors, scale)),
        cosines=_cosines(vectors @ vectors.T),
    )
