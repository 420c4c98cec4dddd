"""All figures by name."""

from emergraph.analysis.figures import (
    curvaturefigures,
    emergencefigures,
    informationfigures,
    landscapefigures,
    layermap,
    percolationfigures,
    pruningfigures,
    topologyfigures,
    trainingfigures,
)
from emergraph.analysis.figures.figure import Figure
from emergraph.choices import unknown
from emergraph.errors import UsageError

FIGURES = (
    layermap.LAYER_MAP,
    emergencefigures.SWEEP,
    emergencefigures.NULLS,
    emergencefigures.LAYERS,
    pruningfigures.CURVES,
    pruningfigures.RUNS,
    landscapefigures.SLICES,
    landscapefigures.PLANE,
    landscapefigures.WALKS,
    curvaturefigures.HESSIAN,
    landscapefigures.LAYERS,
    percolationfigures.CURVE,
    topologyfigures.STRENGTHS,
    topologyfigures.FLUCTUATION,
    topologyfigures.SPECTRA,
    informationfigures.BLOCKS,
    trainingfigures.METRICS,
    trainingfigures.TRAJECTORY,
)
"""In the order of a report."""


def figure_named(name: str) -> Figure:
    """Return a figure.

    Raises:
        UsageError: There is none of that name; the message names the closest ones.
    """
    names = [figure.name for figure in FIGURES]
    if name in names:
        return FIGURES[names.index(name)]
    raise UsageError(unknown("figure", name, names))
