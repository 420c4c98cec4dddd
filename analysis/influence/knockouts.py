"""Layers first, then heads, then units: which of them move the outputs, and by how much."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.influence.edgesites import Site, Sites, edge_sites, traced_sums
from emergraph.analysis.influence.gradients import ADDS_UP, Gradients, NoGradient
from emergraph.analysis.influence.layerrun import SLOT_TOLERANCE, Job, LayerRun, Model, free_axes, summed
from emergraph.analysis.influence.masked import MaskedModel
from emergraph.analysis.influence.options import Baseline, InfluenceOptions, Method, ModelRunOptions
from emergraph.analysis.influence.slots import agrees
from emergraph.analysis.influence.target import Behaviour, Change, Target, is_distribution
from emergraph.analysis.modelruns.files import model_of
from emergraph.analysis.modelruns.samples import LabelledSamples
from emergraph.analysis.statistics.intervals import Support, student
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.operations import Kind, kind_of
from emergraph.exporters.runtime.assembly import assemble
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.opened import Opened, opened
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.refusals import ModelRefusedError
from emergraph.exporters.runtime.replacing import WHERE_SINCE
from emergraph.exporters.runtime.sources import FileSource
from emergraph.exporters.traces.options import TraceOptions
from emergraph.exporters.traces.prepare import given_samples
from emergraph.exporters.traces.running import activation_codes
from emergraph.exporters.traces.targets import Target as Layer
from emergraph.exporters.traces.targets import recordable, targets_of
from emergraph.optionforms import parse_axes
from emergraph.steps import steps

if TYPE_CHECKING:
    from pathlib import Path

    from emergraph.analysis.access import GraphAccess
    from emergraph.exporters.onnxfile.file import OnnxFile

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
    attributed: list[float] = field(default_factory=list)
    """What a gradient gives to it, one for each sample; empty without."""

    @property
    def key(self) -> tuple[str, int, int]:
        """What tells it from the others."""
        return self.what, self.layer.layer, int(self.places[0]) if self.what == "unit" else self.head or -1

    @property
    def effect(self) -> float:
        """Mean over its samples."""
        return float(np.mean([one.effect for one in self.changes])) if self.changes else 0.0


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
        self._gradients: Gradients | None = None
        self.without_gradient: dict[str, str] = {}
        self.gap: float | None = None
        self._values: dict[int, list[Array]] = {}
        self._seconds: dict[int, float] = {}
        outputs = [name for name in flat.outputs if self._is_float(name)]
        if not outputs:
            raise InvalidInputError("the model has no output of floats to look at")
        target = Target.parsed(asked.target, outputs)
        clean = self._outputs(target.output, self._model)
        target.check(clean[0].shape)
        self._clean = clean
        self.behaviour = Behaviour(target, is_distribution(clean))
        self._check_samples()
        self._loop_model: Model | None = None
        self._inside: dict[int, Layer] = {}
        self._open(at)

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

    def _outputs(self, name: str, model: Model) -> list[Floats]:
        """The output of every sample, run by run, as the model is."""
        model.load(assemble(model.prepared.run.flat, [name], model.source))
        return [self._own(model.fetch(model.feeds(k), [name])[name]) for k in range(self.n)]

    def _own(self, whole: Array) -> Floats:
        """One sample's part of an output of the whole model."""
        size = self._model.prepared.fixed
        axis = None if size is None else _axis_of(whole.shape, size)
        return _of_sample(whole if size is None or axis is None else np.split(whole, size, axis)[0])

    def _open(self, at: "GraphAccess") -> None:
        """Show what is inside of recurrent operations: gates and states, which no tensor holds."""
        nodes = {
            id(node): node.name
            for node in self._model.prepared.run.flat.nodes
            if kind_of(node) is Kind.RECURRENT
        }
        if not nodes:
            return
        try:
            with traced_sums(at, self._file, self._model.prepared) as sums:
                layers = {nodes[id(one.node)]: one.layers for one in sums.found if id(one.node) in nodes}
        except InvalidInputError:
            return  # with samples of other sizes than the graph's, what is left out stays so
        model, found = _with_loops(self._model, layers)
        targets = {one.layer: one for one in targets_of(self._reader.layers())}
        inside = {
            layer: replace(targets[layer], tensor=tensor, axes=(-1,))
            for name, tensors in found.tensors.items()
            for layer, tensor in zip(layers[name], tensors, strict=True)
        }
        reasons = {layer: why for name, why in found.refused.items() for layer in layers[name]}
        output = self.behaviour.target.output
        again = self._outputs(output, model)
        if not all(agrees(*pair, SLOT_TOLERANCE) for pair in zip(again, self._clean, strict=True)):
            reasons |= dict.fromkeys(inside, "written out, its operation gives something else")
            inside = {}
        for layer, why in reasons.items():
            if targets[layer].name in self.left_out:
                self.left_out[targets[layer].name] = why
        if inside:
            self._loop_model, self._inside, self._loops = model, inside, tuple(layers)
            outside = {one.layer: one for one in self.layers}
            self.layers = [both for _, both in sorted({**outside, **inside}.items())]
            for one in inside.values():
                self.left_out.pop(one.name, None)

    def _model_of(self, layer: Layer) -> Model:
        """The model that shows a layer."""
        return (
            self._loop_model if self._loop_model is not None and layer.layer in self._inside else self._model
        )

    def attribute(self, method: Method) -> str:
        """Attribute the target to units by gradients, besides; returns the converter's name."""
        target = self.behaviour.target
        outside = [one for one in self.layers if one.layer not in self._inside]
        tensors = list(dict.fromkeys(str(one.tensor) for one in outside))
        counts = [target.counts(one) for one in self._clean]
        found = Gradients(self._model, tensors, target.output, self._own, self._clean, counts)
        self._gradients, self._method = found, method
        return found.converter

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
        run = LayerRun(self._model_of(layer), layer, [output], self.n, codes, self._asked.at)
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
                if self._gradients is not None:
                    one.attributed.extend([0.0] * len(samples))
            return
        values = self._baselines(run) if patched is None else patched
        jobs = {one.key: [self._job(one, k, values) for k in samples] for one in group}
        everything = [job for one in group for job in jobs[one.key]]
        if self._gradients is not None:
            self._attribute(self._gradients, group, run, values, samples)
        run.check_slots(everything)
        begin = monotonic()
        clean = self._references(run, samples)
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

    def _attribute(
        self,
        by: Gradients,
        group: Sequence[Knockout],
        run: LayerRun,
        values: "Floats | list[Array]",
        samples: range,
    ) -> None:
        """What units of a layer give to the target over their baseline."""
        units = [one for one in group if one.what == "unit"]
        layer, found, gap = run.layer, [], 0.0
        try:
            for k in samples if units else ():
                away = run.away(k, values[k] if isinstance(values, list) else values)
                if self._method is Method.GRADIENT:
                    each = by.first_order(str(layer.tensor), k, away)
                else:
                    each, off = by.integrated(str(layer.tensor), k, away)
                    gap = max(gap, off)
                found.append(summed(each, layer.axes))
        except NoGradient as reason:
            self.without_gradient[layer.name] = str(reason)
            return
        if gap > ADDS_UP:
            self.without_gradient[layer.name] = f"what it gives is {gap:.2g} of the output from adding up"
            return
        if units and self._method is Method.INTEGRATED:
            self.gap = max(self.gap or 0.0, gap)
        for one in units:
            one.attributed.extend(float(each[one.places[0]]) for each in found)

    def _references(self, run: LayerRun, samples: range) -> dict[int, Floats]:
        """The output of the rest with nothing replaced, in runs like those of the knock-outs."""
        none, output = np.zeros(run.layer.n_units, bool), self.behaviour.target.output
        found = run.run([Job(k, none, np.zeros(run.layer.n_units)) for k in samples])
        return {
            k: _of_sample(_unslotted(one[output], run, output)) for k, one in zip(samples, found, strict=True)
        }

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
        model = self._other
        if layer.layer in self._inside:
            model, _ = _with_loops(model, self._loops)
        other = LayerRun(model, layer, [self.behaviour.target.output], self.n, None, self._asked.at)
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
        inside = [one for one in layers if one.layer in self._inside]
        return MaskedModel(
            self._model_of((inside or layers)[0]),
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


def _with_loops(model: Model, names: Iterable[str]) -> tuple[Model, Opened]:
    """A model with some recurrent operations as loops."""
    run = model.prepared.run
    found = opened(run.flat, names, run.values)
    run = replace(run, flat=found.flat, values={**run.values, **found.values})
    return replace(model, prepared=replace(model.prepared, run=run)), found


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
