"""What a user asks of a pruning what-if."""

import re
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from emergraph.analysis.activity.options import ActivityRule, RuleOptions
from emergraph.choices import unknown
from emergraph.errors import UsageError
from emergraph.optionforms import NAME_OR_ID
from emergraph.options import FileRole, Options, option

DEFAULT_LEVELS = (*(round(0.05 * step, 2) for step in range(20)), 0.99)
SENSITIVITY_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
_N_OF_M = re.compile(r"(\d+):(\d+)")


class Criterion(StrEnum):
    """How items are scored."""

    MAGNITUDE = "magnitude"
    """Absolute value of the parameter; l1 of a kernel or of a unit's incoming weights."""
    RANDOM = "random"
    """Uniform random numbers from a seed."""
    L2 = "l2"
    """L2 norm of a unit's incoming weights (structured)."""
    ACTIVATION = "activation"
    """Mean absolute activation of a unit on a trace (structured)."""
    WANDA = "wanda"
    """|w| times the root mean square of its input on a trace (arXiv 2306.11695, eq. 1)."""
    SYNFLOW = "synflow"
    """Share of the sum over all paths of products of |w| (arXiv 2006.05467), scored once."""
    SYNFLOW_ITERATIVE = "synflow-iterative"
    """The same, scored anew over an exponential schedule of rounds."""
    SNIP = "snip"
    """|gradient times weight| on labelled samples (arXiv 1810.02340); needs a module."""
    TAYLOR = "taylor"
    """(gradient times weight)**2 (arXiv 1906.10771); needs a module."""
    GATE = "gate"
    """|derivative of the loss by a gate on the unit| (structured); needs a module."""
    NM = "n:m"
    """In every group of M inputs of a unit, all but the N largest magnitudes, such as 2:4."""
    WHERE = "where"
    """What a predicate in SQL says."""


NEEDS_TRACE = frozenset({Criterion.ACTIVATION, Criterion.WANDA})
NEEDS_GRADIENTS = frozenset({Criterion.SNIP, Criterion.TAYLOR, Criterion.GATE})
FOR_UNITS = frozenset(
    {
        *(Criterion.L2, Criterion.ACTIVATION, Criterion.MAGNITUDE, Criterion.RANDOM, Criterion.WHERE),
        *(Criterion.SNIP, Criterion.TAYLOR, Criterion.GATE),
    }
)
FOR_EDGES = frozenset(set(Criterion) - {Criterion.L2, Criterion.ACTIVATION, Criterion.GATE})


class PruningUnit(StrEnum):
    """What is removed as one."""

    EDGE = "edge"
    """An edge; a kernel is removed as a whole."""
    PARAMETER = "parameter"
    """A single parameter, taps of kernels included."""
    UNIT = "unit"
    """A hidden neuron with all edges into and out of it, its bias and its normalisation."""


MAX_LEVELS = 254


class ComparisonScope(StrEnum):
    """Within what items are compared."""

    GLOBAL = "global"
    LAYER = "layer"
    BLOCK = "block"
    UNIT = "unit"
    """Every target unit by itself."""


class PruningOptions(Options):
    """A sweep of what-ifs."""

    criterion: str = option(
        default="magnitude",
        help="magnitude, random, l2, activation, wanda, synflow, synflow-iterative, snip, taylor, gate, "
        "or N:M such as 2:4.",
        metavar="NAME",
    )
    levels: tuple[float, ...] = option(
        default=DEFAULT_LEVELS,
        help="Shares to remove, in [0, 1).",
        flag="--level",
        metavar="S,S,...",
        default_text="0,0.05,...,0.95,0.99; with --sensitivity 0.1,0.3,...,0.9",
    )
    scope: ComparisonScope | None = option(
        default=None,
        help="Compare within global, layer, block or unit.",
        default_text="global, for wanda unit",
    )
    unit: PruningUnit | None = option(
        default=None,
        help="Remove edges (kernels whole), parameters or units.",
        default_text="parameter; unit for l2 and activation; edge for --where",
    )
    seeds: int = option(default=1, help="Repetitions of criterion random, with seeds 0, 1, ...", least=1)
    rounds: int = option(default=100, help="Rounds of synflow-iterative.", least=1)
    where: str | None = option(
        default=None,
        help="Remove what this condition selects, instead of a criterion and levels.",
        metavar="SQL",
    )

    def check(self) -> None:
        """Refuse levels and criteria that do not exist.

        Raises:
            UsageError: A level is outside [0, 1), or there is no such criterion.
        """
        object.__setattr__(self, "levels", checked_levels(self.levels))
        if self.where is not None and (
            self.criterion != "magnitude" or self.levels != DEFAULT_LEVELS or self.scope is not None
        ):
            raise UsageError("--where picks what is removed: leave out --criterion, --level and --scope")
        _ = self.kind

    def for_layers(self) -> "PruningOptions":
        """The same for pruning each layer alone, which has fewer levels by default.

        Raises:
            UsageError: There is a predicate, which ranks nothing.
        """
        if self.where is not None:
            raise UsageError("--sensitivity prunes by a criterion: leave out --where")
        return replace(self, levels=SENSITIVITY_LEVELS) if self.levels == DEFAULT_LEVELS else self

    @property
    def kind(self) -> Criterion:
        """The criterion.

        Raises:
            UsageError: There is none of that name.
        """
        if self.where is not None:
            return Criterion.WHERE
        if self.n_of_m is not None:
            return Criterion.NM
        if self.criterion in (set(Criterion) - {Criterion.NM, Criterion.WHERE}):
            return Criterion(self.criterion)
        known = [c for c in Criterion if c not in (Criterion.NM, Criterion.WHERE)]
        raise UsageError(unknown("criterion", self.criterion, [*known, "N:M such as 2:4"]))

    @property
    def n_of_m(self) -> tuple[int, int] | None:
        """N and M of an N:M criterion."""
        match = _N_OF_M.fullmatch(self.criterion)
        if match is None:
            return None
        n, m = int(match[1]), int(match[2])
        if not 0 < n < m:
            raise UsageError(f"criterion {self.criterion}: expected N:M with 0 < N < M, such as 2:4")
        return n, m

    @property
    def pruning_unit(self) -> PruningUnit:
        """What is removed as one."""
        if self.unit is not None:
            return PruningUnit(self.unit)
        if self.kind is Criterion.WHERE:
            return PruningUnit.EDGE
        return PruningUnit.PARAMETER if self.kind in FOR_EDGES else PruningUnit.UNIT

    @property
    def pruning_scope(self) -> str:
        """Within what items are compared."""
        if self.scope is not None:
            return self.scope
        return "unit" if self.kind is Criterion.WANDA else "global"

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON; unit and scope as they are decided."""
        plain = super().to_dict() | {"unit": str(self.pruning_unit), "scope": self.pruning_scope}
        if self.kind in (Criterion.NM, Criterion.WHERE):
            plain["levels"] = None
        if self.kind is Criterion.WHERE:
            plain["scope"] = None
        return plain


class ActivityChoice(RuleOptions):
    """Whose activity E and the criteria take."""

    rule: ActivityRule = option(
        default=ActivityRule.MEAN, help="Activity rule of E: mean, mean_abs, any, majority, contribution."
    )
    trace: str | int | None = option(
        default=None,
        help="The activation trace.",
        metavar="NAME|ID",
        default_text="the newest, if there is one",
        form=NAME_OR_ID,
    )


class RunOptions(Options):
    """What is run: layers one by one, or pruned models as wholes."""

    sensitivity: bool = option(
        default=False, help="Prune each layer alone instead: a heat map, layers by levels."
    )
    model: Path | None = option(
        default=None,
        help="The model that the graph was exported from.",
        metavar="FILE",
        role=FileRole.MODEL,
    )
    inputs: Path | None = option(
        default=None, help="Run the pruned models on these samples; needs --model.", metavar="FILE.npz"
    )
    labels: Path | None = option(
        default=None, help="One array: the class of each sample; needs --inputs.", metavar="FILE.npz"
    )
    ignore_label: int | None = option(default=None, help="Label to ignore, such as 255 or -100.", metavar="N")
    module: str | None = option(
        default=None,
        help="The module behind the graph, for snip, taylor and gate; its code runs.",
        metavar="PKG.MODULE:FACTORY",
    )
    weights: Path | None = option(
        default=None, help="Weights for the factory's module.", metavar="FILE", role=FileRole.MODEL
    )

    def check(self) -> None:
        """Refuse an option without the one that it needs.

        Raises:
            UsageError: There is one.
        """
        if self.module is not None:
            if self.model is not None:
                raise UsageError("--module gives scores only: leave out --model, or run once for each")
            if self.inputs is None or self.labels is None:
                raise UsageError("--module needs --inputs and --labels: scores of gradients come from a loss")
            return
        if self.weights is not None:
            raise UsageError("--weights needs --module PKG.MODULE:FACTORY, the module that they are for")
        for name in ("inputs", "labels"):
            if self.model is None and getattr(self, name) is not None:
                raise UsageError(f"--{name} needs --model FILE, the file that the graph was exported from")
        if self.labels is not None and self.inputs is None:
            raise UsageError("--labels needs --inputs FILE.npz, the samples that they are for")


class Keeping(Options):
    """What to keep of the pruned model of a single what-if."""

    write: Path | None = option(
        default=None,
        help="Write the pruned model; needs --model and one level.",
        metavar="FILE.onnx",
        role=FileRole.WRITES,
    )
    graph: str | None = option(
        default=None,
        help="Store the pruned model's graph, too, with the pruned one as its parent; a name that is taken "
        "gets a number.",
        flag="--save-graph",
        metavar="NAME",
    )
    smaller: bool | None = option(
        default=None,
        help="Write a model without the channels that nothing needs any more, or one with zeros.",
        off="--masked",
        default_text="smaller for --unit unit",
    )

    @property
    def keeps(self) -> bool:
        """Whether there is something to keep."""
        return self.write is not None or self.graph is not None


def checked_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """The levels in ascending order, each once.

    Raises:
        UsageError: A level is outside [0, 1), or there are none or too many.
    """
    if bad := [level for level in levels if not 0 <= level < 1]:
        raise UsageError(f"level {bad[0]:g}: expected shares to remove, from 0 up to but not 1, such as 0.5")
    distinct = tuple(sorted({float(level) for level in levels}))
    if not 1 <= len(distinct) <= MAX_LEVELS:
        raise UsageError(f"{len(distinct)} levels: expected 1 to {MAX_LEVELS}")
    return distinct
