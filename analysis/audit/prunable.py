"""Prunable: how far by magnitude, in which scope, before the outputs change; and which layers are fragile."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.network import Network
from emergraph.analysis.audit.subject import Given, Subject
from emergraph.analysis.audit.words import count
from emergraph.analysis.edgesets.edgetable import EdgeTable, read_edge_table
from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.analysis.pruning.criteria import scores
from emergraph.analysis.pruning.items import Items, prunable_items
from emergraph.analysis.pruning.modelruns import PrunableModel, run_levels
from emergraph.analysis.pruning.options import Criterion, PruningOptions, PruningUnit
from emergraph.analysis.pruning.removal import Removal, prune_by_scores
from emergraph.analysis.pruning.sensitivity import layer_sweeps
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.runtime.quoting import quoted
from emergraph.graphstore.restore import restore_tensor

Array = NDArray[np.generic]

BOUND = 0.05
"""Outputs have changed when their difference has this share of their norm."""
LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Shares that are tried, by halving: masks are nested."""
SCOPES = ("layer", "global")
SAMPLES = 4
FRAGILE_LEVEL = 0.5
MAX_EDGES = 20_000_000
"""Edges of a graph that is held in memory for this."""


@dataclass(frozen=True)
class Reach:
    """How far one scope goes."""

    scope: str
    level: float
    """Largest share that was tried within the bound; 0 for none."""
    change: float
    """Change of the outputs there."""
    next_change: float | None
    """Change at the next larger share; None for the largest."""
    hit: tuple[str, float]
    """The layer that loses most at the next larger share, and which share of its own."""


def prunable(subject: Subject, given: Given, end: float) -> Iterator[AuditFinding]:
    """Find how far a model can be pruned until `end` of the monotonic clock."""
    onnx, network = subject.onnx, subject.network
    if onnx is None or network is None or subject.model is None or subject.outputs is None:
        return
    if network.graph.n_edges > MAX_EDGES:
        subject.notes.append(f"pruning was not tried: more than {MAX_EDGES:,} edges")
        return
    arrays = _samples(subject)
    files = ModelFiles(
        model=subject.model,
        inputs=arrays,
        limits=given.limits,
        root=given.root if str(subject.model) == subject.path else None,
    )
    search = _Search(subject, network, read_edge_table(network.graph), files, end)
    for id_, unit in (("PRUNABLE-WEIGHTS", PruningUnit.PARAMETER), ("PRUNABLE-UNITS", PruningUnit.UNIT)):
        yield from search.tried(id_, partial(search.headline, id_, unit))
    yield from search.tried("FRAGILE-LAYERS", search.fragile)


@dataclass(eq=False)
class _Search:
    """What is tried, until the time is over."""

    subject: Subject
    network: Network
    table: EdgeTable
    files: ModelFiles
    end: float
    trials: "dict[PruningUnit, _Trial]" = field(default_factory=dict)

    def tried(self, id_: str, make: Callable[[], AuditFinding | None]) -> Iterator[AuditFinding]:
        """Yield what is made, if there is time, with a note where there is not."""
        if time.monotonic() > self.end:
            self.subject.notes.append(f"{id_} was not tried: the budget was spent")
            return
        try:
            found = make()
        except (UsageError, InvalidInputError) as error:
            self.subject.notes.append(f"{id_} was not tried: {error}")
            return
        if found is not None:
            yield found if self.subject.given else found.only_suspected()

    def headline(self, id_: str, unit: PruningUnit) -> AuditFinding | None:
        """How far weights or units go, in the better scope."""
        trial = self.trials[unit] = _Trial(self.network, self.table, self.files, unit)
        reaches = [reach for scope in SCOPES if (reach := trial.reach(scope, self.end)) is not None]
        if len(reaches) < len(SCOPES):
            self.subject.notes.append(f"{id_} was not tried in every scope: the budget was spent")
        return _headline(id_, trial, reaches)

    def fragile(self) -> AuditFinding | None:
        """The layers whose own pruning changes the outputs most."""
        trial = self.trials.get(PruningUnit.PARAMETER)
        return None if trial is None else _fragile(trial, self.end)


def _samples(subject: Subject) -> dict[str, Array]:
    assert subject.onnx is not None  # noqa: S101 - the caller has looked
    samples = subject.onnx.prepared.samples
    n = min(samples.n, max(SAMPLES, subject.onnx.prepared.fixed or 1))
    return dict(samples.feeds(list(range(n))))


class _Trial:
    """One model, of which weights or units are pruned by magnitude."""

    def __init__(self, network: Network, table: EdgeTable, files: ModelFiles, unit: PruningUnit) -> None:
        def values(name: str) -> Array:
            return restore_tensor(network.reader, name)

        self.unit = unit
        self.model = PrunableModel(network.reader, network.graph, files, values, unit)
        self.items: Items = prunable_items(
            table, unit, tensor_values=values, left_alone=self.model.places.unknown
        )
        kind = Criterion.MAGNITUDE if unit is PruningUnit.PARAMETER else Criterion.L2
        self.scored = scores(kind, self.items)

    def reach(self, scope: str, end: float) -> Reach | None:
        """The largest share within the bound, by halving; None where there was no time."""
        removal = prune_by_scores(self.items, self.scored, LEVELS, scope=scope)
        changes: dict[int, float] = {}
        low, high = -1, len(LEVELS)
        while high - low > 1:
            if time.monotonic() > end:
                return None
            middle = (low + high) // 2
            changes[middle] = self.change(removal, middle)
            low, high = (middle, high) if changes[middle] <= BOUND else (low, middle)
        hit = _hardest_hit(removal, min(high, len(LEVELS) - 1))
        return Reach(scope, 0.0 if low < 0 else LEVELS[low], changes.get(low, 0.0), changes.get(high), hit)

    def change(self, removal: Removal, level: int) -> float:
        """Difference of the outputs of a pruned model, over their norm."""
        row = run_levels(self.model, [removal.at(level)])
        value = row["relative_mse"][0]
        return float("inf") if value is None else float(np.sqrt(value))


def _hardest_hit(removal: Removal, level: int) -> tuple[str, float]:
    layers = removal.items.group["layer"]
    n = np.bincount(layers)
    gone = np.bincount(layers[removal.gone <= level], minlength=len(n))
    shares = np.where(n > 0, gone / np.maximum(n, 1), 0.0)
    worst = int(shares.argmax())
    return removal.items.table.graph.layers[worst].name, float(shares[worst])


def _headline(id_: str, trial: _Trial, reaches: list[Reach]) -> AuditFinding | None:
    if not reaches:
        return None
    best = max(reaches, key=lambda reach: (reach.level, -reach.change))
    what = "weights" if trial.unit is PruningUnit.PARAMETER else "hidden units"
    how = {"layer": "the smallest of each layer", "global": "the smallest of all layers together"}
    n = trial.model.prepared.samples.n
    sentence = (
        f"{100 * best.level:.0f} % of the {trial.items.n:,} {what} ({how[best.scope]}) can go before the "
        f"outputs change by more than {100 * BOUND:.0f} % of their norm on {count(n, 'input')}"
    )
    for other in reaches:
        if other is not best and other.level < best.level:
            layer, gone = other.hit
            sentence += (
                f"; of {how[other.scope]} only {100 * other.level:.0f} %, since layer {quoted(layer)} then "
                f"loses {100 * gone:.0f} % of its own"
            )
    return AuditFinding(
        id=id_,
        sentence=f"{sentence}.",
        key=(),
        evidence={
            "bound": BOUND,
            "n_inputs": n,
            "scope": best.scope,
            "scopes": [
                {"scope": r.scope, "level": r.level, "change": r.change, "hit": list(r.hit)} for r in reaches
            ],
        },
    )


def _fragile(trial: _Trial, end: float) -> AuditFinding | None:
    """The layers whose own pruning changes the outputs most."""
    options = PruningOptions(levels=(FRAGILE_LEVEL,))
    changes: dict[str, float] = {}
    sweeps = layer_sweeps(trial.items, options, scored=trial.scored)
    for sweep in sweeps:
        if time.monotonic() > end:
            break
        changes[sweep.name] = trial.change(sweep.removal, 0)
    ranked = sorted(changes, key=lambda name: -changes[name])
    fragile = [name for name in ranked if changes[name] > BOUND][:3]
    if not fragile:
        return None
    said = ", ".join(f"{quoted(name)} by {100 * changes[name]:.0f} %" for name in fragile)
    looked = "" if len(changes) == len(sweeps) else f" ({len(changes)} of {len(sweeps)} layers were tried)"
    return AuditFinding(
        id="FRAGILE-LAYERS",
        sentence=f"With half of its smallest weights gone, one layer alone changes the outputs most: {said}"
        f"{looked}.",
        key=(),
        units={name: [] for name in fragile},
        evidence={"level": FRAGILE_LEVEL, "changes": {name: changes[name] for name in ranked}},
    )
