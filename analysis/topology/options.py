"""Conventions of a topology run."""

from collections.abc import Sequence
from dataclasses import dataclass

from emergraph.errors import UsageError
from emergraph.graphstore.records import PATH_KINDS, EdgeKind


@dataclass(frozen=True, kw_only=True)
class TopologyOptions:
    """What is measured on what."""

    kinds: Sequence[EdgeKind | str] = PATH_KINDS
    """Kinds of edges; those without a parameter have strength 1 in weighted measures."""
    alpha: float = 0.05
    """Level of the disparity filter that makes the backbone."""
    nulls: int = 3
    """Null draws of the modularity; 0 for none."""
    seed: int = 0
    max_edges: int = 1_000_000
    """Most pairs of units for communities, cores, PageRank, assortativity and rich club; beyond, they are
    measured on the backbone."""
    max_paths: float = 2e9
    """Most units times edges for betweenness, 6 to 30 s; beyond, it is left out."""
    motifs: bool = True
    """Count motifs of blocks."""
    spectra: bool = True
    """Diagnose the spectrum of every weight tensor."""

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            UsageError: alpha is not in (0, 1], or a count is negative.
        """
        if not 0 < self.alpha <= 1:
            raise UsageError(f"alpha {self.alpha}: expected a number in (0, 1]")
        if min(self.nulls, self.seed, self.max_edges, self.max_paths) < 0:
            raise UsageError("topology: nulls, seed and limits must not be negative")

    def to_dict(self) -> dict[str, object]:
        """Return the options by name."""
        return {
            "kinds": [str(kind) for kind in self.kinds],
            "alpha": self.alpha,
            "nulls": self.nulls,
            "max_edges": self.max_edges,
            "max_paths": self.max_paths,
            "motifs": self.motifs,
            "spectra": self.spectra,
        }
