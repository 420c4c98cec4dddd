"""What is asked of knock-outs."""

from enum import StrEnum
from pathlib import Path

from emergraph.errors import UsageError
from emergraph.options import FileRole, Options, option


class Baseline(StrEnum):
    """What an activation is replaced by."""

    MEAN = "mean"
    """The unit's mean over all samples and positions."""
    ZERO = "zero"
    """0."""
    RESAMPLE = "resample"
    """What the unit does, position by position, in another sample."""


class Method(StrEnum):
    """What is measured of single units."""

    KNOCKOUT = "knockout"
    """What replacing their activation does."""
    GRADIENT = "gradient"
    """Besides: activation less baseline, times the gradient there."""
    INTEGRATED = "integrated"
    """Besides: the same with the mean gradient on the way from the baseline (integrated gradients)."""


class ModelRunOptions(Options):
    """The model, and what it runs on."""

    model: Path | None = option(
        default=None,
        help="The model file that the graph was exported from.",
        metavar="FILE",
        role=FileRole.MODEL,
    )
    inputs: Path | None = option(
        default=None, help="An .npz file with one array of samples per input name.", metavar="FILE.npz"
    )
    sample_axis: tuple[str, ...] = option(
        default=(),
        help="Axis of an input along which samples are, or none; may be repeated.",
        metavar="NAME=AXIS",
        repeatable=True,
    )


class InfluenceOptions(Options):
    """What is knocked out, and what is looked at."""

    target: str | None = option(
        default=None,
        help="Output to look at: NAME, NAME:INDEX (of its last axis) or NAME[i,j] (of a sample's output).",
        default_text="the first output of floats",
        metavar="OUTPUT",
    )
    baseline: Baseline = option(
        default=Baseline.MEAN, help="What replaces an activation: mean, zero or resample."
    )
    method: Method = option(
        default=Method.KNOCKOUT,
        help="What is measured of units: knockout; gradient or integrated attribute the target to them, too.",
    )
    patch: Path | None = option(
        default=None,
        help="Replace activations by those of the same sample in this file, instead of a baseline.",
        metavar="FILE.npz",
    )
    units: str | None = option(
        default=None,
        help="SQL predicate over units, such as \"layer = 'fc1' AND std > 0\".",
        default_text="all hidden neurons",
        metavar="PREDICATE",
    )
    at: tuple[int, ...] = option(
        default=(),
        help="Knock out at one position only: its index along each axis of positions.",
        default_text="all positions",
        metavar="I,J",
    )
    only_layers: bool = option(default=False, help="Whole layers and heads only.")
    samples: int | None = option(default=None, help="Use the first N samples.", metavar="N", least=1)
    budget: float | None = option(
        default=None,
        help="Seconds for single units: those that move little get fewer samples.",
        metavar="SECONDS",
    )
    resume: bool = option(default=False, help="Go on from the newest run of the same knock-outs.")
    seed: int = option(default=0, help="Seed: which other sample resample takes.", least=0)

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            UsageError: It does not.
        """
        if self.patch is not None and self.baseline is not Baseline.MEAN:
            raise UsageError("--patch gives what activations are replaced by: leave out --baseline")
        if self.method is not Method.KNOCKOUT and (self.only_layers or self.resume):
            which = "--only-layers" if self.only_layers else "--resume"
            raise UsageError(f"--method {self.method} attributes to all units at once: leave out {which}")


class ContributionOptions(Options):
    """Whose terms are computed, and how many are kept."""

    units: str | None = option(
        default=None,
        help="SQL predicate over the targets of edges, such as \"layer = 'fc1' AND position = 3\".",
        default_text="all units",
        metavar="PREDICATE",
    )
    top: int = option(
        default=10, help="Keep the strongest K edges of each of them; 0 keeps all.", metavar="K", least=0
    )
    samples: int | None = option(default=None, help="Use the first N samples.", metavar="N", least=1)


class CircuitOptions(Options):
    """Which behaviour is kept, by which units."""

    target: str | None = option(
        default=None,
        help="What is kept: an output as a whole, or NAME:INDEX or NAME[i,j], one number of it.",
        default_text="the first output of floats",
        metavar="OUTPUT",
    )
    baseline: Baseline = option(
        default=Baseline.MEAN, help="What replaces the activation of all other units: mean, zero or resample."
    )
    share: float = option(
        default=0.9, help="Share of the behaviour that a circuit keeps.", above=0, most=1, metavar="SHARE"
    )
    units: str | None = option(
        default=None,
        help="SQL predicate over the units that may be left out.",
        default_text="all hidden neurons",
        metavar="PREDICATE",
    )
    edges: int = option(
        default=500,
        help="Leave out edges of the circuit, too, one by one where at most N may be needed; 0: no edges.",
        metavar="N",
        least=0,
    )
    refine: int = option(
        default=100,
        help="Order the N most influential units again, by what each does among those that are left of them.",
        metavar="N",
        least=0,
    )
    draws: int = option(default=3, help="Random sets of each size.", metavar="N", least=1)
    samples: int | None = option(default=None, help="Use the first N samples.", metavar="N", least=1)
    seed: int = option(default=0, help="Seed of random sets, and of resample.", least=0)
