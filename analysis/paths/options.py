"""The conventions of a path count: a number that depends on one names it."""

from enum import StrEnum

from emergraph.errors import UsageError
from emergraph.graphstore.records import PATH_KINDS, EdgeKind
from emergraph.options import Options, option


class Interior(StrEnum):
    """Where paths may run between their ends."""

    ACTIVE = "active"
    """Through active units only (arXiv 2409.01568, eq. 9)."""
    ANY = "any"
    """Through any unit (what that paper prints for multi-layer perceptrons)."""


INTERIORS = (Interior.ACTIVE, Interior.ANY)


class Endpoints(StrEnum):
    """Which units may start or end a path."""

    NEURONS = "neurons"
    """Neurons; structural units are transparent: paths run through them, none starts or ends there."""
    ALL = "all"
    """Structural units count like neurons."""


class LayerChoice(StrEnum):
    """Whether the model's input and output units may start or end a path."""

    ALL = "all"
    HIDDEN = "hidden"
    """They may not, and are transparent."""


class PathUnit(StrEnum):
    """What an edge that stands for several parameters (a kernel) counts."""

    UNITS = "units"
    """One path."""
    WEIGHTS = "weights"
    """One path for each of its non-zero parameters."""


class Unmeasured(StrEnum):
    """What a unit is whose activity the trace does not hold (a gate inside a fused operation)."""

    TRANSPARENT = "transparent"
    """Like a structural unit: paths run through it, none starts or ends there."""
    INACTIVE = "inactive"
    ACTIVE = "active"


class EmergenceOptions(Options):
    """Conventions of a path count; the defaults are those of the documentation."""

    paths: PathUnit = option(
        default=PathUnit.UNITS, help="An edge counts once (units) or once per parameter (weights)."
    )
    endpoints: Endpoints = option(
        default=Endpoints.NEURONS, help="Paths start and end at neurons, or at all units."
    )
    layers: LayerChoice = option(
        default=LayerChoice.ALL, help="Inputs and outputs count (all), or hidden units only (hidden)."
    )
    unmeasured: Unmeasured = option(
        default=Unmeasured.TRANSPARENT,
        help="Units without a measured activity are transparent, inactive or active.",
    )
    interiors: tuple[Interior, ...] = option(
        default=INTERIORS,
        help="Paths run through active units only (active), or through any.",
        metavar="I,...",
    )
    kinds: tuple[EdgeKind, ...] = option(
        default=PATH_KINDS,
        help="Kinds of edges that paths follow; recurrent and norm may close cycles and need --unroll.",
        metavar="KIND,...",
    )
    unroll: int = option(
        default=1,
        help="Time steps: copies of the graph; recurrent edges lead from each to the next, and so do norm "
        "edges that do not lead to a higher layer.",
        least=1,
    )
    exact: bool = option(default=False, help="Exact integers beyond 2**53, too.")
    by_end_layer: bool = option(default=False, help="Split the count by the layer in which paths end, too.")
    dense_params: int | None = option(
        default=None,
        help="Parameters before pruning, for per_dense_param and per_density.",
        metavar="N",
        default_text="all of the graph, zeros included",
        least=1,
    )

    def check(self) -> None:
        """Refuse interiors that are not a set, and cycles that are not unrolled.

        Raises:
            UsageError: An option makes no sense.
        """
        if not self.interiors or len(set(self.interiors)) < len(self.interiors):
            raise UsageError(
                f"interiors must name each of active, any at most once, got {list(self.interiors)}"
            )
        cyclic = [kind.value for kind in self.kinds if kind in (EdgeKind.RECURRENT, EdgeKind.NORM)]
        if cyclic and self.unroll == 1:
            raise UsageError(
                f"Paths over {' and '.join(cyclic)} edges may run in cycles: "
                "give the number of steps with unroll >= 2"
            )
