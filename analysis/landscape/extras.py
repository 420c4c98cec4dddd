"""What a survey measures on request, beside random directions: a line, a run, curvature, optima."""

from dataclasses import dataclass, replace

import numpy as np

from emergraph.analysis.landscape.curvature import Curvature
from emergraph.analysis.landscape.lines import Line
from emergraph.analysis.landscape.optima import Optima
from emergraph.analysis.landscape.trajectories import RunPlane
from emergraph.analysis.statistics.estimate import Estimate
from emergraph.analysis.statistics.intervals import student


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Parts of a survey that are there when they were asked for."""

    line: Line | None = None
    trajectory: RunPlane | None = None
    curvature: Curvature | None = None
    optima: Optima | None = None

    def estimates(self) -> dict[str, Estimate]:
        """Return the statistics of all parts by name; single figures have n = 1 and no interval."""
        found: dict[str, Estimate] = {}
        if self.line is not None:
            barrier = self.line.barrier
            found["line_barrier"] = single(barrier.barrier, null=0.0)
            found["line_midpoint_excess"] = single(barrier.midpoint_excess)
            found["line_connectivity"] = single(barrier.connectivity, null=0.0)
        if self.trajectory is not None:
            pca = self.trajectory.pca
            for k, (share, null) in enumerate(zip(pca.explained, pca.random_walk, strict=True), start=1):
                found[f"trajectory_explained_{k}"] = single(share, null=null)
            # checkpoints of one run are not replicates: their mean has no interval
            found["trajectory_residual"] = single(float(np.mean(pca.residual)))
        if self.curvature is not None:
            found |= _of_curvature(self.curvature)
        if self.optima is not None:
            found |= {
                f"lon_{name}": single(value) for name, value in numbers(self.optima.summary.to_dict()).items()
            }
        return found

    def to_dict(self) -> dict[str, object]:
        """Return the parts as nested plain dictionaries; None for those that were not asked for."""
        parts = {name: getattr(self, name) for name in ("line", "trajectory", "curvature", "optima")}
        return {name: None if part is None else part.to_dict() for name, part in parts.items()}


def single(value: float | None, *, null: float | None = None) -> Estimate:
    """Return a figure that was measured once as an estimate without an interval.

    Example:
        >>> single(2.0).mean, single(2.0).n
        (2.0, 1)
    """
    return student([float("nan") if value is None else value], null=null)


def numbers(figures: dict[str, object]) -> dict[str, float]:
    """Return the single numbers of a plain dictionary.

    Example:
        >>> numbers({"a": 1, "b": None, "c": "x"})
        {'a': 1.0}
    """
    return {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}


def _of_curvature(found: Curvature) -> dict[str, Estimate]:
    extremes = found.extremes
    return {
        "gradient_norm": single(found.gradient_norm, null=0.0),
        "gradient_curvature": single(found.gradient_curvature),
        **{f"hessian_largest_{k}": single(v) for k, v in enumerate(extremes.largest, start=1)},
        **{f"hessian_smallest_{k}": single(v) for k, v in enumerate(extremes.smallest, start=1)},
        "hessian_trace": found.trace,
        "hessian_trace_hutch_pp": found.trace_pp,
        # A convex loss has no negative eigenvalue.
        "hessian_negative_mass": replace(found.density.negative_mass, null=0.0),
        "worst_case": found.worst_case.rises,
        "worst_case_highest": single(found.worst_case.rise),
        "adaptive_worst_case": found.adaptive.rises,
        "adaptive_worst_case_highest": single(found.adaptive.rise),
        "keskar_sharpness": single(found.keskar),
    }
