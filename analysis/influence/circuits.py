"""Circuits: the fewest units that keep a share of a behaviour while all others are replaced.

Then the edges: those without which the circuit does not keep its share, left out one by one.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.influence.edgesites import Sites
from emergraph.analysis.influence.knockouts import Bench
from emergraph.analysis.influence.masked import MaskedModel
from emergraph.analysis.influence.options import CircuitOptions, InfluenceOptions, ModelRunOptions
from emergraph.analysis.influence.results import CircuitEdges, CircuitResult, _ends
from emergraph.analysis.influence.target import Change
from emergraph.analysis.pickedunits import picked_units
from emergraph.analysis.statistics.estimate import Estimate
from emergraph.analysis.statistics.intervals import Support, jackknife
from emergraph.errors import UsageError
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.graphstore.records import EdgeKind
from emergraph.steps import steps

if TYPE_CHECKING:
    from emergraph.analysis.access import GraphAccess

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
"""Of the candidates: the sizes at which the curve is measured, besides none, all, and the circuit's."""
GOING_ON = 0.75
"""Part of the units that stay in a round of ordering them again."""
SMALLEST = 1e-9
"""A behaviour that changes by less than this share of the output's values is none."""
Kept = Callable[[Bools], Estimate]
"""What is kept when only some of the edges go on."""


def find_circuit(at: "GraphAccess", run: ModelRunOptions, asked: CircuitOptions) -> CircuitResult:
    """Find a smallest set of units that keeps a share of a behaviour.

    Candidates are ordered by what knocking each out does, the size is found by bisection, and units are then
    left out one by one, the least influential first, as long as the share is kept.

    Args:
        at: The graph.
        run: The model and its inputs.
        asked: The behaviour, and its share.

    Raises:
        UsageError: An option does not fit the model, or nothing changes when all candidates are replaced.
        InvalidInputError: The file is not the graph's model, or the inputs do not fit it.
    """
    picked = None if asked.units is None else picked_units(at.path, at.id, asked.units, option="--units")
    single = InfluenceOptions(
        target=asked.target, baseline=asked.baseline, samples=asked.samples, seed=asked.seed
    )
    with ModelProcess(RunLimits()) as process:
        bench = Bench(at, run, single, process)
        knockouts = bench.knockouts(picked)
        bench.measure([one for one in knockouts if one.what == "unit"])
        single_units = [one for one in knockouts if one.what == "unit" and one.changes]
        layers = [one.layer for one in knockouts if one.what == "layer"]
        reached = {one.layer.layer for one in single_units}
        layers = [one for one in layers if one.layer in reached]
        masked = bench.masked(layers)
        start = dict(
            zip((one.layer for one in layers), _starts([one.n_units for one in layers]), strict=True)
        )
        roles = at.reader.units()["role"].to_numpy()
        places = np.array([start[one.layer.layer] + int(one.places[0]) for one in single_units])
        indexed = bench.behaviour.target.is_indexed
        effects = np.array(
            [np.mean([_size(change, indexed=indexed) for change in one.changes]) for one in single_units]
        )
        behaviour = _Behaviour(bench, masked, places)
        by_influence = np.argsort(-effects, kind="stable")
        order = _refined(behaviour, by_influence, asked.refine)
        chosen = _smallest(behaviour, order, asked.share)
        chosen, drops, minimal = _left_out(behaviour, chosen, asked.share)
        curve, areas = _curve(behaviour, order, chosen, asked)
        rank = np.empty(len(order), np.int64)
        rank[by_influence] = np.arange(1, len(order) + 1)
        by_effect = sorted(chosen, key=lambda k: rank[k])
        units = pl.DataFrame(
            {
                "layer": [single_units[k].layer.layer for k in by_effect],
                "unit": [
                    single_units[k].layer.first_unit + int(single_units[k].places[0]) for k in by_effect
                ],
                "rank": [int(rank[k]) for k in by_effect],
                "effect": [float(effects[k]) for k in by_effect],
                "without": [drops.get(k) for k in by_effect],
            },
            schema={
                "layer": pl.Int64,
                "unit": pl.Int64,
                "rank": pl.Int64,
                "effect": pl.Float64,
                "without": pl.Float64,
            },
        )
        everything = set(range(len(order)))
        without = behaviour.kept(everything - set(chosen))
        kept, n_runs = behaviour.kept(chosen), masked.n_runs
        searched = None
        own = np.zeros(len(roles), bool)
        own[units["unit"].to_list()] = True
        sources, targets = own | (roles == "input"), own | (roles == "output")
        if asked.edges and kept.mean >= asked.share:
            sites = bench.edge_sites(at, sources, targets)
            if len(sites.src):
                again = bench.masked(layers, sites.sites)
                with_edges = _Behaviour(bench, again, places)
                searched = needed_edges(
                    sites,
                    lambda flags: with_edges.kept(chosen, flags),
                    lambda flags: with_edges.kept(everything, flags),
                    share=asked.share,
                    most=asked.edges,
                )
                n_runs += again.n_runs
        return CircuitResult(
            graph=at.reader.name,
            output=bench.behaviour.target.output,
            measure=behaviour.measure,
            baseline=bench.baseline_text,
            share=asked.share,
            n_samples=bench.n,
            n_candidates=len(order),
            kept=kept,
            without=without,
            minimal=minimal,
            units=units,
            candidates=pl.DataFrame(
                {
                    "layer": [one.layer.layer for one in single_units],
                    "unit": [one.layer.first_unit + int(one.places[0]) for one in single_units],
                    "effect": effects,
                }
            ),
            edges=_edges(at, sources, targets, searched),
            searched=searched,
            curve=curve,
            areas=areas,
            n_runs=n_runs,
            layer_names={one.layer: one.name for one in bench.layers},
            first_units={one.layer: one.first_unit for one in bench.layers},
        )


def _size(change: Change, *, indexed: bool) -> float:
    """How far a sample's behaviour is from what it was.

    Of one number the squared difference: in its mean over samples, differences that cancel would count as
    kept, and a set that gives the same number for every sample could be a circuit.
    """
    return change.target**2 if indexed else change.effect


def kept_share(pairs: Floats) -> float:
    """1 less what is lost, over what is lost when all candidates are replaced.

    Args:
        pairs: (n_samples, 2) how far the behaviour is from what it was, with the set and with nothing.
    """
    return float(1 - pairs[:, 0].mean() / pairs[:, 1].mean())


class _Behaviour:
    """How much of a behaviour a set of candidates keeps: 1 with all, 0 with none."""

    def __init__(self, bench: Bench, masked: MaskedModel, places: NDArray[np.int64]) -> None:
        self._bench, self._masked, self._places = bench, masked, places
        self._indexed = bench.behaviour.target.is_indexed
        self._known: dict[bytes, Estimate] = {}
        self._clean = masked.outputs(np.ones(masked.n_units, bool))
        self._none = self._changes(np.zeros(len(places), bool))
        scale = max((float(np.abs(one).max(initial=0.0)) for one in self._clean), default=0.0)
        if not self._none.mean() > (SMALLEST * scale) ** 2:
            raise UsageError(
                "replacing all candidates changes nothing of the behaviour: there is no circuit to look for"
            )

    @property
    def measure(self) -> str:
        """What is kept."""
        return "target" if self._indexed else self._bench.behaviour.measure

    @property
    def mean_abs(self) -> Floats:
        """Of every candidate the mean absolute activation."""
        return self._masked.mean_abs[self._places]

    @property
    def layer_of(self) -> NDArray[np.int64]:
        """Of every candidate the number of its layer."""
        return self._masked.layer_of[self._places]

    def kept(
        self, chosen: "set[int] | list[int] | NDArray[np.int64]", edges: Bools | None = None
    ) -> Estimate:
        """The share that a set keeps, perhaps with some edges alone, and its spread over samples.

        That is no interval of a set which the samples chose.
        """
        flags = np.zeros(len(self._places), bool)
        flags[list(chosen)] = True
        key = np.packbits(flags).tobytes() + (b"" if edges is None else np.packbits(edges).tobytes())
        if key not in self._known:
            pairs = np.stack([self._changes(flags, edges), self._none], axis=1)
            self._known[key] = jackknife(kept_share, pairs, support=Support.AT_MOST_ONE)
        return self._known[key]

    def _changes(self, flags: Bools, edges: Bools | None = None) -> Floats:
        """How far the behaviour of every sample is from what it was."""
        kept = np.ones(self._masked.n_units, bool)
        kept[self._places] = flags
        found = self._masked.outputs(kept, edges)
        how = self._bench.behaviour
        changes = [how.change(clean, one) for one, clean in zip(found, self._clean, strict=True)]
        return np.array([_size(one, indexed=self._indexed) for one in changes])


def _edges(at: "GraphAccess", sources: Bools, targets: Bools, searched: CircuitEdges | None) -> pl.DataFrame:
    """Edges of the graph between some units, without those that were left out."""
    graph = at.units()
    reached = {graph.layers[k].id for k in np.unique(graph.unit_layer[np.flatnonzero(targets)])}
    blocks = [block for block in graph.blocks if block.n_edges and block.layer in reached]
    schema = {"src": pl.Int64, "dst": pl.Int64, "kind": pl.String, "weight": pl.Float64}
    frames = [pl.DataFrame(schema=schema)]
    for block, edges in graph.iter_edges(blocks, columns=("src", "dst", "weight")):
        both = sources[edges["src"]] & targets[edges["dst"]]
        frames.append(
            pl.DataFrame(
                {
                    "src": edges["src"][both].astype(np.int64),
                    "dst": edges["dst"][both].astype(np.int64),
                    "kind": [str(block.kind)] * int(both.sum()),
                    "weight": pl.Series(edges["weight"][both].astype(np.float64)).fill_nan(None),
                },
                schema=schema,
            )
        )
    found = pl.concat(frames).sort("src", "dst", "kind")
    if searched is None:
        return found.with_columns(without=pl.lit(None, pl.Float64))
    is_weight = pl.col("kind") == str(EdgeKind.WEIGHT)
    gone = searched.left_out.with_columns(gone=pl.lit(value=True))
    found = found.join(gone, on=["src", "dst"], how="left")
    found = found.filter(~is_weight | pl.col("gone").is_null())
    found = found.drop("gone").join(searched.frame, on=["src", "dst"], how="left")
    return found.with_columns(without=pl.when(is_weight).then(pl.col("without"))).sort("src", "dst", "kind")


def _starts(sizes: list[int]) -> list[int]:
    return [0, *np.cumsum(sizes)[:-1].tolist()]


def _smallest(behaviour: _Behaviour, order: NDArray[np.int64], share: float) -> list[int]:
    """The first candidates that keep the share, by bisection on their number."""
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if behaviour.kept(order[:middle]).mean >= share:
            high = middle
        else:
            low = middle + 1
    return [int(k) for k in order[:low]]


def _refined(behaviour: _Behaviour, order: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The first candidates of an order again, by what is lost with each among those that are left of them.

    In rounds: all others replaced, each is left out alone, and the quarter without which most is kept goes to
    the end. What units do for each other, which knocking out one in the whole model does not show, counts so.
    """
    left = [int(k) for k in order[:most]]
    position = {int(k): place for place, k in enumerate(order)}
    gone: list[int] = []
    while len(left) > 1:
        kept = {k: behaviour.kept(set(left) - {k}).mean for k in steps(left, "units in order")}
        left.sort(key=lambda k: (kept[k], position[k]))
        n = max(1, min(len(left) - 1, int(GOING_ON * len(left))))
        left, gone = left[:n], [*left[n:], *gone]
    return np.array([*left, *gone, *(int(k) for k in order[most:])], np.int64)


def _left_out(
    behaviour: _Behaviour, chosen: list[int], share: float
) -> tuple[list[int], dict[int, float], bool]:
    """What is left when units go one by one, the last in order first, until none can go."""
    left = set(chosen)
    drops: dict[int, float] = {}
    while True:
        removed = False
        for unit in steps([k for k in reversed(chosen) if k in left], "units left out"):
            found = behaviour.kept(left - {unit}).mean
            drops[unit] = found
            if found >= share:
                left.discard(unit)
                removed = True
        if not removed:
            break
    minimal = behaviour.kept(left).mean >= share and all(drops[unit] < share for unit in left)
    return sorted(left), {unit: drops[unit] for unit in left}, minimal


def _curve(
    behaviour: _Behaviour,
    order: NDArray[np.int64],
    chosen: list[int],
    asked: CircuitOptions,
) -> tuple[pl.DataFrame, dict[str, float]]:
    """Size against kept behaviour: by influence, by magnitude, and at random, as many of each layer."""
    n = len(order)
    sizes = sorted({0, n, len(chosen), *(max(1, round(share * n)) for share in SHARES)})
    by_size = np.argsort(-behaviour.mean_abs, kind="stable")
    rng = np.random.default_rng(asked.seed)
    rows: list[tuple[str, int, float, float | None, float | None]] = []
    for size in sizes:
        for ranking, ranked in (("influence", order), ("magnitude", by_size)):
            found = behaviour.kept(ranked[:size])
            rows.append((ranking, size, found.mean, *_ends(found)))
        drawn = [
            behaviour.kept(_alike(order[:size], behaviour.layer_of, rng)).mean for _ in range(asked.draws)
        ]
        rows.append(("random", size, float(np.mean(drawn)), None, None))
    found = behaviour.kept(chosen)
    rows.append(("circuit", len(chosen), found.mean, *_ends(found)))
    drawn = [
        behaviour.kept(_alike(np.array(chosen), behaviour.layer_of, rng)).mean for _ in range(asked.draws)
    ]
    rows.append(("random like the circuit", len(chosen), float(np.mean(drawn)), None, None))
    schema = {
        "ranking": pl.String,
        "size": pl.Int64,
        "kept": pl.Float64,
        "spread_low": pl.Float64,
        "spread_high": pl.Float64,
    }
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    areas = {ranking: _area(frame, ranking) for ranking in ("influence", "magnitude", "random")}
    return frame, areas


def _alike(
    chosen: NDArray[np.int64], layer_of: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """As many candidates of each layer, drawn at random."""
    parts = [np.zeros(0, np.int64)]
    for layer in np.unique(layer_of[chosen]) if len(chosen) else ():
        there = np.flatnonzero(layer_of == layer)
        parts.append(rng.choice(there, int((layer_of[chosen] == layer).sum()), replace=False))
    return np.concatenate(parts)


def _area(frame: pl.DataFrame, ranking: str) -> float:
    """Mean of the kept share, cut to [0, 1], over log(1 + size)."""
    rows = frame.filter(pl.col("ranking") == ranking).sort("size")
    x = np.log1p(rows["size"].to_numpy())
    y = np.clip(rows["kept"].to_numpy(), 0, 1)
    return float(np.trapezoid(y, x) / (x[-1] - x[0])) if x[-1] > x[0] else float(y[-1])


def needed_edges(sites: Sites, circuit: Kept, whole: Kept, *, share: float, most: int) -> CircuitEdges:
    """Leave out edges of a circuit as long as it keeps its share.

    The strongest edges that keep it are found by bisection; then edges go one by one, the weakest first, each
    ablation a run of its own.

    Args:
        sites: The candidates.
        circuit: What the circuit keeps with some of them.
        whole: What the whole model keeps with some of them.
        share: Share of the behaviour.
        most: Edges that are tried one by one at most.
    """
    n = len(sites.src)
    order = np.argsort(-sites.strength, kind="stable")

    def of(chosen: "set[int] | NDArray[np.int64]") -> Bools:
        flags = np.zeros(n, bool)
        flags[list(chosen)] = True
        return flags

    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if circuit(of(order[:middle])).mean >= share:
            high = middle
        else:
            low = middle + 1
    left = {int(k) for k in order[:low]}
    drops: dict[int, float] = {}
    is_tried = len(left) <= most
    removed = is_tried
    while removed:
        removed = False
        for edge in steps(sorted(left, key=lambda k: (sites.strength[k], k)), "edges left out"):
            drops[edge] = circuit(of(left - {edge})).mean
            if drops[edge] >= share:
                left.discard(edge)
                removed = True
    chosen = np.array(sorted(left), np.int64)
    others = np.setdiff1d(np.arange(n), chosen)
    kept = circuit(of(left))
    minimal = kept.mean >= share and all(drops[k] < share for k in left) if is_tried else None
    frame = pl.DataFrame(
        {"src": sites.src[chosen], "dst": sites.dst[chosen], "without": [drops.get(int(k)) for k in chosen]},
        schema={"src": pl.Int64, "dst": pl.Int64, "without": pl.Float64},
    )
    left_out = pl.DataFrame(
        {"src": sites.src[others], "dst": sites.dst[others]}, schema={"src": pl.Int64, "dst": pl.Int64}
    )
    return CircuitEdges(
        n_candidates=n,
        kept=kept,
        without=whole(~of(left)),
        minimal=minimal,
        frame=frame,
        left_out=left_out,
    )
