"""Path-count emergence of the masked graph at every level of a sweep, in one pass over the edges.

The same recursion as `emergence.reversepass`, on masks that differ from level to level: with g the paths that
start at a unit and s the sum of g over the successors that are left,
`g = a + (a + z) s` (interior active) or `a + s` (interior any), `E = sum of s over inactive units`
(arXiv 2409.01568, eq. 9). Activity is that of the unpruned model; a removed unit is neither active nor
inactive.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.activity.scores import Activity
from emergraph.analysis.edgesets.edgetable import BlockTable, Floats
from emergraph.analysis.paths.options import EmergenceOptions, Interior, PathUnit
from emergraph.analysis.paths.states import classify
from emergraph.analysis.pruning.levelsums import successor_sums
from emergraph.analysis.pruning.removal import Removal
from emergraph.errors import UsageError

LIMIT = 2.0**600
STEP = 500
LOG10_2 = float(np.log10(2.0))


@dataclass(frozen=True, eq=False)
class EmergenceLevels:
    """Decimal logarithms of E and of the edge form, -inf for zero; both are (n_interiors, n_levels)."""

    interiors: tuple[Interior, ...]
    log10: Floats
    edge_form_log10: Floats
    """Of the sum over removed edges u -> v of the paths that start at v in the pruned graph."""


def emergence_levels(
    removal: Removal, activity: Activity, *, options: EmergenceOptions | None = None
) -> EmergenceLevels:
    """Count paths from inactive to active units at every level.

    Args:
        removal: The masks.
        activity: Of the unpruned model's units.
        options: Conventions; edges count once, without unrolling.

    Raises:
        UsageError: The options ask for paths per parameter, or for time steps.
    """
    options = options or EmergenceOptions()
    if options.paths is not PathUnit.UNITS or options.unroll != 1:
        raise UsageError(
            "E of pruned graphs counts edges once and does not unroll: leave paths and unroll as they are"
        )
    return _Pass(removal, activity, options).run()


class _Pass:
    """Columns are (interior, level), level fastest; all of a column share one power of two."""

    def __init__(self, removal: Removal, activity: Activity, options: EmergenceOptions) -> None:
        self.removal, self.options = removal, options
        self.graph = removal.items.table.graph
        classes = classify(self.graph, activity.known, options)
        here = removal.units[:, None] > np.arange(removal.n_levels)[None, :]
        self.active = classes.active(activity.active)[:, None] & here
        self.clear = classes.transparent[:, None] & here
        self.idle = here & ~self.active & ~self.clear
        n = removal.n_levels * len(options.interiors)
        self.below = np.zeros((self.graph.n_units, n))
        self.started, self.edge_form = np.zeros(n), np.zeros(n)
        self.top = np.zeros(n)
        """(n,) no value below is larger."""
        self.exponent = np.zeros(n, dtype=np.int64)
        self.wide = np.zeros((self.graph.n_units, len(options.interiors)))
        """Values by unit: a block reads what was written for it."""

    def run(self) -> EmergenceLevels:
        graph, options = self.graph, self.options
        blocks = self.removal.items.table.of_kinds(options.kinds).by_layer
        repeats = (1, len(options.interiors))
        for position in reversed(range(len(graph.layers))):
            units = graph.layers[position].units
            self._rescale()
            active = self.active[units].astype(np.float64)
            through = np.concatenate(
                [
                    active + self.clear[units] if i is Interior.ACTIVE else np.ones_like(active)
                    for i in options.interiors
                ],
                axis=1,
            )
            below = self.below[units]
            self.started += (below * np.tile(self.idle[units], repeats)).sum(axis=0)
            values = np.ldexp(np.tile(active, repeats), -self.exponent) + through * below
            for block in blocks[position]:
                self._add(block, graph.layers[position].first_unit, values)
        shape = (len(options.interiors), self.removal.n_levels)
        return EmergenceLevels(
            options.interiors, self._logs(self.started, shape), self._logs(self.edge_form, shape)
        )

    def _add(self, block: BlockTable, first_unit: int, values: Floats) -> None:
        if block.cells is None:
            self._add_listed(block, first_unit, values)
            return
        own = np.ascontiguousarray(values[block.columns - first_unit].T)
        sums, removed = successor_sums(self.removal, block, block.cells, own)
        self.below[block.rows] += sums.T
        self.top = np.maximum(self.top, self.below[block.rows].max(axis=0))
        if removed is not None:
            repeated = np.tile(removed, (len(self.options.interiors), 1))
            self.edge_form += np.einsum("ij,ij->i", repeated, own)

    def _add_listed(self, block: BlockTable, first_unit: int, values: Floats) -> None:
        n_levels, n_interiors = self.removal.n_levels, len(self.options.interiors)
        gone = self.removal.of(block, None)
        targets = block.dst - first_unit
        full = np.bincount(targets, minlength=len(values))
        for level in range(n_levels):
            columns = level + n_levels * np.arange(n_interiors)
            mine = values[:, columns]
            self.wide[first_unit : first_unit + len(values)] = mine
            alive = gone > level
            sums = block.sums(alive.astype(np.float64), self.wide, "src")
            left = np.bincount(targets[alive], minlength=len(values)).astype(np.float64)
            self.below[np.ix_(block.rows, columns)] += sums
            self.edge_form[columns] += (full - left) @ mine
        self.top = np.maximum(self.top, self.below[block.rows].max(axis=0))

    def _rescale(self) -> None:
        large = np.maximum(self.top, np.maximum(self.started, self.edge_form)) > LIMIT
        if large.any():
            factor = np.where(large, 2.0**-STEP, 1.0)
            self.below *= factor
            self.top *= factor
            self.started *= factor
            self.edge_form *= factor
            self.exponent += np.where(large, STEP, 0)

    def _logs(self, sums: Floats, shape: tuple[int, int]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore"):
            logs: Floats = np.log10(sums) + self.exponent * LOG10_2
        return logs.reshape(shape)
