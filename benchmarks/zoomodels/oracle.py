"""The numeric oracle on a sample of units: what a change of each changes, against what the graph reaches.

The same questions as `tests/helpers/pathtruth.py`, for models that are too large to ask them of all units: a
few units spread over all layers, differences above a share of each tensor's scale, sparse reachability. What
the model chooses (integers that carry no unit: the experts of a token, the best places) stays chosen.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pathtruth import WITH_STATE, carriers, intercepted
from scipy import sparse
from tracedmodel import Array, Feeds, Runner
from zoomodels.doubles import in_double
from zoomodels.tracing import ZooTrace

from emergraph.graphstore.records import EdgeKind, Layer, LayerKind

UNITS = 36
DRAWS = 3
THRESHOLD = 1e-6
"""Changes above this share of a tensor's largest value count."""
LOUDER = 30.0
"""How much larger the changes of the second look are."""
SHOWN = 5
LABELS = NDArray[np.int64]


@dataclass
class Verdict:
    """What the oracle found."""

    units: int = 0
    layers: int = 0
    draws: int = 0
    claimed: int = 0
    """Pairs of a perturbed unit and one that the graph reaches from it without norm edges."""
    denied: int = 0
    """Pairs of a perturbed unit and one that the graph does not reach from it."""
    missing: int = 0
    """Pairs that a change showed and the graph denies."""
    missing_shown: list[str] = field(default_factory=list)
    excess: int = 0
    """Claimed pairs of which no change was seen."""
    explained: dict[str, int] = field(default_factory=dict)
    """The pairs in excess by explanation."""


def judge(traced: ZooTrace, *, units: int = UNITS, explain: bool = True) -> Verdict:
    """Perturb a sample of units and compare.

    Args:
        traced: The model.
        units: How many units are perturbed.
        explain: Look again for what the graph claims and no change showed.
    """
    home = carriers(traced)
    chosen = _sample(traced, home, units)
    if not chosen:
        return Verdict()
    n = traced.sink.n_units
    observed = np.zeros(n + 1, bool)
    observed[list(home)] = True
    changed = {unit: np.zeros(n + 1, bool) for unit in chosen}
    probe = _probe(traced, chosen, home)
    draws = sum(probe.into(changed, chosen, draw, 1.0, THRESHOLD) for draw in range(DRAWS))
    least = _reached(traced, chosen, WITH_STATE)
    most = _reached(traced, chosen, (*WITH_STATE, EdgeKind.NORM, EdgeKind.OPAQUE))
    verdict = Verdict(len(chosen), len({traced.layer_of(unit).id for unit in chosen}), draws)
    _look_again_in_double(traced, home, {unit: changed[unit] & ~most[unit] for unit in chosen}, changed)
    excess: dict[int, LABELS] = {}
    for unit in chosen:
        found = changed[unit] & observed
        found[n] = changed[unit][n]  # elements that carry no unit
        missing = np.flatnonzero(found & ~most[unit])
        verdict.claimed += int((least[unit] & observed).sum())
        verdict.denied += int((observed & ~most[unit])[:n].sum())
        verdict.missing += missing.size
        if missing.size and len(verdict.missing_shown) < SHOWN:
            shown = ", ".join(traced.named(int(u)) for u in missing[:3])
            verdict.missing_shown.append(f"{traced.named(unit)} changes {shown}")
        idle = np.flatnonzero(least[unit] & observed & ~found)
        if idle.size:
            excess[unit] = idle
            verdict.excess += int(idle.size)
    if explain:
        verdict.explained = _explain(traced, probe, excess, changed)
    return verdict


def _sample(traced: ZooTrace, home: Mapping[int, str], most: int) -> list[int]:
    """Units of as many layers as possible, whose values are floats that a change can be added to."""
    rng = np.random.default_rng(0)
    queues = []
    for layer in traced.sink.layers:
        if _is_inner(layer):
            continue
        units = [u for u in range(layer.first_unit, layer.first_unit + layer.n_units) if u in home]
        units = [u for u in units if traced.values[home[u]].dtype.kind == "f"]
        if units:
            queues.append(list(rng.permutation(units)))
    chosen: list[int] = []
    while queues and len(chosen) < most:
        order = rng.permutation(len(queues))
        chosen += [int(queues[k].pop()) for k in order[: most - len(chosen)]]
        queues = [queue for queue in queues if queue]
    return sorted(chosen)


def _is_inner(layer: Layer) -> bool:
    """Whether the units act inside their operation, where nothing can be added to them."""
    return layer.kind in (LayerKind.RNN_HIDDEN, LayerKind.RNN_CELL) or (
        layer.kind is LayerKind.JUNCTION and "/" in layer.name
    )


def _probe(traced: ZooTrace, units: Sequence[int], home: Mapping[int, str]) -> "_Probe":
    tensors = list(dict.fromkeys(home[unit] for unit in units))
    choices = _choices(traced)
    moving = Runner(intercepted(traced.model, traced.values, tensors, choices))
    return _Probe(traced, moving, Runner(traced.model) if choices else None, tensors, choices, home)


def _choices(traced: ZooTrace) -> list[str]:
    """Integers that operations on units make and that carry none: which expert, which place."""
    return [
        name
        for node in traced.model.graph.node
        if any(given in traced.labels for given in node.input)
        for name in node.output
        if name in traced.values and name not in traced.labels and traced.values[name].dtype.kind in "iu"
    ]


def _look_again_in_double(
    traced: ZooTrace,
    home: Mapping[int, str],
    suspects: Mapping[int, NDArray[np.bool_]],
    changed: dict[int, NDArray[np.bool_]],
) -> None:
    """Take back those changes that the graph denies and that double precision does not show either.

    What single precision rounds in one place, a normalisation of small values makes large in another. Where the
    model does not run in double precision, all stay.
    """
    units = [unit for unit, found in suspects.items() if found.any()]
    if not units:
        return
    exact = {unit: np.zeros_like(suspects[unit]) for unit in units}
    try:
        probe = _probe(in_double(traced), units, home)
        for draw in range(DRAWS):
            probe.into(exact, units, draw, 1.0, THRESHOLD)
    except Exception:  # noqa: BLE001 - neither runtime has every operation for every type
        return
    for unit in units:
        changed[unit] &= ~suspects[unit] | exact[unit]


@dataclass
class _Probe:
    """Runs the model with changes."""

    traced: ZooTrace
    runner: Runner
    plain: Runner | None
    """Says what the model chooses, where it chooses anything."""
    tensors: Sequence[str]
    choices: Sequence[str]
    """Tensors that keep the value of the unchanged run: a graph is of the choices that it was made from."""
    home: Mapping[int, str]

    def into(
        self,
        changed: dict[int, NDArray[np.bool_]],
        units: Sequence[int],
        draw: int,
        size: float,
        least: float,
    ) -> int:
        """Note what changes of some units change in one draw; returns 0 where the model refuses the inputs."""
        given = feeds_like(self.traced.feeds, draw)
        quiet = {f"delta:{t}": np.zeros_like(self.traced.values[t]) for t in self.tensors if t not in given}
        rng = np.random.default_rng(1000 + draw)
        try:
            if self.plain is not None:
                chosen = self.plain.run(given)
                quiet |= {name: chosen[name] for name in self.choices}
            base = {**given, **self.runner.run({**given, **quiet})}
        except Exception:
            if draw == 0:
                raise
            return 0
        scales = {
            name: float(np.abs(array).max(initial=0.0, where=np.isfinite(array)))
            for name, array in base.items()
            if array.dtype.kind == "f"
        }
        for unit in units:
            tensor = self.home[unit]
            where = self.traced.labels[tensor] == unit
            spread = size * max(1.0, scales.get(tensor, 1.0))
            delta = np.where(where, rng.normal(scale=spread, size=where.shape), 0.0).astype(
                base[tensor].dtype
            )
            feeds: Feeds = {**given, **quiet}
            if tensor in given:
                feeds[tensor] = given[tensor] + delta
            else:
                feeds[f"delta:{tensor}"] = delta
            moved = {**{name: feeds[name] for name in given}, **self.runner.run(feeds)}
            for hit in self._hits(base, moved, scales, least):
                changed[unit][hit] = True
        return 1

    def _hits(
        self, base: Mapping[str, Array], moved: Mapping[str, Array], scales: Mapping[str, float], least: float
    ) -> Iterator[LABELS]:
        """Labels of the elements that differ; -1, the last entry, for those that carry no unit."""
        for name, labels in self.traced.labels.items():
            ours, theirs = base.get(name), moved.get(name)
            if ours is None or theirs is None or ours.shape != theirs.shape or ours.shape != labels.shape:
                continue
            differs = ours != theirs
            if not differs.any():
                continue
            if ours.dtype.kind == "f":
                with np.errstate(invalid="ignore"):
                    small = np.abs(ours - theirs) <= least * scales.get(name, 0.0)
                # the root of what became negative is NaN everywhere behind, also times zero
                differs &= ~small & ~np.isnan(theirs)
            yield labels[differs]


def feeds_like(example: Mapping[str, Array], draw: int) -> Feeds:
    """Inputs like the example: floats of its mean and spread; integers and flags as they are.

    Integers are indices, and a graph is of the run that it was made from: other edges between nodes lead elsewhere.
    """
    rng = np.random.default_rng(100 + draw)
    feeds: Feeds = {}
    for name, array in example.items():
        if draw == 0 or array.dtype.kind != "f" or array.size == 0:
            feeds[name] = array
            continue
        made = rng.normal(float(array.mean()), float(array.std()), array.shape)
        feeds[name] = (np.abs(made) if (array >= 0).all() else made).astype(array.dtype)
    return feeds


def _reached(
    traced: ZooTrace, units: Sequence[int], kinds: Sequence[EdgeKind]
) -> dict[int, NDArray[np.bool_]]:
    """What the graph reaches from each unit, itself included; the last entry, no unit, is never reached."""
    n = traced.sink.n_units
    steps = traced.sink.steps(kinds)
    reached = np.zeros((len(units), n), bool)
    reached[np.arange(len(units)), units] = True
    front = reached.copy()
    while front.any():
        after = (sparse.csr_matrix(front.astype(np.float32)) @ steps).toarray() > 0
        front = after & ~reached
        reached |= front
    padded = np.concatenate([reached, np.zeros((len(units), 1), bool)], axis=1)
    return dict(zip(units, padded, strict=True))


def _explain(
    traced: ZooTrace,
    probe: _Probe,
    excess: Mapping[int, LABELS],
    changed: dict[int, NDArray[np.bool_]],
) -> dict[str, int]:
    """Look again, louder and at every bit; what stays unseen is named after where the change is lost."""
    reasons: Counter[str] = Counter()
    if not excess:
        return {}
    seen = {unit: changed[unit].copy() for unit in excess}
    for draw in range(DRAWS):
        probe.into(seen, list(excess), draw, (1.0, LOUDER, LOUDER**2)[draw % 3], 0.0)
    for unit, idle in excess.items():
        still = idle[~seen[unit][idle]]
        if idle.size > still.size:
            reasons["a change too small to count, or none at these inputs"] += int(idle.size - still.size)
        if still.size:
            reasons[_lost_at(traced, unit, seen[unit])] += int(still.size)
    return dict(reasons.most_common())


def _lost_at(traced: ZooTrace, unit: int, seen: NDArray[np.bool_]) -> str:
    """The commonest edge from a unit that changed to one that did not: kind, operation, nonlinearity."""
    moved = seen[:-1].copy()
    moved[unit] = True
    found: Counter[str] = Counter()
    for edges in traced.sink.edges:
        if edges.block.kind not in WITH_STATE:
            continue
        lost = moved[edges.src] & ~moved[edges.dst]
        if lost.any():
            activation = traced.sink.activation(edges.block.layer)
            behind = f", then {activation}" if activation else ""
            found[f"{edges.block.kind.value} of {edges.block.op}{behind}"] += int(lost.sum())
    return found.most_common(1)[0][0] if found else "units that no tensor shows between"
