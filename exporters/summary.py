"""What became of a model: counts, coverage, and what a reader should know."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from emergraph.graphstore.records import GraphFooter, Operation


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
