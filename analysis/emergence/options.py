"""What is said beside E: sweeps, intervals, null models, positions; and what is asked of a trajectory."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Literal

from emergraph.choices import unknown
from emergraph.errors import UsageError
from emergraph.optionforms import GRID, NAME_OR_ID
from emergraph.options import FileRole, Options, option
from emergraph.safetext import escape_controls

Grid = Sequence[float] | int | Literal["all"]
"""Thresholds: numbers, how many to choose, or all values where a unit changes."""
DEFAULT_DRAWS = 200
"""Bootstrap draws over samples."""
DEFAULT_THRESHOLDS = 100
"""Thresholds to choose for a sweep."""


class NullKind(StrEnum):
    """What a null model draws at random."""

    ACTIVITY_IN_LAYERS = "activity_in_layers"
    """Activity shuffled among the units of each layer that count."""
    ACTIVITY_OVER_NET = "activity_over_net"
    """Activity shuffled among all units that count."""
    WEIGHTS_IN_BLOCKS = "weights_in_blocks"
    """The entries of each block's matrix shuffled, zeros included."""
    REWIRED = "rewired"
    """Edges of each block rewired with all degrees kept (masked graphs)."""
    WEIGHT_NOISE = "weight_noise"
    """Gaussian noise on the weights; the graph stays, the activity is measured again."""


ACTIVITY_NULLS = frozenset({NullKind.ACTIVITY_IN_LAYERS, NullKind.ACTIVITY_OVER_NET})

MOVING_NULLS = frozenset({NullKind.WEIGHTS_IN_BLOCKS, NullKind.REWIRED})
"""Nulls that put weights elsewhere."""


class ReportOptions(Options):
    """How much of everything a full report takes; of a sweep, its thresholds, of an interval, its draws."""

    thresholds: Grid | None = option(
        default=None,
        help="Sweep: these thresholds, N chosen ones, or all values where a unit changes.",
        metavar="T,T,...|N|all",
        default_text=f"none; with --full {DEFAULT_THRESHOLDS} chosen ones",
        form=GRID,
    )
    draws: int | None = option(
        default=None,
        help="Bootstrap draws over samples, for an interval.",
        default_text=f"none; {DEFAULT_DRAWS} with --full and for per_sample",
        least=2,
    )
    nulls: tuple[NullKind, ...] | None = option(
        default=None,
        help="Null models of --full: activity_in_layers, activity_over_net, weights_in_blocks, rewired, "
        "weight_noise.",
        metavar="KIND,...",
        default_text="those of activity; all with --model",
    )
    null_draws: int = option(default=100, help="Draws of each null model of activity.", least=2)
    weight_draws: int = option(
        default=99,
        help="Draws of each null model of weights: each runs the model again; p is at least 2 / (draws + 1).",
        least=2,
    )
    noise: float = option(
        default=0.1, help="Size of weight_noise, relative to each tensor's root mean square.", above=0
    )
    seed: int = option(default=0, help="Seed of the draws.", least=0)

    @property
    def grid(self) -> Grid:
        """The thresholds of the sweep."""
        return DEFAULT_THRESHOLDS if self.thresholds is None else self.thresholds

    @property
    def n_draws(self) -> int:
        """Draws of the interval."""
        return DEFAULT_DRAWS if self.draws is None else self.draws

    def null_kinds(self, *, runs_model: bool) -> tuple[NullKind, ...]:
        """The null models that were named; otherwise those that can be drawn, with or without the model."""
        if self.nulls is not None:
            return self.nulls
        return tuple(kind for kind in NullKind if runs_model or kind in ACTIVITY_NULLS)


class ExtentOptions(Options):
    """What is said beside E, and the model for what needs it to run."""

    full: bool = option(
        default=False,
        help="Sweep, interval, null models and baselines too, with all rows; with --model nulls of weights.",
    )
    positions: bool = option(
        default=False, help="Count between all positions of a convolutional network; needs --model."
    )
    model: Path | None = option(
        default=None,
        help="The model of the graph, for --positions, nulls of weights, and weights that stayed in it.",
        metavar="FILE",
        role=FileRole.MODEL,
    )
    inputs: Path | None = option(
        default=None, help="The inputs of the trace, unless they were random.", metavar="FILE.npz"
    )
    reference: str | int | None = option(
        default=None,
        help="Also the edge form: the paths behind the edges that this graph has and the other has not; "
        "full: behind all zeros of its matrices.",
        metavar="NAME|ID|full",
        form=NAME_OR_ID,
    )
    carried: float | None = option(
        default=None,
        help="Also the paths along edges that give more than this share of what flows into their target, by "
        "the newest run of contributions.",
        metavar="SHARE",
        least=0,
        most=1,
    )

    @property
    def runs_model(self) -> bool:
        """Whether the model is more than a place where weights have stayed."""
        return self.full or self.positions

    def check(self) -> None:
        """Refuse inputs without a model that takes them.

        Raises:
            UsageError: There is none.
        """
        if self.inputs is not None and self.model is None:
            raise UsageError("--inputs needs --model FILE, the file that the graph was exported from")


USUAL_METRIC = "accuracy"
SMALL_IS_GOOD = (
    "loss",
    "error",
    "err",
    "perplexity",
    "ppl",
    "entropy",
    "mse",
    "rmse",
    "mae",
    "nll",
    "wer",
    "cer",
)
"""Ends of words in names of metrics that are to be small."""


class TrajectoryOptions(Options):
    """What is asked of a trajectory."""

    metric: str | None = option(
        default=None,
        help="Recorded metric whose change E is compared with.",
        default_text="accuracy, or the only one",
    )
    higher_is_better: bool | None = option(
        default=None,
        help="Whether the metric is one to be large, or small as a loss.",
        off="--lower-is-better",
        default_text="by its name",
    )
    window: int = option(default=3, help="Steps of the trailing mean that smooths the metric.", least=1)
    max_lag: int = option(
        default=3, help="Largest lag: E at step t against the change that follows step t + lag.", least=0
    )
    n_permutations: int = option(
        default=9999, help="Draws behind each p value.", flag="--permutations", least=1
    )
    seed: int = option(default=0, help="Seed of the permutations.", least=0)
    patience: int = option(
        default=3,
        help="Steps without improvement after which ordinary early stopping stops, and for which a rule on E "
        "must hold.",
        least=1,
    )
    min_delta: float = option(default=0.0, help="What counts as an improvement of the metric.", least=0)
    tolerance: float = option(
        default=0.01, help="E has settled when a step changes it by at most this share.", least=0
    )
    share: float = option(
        default=0.01, help="E is near zero at this share of its largest value so far, below 1.", least=0
    )

    def check(self) -> None:
        """Refuse a share that every value is below.

        Raises:
            UsageError: It is.
        """
        if self.share >= 1:
            raise UsageError(f"share: expected at least 0 and below 1, found {self.share:g}")

    @property
    def larger_is_better(self) -> bool:
        """Whether larger values of the metric are better: as asked, else by its name."""
        if self.higher_is_better is not None:
            return self.higher_is_better
        words = re.split(r"[^a-z0-9]+", (self.metric or "").lower())
        return not any(word.endswith(SMALL_IS_GOOD) for word in words)

    def about(self, recorded: Collection[str]) -> "TrajectoryOptions":
        """Return the options with the metric that is meant, of those that were recorded.

        Raises:
            UsageError: There is no such metric, or nothing says which one is meant.
        """
        if self.metric is None and USUAL_METRIC not in recorded and len(recorded) > 1:
            names = ", ".join(escape_controls(name) for name in sorted(recorded)[:8])
            raise UsageError(f"which metric? recorded: {names}; name one with --metric")
        usual = USUAL_METRIC if USUAL_METRIC in recorded else next(iter(recorded), None)
        metric = self.metric or usual
        if recorded and metric not in recorded:
            raise UsageError(unknown("metric", metric, sorted(recorded)))
        return replace(self, metric=metric, higher_is_better=replace(self, metric=metric).larger_is_better)


class SnapshotOptions(Options):
    """Which graphs a trajectory goes through."""

    graphs: tuple[str, ...] = option(
        default=("*",), help="Snapshots by name, id or pattern, such as 'mlp-*'.", metavar="NAME,..."
    )
