"""Pruning what-ifs of a graph: masks at many levels, and what the graph says about each of them.

By magnitude, very many weights are read in pieces, as often as thresholds need it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.activity.scores import Activity
from emergraph.analysis.edgesets.edgetable import BlockTable, Cells, EdgeTable, Levels, read_edge_table
from emergraph.analysis.edgesets.gradual import GRADUAL_EDGES
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.pruning.criteria import UnitActivations, check_criterion, scores
from emergraph.analysis.pruning.emergencelevels import emergence_levels
from emergraph.analysis.pruning.items import Items, LeftAlone, TensorValues, is_plain, prunable_items
from emergraph.analysis.pruning.measures import ParameterCosts, measure, whole_levels
from emergraph.analysis.pruning.options import (
    NEEDS_GRADIENTS,
    ComparisonScope,
    Criterion,
    PruningOptions,
    PruningUnit,
)
from emergraph.analysis.pruning.removal import (
    Removal,
    nested_removal,
    of_kernels,
    prune_by_scores,
    prune_by_synflow,
    prune_n_of_m,
)
from emergraph.analysis.pruning.selection import CodedPart, Codes, magnitude_codes, mark_levels
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.errors import UsageError
from emergraph.graphstore.inplace import Piece
from emergraph.steps import steps

if TYPE_CHECKING:
    from emergraph.analysis.pruning.gradients import Scorer
    from emergraph.analysis.pruning.writingsmaller import Written

SCOPES = (ComparisonScope.GLOBAL, ComparisonScope.LAYER)
"""Scopes of comparison that a sweep sets beside each other."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a sweep can use besides the graph; what is missing leaves columns empty, or is refused."""

    activity: Activity | None = None
    """Of the unpruned model, for E."""
    activations: UnitActivations | None = None
    """For activation and wanda."""
    tensor_values: TensorValues | None = None
    tensor_sizes: Mapping[str, int] | None = None
    costs: ParameterCosts = field(default_factory=ParameterCosts)
    scorer: "Scorer | None" = None
    """For criteria of gradients, see `gradients.scorer_of`."""
    left_alone: LeftAlone | None = None
    """Where a model is pruned, too: what cannot be pruned in it."""
    chosen: Any = None
    """For a predicate: (n_edges,) or (n_units,) bool, what to remove."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PruningResult(ShownInNotebooks):
    """A table of what-ifs and the masks behind it."""

    graph: str
    options: PruningOptions
    frame: pl.DataFrame
    """One row per level and seed; columns in docs/pruning.md."""
    removals: tuple[Removal, ...]
    """In the order of the rows; every sweep of nested masks is one."""
    notes: tuple[str, ...]
    reaches: Mapping[str, float | None] = field(default_factory=dict)
    """By scope of comparison, the largest level at which all outputs are still reached; None for none. Empty
    where the criterion ranks nothing, or there is no level to choose."""
    written: "Written | None" = None
    """The pruned model that was written."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "graph": self.graph,
            "options": self.options.to_dict(),
            "levels": self.frame.to_dicts(),
            "notes": list(self.notes),
            "written": None if self.written is None else self.written.to_dict(),
        }

    def mask(self, row: int = -1) -> tuple[Removal, int]:
        """The removal and the level index behind a row of the frame.

        Raises:
            UsageError: There is no such row.
        """
        places = [(removal, level) for removal in self.removals for level in range(removal.n_levels)]
        if not -len(places) <= row < len(places):
            raise UsageError(f"no what-if {row}: there are {len(places)}")
        return places[row]


def prune_graph(
    graph: UnitGraph,
    options: PruningOptions | None = None,
    *,
    surroundings: Surroundings | None = None,
    table: EdgeTable | None = None,
) -> PruningResult:
    """Prune a graph at many levels, in thought: the graph stays as it is.

    Args:
        graph: The graph.
        options: Criterion, levels, scope and unit.
        surroundings: Trace, tensors and costs.
        table: The graph's edges, if they were read before.

    Raises:
        UsageError: The criterion does not fit the unit, its trace is missing, or nothing can be pruned.

    Example:
        >>> from emergraph.analysis.layerednets import layered_net
        >>> net = layered_net([np.array([[1.0, 3.0], [-2.0, 4.0]]), np.array([[2.0], [-1.0]])])
        >>> result = prune_graph(net, PruningOptions(levels=(0.0, 0.5)))
        >>> result.frame["sparsity"].to_list()
        [0.0, 0.5]
    """
    options = options or PruningOptions()
    around = surroundings or Surroundings()
    check_criterion(options.kind, options.pruning_unit, around.activations)
    table = table or read_edge_table(graph)
    items = prunable_items(
        table,
        options.pruning_unit,
        tensor_values=around.tensor_values,
        tensor_sizes=around.tensor_sizes,
        left_alone=around.left_alone,
    )
    notes = [*items.notes, *_notes(items, options, around)]
    frames, removals = [], []
    for removal in _removals(items, options, around):
        emergence = None
        if around.activity is not None:
            emergence = emergence_levels(removal, around.activity, options=EmergenceOptions())
        frames.append(measure(removal, costs=around.costs, emergence=emergence))
        removals.append(removal)
    frame = pl.concat(frames)
    return PruningResult(
        graph=graph.name,
        options=options,
        frame=frame,
        removals=tuple(removals),
        notes=tuple(notes),
        reaches=_reaches(items, options, around, frame),
    )


def _reaches(
    items: Items, options: PruningOptions, around: Surroundings, frame: pl.DataFrame
) -> dict[str, float | None]:
    """How far the scope of a sweep goes, and how far the other one would."""
    scope = options.pruning_scope
    ranks = options.kind not in (
        *(Criterion.NM, Criterion.WHERE, Criterion.SYNFLOW_ITERATIVE, Criterion.RANDOM),
    )
    if not ranks or scope not in SCOPES or len(options.levels) < 2 or items.n > GRADUAL_EDGES:
        return {}
    (other,) = set(SCOPES) - {scope}
    removal = prune_by_scores(items, item_scores(options.kind, items, around), options.levels, scope=other)
    n_fit = {scope: int((frame["disconnected_outputs"] == 0).sum()), other: whole_levels(removal)}
    return {name: options.levels[n - 1] if n else None for name, n in n_fit.items()}


def _removals(items: Items, options: PruningOptions, around: Surroundings) -> list[Removal]:
    levels, scope, kind = options.levels, options.pruning_scope, options.kind
    if kind is Criterion.NM and options.n_of_m is not None:
        return [prune_n_of_m(items, *options.n_of_m)]
    if kind is Criterion.SYNFLOW_ITERATIVE:
        return [
            prune_by_synflow(items, level, rounds=options.rounds, scope=scope)
            for level in steps(levels, "levels")
        ]
    if kind is Criterion.WHERE:
        return [_chosen(items, around)]
    if kind is Criterion.RANDOM:
        return [
            prune_by_scores(items, scores(kind, items, seed=seed), levels, scope=scope, seed=seed)
            for seed in steps(range(options.seeds), "random orders")
        ]
    very_many = items.n > GRADUAL_EDGES and items.units is None
    if kind is Criterion.MAGNITUDE and very_many and scope != ComparisonScope.UNIT:
        return [prune_by_magnitude(items, levels, scope=scope)]
    scored = item_scores(kind, items, around)
    return [prune_by_scores(items, scored, levels, scope=scope)]


def item_scores(kind: Criterion, items: Items, around: Surroundings) -> NDArray[np.floating]:
    """(n_items,) scores of a criterion that ranks items, gradients included.

    Raises:
        UsageError: The criterion needs gradients, and there are none.
    """
    if kind not in NEEDS_GRADIENTS:
        return scores(kind, items, activations=around.activations)
    if around.scorer is None:
        raise UsageError(
            f"criterion {kind} needs gradients, which only a PyTorch module has: give "
            "--module PACKAGE.MODULE:FACTORY with --inputs and --labels"
        )
    return around.scorer(kind, items)


def _chosen(items: Items, around: Surroundings) -> Removal:
    if around.chosen is None:
        raise UsageError("a predicate needs the store that it asks: use Graph.prune(where=...)")
    gone: Levels = np.where(np.asarray(around.chosen, dtype=bool)[items.edge], 0, 1).astype(np.uint8)
    if not (gone == 0).any():
        raise UsageError(
            "the predicate matches nothing that could be pruned: of edges, only weights into neurons can; "
            "of units, only hidden neurons; `emergraph sql` lists them"
        )
    return nested_removal(items, gone, [float((gone == 0).mean())])


COLUMN_NOTES = {
    "coupled_units": "coupled_units counts removed units whose channel a residual sum still needs",
    "flops": "FLOPs need the sizes of feature maps, which the graph does not keep: give --model FILE",
}
"""Notes that are about one column."""


def _notes(items: Items, options: PruningOptions, around: Surroundings) -> list[str]:
    notes = []
    if around.activity is None:
        notes.append("E is not counted: there was no trace of activations; `emergraph trace` makes one")
    else:
        notes.append(f"E takes the activity of the unpruned model: {around.activity.text}")
    if around.activations is not None and options.kind in (Criterion.WANDA, Criterion.ACTIVATION):
        scored = scores(options.kind, items, activations=around.activations)
        if unknown := int(np.isnan(scored).sum()):
            notes.append(f"{unknown} of {items.n} items have no measured activation and are removed last")
    if items.unit is PruningUnit.UNIT:
        notes.append(COLUMN_NOTES["coupled_units"])
    notes.append(COLUMN_NOTES["flops"])
    return notes


def prune_by_magnitude(items: Items, levels: Sequence[float], *, scope: str = "global") -> Removal:
    """Do what `prune_by_scores` does with the magnitudes of very many items, without holding these.

    Args:
        items: Edges or parameters.
        levels: Ascending shares.
        scope: `global`, `layer` or `block`.
    """
    parts: dict[int, Levels] = {}
    taps: dict[int, Levels] = {}
    for block in items.blocks:
        number, kernels = block.block.id, items.taps.get(block.block.id)
        if kernels is not None:
            taps[number] = np.zeros(kernels.kernels.shape, np.uint8)
        else:
            parts[number] = np.zeros(block.n_edges, np.uint8) if block.cells is None else block.cells.empty()
    for _, group in groupby(items.blocks, key=partial(_group, scope=scope)):
        _mark_magnitudes(items, list(group), taps | parts, levels)
    parts |= {number: of_kernels(items.table.by_id[number], found) for number, found in taps.items()}
    units = np.full(items.table.graph.n_units, len(levels), dtype=np.uint8)
    return Removal(items=items, levels=tuple(levels), parts=parts, taps=taps, units=units)


def _group(block: BlockTable, *, scope: str) -> int:
    """What blocks have in common whose items are compared."""
    return {"global": 0, "layer": block.target, "block": block.block.id}[scope]


def _mark_magnitudes(
    items: Items, blocks: Sequence[BlockTable], gone: Mapping[int, Levels], levels: Sequence[float]
) -> None:
    dtype = np.float32 if all(_is_narrow(items, block) for block in blocks) else np.float64
    starts = np.cumsum([0, *(gone[block.block.id].size for block in blocks)]).tolist()

    def coded(owners: Collection[int] | None = None) -> Iterator[CodedPart]:
        for owner, block in enumerate(blocks):
            if owners is None or owner in owners:
                for codes, where, own in _coded(items, block, gone[block.block.id], np.dtype(dtype)):
                    yield CodedPart(owner, codes, partial(_moved, where, starts[owner]), own)

    n_items = sum(items.size_of(block) for block in blocks)
    mark_levels(coded, levels, n_items=n_items, n_codes=starts[-1])


Where = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Gives for places in a part those in the block, row by row."""


def _moved(where: Where, start: int, at: NDArray[np.int64]) -> NDArray[np.int64]:
    return where(at) + start


def _is_narrow(items: Items, block: BlockTable) -> bool:
    taps = items.taps.get(block.block.id)
    if taps is not None:
        return taps.kernels.dtype == np.float32
    values = block.weights if block.cells is None else block.cells.values
    return is_plain(block) and (not isinstance(values, np.ndarray) or values.dtype == np.float32)


def _coded(
    items: Items, block: BlockTable, gone: Levels, dtype: np.dtype[np.floating]
) -> Iterator[tuple[Codes, Where, Levels]]:
    """Codes of magnitudes, where they are, and where their levels are to be written."""
    taps, cells = items.taps.get(block.block.id), block.cells
    if taps is not None:
        kernels = taps.kernels.reshape(-1).astype(dtype, copy=False)
        yield magnitude_codes(kernels, full=False), _as_it_is, gone.reshape(-1)
    elif cells is not None and cells.present is None and is_plain(block):
        for piece in cells.pieces:
            codes = magnitude_codes(cells.weights(piece).astype(dtype, copy=False), full=cells.full)
            yield _part_of(codes, gone[piece], piece, cells)
    else:
        codes = magnitude_codes(items.magnitudes(block).astype(dtype, copy=False), full=True)
        yield (codes if cells is None else block.grid(codes).reshape(-1)), _as_it_is, gone.reshape(-1)


def _as_it_is(at: NDArray[np.int64]) -> NDArray[np.int64]:
    return at


def _part_of(codes: Codes, gone: Levels, piece: Piece, cells: Cells) -> tuple[Codes, Where, Levels]:
    """A piece of whole rows or of whole columns, in the order in which it is held."""
    rows, columns = piece
    height, width = cells.shape
    if cells.by_rows:
        return codes.reshape(-1), partial(np.add, rows.start * width), gone.reshape(-1)

    def down(at: NDArray[np.int64]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = at % height * width + columns.start + at // height
        return found

    return codes.T.reshape(-1), down, gone.T.reshape(-1)
