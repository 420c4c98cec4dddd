"""Runs of what lies after one layer, with the layer's activations replaced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.influence.slots import Arrays, Layout, agrees, found_fixed_layout, found_layout
from emergraph.exporters.runtime.assembly import Assembly, ModelSource, assemble
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.pooling import Codes, pooled
from emergraph.exporters.runtime.process import EVERYTHING, ModelProcess
from emergraph.exporters.runtime.refusals import ModelRefusedError
from emergraph.exporters.runtime.replacing import Rest, following, replacing
from emergraph.exporters.traces.prepare import Prepared
from emergraph.exporters.traces.targets import Target

Array = NDArray[np.generic]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

MOST_SLOTS = 64
"""Of one run."""
MEMORY_SHARE = 8
"""The tensors of one run take at most an eighth of the child's memory."""
SLOT_TOLERANCE = 1e-5
"""Of the output's largest value: how far slots side by side may be from what each gives alone."""
CHECKED = 3
"""Units whose runs side by side are compared with runs alone."""


@dataclass(frozen=True, eq=False)
class Job:
    """One sample with some units replaced."""

    sample: int
    knocked: Bools
    """(n_units,) which units of the layer."""
    value: Floats | Array
    """(n_units,) what they are replaced by, or a whole tensor of one sample."""


@dataclass(frozen=True)
class Model:
    """A model, its samples, and the process that runs it."""

    prepared: Prepared
    source: ModelSource
    process: ModelProcess
    limits: RunLimits

    def feeds(self, sample: int) -> dict[str, Array]:
        """The inputs of one sample; of a model with a fixed batch, that many times."""
        return self.prepared.samples.feeds([sample] * (self.prepared.fixed or 1))

    def load(self, assembly: Assembly, *, many_runs: bool = False) -> None:
        """Let the process load a model. Its time limit is for each step: all of them are the command's."""
        self.process.renew()
        self.process.load(assembly, many_runs=many_runs)

    def fetch(self, feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        """Tensors of one run, with all their elements."""
        self.process.renew()
        found = self.process.run(feeds, list(names), small=EVERYTHING)
        return {name: value.values for name, value in found.items() if value.values is not None}


class LayerRun:
    """What lies after one layer.

    The model runs once on each sample; what the layer gives there, and what else the rest of the model reads,
    is kept. Then only that rest runs, several slots (a sample with some units replaced) at a time if three of
    them give together what each gives alone.
    """

    def __init__(
        self,
        model: Model,
        layer: Target,
        outputs: Sequence[str],
        n: int,
        codes: Codes | None,
        at: Sequence[int],
    ) -> None:
        """Run the model on the first n samples, and load what lies after the layer."""
        self._model, self.layer, self._codes, self._at = model, layer, codes, at
        run = model.prepared.run
        self._tensor = str(layer.tensor)
        changed, names = replacing(run.flat, [self._tensor], run.values)
        self._names = names[self._tensor]
        wanted = [self._names.output if name == self._tensor else name for name in outputs]
        self._rest: Rest = following(changed, [self._names.mask, self._names.value], wanted, run.values)
        self._sides = [name for name in self._rest.reads if name != self._tensor]
        self.outputs = {
            name: want for name, want in zip(outputs, wanted, strict=True) if want in self._rest.outputs
        }
        self._clean, self._layout = self._states(n)
        self.note = "one run for each"
        self.n_runs = 0
        self._load_rest()

    @property
    def reaches(self) -> bool:
        """Whether any output depends on the layer."""
        return bool(self.outputs)

    def activation(self, sample: int) -> Array:
        """What the layer gives in one sample."""
        return self._clean[sample][self._tensor]

    def means(self) -> Floats:
        """(n_units,) of every unit the mean over all samples and positions; codes stay codes."""
        each = [pooled(self.activation(k), self.layer.axes).mean[0] for k in range(len(self._clean))]
        return np.asarray(np.mean(each, axis=0))

    def zeros(self) -> Floats:
        """(n_units,) of every unit what stands for zero."""
        return np.full(self.layer.n_units, 0.0 if self._codes is None else self._codes.zero)

    @property
    def _fixed(self) -> int | None:
        return self._model.prepared.fixed

    def _states(self, n: int) -> tuple[list[dict[str, Array]], Layout | None]:
        """What the rest reads, sample by sample, and where slots are in it."""
        model, flat = self._model, self._model.prepared.run.flat
        given = {one.name for one in flat.inputs}
        names = [self._tensor, *self._sides]
        made = [name for name in names if name not in given]

        def all_of(feeds: dict[str, Array]) -> dict[str, Array]:
            found = model.fetch(feeds, made) if made else {}
            return {name: found[name] if name in found else feeds[name] for name in names}

        if made:
            model.load(assemble(flat, made, model.source))
        whole = [all_of(model.feeds(k)) for k in range(n)]
        samples = model.prepared.samples
        if all(axis is None for axis in samples.axes.values()):
            return whole, None
        last = n - 1
        try:
            if self._fixed is None:
                found = found_layout([whole[0], whole[last]], all_of(samples.feeds([0, last])))
                if found is None:
                    return whole, None
                layout, sizes = found
                if sizes:  # shapes that hold the number of slots: all runs have that many
                    count = self._at_once()
                    of_all = all_of(samples.feeds([0] * count))
                    layout = Layout(layout.axes, count, {name: of_all[name] for name in sizes})
                return whole, self._with_masks(layout)
            order = [0, *[last] * (self._fixed - 1)]
            mixed = all_of(samples.feeds(order))
        except ModelRefusedError:
            return whole, None
        fixed = self._with_masks(found_fixed_layout(whole[0], whole[last], mixed, self._fixed))
        if fixed is None:
            return whole, None
        return [fixed.apart(one, 1)[0] for one in whole], fixed

    def _with_masks(self, layout: Layout | None) -> Layout | None:
        """The layout with the inserted inputs, which lie like the tensor; None where it shows no slots."""
        axis = None if layout is None else layout.axes[self._tensor]
        if layout is None or axis is None:
            return None
        axes = {**layout.axes, self._names.mask: axis, self._names.value: axis}
        return replace(layout, axes=axes)

    def _load_rest(self) -> None:
        if self.reaches:
            ends = list(self.outputs.values())
            self._model.load(assemble(self._rest.flat, ends, self._model.source), many_runs=True)

    # Jobs

    def check_slots(self, jobs: Sequence[Job]) -> None:
        """Compare a few jobs side by side with each alone; keep to single runs where they differ.

        From then on all runs have as many slots: sums of another number of rows are rounded otherwise.
        """
        if self._layout is None or not self.reaches or len(jobs) < 2:
            return
        if self._layout.fixed is None:
            count = max(CHECKED, min(self._at_once(), len(jobs)))
            self._layout = replace(self._layout, fixed=count)
        chosen = [jobs[k * (len(jobs) - 1) // max(1, CHECKED - 1)] for k in range(CHECKED)]
        alone = [self._alone(job) for job in chosen]
        try:
            layout = self._with_outputs(self._layout, chosen, alone)
        except ModelRefusedError:
            layout = None
        self._layout = layout
        if layout is not None:
            what = "slots of the fixed batch" if self._fixed else "of them together"
            self.note = f"up to {layout.fixed} {what}; {CHECKED} agree with single runs"

    def _with_outputs(self, layout: Layout, jobs: Sequence[Job], alone: Sequence[Arrays]) -> Layout | None:
        """The layout with the outputs' axes; None where jobs side by side are not what each gives alone."""
        together = self._fetch(layout.together([self._slot(job, layout) for job in jobs]))
        count = len(jobs)
        for name, whole in together.items():
            size = layout.fixed or count
            axes = [axis for axis in range(whole.ndim) if whole.shape[axis] % size == 0]
            axes.sort(key=lambda axis, whole=whole, size=size: whole.shape[axis] != size)  # type: ignore[misc]
            for axis in axes:
                pieces = np.split(whole, size, axis)[:count]
                pairs = zip(pieces, (one[name] for one in alone), strict=True)
                if all(agrees(piece, one, SLOT_TOLERANCE) for piece, one in pairs):
                    layout = replace(layout, axes={**layout.axes, name: axis})
                    break
            else:
                return None
        return layout

    def run(self, jobs: Sequence[Job]) -> list[dict[str, Array]]:
        """The outputs of every job, by name."""
        layout = self._layout
        if layout is None:
            return [self._named(self._alone(job)) for job in jobs]
        found: list[dict[str, Array]] = []
        step = layout.fixed or self._at_once()
        for start in range(0, len(jobs), step):
            part = jobs[start : start + step]
            whole = self._fetch(layout.together([self._slot(job, layout) for job in part]))
            found += [self._named(one) for one in layout.apart(whole, len(part))]
        return found

    def _named(self, found: Arrays) -> dict[str, Array]:
        return {name: found[made] for name, made in self.outputs.items()}

    def _alone(self, job: Job) -> dict[str, Array]:
        """The outputs of one job in a run of its own."""
        if self._layout is None or self._fixed is None:
            return self._fetch(self._slot(job, None))
        whole = self._fetch(self._layout.together([self._slot(job, self._layout)]))
        return {
            name: np.split(array, self._fixed, self._slot_axis(array))[0] for name, array in whole.items()
        }

    def _slot_axis(self, output: Array) -> int:
        fixed = self._fixed or 1
        axes = [axis for axis in range(output.ndim) if output.shape[axis] % fixed == 0]
        return next((axis for axis in axes if output.shape[axis] == fixed), axes[0] if axes else 0)

    def _fetch(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.n_runs += 1
        return self._model.fetch(feeds, list(self.outputs.values()))

    def _slot(self, job: Job, layout: Layout | None) -> dict[str, Array]:
        clean = self._clean[job.sample]
        tensor = clean[self._tensor]
        axis = None if layout is None else layout.axes.get(self._tensor)
        knocked = np.asarray(spread(job.knocked, tensor, self.layer.axes), bool)
        if self._at:
            knocked = knocked & self._position(tensor)
        value: Array = job.value
        if value.shape != tensor.shape or value.ndim == 1:
            value = spread(np.asarray(job.value), tensor, self.layer.axes)
        read = {name: clean[name] for name in self._rest.reads}
        slot = {**read, self._names.mask: ~knocked, self._names.value: _as_type(value, tensor.dtype)}
        if axis is not None and layout is not None:
            for name in (self._names.mask, self._names.value):
                shape = list(slot[name].shape)
                shape[axis] = tensor.shape[axis]
                slot[name] = np.broadcast_to(slot[name], shape)
        return slot

    def away(self, sample: int, value: Floats | Array) -> Floats:
        """How far a sample's activation is from what it is replaced by, where it is."""
        tensor = self.activation(sample)
        if value.shape != tensor.shape or value.ndim == 1:
            value = spread(value, tensor, self.layer.axes)
        far: Floats = np.asarray(tensor, np.float64) - np.asarray(value, np.float64)
        return np.where(self._position(tensor), far, 0.0) if self._at else far

    def _position(self, tensor: Array) -> Bools:
        """Where in the tensor the one position is."""
        free = free_axes(tensor.shape, self.layer.axes)
        chosen = np.ones(tensor.shape, bool)
        for axis, index in zip(free, self._at, strict=True):
            at = np.arange(tensor.shape[axis]) == index % tensor.shape[axis]
            chosen &= at.reshape([-1 if k == axis else 1 for k in range(tensor.ndim)])
        return chosen

    def _at_once(self) -> int:
        if self._fixed is not None:
            return self._fixed
        values = self._model.prepared.run.values
        made = [name for node in self._rest.flat.nodes for name in node.output if name in values]
        one = sum(4 * prod(values[name].shape or ()) for name in made) or 1
        return int(min(MOST_SLOTS, max(1, self._model.limits.memory_bytes // MEMORY_SHARE // one)))

    @property
    def slot_axes(self) -> Mapping[str, int | None]:
        """Where the slots are in each output, by name; empty where each has a run of its own."""
        axes = {} if self._layout is None else self._layout.axes
        return {name: axes[made] for name, made in self.outputs.items() if made in axes}


def spread(per_unit: Array, tensor: Array, unit_axes: Sequence[int]) -> Array:
    """One number per unit, such that it broadcasts to the tensor."""
    axes = [axis % tensor.ndim for axis in unit_axes]
    laid = per_unit.reshape([tensor.shape[axis] for axis in axes]).transpose(np.argsort(axes))
    return laid.reshape([tensor.shape[axis] if axis in axes else 1 for axis in range(tensor.ndim)])


def summed(values: Floats, unit_axes: Sequence[int]) -> Floats:
    """(n_units,) the sum over the elements of every unit."""
    axes = [axis % values.ndim for axis in unit_axes]
    sizes = [values.shape[axis] for axis in axes]
    return np.asarray(np.moveaxis(values, axes, range(len(axes))).reshape(prod(sizes), -1).sum(axis=1))


def free_axes(shape: Sequence[int], unit_axes: Sequence[int]) -> list[int]:
    """The axes of positions: those of more than one element that are no units'."""
    units = {axis % len(shape) for axis in unit_axes}
    return [axis for axis, size in enumerate(shape) if size > 1 and axis not in units]


def _as_type(values: Array, dtype: np.dtype[np.generic]) -> Array:
    if dtype.kind in "iu":
        info = np.iinfo(dtype.str)
        return np.clip(np.rint(np.asarray(values, np.float64)), info.min, info.max).astype(dtype)
    return values.astype(dtype)
