"""What a survey of a landscape measures, and how it is cut down to a budget of time."""

from dataclasses import dataclass, replace

from emergraph.analysis.choices import choice
from emergraph.analysis.landscape.estimate import plain
from emergraph.analysis.landscape.layout import Norm
from emergraph.errors import UsageError

LEAST = {
    "directions": 2,
    "walks": 2,
    "pairs": 2,
    "distances": 1,
    "planes": 0,
    "balls": 0,
    "layer_directions": 0,
    "layer_walks": 0,
    "layer_walk_length": 3,
    "optima": 0,
    "eigenvalues": 0,
}
"""Least values of the counts of a survey."""


@dataclass(frozen=True, kw_only=True)
class SurveyOptions:
    """Sizes of a survey; directions and walks stay at ten or more by default, so that spreads mean much."""

    norm: Norm = Norm.FILTER
    radius: float = 1.0
    """Reach of slices and planes in units of the normalised direction; 1 doubles the weights' size at
    most."""
    directions: int = 10
    slice_points: int = 31
    """Odd."""
    planes: int = 10
    plane_points: int = 21
    """Per axis, odd."""
    walks: int = 10
    walk_length: int = 100
    a: float = 0.9
    """Correlation of successive positions of the walks."""
    sigma: float = 0.1
    """Size of walks and clouds in units of the perturbation scale."""
    distances: int = 20
    """Points per direction for the fitness-distance correlation, at uniform radii."""
    pairs: int = 20
    """Antithetic pairs for the average sharpness."""
    balls: int = 20
    """Antithetic pairs on the surface of each ball of the sampled worst case; 0 leaves it out."""
    rho: float = 0.05
    """Radius of the plain ball, in units of the weights (the default of arXiv 2010.01412)."""
    adaptive_rho: float = 0.5
    """Radius of the ball |e/w| <= rho, relative to the weights (the default of arXiv 2102.11600)."""
    layer_directions: int = 10
    """Directions per tensor for the rise of each layer; 0 leaves it out."""
    layer_walks: int = 10
    """Walks per tensor for the ruggedness of each layer; 0 leaves it out."""
    layer_walk_length: int = 50
    masks: int = 0
    """Groups of the pruning-mask hypercube; 0 leaves it out, m costs 2^m evaluations."""
    mask_tensor: str | None = None
    """Take the groups from this tensor's filters (for heads: as many groups as heads); None: from all."""
    optima: int = 0
    """Runs of kicks and descents for the local-optima network; 0 leaves it out."""
    eigenvalues: int = 0
    """Hessian eigenvalues per end of the spectrum; 0 leaves out everything that needs gradients."""
    seed: int = 0
    level: float = 0.95
    """Coverage of all intervals."""

    def __post_init__(self) -> None:
        """Check what would otherwise fail late.

        Raises:
            UsageError: A size is out of range.
        """
        for name in ("slice_points", "plane_points"):
            if getattr(self, name) < 3 or getattr(self, name) % 2 == 0:
                raise UsageError(f"{name}: expected an odd number of at least 3, found {getattr(self, name)}")
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise UsageError(f"{name}: expected at least {least}, found {getattr(self, name)}")
        object.__setattr__(self, "norm", choice(Norm, self.norm, "norm"))
        for name in ("radius", "rho", "adaptive_rho"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}: expected a positive number, found {getattr(self, name)}")

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a plain dictionary."""
        return plain(self)

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
