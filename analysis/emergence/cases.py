"""Path counts for many activities of one graph: thresholds, samples, bootstrap draws, shuffles."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.paths.grouping import group_equal_units
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.paths.reversepass import RowStates, reverse_pass
from emergraph.analysis.paths.scaled import Scaled, concatenate
from emergraph.analysis.paths.states import classify, plan
from emergraph.analysis.unitgraph import UnitGraph

Bools = NDArray[np.bool_]

MEMORY = 1 << 30
"""Bytes that the columns of one pass may take."""
ARRAYS_PER_COLUMN = 4
"""float64 arrays of one entry per unit and column that a pass holds at its peak."""


def count_cases(
    graph: UnitGraph,
    cases: Callable[[slice], Bools],
    n_cases: int,
    *,
    known: Bools,
    options: EmergenceOptions,
    memory: int = MEMORY,
) -> Scaled:
    """Path-count emergence of every case, as many cases per pass over the edges as memory allows.

    Args:
        graph: The graph.
        cases: Gives the activities of a range of cases, (n_units, n) bool.
        n_cases: How many cases there are.
        known: (n_units,) whether a unit's activity is known, in every case.
        options: Conventions; `exact` and `by_end_layer` do not apply.
        memory: Bytes that the columns of one pass may take.

    Returns:
        (n_interiors, n_cases), interiors in the order of the options.
    """
    classes = classify(graph, known, options)
    sweep = plan(graph, options)
    grouped = None
    if options.unroll == 1:
        grouped = group_equal_units(graph, sweep.blocks, multiplicity=sweep.multiplicity)
    rows = graph if grouped is None else grouped.graph
    if grouped is not None:
        sweep = replace(sweep, blocks=rows.blocks)
    at_once = cases_per_pass(graph.n_units, len(options.interiors), memory)
    parts = []
    for start in range(0, n_cases, at_once):
        active = classes.active(cases(slice(start, min(start + at_once, n_cases))))
        if grouped is None:
            states = RowStates(active=active, transparent=classes.transparent)
        else:
            states = RowStates(
                active=grouped.count(active),
                transparent=grouped.count(classes.transparent),
                size=grouped.size,
            )
        total = reverse_pass(rows, states, sweep).starts.sum(axis=0)
        parts.append(total.reshape(len(options.interiors), -1))
    return concatenate(parts, axis=1) if parts else Scaled.zeros(len(options.interiors), 0)


def cases_per_pass(n_rows: int, n_interiors: int, memory: int) -> int:
    """How many cases one pass can count within a number of bytes."""
    return max(1, memory // (max(1, n_rows) * n_interiors * 8 * ARRAYS_PER_COLUMN))
