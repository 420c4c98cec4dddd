"""All topology measures of a unit graph, each on the largest graph that it can be measured on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import igraph
import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.edgesets.forest import find_merges
from emergraph.analysis.edgesets.gradual import GRADUAL_EDGES, GradualOrder
from emergraph.analysis.edgesets.ordering import descending
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.topology.options import TopologyOptions
from emergraph.analysis.topology.survey import links_by_sums, survey_edges
from emergraph.analysis.topology.weightededges import (
    Floats,
    WeightedEdges,
    chosen_blocks,
    igraph_of,
)
from emergraph.analysis.topology.wholegraph import (
    Communities,
    find_communities,
    layer_graph,
    rich_club,
    small_world,
)
from emergraph.analysis.unitgraph import UnitBlock, UnitGraph
from emergraph.graphstore.records import PATH_KINDS, EdgeKind

# Neural persistence of layers (Rieck et al., arXiv 1812.09764).


def neural_persistence(
    src: NDArray[np.integer],
    dst: NDArray[np.integer],
    weight: NDArray[np.floating],
    *,
    n_units: int,
    w_max: float,
    p: float = 2.0,
) -> tuple[float, float]:
    """Persistence of the components of one layer as edges appear from the strongest to the weakest.

    With `w' = |w| / w_max`, every unit is born at 1 and dies at the w' of the edge of the maximum spanning
    forest that joins it: `NP = (sum (1 - w')^p)^(1/p)` (eq. 1). All units of both layers are vertices: those
    without edges, and parts that no edge joins, die at 0 as behind a weight of 0, so that removing edges
    never lowers the persistence. The normalised form divides by the upper bound `(n - 1)^(1/p)` (eq. 2).

    Args:
        src: (n_edges,) units of one side.
        dst: (n_edges,) units of the other side.
        weight: (n_edges,) finite.
        n_units: n, all units of both sides, with or without edges.
        w_max: Largest absolute weight of the network.
        p: Exponent, at least 1.

    Returns:
        NP and its normalised form in [0, 1]; zeros for fewer than two units.

    Example:
        >>> edges = np.array([0, 0, 1]), np.array([2, 3, 2]), np.array([1.0, 0.5, 0.25])
        >>> [round(value, 6) for value in neural_persistence(*edges, n_units=4, w_max=1.0)]
        [0.901388, 0.520416]
    """
    if n_units < 2:
        return 0.0, 0.0
    (a, b), n = _numbered(src, dst)
    size = np.abs(weight)
    order = GradualOrder(size) if len(size) > GRADUAL_EDGES else descending(size).edges
    merges = find_merges(a, b, order, np.arange(n), np.ones(n, dtype=np.int64))
    deaths = size[order[merges.position]].astype(np.float64) / w_max
    total = float(((1 - deaths) ** p).sum()) + (n_units - 1 - len(deaths))
    return total ** (1 / p), (total / (n_units - 1)) ** (1 / p)


def _numbered(*sides: NDArray[np.integer]) -> tuple[list[NDArray[np.int32]], int]:
    """The units at the ends of edges by their place among all units there; how many those are."""
    low = min((int(side.min()) for side in sides if len(side)), default=0)
    high = max((int(side.max()) for side in sides if len(side)), default=low - 1)
    there = np.zeros(high + 1 - low, dtype=np.bool_)
    for side in sides:
        there[side - low] = True
    numbers = (np.cumsum(there) - 1).astype(np.int32)
    return [numbers[side - low] for side in sides], int(np.count_nonzero(there))


# Motifs of one block as a bipartite graph: stars and butterflies.

MAX_FULL = 1 << 26
"""Elements of a matrix that is multiplied in full where it is not sparse."""
MAX_SIDE = 4096
"""Butterflies are counted where the smaller side has at most so many units."""


def block_motifs(src: NDArray[np.integer], dst: NDArray[np.integer]) -> dict[str, int | None]:
    """Count motifs of a block without repeated pairs.

    `diverging` and `converging`: pairs of edges with a common source, a common target. `butterflies`: two
    sources and two targets with all four edges, `sum over pairs of units of C(common neighbours, 2)`.

    Returns:
        diverging, converging, butterflies (None where both sides exceed `MAX_SIDE`).

    Example:
        >>> block_motifs(np.array([0, 0, 1, 1]), np.array([2, 3, 2, 3]))
        {'diverging': 2, 'converging': 2, 'butterflies': 1}
    """
    out_degree, in_degree = (np.bincount(_numbered(side)[0][0]) for side in (src, dst))
    return {
        "diverging": int((out_degree * (out_degree - 1) // 2).sum()),
        "converging": int((in_degree * (in_degree - 1) // 2).sum()),
        "butterflies": _butterflies(src, dst),
    }


def _butterflies(src: NDArray[np.integer], dst: NDArray[np.integer]) -> int | None:
    sides = [np.unique(side, return_inverse=True) for side in (src, dst)]
    (rows, row), (columns, column) = sorted(sides, key=lambda side: len(side[0]))
    if len(rows) > MAX_SIDE:
        return None
    if len(row) > 0.05 * len(rows) * len(columns) and len(rows) * len(columns) <= MAX_FULL:
        cells = np.bincount(row * len(columns) + column, minlength=len(rows) * len(columns))
        full = cells.reshape(len(rows), len(columns)).astype(np.float64)
        common = full @ full.T
    else:
        from scipy.sparse import csr_array

        matrix = csr_array((np.ones(len(row)), (row, column)), shape=(len(rows), len(columns)))
        common = (matrix @ matrix.T).toarray()
    pairs = common[np.triu_indices(len(rows), 1)].astype(np.int64)
    return int((pairs * (pairs - 1) // 2).sum())


# Degrees and strengths of units, and how much strengths fluctuate within a layer (arXiv 2110.02628).


def unit_strengths(
    graph: UnitGraph, *, kinds: Sequence[EdgeKind | str] = PATH_KINDS, bias: Floats | None = None
) -> pl.DataFrame:
    """Sum weights into and out of every unit, in one pass over the edges.

    Args:
        graph: The unit graph.
        kinds: Kinds of edges; those without a parameter count in degrees only.
        bias: (n_units,) biases, NaN for none.

    Returns:
        One row per unit: unit, in_degree, out_degree, in_strength, out_strength (signed sums), in_abs,
        out_abs (sums of absolute values), strength (in + out), strength_abs (in_abs + out_abs),
        strength_with_bias.

    Example:
        >>> from emergraph.analysis.layerednets import layered_net
        >>> net = layered_net([np.array([[1.0, 3.0], [-2.0, 0.0]]), np.array([[2.0], [-1.0]])])
        >>> unit_strengths(net)["strength"].to_list()
        [4.0, -2.0, 1.0, 2.0, 1.0]
    """
    n = graph.n_units
    sums = {name: np.zeros(n) for name in ("in_strength", "out_strength", "in_abs", "out_abs")}
    degrees = {name: np.zeros(n, dtype=np.int64) for name in ("in_degree", "out_degree")}
    blocks = chosen_blocks(graph, kinds)
    summed = [block for block in blocks if graph.lacks_weights([block])]
    for block in summed:
        for (outgoing,), own in graph.side_sums(block).group_by("outgoing"):
            side, units = "out" if outgoing else "in", own["unit"].to_numpy()
            degrees[f"{side}_degree"][units] += own["degree"].to_numpy()
            sums[f"{side}_strength"][units] += own["total"].to_numpy()
            sums[f"{side}_abs"][units] += own["l1"].to_numpy()
    read = [block for block in blocks if not graph.lacks_weights([block])]
    for _, columns in graph.iter_pieces(read, columns=("src", "dst", "weight")):
        weight = np.nan_to_num(
            np.asarray(columns["weight"], dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0
        )
        for side, units in (("out", columns["src"]), ("in", columns["dst"])):
            low = int(units.min(initial=n))
            counts = np.bincount(units - low)
            span = slice(low, low + len(counts))
            degrees[f"{side}_degree"][span] += counts
            sums[f"{side}_strength"][span] += np.bincount(units - low, weights=weight)
            sums[f"{side}_abs"][span] += np.bincount(units - low, weights=np.abs(weight))
    total = sums["in_strength"] + sums["out_strength"]
    with_bias = total + (0.0 if bias is None else np.nan_to_num(bias))
    totals = {"strength": total, "strength_abs": sums["in_abs"] + sums["out_abs"]}
    return pl.DataFrame({"unit": np.arange(n), **degrees, **sums, **totals, "strength_with_bias": with_bias})


def layer_fluctuation(graph: UnitGraph, strength: NDArray[np.floating]) -> Floats:
    """(n_layers,) standard deviation (ddof 0) of the units' strengths within each layer.

    Args:
        graph: The unit graph.
        strength: (n_units,).

    Example:
        >>> from emergraph.analysis.layerednets import layered_net
        >>> net = layered_net([np.array([[1.0, 3.0], [-2.0, 0.0]]), np.array([[2.0], [-1.0]])])
        >>> layer_fluctuation(net, np.array([4.0, -2.0, 1.0, 2.0, 1.0])).tolist()
        [3.0, 0.5, 0.0]
    """
    parts = [strength[layer.units] for layer in graph.layers]
    return np.array([part.std() if len(part) else np.nan for part in parts])


MAX_MOTIF_EDGES = 4_000_000
"""Blocks with more edges have no motif counts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TopologyResult(ShownInNotebooks):
    """Measures of the graph, its units, layers and blocks."""

    graph: str
    options: TopologyOptions
    measures: pl.DataFrame
    """Columns measure, value (NaN-free; null where there is none), on (what it was measured on)."""
    units: pl.DataFrame
    """One row per unit; see `analysis.UNITS`."""
    layers: pl.DataFrame
    """One row per layer; see `analysis.LAYERS`."""
    blocks: pl.DataFrame
    """One row per block of parameters; see `analysis.BLOCKS`."""
    rich_club: pl.DataFrame
    """Columns k, n_units, phi."""
    spectra: pl.DataFrame | None = None
    """One row per weight tensor; None where not asked for."""
    notes: tuple[str, ...] = field(default=())
    """What was left out or measured on a part, and why."""

    def to_dict(self) -> dict[str, object]:
        """Return everything but the units as plain values."""
        return {
            "graph": self.graph,
            "seed": self.options.seed,
            **self.options.to_dict(),
            "measures": self.measures.to_dicts(),
            "layers": self.layers.to_dicts(),
            "blocks": self.blocks.to_dicts(),
            "rich_club": self.rich_club.to_dicts(),
            "spectra": None if self.spectra is None else self.spectra.to_dicts(),
            "notes": list(self.notes),
        }


def topology(
    graph: UnitGraph, *, bias: Floats | None = None, options: TopologyOptions | None = None
) -> TopologyResult:
    """Measure the topology of a unit graph.

    Weights are absolute and finite in every weighted measure but the signed strengths.

    Args:
        graph: The unit graph.
        bias: (n_units,) biases for the strengths with bias; NaN for none.
        options: Conventions and limits.

    Raises:
        UsageError: An option makes no sense.
        LimitError: More edges than memory is meant for.
    """
    options = options or TopologyOptions()
    if graph.lacks_weights(chosen_blocks(graph, options.kinds)):
        return _of_sums(graph, bias, options)
    found_edges = survey_edges(graph, options.kinds, alpha=options.alpha, most=options.max_edges)
    pairs, strong, n_pairs = found_edges.pairs, found_edges.strong, found_edges.n_pairs
    left_out = found_edges.n_left_out
    notes = [f"{left_out} edges with NaN or infinite weights left out"] if left_out else []
    units = unit_strengths(graph, kinds=options.kinds, bias=bias)
    whole = pairs is not None and n_pairs <= options.max_edges
    body, on = (pairs, "graph") if whole and pairs is not None else (strong, "backbone")
    if on == "backbone":
        notes.append(
            "communities, cores, PageRank, assortativity and rich club are those of the backbone: "
            f"{n_pairs} pairs exceed the limit of {options.max_edges}"
        )
    if found_edges.alpha < options.alpha:
        notes.append(
            f"the backbone has the {len(strong.src)} edges whose disparity is below {found_edges.alpha:.3g} "
            f"instead of {options.alpha:g}: more would exceed the limit of {options.max_edges}"
        )
    network = igraph_of(body, directed=False)
    found = find_communities(network, body.strength, draws=options.nulls, seed=options.seed)
    units = units.with_columns(
        community=pl.Series(found.membership),
        coreness=pl.Series(network.coreness(), dtype=pl.Int64),
        pagerank=pl.Series(
            igraph_of(body, directed=True).pagerank(weights=body.strength.tolist()), dtype=pl.Float64
        ),
    )
    betweenness, between_on = _betweenness(pairs, strong, options, notes)
    units = units.with_columns(betweenness)
    measures = [
        ("units", graph.n_units, "graph"),
        ("pairs of units", n_pairs, "graph"),
        ("backbone edges", len(strong.src), "graph"),
        ("backbone share of edges", _share(len(strong.src), n_pairs), "graph"),
        ("backbone share of strength", _share(strong.strength.sum(), found_edges.strength), "graph"),
        *_community_measures(found, on),
        *_shape_measures(network, on),
        *((name, value, "backbone") for name, value in _small_world(strong, options).items()),
        ("betweenness, largest", _largest(betweenness), between_on),
    ]
    return TopologyResult(
        graph=graph.name,
        options=options,
        measures=_measure_frame(measures),
        units=units,
        layers=_layers(graph, found_edges.links, units),
        blocks=_blocks(graph, options),
        rich_club=rich_club(network),
        notes=tuple(notes),
    )


_WITHOUT_WEIGHTS = (
    "degrees, strengths and links between layers only: all else needs the weights, which stayed in the model "
    "file; add --model FILE"
)


def _of_sums(graph: UnitGraph, bias: Floats | None, options: TopologyOptions) -> TopologyResult:
    """What can be said without weights that stayed in the model file: degrees, strengths, links of layers."""
    units = unit_strengths(graph, kinds=options.kinds, bias=bias).with_columns(
        community=pl.lit(None, pl.Int64),
        coreness=pl.lit(None, pl.Int64),
        pagerank=pl.lit(None, pl.Float64),
        betweenness=pl.lit(None, pl.Float64),
    )
    links = links_by_sums(graph, chosen_blocks(graph, options.kinds))
    return TopologyResult(
        graph=graph.name,
        options=options,
        measures=_measure_frame([("units", graph.n_units, "graph")]),
        units=units,
        layers=_layers(graph, links, units),
        blocks=pl.DataFrame(schema=_BLOCK_SCHEMA),
        rich_club=rich_club(igraph.Graph()),
        notes=(_WITHOUT_WEIGHTS,),
    )


def _betweenness(
    pairs: WeightedEdges | None, strong: WeightedEdges, options: TopologyOptions, notes: list[str]
) -> tuple[pl.Series, str]:
    """Betweenness of every unit, exact where the graph is small, else on the backbone; on what."""
    for edges, name in ((pairs, "graph"), (strong, "backbone")):
        if edges is not None and len(edges.src) * edges.n_units <= options.max_paths:
            values = igraph_of(edges, directed=True).betweenness()
            return pl.Series("betweenness", values, dtype=pl.Float64), name
    notes.append(
        f"betweenness left out: {strong.n_units} units times {len(strong.src)} backbone edges exceed "
        f"{options.max_paths:g}; lower alpha or raise the limit"
    )
    return pl.Series("betweenness", [None] * strong.n_units, dtype=pl.Float64), "backbone"


def _community_measures(found: Communities, on: str) -> list[tuple[str, float | None, str]]:
    nulls = found.null_modularities
    return [
        ("modularity", found.modularity, on),
        ("modularity, null mean", float(nulls.mean()) if len(nulls) else None, on),
        ("modularity, z", found.z, on),
        ("communities", found.n_communities, on),
    ]


def _shape_measures(network: igraph.Graph, on: str) -> list[tuple[str, float | None, str]]:
    assortativity = network.assortativity_degree(directed=False)
    return [
        ("degeneracy (largest core)", max(network.coreness(), default=0), on),
        ("degree assortativity", None if np.isnan(assortativity) else assortativity, on),
        ("components", len(network.connected_components()), on),
    ]


def _small_world(strong: WeightedEdges, options: TopologyOptions) -> dict[str, float | None]:
    if len(strong.src) == 0:
        return {"transitivity": None, "mean_path": None, "sigma": None}
    if len(strong.src) * strong.n_units > options.max_paths:
        return {"transitivity": igraph_of(strong, directed=False).transitivity_undirected(mode="zero")}
    return small_world(igraph_of(strong, directed=False), seed=options.seed)


def _largest(values: pl.Series) -> float | None:
    return None if values.null_count() else float(values.to_numpy().max(initial=0.0))


def _share(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole else None


def _measure_frame(rows: list[tuple[str, float | None, str]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "measure": [name for name, _, _ in rows],
            "value": pl.Series([None if v is None else float(v) for _, v, _ in rows], dtype=pl.Float64),
            "on": [on for _, _, on in rows],
        }
    )


def _layers(graph: UnitGraph, links: WeightedEdges, units: pl.DataFrame) -> pl.DataFrame:
    strengths = {name: units[name].to_numpy() for name in ("strength", "strength_with_bias")}
    totals = units["strength_abs"].to_numpy()
    parts = [totals[layer.units] for layer in graph.layers]
    spread = [np.percentile(part, (5, 50, 95)) if len(part) else (None, None, None) for part in parts]
    return (
        layer_graph(graph, links)
        .with_columns(
            name=pl.Series([layer.name for layer in graph.layers], dtype=pl.String),
            n_units=pl.Series([layer.n_units for layer in graph.layers], dtype=pl.Int32),
            strength_mean=pl.Series([part.mean() if len(part) else None for part in parts], dtype=pl.Float64),
            strength_p05=pl.Series([low for low, _, _ in spread], dtype=pl.Float64),
            strength_median=pl.Series([middle for _, middle, _ in spread], dtype=pl.Float64),
            strength_p95=pl.Series([high for _, _, high in spread], dtype=pl.Float64),
            strength_max=pl.Series([part.max() if len(part) else None for part in parts], dtype=pl.Float64),
            fluctuation=pl.Series(layer_fluctuation(graph, strengths["strength"])),
            fluctuation_with_bias=pl.Series(layer_fluctuation(graph, strengths["strength_with_bias"])),
        )
        .select("layer", "name", "n_units", pl.exclude("layer", "name", "n_units"))
    )


def _units_joined(graph: UnitGraph, block: UnitBlock, src: NDArray[np.integer]) -> int:
    """Units that a block could join: rows and columns of its matrix, or else of the layers at its ends."""
    if block.src_units is not None and block.dst_units is not None:
        return len(np.union1d(block.src_units, block.dst_units))
    layers = {int(layer) for layer in np.unique(graph.unit_layer[src])} | {graph.layer_position(block.layer)}
    return sum(graph.layers[layer].n_units for layer in layers)


_BLOCK_SCHEMA = {
    "block": pl.Int32,
    "name": pl.String,
    "layer": pl.Int32,
    "n_edges": pl.Int64,
    "persistence": pl.Float64,
    "persistence_normalised": pl.Float64,
    "diverging": pl.Int64,
    "converging": pl.Int64,
    "butterflies": pl.Int64,
}


def _blocks(graph: UnitGraph, options: TopologyOptions) -> pl.DataFrame:
    """Neural persistence and motifs of every block of parameters."""
    chosen = [
        block
        for block in chosen_blocks(graph, options.kinds)
        if block.kind in (EdgeKind.WEIGHT, EdgeKind.RECURRENT)
        and (block.n_edges or block.src_units is not None)
    ]
    w_max = 0.0
    for _, columns in graph.iter_pieces(chosen, columns=("weight",)):
        weight = np.abs(columns["weight"])
        w_max = max(w_max, float(weight[np.isfinite(weight)].max(initial=0.0)))
    rows = []
    for block, columns in graph.iter_edges(chosen, columns=("src", "dst", "weight")):
        src, dst, weight = columns["src"], columns["dst"], columns["weight"]
        finite = np.isfinite(weight)
        persistence: tuple[float | None, float | None] = (None, None)
        if w_max > 0:
            persistence = neural_persistence(
                src[finite],
                dst[finite],
                weight[finite],
                n_units=_units_joined(graph, block, src),
                w_max=w_max,
            )
        counted = options.motifs and block.n_edges <= MAX_MOTIF_EDGES
        motifs = block_motifs(src, dst) if counted else {}
        about = {"block": block.id, "name": block.name, "layer": block.layer, "n_edges": block.n_edges}
        measured = {"persistence": persistence[0], "persistence_normalised": persistence[1]}
        rows.append({**about, **measured, **motifs})
    return pl.DataFrame(rows, schema=_BLOCK_SCHEMA)
