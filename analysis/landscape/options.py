"""What a survey of a landscape measures, and how it is cut down to a budget of time."""

from dataclasses import replace
from enum import StrEnum

from emergraph.errors import UsageError
from emergraph.options import Options, option


class Norm(StrEnum):
    """How random directions are scaled to the weights that they perturb."""

    NONE = "none"
    """Not at all: not comparable between models, depends on the scale of the weights."""
    FILTER = "filter"
    """Each filter of a direction gets the norm of the model's filter (arXiv 1712.09913, section 4)."""
    LAYER = "layer"
    """Each tensor of a direction gets the norm of the model's tensor."""
    ELEMENT = "element"
    """Each entry is multiplied by the absolute weight (the geometry of ASAM, arXiv 2102.11600): the only
    one that is invariant under every function-preserving rescaling of neurons."""


class SurveyOptions(Options):
    """Sizes of a survey; directions and walks stay at ten or more by default, so that spreads mean much."""

    norm: Norm = option(
        default=Norm.FILTER,
        help="Scale of directions: filter, layer, element (invariant under rescaling) or none.",
    )
    radius: float = option(
        default=1.0,
        help="Reach of slices and planes, in norms of the weights; 1 doubles their size at most.",
        above=0,
    )
    directions: int = option(default=10, help="Random directions of slices.", least=2)
    slice_points: int = option(default=31, help="Points of a slice; odd.", least=3)
    planes: int = option(default=10, help="Random planes.", least=0)
    plane_points: int = option(default=21, help="Points of a plane along each axis; odd.", least=3)
    walks: int = option(default=10, help="Random walks.", least=2)
    walk_length: int = option(default=100, help="Steps of a walk.", least=3)
    a: float = option(default=0.9, help="Correlation of successive positions of the walks.")
    sigma: float = option(default=0.1, help="Size of walks and clouds, in norms of the weights.")
    distances: int = option(
        default=20,
        help="Points along each direction for the fitness-distance correlation, at uniform radii.",
        least=1,
    )
    pairs: int = option(default=20, help="Antithetic pairs for the average sharpness.", least=2)
    balls: int = option(
        default=20,
        help="Antithetic pairs on the surface of each ball of the sampled worst case; 0 leaves it out.",
        least=0,
    )
    rho: float = option(
        default=0.05,
        help="Radius of the ball of worst-case sharpness, in units of the weights (the default of "
        "arXiv 2010.01412).",
        above=0,
    )
    adaptive_rho: float = option(
        default=0.5,
        help="Radius of the ball of adaptive sharpness |e/w| <= rho, relative to the weights (the default "
        "of arXiv 2102.11600).",
        above=0,
    )
    layer_directions: int = option(
        default=10, help="Directions per tensor for the rise of each layer; 0 leaves it out.", least=0
    )
    layer_walks: int = option(
        default=10, help="Walks per tensor for the ruggedness of each layer; 0 leaves it out.", least=0
    )
    layer_walk_length: int = option(default=50, help="Steps of the walks of a layer.", least=3)
    masks: int = option(
        default=0,
        help="Remove M groups of weights in all 2^M ways, one evaluation each; 0 leaves it out.",
        metavar="M",
        least=0,
        most=14,
    )
    mask_tensor: str | None = option(
        default=None,
        help="Groups of --masks are filters (or heads) of this tensor.",
        metavar="NAME",
        default_text="all tensors",
    )
    optima: int = option(
        default=0,
        help="Runs of kicks and descents for the local-optima network; 0 leaves it out.",
        least=0,
    )
    eigenvalues: int = option(
        default=0,
        help="K Hessian eigenvalues per end, trace, density, gradients; modules only.",
        flag="--hessian",
        metavar="K",
        least=0,
    )
    seed: int = option(default=0, help="Seed of everything that is drawn.", least=0)
    level: float = option(default=0.95, help="Coverage of all intervals.", above=0, most=1)

    def check(self) -> None:
        """Refuse grids without a middle.

        Raises:
            UsageError: A number of points is even.
        """
        for name in ("slice_points", "plane_points"):
            if getattr(self, name) % 2 == 0:
                raise UsageError(f"{name}: expected an odd number of at least 3, found {getattr(self, name)}")

    def cost(self, n_tensors: int) -> int:
        """Evaluations that a survey of a model with `n_tensors` weight tensors takes; descents are extra."""
        return (
            self.directions * (self.slice_points + self.distances)
            + self.planes * self.plane_points**2
            + self.walks * self.walk_length
            + 2 * self.pairs
            + 4 * self.balls
            + (2 * self.layer_directions + self.layer_walks * self.layer_walk_length) * n_tensors
            + (2**self.masks if self.masks else 0)
            + 3
        )


LADDER: tuple[dict[str, int], ...] = (
    {"plane_points": 15, "walk_length": 60, "layer_walk_length": 20},
    {"plane_points": 11, "slice_points": 21, "distances": 10, "layer_directions": 5},
    {"planes": 3, "walk_length": 30, "layer_walks": 0, "pairs": 10, "balls": 10},
    {"planes": 1, "slice_points": 11, "layer_directions": 2, "balls": 5},
    {"layer_directions": 0, "planes": 0, "distances": 5, "walk_length": 15, "balls": 0},
)
"""Steps by which a survey is cut down, mildest first; directions and walks of the whole model stay."""


def fit_to_budget(
    options: SurveyOptions, *, n_tensors: int, rate: float, seconds: float
) -> tuple[SurveyOptions, list[str]]:
    """Cut a survey down until it takes at most `seconds`, or cannot be cut further.

    Args:
        options: What was asked for.
        n_tensors: Weight tensors of the model.
        rate: Evaluations per second.
        seconds: Budget.

    Returns:
        The options to run with, and a note if any field was cut.

    Example:
        >>> fit_to_budget(SurveyOptions(), n_tensors=3, rate=1e6, seconds=60)[1]
        []
    """
    fitted = options
    for step in LADDER:
        if fitted.cost(n_tensors) <= rate * seconds:
            break
        smaller = {name: value for name, value in step.items() if value < getattr(fitted, name)}
        fitted = replace(fitted, **smaller)  # type: ignore[arg-type]  # all fields of the ladder are int
    changed = [
        f"{name} from {getattr(options, name)} to {getattr(fitted, name)}"
        for name in vars(options)
        if getattr(options, name) != getattr(fitted, name)
    ]
    return fitted, [f"cut to stay near {seconds:g} s: {', '.join(changed)}"] if changed else []
