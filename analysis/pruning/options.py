"""What a user asks of a pruning what-if."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from emergraph.analysis.choices import choice
from emergraph.analysis.pruning.criteria import FOR_EDGES, Criterion
from emergraph.analysis.pruning.items import PruningUnit
from emergraph.analysis.pruning.selection import checked_levels
from emergraph.errors import UsageError

SCOPES = ("global", "layer", "block", "unit")
DEFAULT_LEVELS = (*(round(0.05 * step, 2) for step in range(20)), 0.99)
_N_OF_M = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True, kw_only=True)
class PruningOptions:
    """A sweep of what-ifs."""

    criterion: str = "magnitude"
    """A `Criterion`, or N:M such as 2:4."""
    levels: tuple[float, ...] = DEFAULT_LEVELS
    """Shares of items to remove, in [0, 1)."""
    scope: str | None = None
    """`global`, `layer`, `block` or `unit` (every target unit by itself). Default: global, for wanda unit."""
    unit: str | None = None
    """`edge`, `parameter` or `unit`. Default: parameter; unit for l2 and activation; edge for a predicate."""
    seeds: int = 1
    """Repetitions of a random criterion, with seeds 0, 1, ..."""
    rounds: int = 100
    """Rounds of iterative SynFlow."""
    where: str | None = None
    """A predicate in SQL instead of a criterion and levels."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", checked_levels(self.levels))
        if self.scope is not None and self.scope not in SCOPES:
            raise UsageError(f"unknown scope '{self.scope}': expected one of {', '.join(SCOPES)}")
        if self.unit is not None:
            choice(PruningUnit, self.unit, "unit")
        if self.seeds < 1 or self.rounds < 1:
            raise UsageError(f"seeds and rounds must be at least 1, got {self.seeds} and {self.rounds}")
        _ = self.kind

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
        known = ", ".join(c for c in Criterion if c not in (Criterion.NM, Criterion.WHERE))
        raise UsageError(f"unknown criterion '{self.criterion}': expected one of {known}, or N:M such as 2:4")

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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = asdict(self) | {"unit": str(self.pruning_unit), "scope": self.pruning_scope}
        if self.kind in (Criterion.NM, Criterion.WHERE):
            plain["levels"] = None
        return plain
