"""Layers first, then heads, then units: which of them move the outputs, and by how much."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.influence.analysis import UNITS
from emergraph.analysis.influence.edgesites import Site, Sites, edge_sites, traced_sums
from emergraph.analysis.influence.layerrun import Job, LayerRun, Model, free_axes
from emergraph.analysis.influence.masked import MaskedModel
from emergraph.analysis.influence.options import Baseline, InfluenceOptions, ModelRunOptions
from emergraph.analysis.influence.target import Behaviour, Change, Target, is_distribution
from emergraph.analysis.modelruns.files import model_of
from emergraph.analysis.modelruns.samples import LabelledSamples
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.pickedunits import picked_units
from emergraph.analysis.statistics.intervals import Support, student
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.runtime.assembly import assemble
from emergraph.exporters.runtime.inputwords import parse_axes
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.refusals import ModelRefusedError
from emergraph.exporters.runtime.replacing import WHERE_SINCE
from emergraph.exporters.runtime.sources import FileSource
from emergraph.exporters.traces.options import TraceOptions
from emergraph.exporters.traces.prepare import given_samples
from emergraph.exporters.traces.record import recordable
from emergraph.exporters.traces.running import activation_codes
from emergraph.exporters.traces.targets import Target as Layer
from emergraph.exporters.traces.targets import targets_of
from emergraph.steps import steps

if TYPE_CHECKING:
    from pathlib import Path

    from emergraph.analysis.access import GraphAccess
    from emergraph.exporters.onnxfile import OnnxFile

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Array = NDArray[np.generic]

MOVED = 1e-6
"""Of the output's largest value: what changes less than this did not move."""
WIDENED = 1.25
"""Factor of the half-width of intervals: what a knock-out does differs between samples by factors, and a few
samples show too few of the large ones."""
FEWEST_SURVIVORS = 8
"""Units that are left in the last round of a short budget."""


@dataclass(frozen=True, eq=False)
class Knockout:
    """What is replaced together."""

    what: str
    """layer, head or unit."""
    layer: Layer
    places: NDArray[np.int64]
    """Within the layer."""
    head: int | None = None
    changes: list[Change] = field(default_factory=list)
    """One for each sample."""
    moved: list[bool] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, int, int]:
        """What tells it from the others."""
        return self.what, self.layer.layer, int(self.places[0]) if self.what == "unit" else self.head or -1

    @property
    def effect(self) -> float:
        """Mean over its samples."""
        return float(np.mean([one.effect for one in self.changes])) if self.changes else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class InfluenceResult(ShownInNotebooks):
    """What knock-outs did to one output."""

    frame: pl.DataFrame
    """As in the table `unit_influence`."""
    graph: str
    output: str
    measure: str
    baseline: str
    n_samples: int
    runs: dict[str, str]
    """By layer: how knock-outs were put into runs."""
    left_out: dict[str, str]
    """Layers that cannot be knocked out, and why."""
    layer_names: dict[int, str]
    first_units: dict[int, int]

    @property
    def structure_only(self) -> pl.DataFrame:
        """Units that no knock-out showed to move the output, with the number of samples tried."""
        rows = (pl.col("what") == "unit") & ~pl.col("moved") & (pl.col("n") > 0)
        return self.frame.filter(rows).select("layer", "unit", "n")

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        plain: dict[str, object] = {
            name: getattr(self, name)
            for name in ("graph", "output", "measure", "baseline", "n_samples", "runs", "left_out")
        }
        plain["structure_only"] = self.structure_only["unit"].to_list()
        plain["knockouts"] = self.frame.to_dicts()
        return plain


def measure_influence(at: "GraphAccess", run: ModelRunOptions, asked: InfluenceOptions) -> InfluenceResult:
    """Knock out layers, heads and units of a graph's model.

    Args:
        at: The graph.
        run: The model and its inputs.
        asked: What is knocked out, and what is looked at.

    Raises:
        UsageError: An option does not fit the model.
        InvalidInputError: The file is not the graph's model, or the inputs do not fit it.
    """
    asked.check()
    picked = None if asked.units is None else picked_units(at.path, at.id, asked.units, option="--units")
    reader = at.reader
    done = _done(at, run, asked) if asked.resume else {}
    with ModelProcess(RunLimits()) as process:
        bench = Bench(at, run, asked, process)
        knockouts = bench.knockouts(picked)
        bench.measure([one for one in knockouts if one.key not in done])
    frame = pl.DataFrame(
        [done.get(one.key) or bench.row(one) for one in knockouts],
        schema={c.name: UNITS.schema[c.name] for c in UNITS.columns},
        orient="row",
    )
    return InfluenceResult(
        frame=frame,
        graph=reader.name,
        output=bench.behaviour.target.output,
        measure=bench.behaviour.measure,
        baseline=bench.baseline_text,
        n_samples=bench.n,
        runs=bench.notes,
        left_out=bench.left_out,
        layer_names={one.layer: one.name for one in bench.layers},
        first_units={one.layer: one.first_unit for one in bench.layers},
    )


def _done(
    at: "GraphAccess", run: ModelRunOptions, asked: InfluenceOptions
) -> dict[tuple[str, int, int], tuple[object, ...]]:
    """Rows of the newest run of the same knock-outs that had all samples."""
    same = {name: value for name, value in {**run.kept(), **asked.kept()}.items() if name not in _FREE}
    rows = at.store.connection.execute(
        "SELECT id, parameters FROM runs WHERE graph = ? AND command = 'influence' ORDER BY id DESC",
        [at.reader.id],
    ).fetchall()
    for number, parameters in rows:
        kept = json.loads(parameters)
        if all(kept.get(name) == value for name, value in same.items()):
            names = ", ".join(c.name for c in UNITS.columns)
            found = at.store.connection.execute(
                f"SELECT {names}, n >= max(n) OVER () AS whole FROM unit_influence WHERE run = ?",  # noqa: S608
                [number],
            ).fetchall()
            first = dict(at.reader.layers().select("id", "first_unit").iter_rows())
            return {
                (row[0], row[1], row[2] - first[row[1]] if row[0] == "unit" else row[3] or -1): row[:-1]
                for row in found
                if row[-1]
            }
    return {}


_FREE = frozenset({"budget", "resume", "units"})
"""Options in which a run may differ from the one that it goes on from."""


class Bench:
    """A model on which things are knocked out."""

    def __init__(
        self, at: "GraphAccess", run: ModelRunOptions, asked: InfluenceOptions, process: ModelProcess
    ) -> None:
        """Open the model and the samples; run the model once as it is."""
        assert run.model is not None  # noqa: S101 - checked
        reader = at.reader
        self._reader, self._asked = reader, asked
        file = model_of(reader, run.model, root=at.root)
        self._file = file
        self._options = TraceOptions(sample_axes=parse_axes(run.sample_axis), root=at.root)
        self._model = self._opened(file, run.inputs, process)
        flat = self._model.prepared.run.flat
        if flat.opsets.get("", 0) < WHERE_SINCE:
            raise InvalidInputError(
                f"the model is of version {flat.opsets.get('', 0)} of the standard operations; knock-outs "
                f"need {WHERE_SINCE} or later: convert it with onnx.version_converter"
            )
        self.n = min(self._model.prepared.samples.n, asked.samples or self._model.prepared.samples.n)
        self._other = None if asked.patch is None else self._opened(file, asked.patch, process)
        self.layers, self.left_out = recordable(targets_of(reader.layers()), self._model.prepared.run)
        self._codes = activation_codes(flat, self._model.source)
        self.notes: dict[str, str] = {}
        self._values: dict[int, list[Array]] = {}
        self._seconds: dict[int, float] = {}
        outputs = [name for name in flat.outputs if self._is_float(name)]
        if not outputs:
            raise InvalidInputError("the model has no output of floats to look at")
        target = Target.parsed(asked.target, outputs)
        clean = self._outputs(target.output)
        target.check(clean[0].shape)
        self._clean = clean
        self.behaviour = Behaviour(target, is_distribution(clean))
        self._check_samples()

    @property
    def baseline_text(self) -> str:
        """What activations are replaced by, in words."""
        if self._asked.patch is not None:
            return f"the same sample of {self._asked.patch.name}"
        texts = {
            Baseline.MEAN: f"each unit's mean over the {self.n} samples and their positions",
            Baseline.ZERO: "zero",
            Baseline.RESAMPLE: f"another sample (seed {self._asked.seed})",
        }
        return texts[self._asked.baseline]

    def _opened(self, file: "OnnxFile", inputs: "Path | None", process: ModelProcess) -> Model:
        arrays = LabelledSamples(inputs=inputs).arrays or {}
        return Model(given_samples(file, arrays, self._options), FileSource(file), process, RunLimits())

    def _check_samples(self) -> None:
        if self._other is not None and self._other.prepared.samples.n < self.n:
            raise UsageError(
                f"--patch holds {self._other.prepared.samples.n} samples; expected one for each of {self.n}"
            )
        if self._other is None and self._asked.baseline is Baseline.RESAMPLE and self.n < 2:
            raise UsageError("--baseline resample takes another sample, and there is one only")

    def _is_float(self, name: str) -> bool:
        value = self._model.prepared.run.values.get(name)
        return value is not None and value.dtype is not None and value.dtype.kind == "f"

    def _outputs(self, name: str) -> list[Floats]:
        """The output of every sample, run by run, as the model is."""
        model, flat = self._model, self._model.prepared.run.flat
        model.load(assemble(flat, [name], model.source))
        size = model.prepared.fixed
        found = [model.fetch(model.feeds(k), [name])[name] for k in range(self.n)]
        if size is not None:
            found = [
                np.split(one, size, axis)[0] if axis is not None else one
                for one in found
                for axis in [_axis_of(one.shape, size)]
            ]
        return [_of_sample(one) for one in found]

    # What is knocked out

    def knockouts(self, picked: set[int] | None) -> list[Knockout]:
        """Layers, heads and units; the outputs themselves are left out, where they are not picked."""
        roles = self._reader.units()["role"].to_list()
        everything: list[Knockout] = []
        units: list[Knockout] = []
        for layer in self.layers:
            places = np.arange(layer.n_units)
            if picked is not None:
                places = places[[layer.first_unit + int(k) in picked for k in places]]
            elif roles[layer.first_unit] != "hidden":
                continue
            if len(places) == 0:
                continue
            everything.append(Knockout("layer", layer, np.arange(layer.n_units)))
            if not self._asked.only_layers:
                units += [Knockout("unit", layer, places[k : k + 1]) for k in range(len(places))]
        if not everything:
            raise UsageError("no layer with an activation of its own is left to knock out")
        return [*everything, *self._heads({one.layer.layer for one in everything}), *units]

    def _heads(self, layers: set[int]) -> list[Knockout]:
        """Of each attention head the units that its scores weigh."""
        found = self._reader.connection.execute(_HEADS, [self._reader.id]).fetchall()
        by_layer = {one.layer: one for one in self.layers}
        grouped: dict[tuple[int, int], list[int]] = {}
        for score, layer, unit in found:
            if layer in layers and layer in by_layer:
                grouped.setdefault((score, layer), []).append(unit - by_layer[layer].first_unit)
        return [
            Knockout("head", by_layer[layer], np.unique(np.array(units, np.int64)), head=score)
            for (score, layer), units in grouped.items()
            if len(set(units)) < by_layer[layer].n_units
        ]

    # Measuring

    def measure(self, knockouts: Sequence[Knockout]) -> None:
        """Fill in the changes of all knock-outs, or of as many as the budget lets."""
        first = [one for one in knockouts if one.what != "unit"]
        units = [one for one in knockouts if one.what == "unit"]
        self._measure(first, range(self.n), None)
        if not units:
            return
        budget = self._asked.budget
        begin = monotonic()
        if budget is None or self._estimate(units) * self.n <= budget:
            self._measure(units, range(self.n), None if budget is None else begin + budget)
            return
        done, survivors = 0, units
        while survivors and done < self.n and monotonic() < begin + budget:
            rounds = max(1, int(np.ceil(np.log2(max(2, len(survivors) / FEWEST_SURVIVORS)))))
            left = (begin + budget - monotonic()) / rounds
            more = int(left / max(self._estimate(survivors), 1e-9))
            more = min(self.n - done, max(1, more))
            self._measure(survivors, range(done, done + more), begin + budget)
            done += more
            ranked = sorted(
                (one for one in survivors if len(one.changes) == done), key=lambda one: -one.effect
            )
            if len(ranked) > FEWEST_SURVIVORS:
                ranked = ranked[: max(FEWEST_SURVIVORS, len(ranked) // 2)]
            survivors = ranked

    def _estimate(self, knockouts: Sequence[Knockout]) -> float:
        """Seconds for one sample of all of them, by what their layers took."""
        return sum(self._seconds.get(one.layer.layer, 0.0) for one in knockouts)

    def _measure(self, knockouts: Sequence[Knockout], samples: range, until: float | None) -> None:
        by_layer: dict[int, list[Knockout]] = {}
        for one in knockouts:
            by_layer.setdefault(one.layer.layer, []).append(one)
        for group in steps(list(by_layer.values()), "layers whose units are knocked out"):
            if until is not None and monotonic() > until:
                return
            try:
                self._measure_layer(group, samples, until)
            except ModelRefusedError as error:
                self.left_out[group[0].layer.name] = str(error)

    def _measure_layer(self, group: Sequence[Knockout], samples: range, until: float | None) -> None:
        layer = group[0].layer
        codes = self._codes.get(str(layer.tensor))
        output = self.behaviour.target.output
        patched = self._patched(layer)
        run = LayerRun(self._model, layer, [output], self.n, codes, self._asked.at)
        free = free_axes(run.activation(0).shape, layer.axes)
        if self._asked.at and len(self._asked.at) != len(free):
            named = len(self._asked.at)
            self.left_out[layer.name] = f"it has {len(free)} axes of positions, and --at names {named}"
            return
        if not run.reaches:
            self.notes[layer.name] = f"no run: {output} does not read it"
            for one in group:
                one.changes.extend([Change(0.0, 0.0, 0.0)] * len(samples))
                one.moved.extend([False] * len(samples))
            return
        values = self._baselines(run) if patched is None else patched
        jobs = {one.key: [self._job(one, k, values) for k in samples] for one in group}
        everything = [job for one in group for job in jobs[one.key]]
        run.check_slots(everything)
        begin = monotonic()
        clean = {k: self._reference(run, k) for k in samples}
        for start in range(0, len(group), CHUNK):
            part = group[start : start + CHUNK]
            found = run.run([job for one in part for job in jobs[one.key]])
            for number, result in enumerate(found):
                one, sample = part[number // len(samples)], samples[number % len(samples)]
                self._take_in(one, clean[sample], _of_sample(_unslotted(result[output], run, output)))
            if until is not None and monotonic() > until:
                break
        self._seconds[layer.layer] = (monotonic() - begin) / max(1, len(everything))
        self.notes[layer.name] = run.note

    def _reference(self, run: LayerRun, sample: int) -> Floats:
        """The output of the rest with nothing replaced."""
        none = np.zeros(run.layer.n_units, bool)
        (found,) = run.run([Job(sample, none, np.zeros(run.layer.n_units))])
        output = self.behaviour.target.output
        return _of_sample(_unslotted(found[output], run, output))

    def _job(self, one: Knockout, sample: int, values: "Floats | list[Array]") -> Job:
        knocked = np.zeros(one.layer.n_units, bool)
        knocked[one.places] = True
        return Job(sample, knocked, values[sample] if isinstance(values, list) else values)

    def _baselines(self, run: LayerRun) -> "Floats | list[Array]":
        """One value per unit, or one tensor per sample."""
        if self._asked.baseline is Baseline.RESAMPLE:
            shift = 1 + self._asked.seed % (self.n - 1)
            return [run.activation((k + shift) % self.n) for k in range(self.n)]
        return run.zeros() if self._asked.baseline is Baseline.ZERO else run.means()

    def _patched(self, layer: Layer) -> list[Array] | None:
        """What the layer gives in the samples of the other file; None without one."""
        if self._other is None:
            return None
        other = LayerRun(self._other, layer, [self.behaviour.target.output], self.n, None, self._asked.at)
        return [other.activation(k) for k in range(self.n)]

    def _take_in(self, one: Knockout, clean: Floats, found: Floats) -> None:
        one.changes.append(self.behaviour.change(clean, found))
        scale = float(np.abs(clean[np.isfinite(clean)]).max(initial=0.0))
        with np.errstate(invalid="ignore"):
            one.moved.append(bool((np.abs(found - clean) > MOVED * scale).any()))

    def edge_sites(self, at: "GraphAccess", sources: Bools, targets: Bools) -> Sites:
        """Where the edges between some units can be ablated."""
        asked = self._asked
        with traced_sums(at, self._file, self._model.prepared) as sums:
            return edge_sites(self._model, sums, sources, targets, self.n, asked.baseline, asked.seed)

    def masked(self, layers: Sequence[Layer], sites: Sequence[Site] = ()) -> MaskedModel:
        """The model with all units of some layers replaceable at once, and the edges of some sites."""
        return MaskedModel(
            self._model,
            layers,
            self.behaviour.target.output,
            n=self.n,
            baseline=self._asked.baseline,
            seed=self._asked.seed,
            codes=self._codes,
            sites=sites,
        )

    def row(self, one: Knockout) -> tuple[object, ...]:
        """A knock-out as a row of the table."""
        n = len(one.changes)
        effects = np.array([change.effect for change in one.changes])
        targets = np.array([change.target for change in one.changes])
        effect = student(effects, support=Support.POSITIVE, widen=WIDENED) if n else None
        target = student(targets, support=Support.REAL, widen=WIDENED) if n else None
        note = self.left_out.get(one.layer.name) or self.notes.get(
            one.layer.name, "not reached in the budget"
        )
        return (
            one.what,
            one.layer.layer,
            one.layer.first_unit + int(one.places[0]) if one.what == "unit" else None,
            one.head,
            len(one.places),
            self.behaviour.measure,
            *((None,) * 3 if effect is None else (effect.mean, *_ends(effect.low, effect.high))),
            float(effects.max()) if n else None,
            *((None,) * 3 if target is None else (target.mean, *_ends(target.low, target.high))),
            float(np.mean([change.decision for change in one.changes])) if n else None,
            any(one.moved) if n else None,
            n,
            note,
        )


CHUNK = 64
"""Knock-outs whose outputs are in memory together."""

_HEADS = """
WITH weighed AS (
    SELECT e.block, e.src, e.dst, l.id AS layer, l.kind FROM edges AS e
    JOIN layers AS l ON l.graph = e.graph AND l.id = e.src_layer
    JOIN layers AS t ON t.graph = e.graph AND t.id = e.layer
    WHERE e.graph = ? AND e.kind = 'attention' AND t.kind = 'context'
), pairs AS (
    SELECT s.src AS score, v.src AS unit, v.layer FROM weighed AS s
    JOIN weighed AS v ON v.dst = s.dst AND v.kind <> 'score' WHERE s.kind = 'score'
)
SELECT DISTINCT score, layer, unit FROM pairs ORDER BY ALL
"""


def _ends(low: float, high: float) -> tuple[float | None, float | None]:
    return (low if np.isfinite(low) else None, high if np.isfinite(high) else None)


def _axis_of(shape: tuple[int, ...], size: int) -> int | None:
    """The axis that a fixed batch lies along, most likely."""
    axes = [axis for axis, extent in enumerate(shape) if extent % size == 0]
    return next((axis for axis in axes if shape[axis] == size), axes[0] if axes else None)


def _unslotted(output: Array, run: LayerRun, name: str) -> Array:
    """The output with the axis of slots, of size 1, in front."""
    axis = run.slot_axes.get(name)
    if axis is not None and output.shape[axis] == 1:
        return np.moveaxis(output, axis, 0)
    return output


def _of_sample(output: Array) -> Floats:
    """A sample's output as floats, without an axis of samples in front."""
    found = output.astype(np.float64)
    return found[0] if found.ndim > 1 and found.shape[0] == 1 else found
