"""What a survey of a landscape returns: statistics with intervals, and the losses behind them."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.landscape.autocorrelation import Autocorrelation
from emergraph.analysis.landscape.extras import Extras, numbers, single
from emergraph.analysis.landscape.extrema import Extrema
from emergraph.analysis.landscape.fdc import FitnessDistance
from emergraph.analysis.landscape.hypercube import HypercubeSummary
from emergraph.analysis.landscape.information_content import InformationSummary
from emergraph.analysis.landscape.layers import LayerRuggedness
from emergraph.analysis.landscape.lon import LonSummary
from emergraph.analysis.landscape.merge_tree import MergeTree, Persistence
from emergraph.analysis.landscape.neutrality import Neutrality
from emergraph.analysis.landscape.options import SurveyOptions
from emergraph.analysis.landscape.slices import PlaneConvexity, SliceSummary
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.statistics.estimate import Estimate, plain

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One sampled plane and what it shows."""

    losses: Array
    """(points, points), rows along the first direction."""
    cosine: float
    """Plain cosine of the two directions; they are orthogonal in the metric of the normalisation."""
    convexity: PlaneConvexity
    extrema: Extrema
    tree: MergeTree
    """After cancelling pairs below the noise floor."""
    persistence: Persistence


@dataclass(frozen=True, kw_only=True)
class Balls:
    """Rise of the loss on the surface of two balls around the weights; what is known without gradients."""

    plain: Estimate
    """Mean rise at |e| = rho, over antithetic pairs."""
    adaptive: Estimate
    """Mean rise at |e/w| = adaptive_rho."""
    plain_highest: float
    """Largest rise that was sampled: a lower bound of the worst case (arXiv 2010.01412)."""
    adaptive_highest: float
    """The same for the adaptive ball (arXiv 2102.11600)."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as nested plain dictionaries."""
        return plain(self)


@dataclass(frozen=True, kw_only=True)
class Masks:
    """The exact landscape of removing groups of weights."""

    groups: tuple[str, ...]
    """Bit i of a state is group i."""
    losses: Array
    """(2^m,)."""
    summary: HypercubeSummary
    lon: LonSummary
    """Of the complete local-optima network with escapes of up to two flips."""


@dataclass(frozen=True, kw_only=True)
class Survey(ShownInNotebooks):
    """Ruggedness of a model's loss landscape around its own weights."""

    loss_name: str
    base_loss: float
    noise_floor: float
    """Loss difference below which structure is rounding or evaluation noise."""
    n_params: int
    """Parameters that were perturbed."""
    options: SurveyOptions
    positions: Array
    """(slice_points,) of the slices."""
    slice_losses: Array
    """(directions, slice_points)."""
    slices: SliceSummary
    walk_losses: Array
    """(walks, walk_length)."""
    autocorrelation: Autocorrelation
    information: InformationSummary
    neutrality: Neutrality
    distance_correlation: FitnessDistance
    average_sharpness: Estimate
    planes: tuple[Plane, ...]
    plane_estimates: dict[str, Estimate]
    """n_minima, smad_normalised, total_persistence, max_persistence, convex_share, saddles over the
    planes."""
    layers: tuple[LayerRuggedness, ...]
    masks: Masks | None
    balls: Balls | None = None
    extras: Extras = field(default_factory=Extras)
    notes: tuple[str, ...] = ()

    def estimates(self) -> dict[str, Estimate]:
        """Return every statistic that has an interval, by name."""
        named = {
            "range": self.slices.loss_range,
            "rise": self.slices.rise,
            "convexity": self.slices.convexity,
            "curvature": self.slices.curvature,
            "asymmetry": self.slices.asymmetry,
            "rho_1": self.autocorrelation.rho_1,
            "correlation_length": self.autocorrelation.correlation_length,
            "excess_ruggedness": self.autocorrelation.excess_ruggedness,
            "h_max": self.information.h_max,
            "h_0": self.information.h_0,
            "m_0": self.information.m_0,
            "eps_max": self.information.eps_max,
            "eps_s": self.information.eps_s,
            "eps_ratio": self.information.eps_ratio,
            "neutral_share": self.neutrality.neutral_share,
            "plateau_length": self.neutrality.plateau_length,
            "fdc_pearson": self.distance_correlation.pearson,
            "fdc_spearman": self.distance_correlation.spearman,
            "average_sharpness": self.average_sharpness,
        }
        if self.balls is not None:
            named |= {
                "ball_rise": self.balls.plain,
                "ball_rise_highest": single(self.balls.plain_highest),
                "adaptive_ball_rise": self.balls.adaptive,
                "adaptive_ball_rise_highest": single(self.balls.adaptive_highest),
            }
        named |= {f"plane_{name}": value for name, value in self.plane_estimates.items()}
        if self.masks is not None:
            named |= _of_masks(self.masks)
        return named | self.extras.estimates()

    def to_dict(self) -> dict[str, object]:
        """Return settings and statistics as nested plain dictionaries; the sampled losses are left out."""
        return {
            "loss": self.loss_name,
            "base_loss": self.base_loss,
            "noise_floor": self.noise_floor,
            "n_params": self.n_params,
            "options": self.options.to_dict(),
            "statistics": {name: value.to_dict() for name, value in self.estimates().items()},
            "rho": list(self.autocorrelation.rho),
            "planes": [
                {
                    "cosine": plane.cosine,
                    **plane.convexity.to_dict(),
                    **plane.extrema.to_dict(),
                    **plane.persistence.to_dict(),
                }
                for plane in self.planes
            ],
            "balls": None if self.balls is None else self.balls.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
            "masks": None
            if self.masks is None
            else {
                "groups": list(self.masks.groups),
                **self.masks.summary.to_dict(),
                "lon": self.masks.lon.to_dict(),
            },
            **self.extras.to_dict(),
            "notes": list(self.notes),
        }


def _of_masks(masks: Masks) -> dict[str, Estimate]:
    """The exact figures of a mask landscape."""
    summary = masks.summary
    shares = {
        f"epistasis_{name}": v for name, v in numbers(summary.epistasis.to_dict()).items() if name != "eps"
    }
    figures = {
        "rho_1": summary.rho_1,
        "correlation_length": summary.correlation_length,
        "additive_share": summary.additive_share,
        "n_strict_minima": summary.n_strict_minima,
        **shares,
        **numbers(masks.lon.to_dict()),
    }
    # Groups that do not interact: one optimum, and the autocorrelation of an additive function.
    nulls = {"rho_1": 1 - 2 / summary.m, "additive_share": 1.0, "n_optima": 1.0, "n_funnels": 1.0}
    return {f"mask_{name}": single(value, null=nulls.get(name)) for name, value in figures.items()}
