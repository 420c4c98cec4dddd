"""The curves behind a survey's statistics, point by point."""

from collections.abc import Iterable, Iterator

from emergraph.analysis.landscape.hypercube import exact_autocorrelation
from emergraph.analysis.landscape.surveyresult import Survey
from emergraph.analysis.nulls_for_json import finite_or_none

CurvePoint = tuple[str, int, float, float | None]
"""Curve, number, x, y."""


def curve_points(survey: Survey) -> Iterator[CurvePoint]:
    """Yield all points of all curves of a survey; y is None where it is not defined."""
    yield from _numbered("rho", survey.autocorrelation.rho, first=0)
    if survey.masks is not None:
        masks = survey.masks
        exact = exact_autocorrelation(masks.losses, max_lag=2 * masks.summary.m)
        yield from _numbered("mask_rho", exact, first=0)
        yield from _numbered("mask_spectrum", masks.summary.spectrum, first=1)
    if survey.extras.trajectory is not None:
        yield from _numbered("run_residual", survey.extras.trajectory.pca.residual, first=0)
    curvature = survey.extras.curvature
    if curvature is not None:
        yield from _numbered("hessian_largest", curvature.extremes.largest, first=1)
        yield from _numbered("hessian_smallest", curvature.extremes.smallest, first=1)
        yield from _numbered("hessian_residual", curvature.extremes.residuals, first=1)
        density = curvature.density
        for probe, (nodes, weights) in enumerate(zip(density.nodes, density.weights, strict=True)):
            for node, weight in zip(nodes, weights, strict=True):
                yield "hessian_density", probe, float(node), float(weight)


def _numbered(curve: str, values: Iterable[float], *, first: int) -> Iterator[CurvePoint]:
    for x, y in enumerate(values, start=first):
        yield curve, 0, float(x), finite_or_none(float(y))
