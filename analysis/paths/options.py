"""The conventions of a path count: a number that depends on one names it."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from emergraph.analysis.choices import choice
from emergraph.errors import UsageError
from emergraph.graphstore.records import PATH_KINDS, EdgeKind


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


@dataclass(frozen=True, kw_only=True)
class EmergenceOptions:
    """Conventions of a path count; the defaults are those of the documentation."""

    endpoints: Endpoints = Endpoints.NEURONS
    layers: LayerChoice = LayerChoice.ALL
    paths: PathUnit = PathUnit.UNITS
    unmeasured: Unmeasured = Unmeasured.TRANSPARENT
    interiors: tuple[Interior, ...] = INTERIORS
    kinds: tuple[EdgeKind, ...] = PATH_KINDS
    """Edge kinds that paths follow. `recurrent` and `norm` may close cycles and need `unroll` >= 2."""
    unroll: int = 1
    """Time steps: the count is taken on that many copies of the graph. Recurrent edges lead from each copy to
    the next, and so do `norm` edges that do not lead to a higher layer."""
    exact: bool = False
    """Also return exact integers beyond 2**53 (one or more further passes)."""
    by_end_layer: bool = False
    """Also split the count by the layer in which paths end (as costly as one threshold per layer)."""
    dense_params: int | None = None
    """Parameters before pruning, for `per_dense_param` and `per_density`; default: all that the graph has,
    zeros included."""

    def __post_init__(self) -> None:
        for name, kind in _ENUMS.items():
            object.__setattr__(self, name, choice(kind, getattr(self, name), name))
        object.__setattr__(self, "interiors", tuple(choice(Interior, i, "interior") for i in self.interiors))
        object.__setattr__(self, "kinds", tuple(choice(EdgeKind, k, "kind of edges") for k in self.kinds))
        if not self.interiors or len(set(self.interiors)) < len(self.interiors):
            raise UsageError(
                f"interiors must name each of active, any at most once, got {list(self.interiors)}"
            )
        if self.unroll < 1:
            raise UsageError(f"unroll must be at least 1, got {self.unroll}")
        cyclic = [kind.value for kind in self.kinds if kind in (EdgeKind.RECURRENT, EdgeKind.NORM)]
        if cyclic and self.unroll == 1:
            raise UsageError(
                f"Paths over {' and '.join(cyclic)} edges may run in cycles: "
                "give the number of steps with unroll >= 2"
            )
        if self.dense_params is not None and self.dense_params < 1:
            raise UsageError(f"dense_params must be at least 1, got {self.dense_params}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = asdict(self)
        return {
            name: [str(v) for v in value] if isinstance(value, tuple) else value
            for name, value in plain.items()
        }


_ENUMS: dict[str, type[StrEnum]] = {
    "endpoints": Endpoints,
    "layers": LayerChoice,
    "paths": PathUnit,
    "unmeasured": Unmeasured,
}
