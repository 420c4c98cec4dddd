"""From activity and conventions to the states that the reverse pass counts with."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.paths.options import EmergenceOptions, Endpoints, LayerChoice, PathUnit, Unmeasured
from emergraph.analysis.paths.reversepass import Sweep
from emergraph.analysis.unitgraph import ROLES, UnitBlock, UnitGraph
from emergraph.errors import InvalidInputError
from emergraph.graphstore.records import EdgeKind, Role

Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class UnitClasses:
    """What each unit is to a path count, apart from its activity. All arrays are (n_units,) bool."""

    structural: Bools
    """Transparent because structural."""
    left_out: Bools
    """Transparent because `layers=hidden` leaves inputs and outputs out."""
    unmeasured: Bools
    """Would count, but its activity is not known."""
    transparent: Bools
    """Neither starts nor ends a path; paths run through it."""
    assumed_active: Bools
    """Unmeasured and taken as active."""

    def active(self, active: Bools) -> Bools:
        """Activity with the conventions applied, (n_units,) or (n_units, C)."""
        column = (...,) if active.ndim == 1 else (..., None)
        given = active & ~(self.transparent | self.unmeasured)[column]
        return given | self.assumed_active[column]


def classify(graph: UnitGraph, known: Bools, options: EmergenceOptions) -> UnitClasses:
    """Sort units by what they are to a path count.

    Args:
        graph: The graph.
        known: (n_units,) whether a unit's activity is known.
        options: Conventions.

    Raises:
        InvalidInputError: `known` does not have one entry per unit.
    """
    if known.shape != (graph.n_units,):
        raise InvalidInputError(
            f"Activity has shape {known.shape}, expected one entry for each of {graph.n_units} units"
        )
    structural = (
        ~graph.neuron if options.endpoints is Endpoints.NEURONS else np.zeros(graph.n_units, dtype=bool)
    )
    ends = (graph.role == ROLES.index(Role.INPUT)) | (graph.role == ROLES.index(Role.OUTPUT))
    left_out = (
        ends & ~structural if options.layers is LayerChoice.HIDDEN else np.zeros(graph.n_units, dtype=bool)
    )
    unmeasured = ~known & ~structural & ~left_out
    transparent = structural | left_out
    if options.unmeasured is Unmeasured.TRANSPARENT:
        transparent = transparent | unmeasured
    assumed = unmeasured if options.unmeasured is Unmeasured.ACTIVE else np.zeros(graph.n_units, dtype=bool)
    return UnitClasses(
        structural=structural,
        left_out=left_out,
        unmeasured=unmeasured,
        transparent=transparent,
        assumed_active=assumed,
    )


def followed_blocks(graph: UnitGraph, options: EmergenceOptions) -> tuple[UnitBlock, ...]:
    """The blocks whose kind paths follow."""
    return tuple(block for block in graph.blocks if block.kind in options.kinds)


def edges_followed(graph: UnitGraph, options: EmergenceOptions) -> dict[EdgeKind, int]:
    """Number of edges of each kind that paths follow."""
    return {kind: n for kind, n in graph.edges_by_kind().items() if kind in options.kinds and n}


def edges_left_out(graph: UnitGraph, options: EmergenceOptions) -> dict[EdgeKind, int]:
    """Number of edges of each kind that paths do not follow."""
    return {kind: n for kind, n in graph.edges_by_kind().items() if kind not in options.kinds and n}


def plan(
    graph: UnitGraph, options: EmergenceOptions, *, in_degree: NDArray[np.float64] | None = None
) -> Sweep:
    """The sweep that these conventions ask for."""
    return Sweep(
        blocks=followed_blocks(graph, options),
        interiors=tuple(interior.value for interior in options.interiors),
        multiplicity=options.paths is PathUnit.WEIGHTS,
        steps=options.unroll,
        in_degree=in_degree,
    )
