"""What is asked of the solvable model of skills: parameters, fits, simulations."""

from enum import StrEnum

from emergraph.errors import UsageError
from emergraph.options import Options, option

PARAMETERS_PER_SKILL = 4
"""N_c of the paper's network: parameters that one skill takes."""
SAMPLES_PER_SKILL = 800
"""D_c of the paper's network: samples that one skill takes."""


class Axis(StrEnum):
    """What a curve is against."""

    TIME = "time"
    DATA = "data"
    PARAMETERS = "parameters"


class FitOptions(Options):
    """How curves are read and predicted."""

    axis: Axis = option(default=Axis.TIME, help="What x is: time, data or parameters.")
    alpha: float | None = option(
        default=None, help="Frequencies are k^-(alpha+1).", default_text="the column frequency"
    )
    target: float | None = option(default=None, help="Full strength S.", default_text="fitted to skill 1")
    share: float = option(default=0.5, help="A skill has emerged at this share of S, below 1.", above=0)

    def check(self) -> None:
        """Refuse a share that nothing reaches.

        Raises:
            UsageError: It is not below 1.
        """
        if self.share >= 1:
            raise UsageError(f"share: expected above 0 and below 1, found {self.share:g}")


class ModelParameters(Options):
    """The solvable model."""

    n_skills: int = option(default=5, help="Skills.", flag="--skills", least=1)
    alpha: float = option(default=0.6, help="Frequencies are k^-(alpha+1).", above=0)
    target: float = option(default=5.0, help="Full strength S.", above=0)
    start: float = option(default=0.01, help="Strength R(0) at the start.", above=0)
    rate: float = option(default=0.05, help="Learning rate.", above=0)
    time_factor: float = option(
        default=1.0,
        help="Speed beside the model; 1/22 = 0.0455 for the paper's network.",
        above=0,
    )
    per_skill: float = option(default=PARAMETERS_PER_SKILL, help="Parameters that one skill takes.", above=0)
    samples_per_skill: float = option(
        default=SAMPLES_PER_SKILL, help="Samples that one skill takes.", above=0
    )
    share: float = option(default=0.05, help="A skill emerges at this share of S, below 0.5.", above=0)

    def check(self) -> None:
        """Refuse a start or a share that leaves nothing to learn.

        Raises:
            UsageError: One does.
        """
        if self.start >= self.target or self.share >= 0.5:
            raise UsageError("skills: expected a start below the target, and a share in (0, 0.5)")

    @property
    def speed(self) -> float:
        """Eta times the time factor."""
        return self.rate * self.time_factor


class PredictionOptions(Options):
    """Where strengths are predicted."""

    times: tuple[float, ...] = option(default=(), help="Steps at which to report strengths.", metavar="T,...")
    samples: tuple[float, ...] = option(
        default=(), help="Numbers of samples, both readings of the paper.", metavar="D,..."
    )
    parameters: tuple[float, ...] = option(default=(), help="Numbers of parameters.", metavar="N,...")


class SimulationOptions(Options):
    """The task, the network and its training; the defaults are those of the paper but for width and batch."""

    n_skills: int = option(default=5, help="Skills.", flag="--skills", least=1)
    alpha: float = option(default=0.6, help="Frequencies are k^-(alpha+1).")
    bits: int = option(default=32, help="Random bits of an input.", least=1)
    relevant: int = option(default=3, help="Bits that a skill's parity is of (m).", least=1)
    target: float = option(default=5.0, help="Full strength S.", above=0)
    width: int = option(default=256, help="Hidden units.", least=1)
    rate: float = option(default=0.05, help="Learning rate of plain gradient descent.", above=0)
    batch: int = option(default=2000, help="Inputs per step.", least=1)
    steps: int = option(default=4000, help="Training steps.", least=1)
    points: int = option(default=80, help="Steps at which strengths are measured, evenly spaced.", least=1)
    snapshots: int = option(
        default=0,
        help="Steps at which the network itself goes to --store, evenly spaced.",
        least=0,
    )
    evaluation: int = option(
        default=1000, help="Inputs of each skill that strengths are measured on.", least=1
    )
    seed: int = option(default=0, help="Seed of task, network and inputs.", least=0)
