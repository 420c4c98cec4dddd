"""Reachability, numbers of paths, the shortest and the strongest, and the fewest units that cut them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.pickedunits import picked_units
from emergraph.analysis.routes.options import PathOptions
from emergraph.analysis.unitgraph import ROLES, UnitGraph
from emergraph.errors import LimitError, UsageError
from emergraph.graphstore.records import EdgeKind, Role

if TYPE_CHECKING:
    from emergraph.analysis.access import GraphAccess

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_PAIRS = 100_000
"""Pairs of a start and an end beyond which they are counted, and not listed."""
MOST_EDGES = 50_000_000
"""Edges of paths that are held in memory, 24 bytes each."""
MOST_CUT_EDGES = 3_000_000
"""Edges between starts and ends beyond which no minimal cut is looked for."""
STARTS_AT_ONCE = 64
"""Starts whose paths are counted in one pass."""
CYCLIC = frozenset({EdgeKind.RECURRENT, EdgeKind.NORM})
"""Kinds that may lead back: paths along them have no end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PathsResult(ShownInNotebooks):
    """Paths between two sets of units."""

    graph: str
    n_starts: int
    n_ends: int
    reached: int
    """Ends that some start reaches."""
    reaching: int
    """Starts that reach some end."""
    n_pairs: int
    """Pairs of a start and an end with a path."""
    pairs: pl.DataFrame
    """start, end, n_paths: pairs with a path, as many as are listed."""
    paths: pl.DataFrame
    """path (shortest, or strongest), rank, strength, step, unit."""
    cut: tuple[int, ...] | None
    """Fewest units between starts and ends without which no path is left; None where there is no such set."""
    no_cut: str | None
    """Why."""
    layer_of: dict[int, str]
    """Names of the layers of the units that are named."""
    position_of: dict[int, int]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        names = ("graph", "n_starts", "n_ends", "reached", "reaching", "n_pairs", "cut", "no_cut")
        plain: dict[str, object] = {name: getattr(self, name) for name in names}
        plain["pairs"] = self.pairs.to_dicts()
        plain["paths"] = self.paths.to_dicts()
        return plain


@dataclass(frozen=True)
class _Edges:
    """Edges into one layer that lie on a path between starts and ends."""

    src: Ints
    dst: Ints
    strength: Floats
    """|w|; the l1 norm of a kernel; 1 without a weight."""


def find_paths(at: "GraphAccess", asked: PathOptions) -> PathsResult:
    """Find the paths between two sets of a graph's units.

    Raises:
        UsageError: A predicate is wrong or picks no unit, or a kind of edges may lead back.
    """
    for kind in asked.kinds:
        if kind in CYCLIC:
            raise UsageError(f"--kinds {kind}: such edges may lead back, and paths along them have no end")
    picks = [
        None if text is None else picked_units(at.path, at.id, text, option=option)
        for text, option in ((asked.start, "--from"), (asked.end, "--to"))
    ]
    graph = at.units()
    starts = _chosen(graph, picks[0], Role.INPUT)
    ends = _chosen(graph, picks[1], Role.OUTPUT)
    between, layers = _between(graph, starts, ends, asked.kinds)
    counts = list(_counts(graph.n_units, starts, ends, layers))
    rows = [row for part in counts for row in part]
    listed = rows[:MOST_PAIRS]
    strongest = _best(graph.n_units, starts, ends, layers, asked.k, shortest=False)
    shortest = _best(graph.n_units, starts, ends, layers, 1, shortest=True)
    cut, no_cut = _cut(between, starts, ends, layers)
    frame = pl.DataFrame(
        [("shortest", *row) for row in shortest] + [("strongest", *row) for row in strongest],
        schema={
            "path": pl.String,
            "rank": pl.Int64,
            "strength": pl.Float64,
            "step": pl.Int64,
            "unit": pl.Int64,
        },
        orient="row",
    )
    named = {*frame["unit"].to_list(), *(cut or ()), *(unit for row in listed for unit in row[:2])}
    layer_of = {unit: graph.layers[graph.unit_layer[unit]] for unit in named}
    return PathsResult(
        graph=graph.name,
        n_starts=int(starts.sum()),
        n_ends=int(ends.sum()),
        reached=len({row[1] for row in rows}),
        reaching=len({row[0] for row in rows}),
        n_pairs=len(rows),
        pairs=pl.DataFrame(
            listed, schema={"start": pl.Int64, "end": pl.Int64, "n_paths": pl.Float64}, orient="row"
        ),
        paths=frame,
        cut=cut,
        no_cut=no_cut,
        layer_of={unit: layer.name for unit, layer in layer_of.items()},
        position_of={unit: unit - layer.first_unit for unit, layer in layer_of.items()},
    )


def _chosen(graph: UnitGraph, picked: set[int] | None, role: Role) -> Bools:
    if picked is None:
        return np.asarray(graph.role == ROLES.index(role))
    found = np.zeros(graph.n_units, bool)
    found[list(picked)] = True
    return found


def _between(
    graph: UnitGraph, starts: Bools, ends: Bools, kinds: Sequence[EdgeKind]
) -> tuple[Bools, list[_Edges]]:
    """Units on paths from starts to ends, and the edges of those paths, by target layer in order."""
    order = {layer.id: position for position, layer in enumerate(graph.layers)}
    blocks = sorted(
        (block for block in graph.blocks if block.kind in kinds and block.n_edges),
        key=lambda block: order[block.layer],
    )
    forward = starts.copy()
    edges: list[_Edges] = []
    held = 0
    for _, columns in graph.iter_edges(blocks, columns=("src", "dst", "l1")):
        src, dst = columns["src"].astype(np.int64), columns["dst"].astype(np.int64)
        alive = forward[src]
        if alive.any():
            strength = np.nan_to_num(columns["l1"][alive].astype(np.float64), nan=1.0)
            edges.append(_Edges(src[alive], dst[alive], strength))
            held += len(strength)
            if held > MOST_EDGES:
                raise LimitError(
                    f"more than {MOST_EDGES} edges lie on the paths; name fewer units with --from and --to, "
                    "or fewer kinds"
                )
            forward[dst[alive]] = True
    backward = ends.copy()
    kept: list[_Edges] = []
    for part in reversed(edges):
        alive = backward[part.dst]
        if alive.any():
            backward[part.src[alive]] = True
            kept.append(_Edges(part.src[alive], part.dst[alive], part.strength[alive]))
    return forward & backward, kept[::-1]


def _counts(
    n_units: int, starts: Bools, ends: Bools, layers: Sequence[_Edges]
) -> Iterator[list[tuple[int, int, float]]]:
    """Pairs with a path, and along how many: inf beyond 1.8e308."""
    from scipy import sparse

    targets = np.flatnonzero(ends)
    everything = np.flatnonzero(starts)
    for first in range(0, len(everything), STARTS_AT_ONCE):
        own = everything[first : first + STARTS_AT_ONCE]
        counts = np.zeros((n_units, len(own)))
        counts[own, np.arange(len(own))] = 1
        for part in layers:
            rows, places = np.unique(part.dst, return_inverse=True)
            matrix = sparse.csr_matrix(
                (np.ones(len(part.src)), (places, part.src)), shape=(len(rows), n_units)
            )
            with np.errstate(over="ignore"):
                counts[rows] += matrix @ counts
        counts[own, np.arange(len(own))] -= 1  # a unit alone is no path
        found = [
            (int(own[k]), int(targets[row]), float(counts[targets[row], k]))
            for row, k in zip(*np.nonzero(counts[targets]), strict=True)
        ]
        yield sorted(found)


def _best(
    n_units: int, starts: Bools, ends: Bools, layers: Sequence[_Edges], k: int, *, shortest: bool
) -> list[tuple[int, float, int, int]]:
    """The k best paths, unit by unit: rank, strength (the product of |w|), step, unit."""
    score = np.full((n_units, k), -np.inf)
    score[starts, 0] = 0.0
    before = np.full((n_units, k, 2), -1, np.int64)
    for part in layers:
        with np.errstate(divide="ignore"):
            gain = np.full(len(part.src), -1.0) if shortest else np.log(part.strength)
        _take_in(score, before, part, gain, k)
    at_end = score[ends].copy()
    own = np.flatnonzero(ends)
    at_end[starts[own], :] = np.where(before[own, :, 0] < 0, -np.inf, at_end)[starts[own], :]
    flat = np.argsort(-at_end, axis=None, kind="stable")[:k]
    rows: list[tuple[int, float, int, int]] = []
    for rank, place in enumerate(flat.tolist(), start=1):
        row, which = divmod(place, k)
        if not np.isfinite(at_end[row, which]):
            break
        units, slot = [int(own[row])], which
        while before[units[-1], slot, 0] >= 0:
            previous, slot = (int(value) for value in before[units[-1], slot])
            units.append(previous)
        strength = float(np.exp(at_end[row, which])) if not shortest else float("nan")
        rows += [(rank, strength, step, unit) for step, unit in enumerate(reversed(units))]
    return rows


def _take_in(score: Floats, before: Ints, part: _Edges, gain: Floats, k: int) -> None:
    """Let the edges into some units compete with the best paths that these have."""
    n = len(part.src)
    targets = np.unique(part.dst)
    candidates = np.concatenate([(score[part.src] + gain[:, None]).ravel(), score[targets].ravel()])
    dst = np.concatenate([np.repeat(part.dst, k), np.repeat(targets, k)])
    source = np.concatenate([np.repeat(part.src, k), before[targets, :, 0].ravel()])
    slot = np.concatenate([np.tile(np.arange(k), n), before[targets, :, 1].ravel()])
    alive = np.isfinite(candidates)
    candidates, dst, source, slot = candidates[alive], dst[alive], source[alive], slot[alive]
    order = np.lexsort((-candidates, dst))
    candidates, dst, source, slot = candidates[order], dst[order], source[order], slot[order]
    first = np.searchsorted(dst, dst)
    rank = np.arange(len(dst)) - first
    best = rank < k
    score[targets] = -np.inf
    before[targets] = -1
    score[dst[best], rank[best]] = candidates[best]
    before[dst[best], rank[best], 0] = source[best]
    before[dst[best], rank[best], 1] = slot[best]


def _cut(
    between: Bools, starts: Bools, ends: Bools, layers: Sequence[_Edges]
) -> tuple[tuple[int, ...] | None, str | None]:
    """The fewest units on the way without which no path is left (igraph's maximum flow, each unit once)."""
    n_edges = sum(len(part.src) for part in layers)
    if n_edges == 0:
        return (), None
    if n_edges > MOST_CUT_EDGES:
        return None, f"{n_edges} edges lie between them; a cut is looked for among up to {MOST_CUT_EDGES}"
    inner = between & ~starts & ~ends
    if any(((starts | ends)[part.src] & (starts | ends)[part.dst]).any() for part in layers):
        return None, "an edge leads from a start to an end, with no unit between"
    import igraph

    units = np.flatnonzero(inner)
    number = np.full(len(between), -1, np.int64)
    number[units] = np.arange(len(units))
    n = len(units)
    source, sink = 2 * n, 2 * n + 1
    ends_in = np.where(starts, source, np.where(number >= 0, 2 * number + 1, sink))
    begins = np.where(ends, sink, np.where(number >= 0, 2 * number, source))
    pairs = [np.stack([2 * np.arange(n), 2 * np.arange(n) + 1], axis=1)]
    pairs += [np.stack([ends_in[part.src], begins[part.dst]], axis=1) for part in layers]
    capacity = np.concatenate([np.ones(n), np.full(n_edges, float(n + 1))])
    flow = igraph.Graph(2 * n + 2, np.concatenate(pairs), directed=True)
    reached = set(flow.mincut(source, sink, capacity.tolist()).partition[0])
    return tuple(int(u) for k, u in enumerate(units) if 2 * k in reached and 2 * k + 1 not in reached), None
