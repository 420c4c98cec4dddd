"""Percolation of a unit graph: its edges added one by one, its threshold, nulls and predictions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.edgesets.forest import find_merges, n_components, starting_components
from emergraph.analysis.edgesets.gradual import (
    GRADUAL_EDGES,
    DrawnOrder,
    GradualOrder,
    GradualSequence,
    ShuffledOrder,
)
from emergraph.analysis.edgesets.ordering import (
    KeyOrder,
    Order,
    descending,
    positions_by_block,
    shuffled_within_blocks,
)
from emergraph.analysis.percolation.curve import MergeCurve, merge_curve
from emergraph.analysis.percolation.edgelist import PARAMETER_KINDS, PercolationEdges, read_edges
from emergraph.analysis.percolation.options import OrderName, PercolationOptions
from emergraph.analysis.percolation.predictions import (
    bipartite_threshold,
    branching_threshold,
    degree_threshold,
    layered_threshold,
)
from emergraph.analysis.percolation.reach import NEVER, first_reach
from emergraph.analysis.percolation.result import PercolationResult, Series
from emergraph.analysis.storedgraph import read_unit_graph
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.choices import unknown
from emergraph.errors import UsageError
from emergraph.graphstore.query import GIB, QueryLimits, run_query
from emergraph.graphstore.records import EdgeKind
from emergraph.graphstore.sql import compose
from emergraph.graphstore.store import open_store
from emergraph.steps import steps

# Orders given as SQL: an expression over the columns of `edges`, evaluated in the locked child process.

_QUERY = """
    SELECT ({expression}
    )::DOUBLE AS key FROM edges
    WHERE graph = {graph} AND block IN ({blocks}) ORDER BY block, src, dst
"""


def sql_keys(
    path: str | Path,
    graph: int,
    expression: str,
    *,
    kinds: Sequence[EdgeKind | str],
    limits: QueryLimits | None = None,
) -> NDArray[np.float64]:
    """Evaluate an expression for every edge that percolates.

    The store must not be open for writing meanwhile. NULL becomes NaN, which comes last.

    Args:
        path: The store.
        graph: Id of the graph.
        expression: Over the columns of the view `edges`, such as "l2" or "abs(weight) / sqrt(n_params)".
        kinds: As for `read_edges`.
        limits: Time and memory; the number of rows follows from the graph.

    Returns:
        (n_edges,) in the order of `read_edges`.

    Raises:
        UsageError: The expression is wrong, or does not give one number per edge.
        LimitError: It takes too long, too much memory, or there are too many edges for one answer.
    """
    limits = limits or QueryLimits(time=120, memory=4 * GIB)
    wanted = {EdgeKind(kind) for kind in kinds} & PARAMETER_KINDS
    with open_store(path) as store:
        unit_graph = read_unit_graph(store.graph(graph))
        blocks = sorted((b for b in unit_graph.blocks if b.kind in wanted and b.n_edges), key=lambda b: b.id)
        into_place = [
            np.lexsort((columns["dst"], columns["src"])) for _, columns in unit_graph.iter_edges(blocks)
        ]
    n_edges = sum(block.n_edges for block in blocks)
    query = compose(
        _QUERY, expression=expression, graph=graph, blocks=", ".join(str(block.id) for block in blocks)
    )
    rows = QueryLimits(time=limits.time, memory=limits.memory, threads=limits.threads, rows=n_edges)
    try:
        result = run_query(path, query, limits=rows)
    except UsageError as error:
        names = ", ".join(OrderName)
        raise UsageError(f"order '{expression}': neither {names} nor SQL over edges: {error}") from error
    if result.frame.height != n_edges or result.truncated or result.frame.columns != ["key"]:
        raise UsageError(
            f"order: expected one number for each of {n_edges} edges, got {result.frame.height} rows"
        )
    found = result.frame["key"].to_numpy()
    keys = np.empty(n_edges)
    position = 0
    for block, places in zip(blocks, into_place, strict=True):
        part = slice(position, position + block.n_edges)
        keys[part][places] = found[part]
        position += block.n_edges
    return keys


def contribution_key(path: str | Path, graph: int) -> str:
    """The expression for what edges carry on data.

    Raises:
        UsageError: No run of `contributions` has measured it.
    """
    (run,) = run_query(path, compose(_NEWEST, graph=graph)).frame["run"].to_list()
    if run is None:
        raise UsageError(
            f"order {OrderName.CONTRIBUTION}: contributions were not measured; `emergraph contributions "
            "STORE --model FILE --inputs FILE.npz --top 0` does"
        )
    return compose(_CONTRIBUTION, run=run)


_NEWEST = "SELECT max(id) AS run FROM runs WHERE graph = {graph} AND command = 'contributions'"
_CONTRIBUTION = """(SELECT max(c.mean_abs) FROM edge_contributions AS c
    WHERE c.run = {run} AND c.src = edges.src AND c.dst = edges.dst AND c.kind = edges.kind)"""


# The numbers by which edges are ordered.


def edge_keys(
    edges: PercolationEdges, order: OrderName, *, trace: UnitTrace | None = None
) -> NDArray[np.floating]:
    """(n_edges,) keys of a named order; the largest comes first, NaN last.

    Args:
        edges: The edges.
        order: Any but random, which has no keys.
        trace: For activity.

    Raises:
        UsageError: The order is random, or activity without a trace.
    """
    if order is OrderName.WEIGHT:
        return np.abs(edges.weight)
    if order is OrderName.DEGREE:
        n = edges.graph.n_units
        degree = np.zeros(n, dtype=np.int64)
        for block in range(len(edges.blocks)):
            for found in edges.degrees(block):
                degree[found.units] += found.counts
        keys = np.empty(edges.n_edges)
        for part in _parts(edges):
            keys[part] = degree[edges.src[part]].astype(np.float64) * degree[edges.dst[part]]
        return keys
    if order is OrderName.ACTIVITY and trace is not None:
        size = trace.statistics["mean_abs"]
        parts = [np.abs(edges.weight[part]) * size[edges.src[part]] for part in _parts(edges)]
        return np.concatenate(parts)
    raise UsageError(f"order {order} has no keys without a trace; `emergraph trace` makes one")


def _parts(edges: PercolationEdges, blocks: Iterable[int] | None = None) -> Iterator[slice]:
    chosen = range(len(edges.blocks)) if blocks is None else blocks
    return (part for block in chosen for part in edges.pieces(block))


@dataclass(frozen=True, eq=False)
class _Start:
    """The edges, and the components before the first of them."""

    edges: PercolationEdges
    components: NDArray[np.int64]
    sizes: NDArray[np.int64]
    blocks: tuple[int, ...] | None = None
    """Positions of the blocks that are added; None for all."""

    @cached_property
    def n_final(self) -> int:
        """How many components are left in the end."""
        src, dst = self.edges.src, self.edges.dst
        ends = ((src[part], dst[part]) for part in _parts(self.edges, self.blocks))
        return n_components(ends, self.components, len(self.sizes))

    def curve(self, order: Order | GradualSequence) -> MergeCurve:
        src, dst = self.edges.src, self.edges.dst
        return merge_curve(find_merges(src, dst, order, self.components, self.sizes, n_final=self.n_final))


def percolate(
    graph: UnitGraph,
    order: str = "weight",
    *,
    keys: NDArray[np.floating] | None = None,
    trace: UnitTrace | None = None,
    options: PercolationOptions | None = None,
) -> PercolationResult:
    """Add the edges of a graph one by one and follow its components.

    The threshold is where the susceptibility of the units of the final largest component peaks. Null models:
    the keys of each block shuffled among its edges, and all orders equally likely. Predictions: see
    `predictions`.

    Complexity: a radix sort of the edges, then O(n_edges) array passes and O(n_units) union-find steps per
    seed; memory: about 60 bytes per edge. Beyond `GRADUAL_EDGES` edges are put in order, and drawn at random,
    only as far as components join and inputs reach outputs: about 15 bytes per edge.

    Args:
        graph: The unit graph.
        order: weight, random, degree or activity; with `keys`, any name for them.
        keys: (n_edges,) numbers by which edges are ordered, the largest first; in the order of `read_edges`.
        trace: For the order activity.
        options: Conventions.

    Raises:
        UsageError: The order is unknown, lacks its trace, or the keys do not fit the edges.
        LimitError: More edges than memory is meant for.

    Example:
        >>> from emergraph.analysis.layerednets import layered_net
        >>> net = layered_net([np.array([[3.0, 1.0], [0.0, 2.0]])])
        >>> percolate(net).observed.curves[0].giant.tolist()
        [1, 2, 2, 4]
    """
    options = options or PercolationOptions()
    edges = read_edges(graph, kinds=options.kinds, structure=options.structure)
    start = _Start(edges, *starting_components(graph.n_units, edges.given_src, edges.given_dst))
    if keys is None and order != OrderName.RANDOM:
        keys = edge_keys(edges, _named(order), trace=trace)
    if keys is not None and keys.shape != (edges.n_edges,):
        raise UsageError(f"order: {keys.shape} keys, expected one for each of {edges.n_edges} edges")
    sorted_by = None if keys is None else _ordered(keys)
    rngs = [np.random.default_rng(options.seed + i) for i in range(max(options.seeds, options.nulls, 1))]
    series = [_observed(start, sorted_by, rngs[: options.seeds])]
    layers = _blocks_alone(edges, _orders_alone(edges, keys, sorted_by, rngs[0]), rngs[0])
    if sorted_by is not None and options.nulls:
        series += _nulls(start, sorted_by, rngs[: options.nulls])
    return PercolationResult(
        graph=graph.name,
        order=order,
        options=options,
        n_units=graph.n_units,
        n_edges=edges.n_edges,
        n_given=len(edges.given_src),
        n_without_key=0 if keys is None else int(np.isnan(keys).sum()),
        has_ties=sorted_by is not None and sorted_by.has_ties,
        series=tuple(series),
        degree_threshold=branching_threshold(edges, start.components) * edges.n_edges,
        layered_threshold=layered_threshold(edges) * edges.n_edges,
        layers=layers,
    )


def _named(order: str) -> OrderName:
    try:
        return OrderName(order)
    except ValueError:
        raise UsageError(unknown("order", order, [*OrderName, "or keys of your own"])) from None


def _ordered(keys: NDArray[np.floating]) -> KeyOrder | GradualOrder:
    return GradualOrder(keys) if len(keys) > GRADUAL_EDGES else descending(keys)


def _random(n: int, rng: "np.random.Generator") -> Order | GradualSequence:
    return DrawnOrder(n, rng) if n > GRADUAL_EDGES else rng.permutation(n)


def _observed(
    start: _Start, order: KeyOrder | GradualOrder | None, rngs: list[np.random.Generator]
) -> Series:
    if order is None:
        return _repeated(start, "observed", lambda rng: _random(start.edges.n_edges, rng), rngs)
    curves = _tied_curves(start, order, rngs)
    if isinstance(order, KeyOrder):
        return Series(name="observed", curves=curves, reach=first_reach(start.edges, order.ranks()))
    return Series(name="observed", curves=curves, reach=_gradual_reach(start, order))


def _gradual_reach(start: _Start, order: GradualSequence) -> NDArray[np.int64]:
    """When inputs reach outputs, in an order that is made no further than that."""
    n = max(order.n_made, 1)
    while True:
        reach = first_reach(start.edges, order.ranks(n))
        if order.n_made >= len(order) or (reach != NEVER).all():
            return reach
        n = min(4 * order.n_made, len(order))


def _tied_curves(
    start: _Start, order: KeyOrder | GradualSequence, rngs: list[np.random.Generator]
) -> tuple[MergeCurve, ...]:
    """One curve per random order of equal keys; a single one without such.

    No order of equal keys joins components after the group of the last merge: the rest is not shuffled.
    """
    if not isinstance(order, KeyOrder | GradualOrder):
        return (start.curve(order),)
    plain = start.curve(order.edges)
    if not order.has_ties:
        return (plain,)
    n = int(plain.edges[-1])
    return tuple(start.curve(order.shuffled_ties(n, rng)) for rng in steps(rngs, "orders of ties"))


def _nulls(start: _Start, order: KeyOrder | GradualOrder, rngs: list[np.random.Generator]) -> list[Series]:
    edges = start.edges
    if isinstance(order, GradualOrder):

        def shuffled(rng: "np.random.Generator") -> Order | GradualSequence:
            return ShuffledOrder(order, edges.starts, np.random.default_rng(_TIES), rng)

    else:
        whole = order.shuffled_ties(edges.n_edges, rngs[0])
        positions = positions_by_block(whole, edges.block_of_edge())

        def shuffled(rng: "np.random.Generator") -> Order | GradualSequence:
            return shuffled_within_blocks(positions, edges.starts, rng)

    return [
        _repeated(start, "shuffled within blocks", shuffled, rngs),
        _repeated(start, "random", lambda rng: _random(edges.n_edges, rng), rngs),
    ]


_TIES = 0
"""Seed of the order of equal keys before keys are shuffled among edges."""


def _repeated(
    start: _Start,
    name: str,
    draw: Callable[[np.random.Generator], Order | GradualSequence],
    rngs: list[np.random.Generator],
) -> Series:
    """A series of random orders; inputs that reach outputs are followed in the first one."""
    curves: list[MergeCurve] = []
    reach = np.empty(0, dtype=np.int64)
    for rng in steps(rngs, name):
        order = draw(rng)
        curves.append(start.curve(order))
        if len(curves) == 1:
            reach = _reach_of(start, order)
    return Series(name=name, curves=tuple(curves), reach=reach)


def _reach_of(start: _Start, order: Order | GradualSequence) -> NDArray[np.int64]:
    if isinstance(order, GradualSequence):
        return _gradual_reach(start, order)
    ranks = np.empty_like(order)
    ranks[order] = np.arange(1, len(order) + 1)
    return first_reach(start.edges, ranks)


def _orders_alone(
    edges: PercolationEdges,
    keys: NDArray[np.floating] | None,
    order: KeyOrder | GradualOrder | None,
    rng: "np.random.Generator",
) -> Iterator[KeyOrder | GradualSequence]:
    """The order of the edges of each block by themselves."""
    spans = list(pairwise(edges.starts.tolist()))
    if edges.n_edges > GRADUAL_EDGES:
        for first, end in spans:
            if keys is None:
                yield DrawnOrder(end - first, rng, first=first)
            else:
                yield GradualOrder(keys[first:end], first=first)
        return
    if not isinstance(order, KeyOrder):
        order = KeyOrder(rng.permutation(edges.n_edges), np.arange(1, edges.n_edges + 1))
    positions = positions_by_block(order.edges, edges.block_of_edge())
    group = order.groups()[positions] if order.has_ties else positions
    for first, end in spans:
        changes = np.flatnonzero(np.diff(group[first:end])) + 1
        yield KeyOrder(order.edges[positions[first:end]], np.append(changes, end - first))


def _blocks_alone(
    edges: PercolationEdges, orders: Iterator[KeyOrder | GradualSequence], rng: "np.random.Generator"
) -> pl.DataFrame:
    """Threshold of each block as a bipartite graph by itself, beside its predictions."""
    local = np.zeros(edges.graph.n_units, dtype=np.int64)
    rows = []
    for number, (block, order) in enumerate(zip(edges.blocks, orders, strict=True)):
        first, end = edges.starts[number], edges.starts[number + 1]
        sides = edges.degrees(number)
        out_degree, in_degree = (side.counts for side in sides)
        units = np.union1d(*(side.first + np.flatnonzero(side.counts) for side in sides))
        local[units] = np.arange(len(units))
        start = _Start(edges, local, np.ones(len(units), dtype=np.int64), (number,))
        curve = _tied_curves(start, order, [rng])[0]
        n_src, n_dst = int(np.count_nonzero(out_degree)), int(np.count_nonzero(in_degree))
        rows.append(
            {
                "block": block.id,
                "name": block.name,
                "layer": block.layer,
                "n_src": n_src,
                "n_dst": n_dst,
                "n_edges": int(end - first),
                "threshold": curve.threshold,
                "predicted": bipartite_threshold(n_src, n_dst),
                "degree_threshold": _bipartite_degree_threshold(out_degree, in_degree) * int(end - first),
            }
        )
    return pl.DataFrame(rows)


def _bipartite_degree_threshold(source: NDArray[np.integer], target: NDArray[np.integer]) -> float:
    """Share of edges at which a random bipartite graph with these degrees percolates.

    `p_c = (q_source q_target)^(-1/2)` with the mean excess degrees q = (<k^2> - <k>) / <k>.
    """
    return float(np.sqrt(degree_threshold(source) * degree_threshold(target)))
