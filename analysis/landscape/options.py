"""What a survey of a landscape measures, and how it is cut down to a budget of time."""

from collections.abc import Mapping
from dataclasses import field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from emergraph.analysis.engines.options import EngineOptions
from emergraph.choices import unknown
from emergraph.errors import UsageError
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.optionforms import BUDGET
from emergraph.options import FileRole, Options, option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emergraph.analysis.engines.spread import Parallelism


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


class LossKind(StrEnum):
    """What is measured."""

    AUTO = "auto"
    """`kl` where the outputs are probabilities, else `mse`; against the base model's outputs."""
    KL = "kl"
    """KL(base || perturbed) in nats per sample."""
    MSE = "mse"
    """Mean squared difference to the base model's outputs, or to targets."""
    CROSS_ENTROPY = "cross_entropy"
    """Against class labels, in nats per sample."""
    FUNCTION = "function"
    """A user's function of the outputs."""


class SurveyOptions(Options):
    """Sizes of a survey; directions and walks stay at ten or more by default, so that spreads mean much."""

    HEADING: ClassVar = "How much is measured"

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
    seed: int = option(default=0, help="Seed of all random draws.", least=0)
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


class ModelOptions(Options):
    """How a model file is evaluated; `SurveyOptions` say what is measured."""

    HEADING: ClassVar = "Loss"

    samples: int | None = option(
        default=16,
        help="Synthetic probe inputs, where --inputs gives no evaluation set.",
        least=1,
    )
    loss: LossKind = option(
        default=LossKind.AUTO,
        help="auto, kl or mse to the model's own outputs; with --target cross_entropy or mse.",
    )
    ignore_label: int | None = option(
        default=None,
        help="Label of --target to ignore, such as 255 or -100.",
        metavar="N",
    )
    outputs: tuple[str, ...] | None = option(
        default=None,
        help="Output to compare; may be repeated.",
        flag="--model-output",
        metavar="NAME",
        default_text="all but states",
        repeatable=True,
    )
    embeddings: bool = option(default=False, help="Perturb embedding tables of an ONNX file, too.")
    weights: Path | None = option(
        default=None,
        help="Weights for the module of a factory; read without running anything.",
        metavar="FILE",
        role=FileRole.MODEL,
    )
    to: Path | None = option(
        default=None,
        help="Another checkpoint: measure the barrier on the line to it.",
        metavar="FILE",
        role=FileRole.MODEL,
    )
    trajectory: tuple[Path, ...] = option(
        default=(),
        help="Checkpoint of a training run, in order; repeat, 3 at least.",
        flag="--run",
        metavar="FILE",
        repeatable=True,
        role=FileRole.MODEL,
    )
    budget: float | None = option(
        default=60.0,
        help="Reduce the survey to about this long; 0 never does.",
        metavar="TIME",
        form=BUDGET,
        above=0,
    )
    inputs: "Mapping[str, NDArray[np.generic]]" = field(default_factory=dict)
    """The evaluation set, or with `samples` inputs that are fixed; empty: probe inputs are made up."""
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of inputs that are made up."""
    targets: "NDArray[np.generic] | None" = None
    """Labels or values for the given inputs."""
    root: Path | None = None
    """Folder inside which files of the model and of checkpoints may be symbolic links."""
    limits: RunLimits = field(default_factory=RunLimits)
    """Of the child process that tries the model out."""
    parallelism: "Parallelism | None" = None
    """How to spread the evaluations; None tries the ways out."""
    source: Mapping[str, object] = field(default_factory=dict)
    """What inputs and targets were read from, for the record of the run; see `InputOptions`."""

    def check(self) -> None:
        """Refuse a run of too few checkpoints, and a loss that needs a function of the user.

        Raises:
            UsageError: There are one or two, or it is such a loss.
        """
        if self.loss is LossKind.FUNCTION:
            known = [kind for kind in LossKind if kind is not LossKind.FUNCTION]
            raise UsageError(unknown("loss", self.loss, known))
        if 0 < len(self.trajectory) < 3:
            raise UsageError(f"--run: expected at least 3 checkpoints, found {len(self.trajectory)}")


class ParallelOptions(EngineOptions):
    """Where evaluations run, and what is kept of them meanwhile; local: the fastest way of a short trial."""

    resume: Path | None = option(
        default=None,
        help="Keep results in FILE during the run, and resume from them.",
        metavar="FILE",
        role=FileRole.WRITES,
    )


class TargetOptions(Options):
    """What the outputs are compared with, beside the model's own."""

    HEADING: ClassVar = "Loss"

    target: str | None = option(default=None, help="Array of --inputs with labels or values.", metavar="NAME")


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
    return fitted, [f"reduced to stay near {seconds:g} s: {', '.join(changed)}"] if changed else []
