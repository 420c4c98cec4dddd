"""Prunable: how far by magnitude, in which scope, before the outputs change; and which layers are fragile."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.network import Network
from emergraph.analysis.audit.subject import SAMPLES, OnnxSubject, Subject
from emergraph.analysis.audit.words import count
from emergraph.analysis.edgesets.edgetable import EdgeTable, read_edge_table
from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.analysis.pruning.criteria import scores
from emergraph.analysis.pruning.items import Items, prunable_items
from emergraph.analysis.pruning.modelruns import PrunableModel, PrunedRuns, parameter_places
from emergraph.analysis.pruning.options import Criterion, PruningUnit
from emergraph.analysis.pruning.removal import Removal, nested_removal, prune_by_scores
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.runtime.quoting import quoted
from emergraph.graphstore.restore import restore_tensor

Array = NDArray[np.generic]

BOUND = 0.05
"""Outputs have changed when their difference has this share of their norm."""
LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Shares that are tried, by halving: masks are nested."""
SCOPES = ("layer", "global")
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


def prunable(subject: Subject) -> Iterator[AuditFinding]:
    """Find how far a model can be pruned."""
    onnx, network = subject.onnx, subject.network
    if onnx is None or network is None or subject.model is None or subject.outputs is None:
        return
    if network.graph.n_edges > MAX_EDGES:
        subject.notes.append(f"pruning was not tried: more than {MAX_EDGES:,} edges")
        return
    table = read_edge_table(network.graph)
    for id_, unit in (("PRUNABLE-WEIGHTS", PruningUnit.PARAMETER), ("PRUNABLE-UNITS", PruningUnit.UNIT)):
        subject.check_time()
        try:
            with _Trial(subject, onnx, network, table, unit) as trial:
                yield _graded(subject, _headline(id_, trial))
                if unit is PruningUnit.PARAMETER and (fragile := _fragile(trial)) is not None:
                    yield _graded(subject, fragile)
        except (UsageError, InvalidInputError) as error:
            subject.notes.append(f"{id_} was not tried: {error}")


def _graded(subject: Subject, found: AuditFinding) -> AuditFinding:
    return found if subject.given else found.only_suspected()


class _Trial:
    """One model, of which weights or units are pruned by magnitude and which is run."""

    def __init__(
        self, subject: Subject, onnx: OnnxSubject, network: Network, table: EdgeTable, unit: PruningUnit
    ) -> None:
        def values(name: str) -> Array:
            known = name in onnx.run.flat.initializers
            return onnx.value(name) if known else restore_tensor(network.reader, name)

        assert subject.model is not None  # noqa: S101 - the caller has looked
        self.unit, self.subject = unit, subject
        prepared = onnx.prepared.first(SAMPLES)
        self.n = prepared.samples.n
        places = parameter_places(onnx.run.flat, onnx.source, network.graph, values, unit)
        self.items: Items = prunable_items(table, unit, tensor_values=values, left_alone=places.unknown)
        kind = Criterion.MAGNITUDE if unit is PruningUnit.PARAMETER else Criterion.L2
        self.scored = scores(kind, self.items)
        self.layer = self.items.group["layer"]
        self.removal = {scope: self._removal(scope) for scope in SCOPES}
        self._runs = PrunedRuns(
            PrunableModel(
                reader=network.reader,
                places=places,
                files=ModelFiles(model=subject.model, limits=subject.limits),
                source=onnx.source,
                prepared=prepared,
            ),
            self.removal[SCOPES[0]],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runs.close()

    def _removal(self, scope: str) -> Removal:
        return prune_by_scores(self.items, self.scored, LEVELS, scope=scope)

    def reach(self, scope: str) -> Reach:
        """The largest share within the bound, by halving.

        Raises:
            BudgetSpentError: The time is over.
        """
        removal = self.removal[scope]
        changes: dict[int, float] = {}
        low, high = -1, len(LEVELS)
        while high - low > 1:
            self.subject.check_time()
            middle = (low + high) // 2
            changes[middle] = self.change(removal, middle)
            low, high = (middle, high) if changes[middle] <= BOUND else (low, middle)
        hit = _hardest_hit(removal, min(high, len(LEVELS) - 1))
        return Reach(scope, 0.0 if low < 0 else LEVELS[low], changes.get(low, 0.0), changes.get(high), hit)

    def alone(self, layer: int) -> float:
        """Change of the outputs when half of the smallest weights of one layer alone are gone."""
        removal = self.removal["layer"]
        level = LEVELS.index(FRAGILE_LEVEL)
        gone = np.where((self.layer == layer) & (removal.gone <= level), 0, 1).astype(np.uint8)
        return self.change(nested_removal(self.items, gone, (FRAGILE_LEVEL,)), 0)

    def change(self, removal: Removal, level: int) -> float:
        """Difference of the outputs of a pruned model, over their norm."""
        value = self._runs.changes(removal, level)["relative_mse"]
        return float("inf") if value is None else float(np.sqrt(value))


def _hardest_hit(removal: Removal, level: int) -> tuple[str, float]:
    layers = removal.items.group["layer"]
    n = np.bincount(layers)
    gone = np.bincount(layers[removal.gone <= level], minlength=len(n))
    shares = np.where(n > 0, gone / np.maximum(n, 1), 0.0)
    worst = int(shares.argmax())
    return removal.items.table.graph.layers[worst].name, float(shares[worst])


def _headline(id_: str, trial: _Trial) -> AuditFinding:
    reaches = [trial.reach(scope) for scope in SCOPES]
    best = max(reaches, key=lambda reach: (reach.level, -reach.change))
    what = "weights" if trial.unit is PruningUnit.PARAMETER else "hidden units"
    how = {"layer": "the smallest of each layer", "global": "the smallest of all layers together"}
    sentence = (
        f"{100 * best.level:.0f} % of the {trial.items.n:,} {what} ({how[best.scope]}) can go before the "
        f"outputs change by more than {100 * BOUND:.0f} % of their norm on {count(trial.n, 'input')}"
    )
    for other in reaches:
        if other is not best and other.level < best.level:
            layer, gone = other.hit
            sentence += (
                f"; of {how[other.scope]} only {100 * other.level:.0f} %, since layer {quoted(layer)} then "
                f"loses {100 * gone:.0f} % of its own"
            )
    how_to = "--criterion l2 --unit unit " if trial.unit is PruningUnit.UNIT else ""
    return AuditFinding(
        id=id_,
        sentence=f"{sentence}.",
        key=(),
        action=f"`emergraph prune STORE {how_to}--scope {best.scope} --level {best.level:g} --model MODEL "
        "--write PRUNED.onnx`"
        if best.level
        else "Do not prune by magnitude without training again.",
        evidence={
            "bound": BOUND,
            "n_inputs": trial.n,
            "scope": best.scope,
            "scopes": [
                {"scope": r.scope, "level": r.level, "change": r.change, "hit": list(r.hit)} for r in reaches
            ],
        },
    )


def _fragile(trial: _Trial) -> AuditFinding | None:
    """The layers whose own pruning changes the outputs most."""
    layers = trial.items.table.graph.layers
    present = np.unique(trial.layer).tolist()
    changes: dict[str, float] = {}
    for position in present:
        if trial.subject.time_is_over():
            break
        changes[layers[position].name] = trial.alone(position)
    ranked = sorted(changes, key=lambda name: -changes[name])
    fragile = [name for name in ranked if changes[name] > BOUND][:3]
    if not fragile:
        return None
    said = ", ".join(f"{quoted(name)} by {100 * changes[name]:.0f} %" for name in fragile)
    looked = "" if len(changes) == len(present) else f" ({len(changes)} of {len(present)} layers were tried)"
    return AuditFinding(
        id="FRAGILE-LAYERS",
        sentence=f"With half of its smallest weights gone, one layer alone changes the outputs most: {said}"
        f"{looked}.",
        key=(),
        units={name: [] for name in fragile},
        evidence={"level": FRAGILE_LEVEL, "changes": {name: changes[name] for name in ranked}},
    )
