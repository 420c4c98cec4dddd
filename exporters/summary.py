"""What an export did with a model: counts, coverage and notes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from emergraph.graphstore.records import GraphFooter, Operation
from emergraph.graphstore.text import listed

MUST_BE_FINITE = ("weight", "bias", "scale", "embedding")
"""Roles of tensors whose values have to be finite; what is added may be a mask, infinite on purpose."""


@dataclass(frozen=True, kw_only=True)
class GraphSummary:
    """What an exporter wrote and understood."""

    n_layers: int
    n_units: int
    n_neurons: int
    n_blocks: int
    n_edges: int
    n_weight_edges: int
    """Edges that carry parameters."""
    n_parameters: int
    """Elements of parameter tensors, tied ones counted once."""
    n_parameters_understood: int
    n_operations: int
    """Operations of the model; of a weight file, groups of parameters."""
    n_operations_understood: int
    opaque: tuple[Operation, ...]
    """Operations that are not understood."""
    warnings: tuple[str, ...]
    branches: tuple[str, ...] = ()
    """Branches of If operations, in bodies and on request, that were traced on their own."""
    split_by: Mapping[str, int] = field(default_factory=dict)
    """Layers that have more units than their weights have outputs, by reason."""
    n_in_place: int = 0
    """Edges whose weights the file holds as they are, so that they can stay there."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Edges of weights that cannot stay in the file (sums over taps, what is computed), by their tensor."""
    n_nonfinite: int = 0
    """Parameters that are NaN or infinite."""

    @property
    def coverage(self) -> float:
        """Share of the parameters that are understood, 1 for a model without parameters."""
        return self.n_parameters_understood / self.n_parameters if self.n_parameters else 1.0

    def footer(self, *, branches: tuple[str, ...] = ()) -> GraphFooter:
        """Return the last record of the graph.

        Args:
            branches: Branches of If operations that were followed.
        """
        return GraphFooter(
            branches=branches,
            n_parameters=self.n_parameters,
            n_parameters_understood=self.n_parameters_understood,
            n_operations=self.n_operations,
            n_operations_understood=self.n_operations_understood,
            warnings=self.warnings,
        )


def nonfinite_warnings(not_finite: Mapping[str, int], n_parameters: int) -> list[str]:
    """What to say of parameters that are NaN or infinite; nothing where none is.

    Args:
        not_finite: How many of them each tensor has.
        n_parameters: Of all tensors.
    """
    names = [f"{name}: {count}" for name, count in not_finite.items() if count]
    if not names:
        return []
    said = f"{sum(not_finite.values())} of {n_parameters} parameters are NaN or infinite ({listed(names)})"
    return [f"{said}; they remain edges, but measures of weight size leave them out"]
