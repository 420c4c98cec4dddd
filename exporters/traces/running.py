"""Running a model over samples and keeping what every unit does in each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError
from emergraph.exporters.operations import VIEWING, Kind, OpSpec, spec_of
from emergraph.exporters.runtime.assembly import ModelSource, assemble
from emergraph.exporters.runtime.concrete import ConcreteRun, made
from emergraph.exporters.runtime.flat_model import FlatModel
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.pooling import Codes, Pooled, SampleAxis, pooled
from emergraph.exporters.runtime.process import Fetched, ModelProcess, Pooling
from emergraph.exporters.runtime.quoting import quoted
from emergraph.exporters.runtime.refusals import ModelRefusedError
from emergraph.exporters.traces.samples import Samples
from emergraph.exporters.traces.statistics import UnitStatistics
from emergraph.exporters.traces.targets import Target, by_tensor

# Where samples are in the tensors that a mini-batch gives, found out by experiment.

Floats = NDArray[np.float64]
UnitAxes = Mapping[str, tuple[int, ...]]
Run = Callable[[Sequence[int], Mapping[str, Pooling]], dict[str, Fetched]]
"""Runs the samples of these numbers together and pools the tensors; without pooling only shapes come back."""

RELATIVE_TOLERANCE = 1e-2
"""Of the largest value. Mini-batches change the order of sums; mixing samples changes results by far more."""


@dataclass(frozen=True)
class Mixed:
    """A tensor along which samples cannot be told apart."""

    tensor: str


Place = SampleAxis | None
"""None: the tensor does not depend on the samples."""


def axes_of_dynamic_batch(run: Run, units: UnitAxes, pair: tuple[int, int]) -> dict[str, Place] | Mixed:
    """Where samples are, for a model that takes any number of them.

    Args:
        run: Runs samples together.
        units: Unit axes by tensor.
        pair: Two different samples to try.
    """
    one, two = pair
    alone = [run([index], {name: Pooling(axes) for name, axes in units.items()}) for index in pair]
    together = run([one, two], {})
    expected = {name: _rows(alone[0][name], alone[1][name]) for name in units}
    candidates: dict[str, Iterator[Place]] = {}
    for name in units:
        candidates[name] = iter(_doubled(alone[0][name].shape or (), together[name].shape or ()))
    return _settle(lambda asked: run([one, two], asked), units, candidates, expected, 2)


def axes_of_fixed_batch(run: Run, units: UnitAxes, batch: Sequence[int]) -> dict[str, Place] | Mixed:
    """Where samples are, for a model that takes just as many as `batch` has."""
    size = len(batch)
    shapes = run(batch, {})
    candidates: dict[str, Iterator[Place]] = {}
    for name in units:
        shape = shapes[name].shape or ()
        places = [
            SampleAxis(axis, innermost)
            for axis, extent in sorted(enumerate(shape), key=lambda pair: pair[1] != size)
            for innermost in ((False,) if extent == size else (False, True))
            if extent and extent % size == 0
        ]
        candidates[name] = iter(places)
    found: dict[str, Place] = {}
    while len(found) < len(units):
        asked = {name: next(candidates[name], None) for name in units if name not in found}
        lost = next((name for name, place in asked.items() if place is None), None)
        if lost is not None:
            return Mixed(lost)
        pooling = {name: Pooling(units[name], place, size) for name, place in asked.items()}
        forward, backward = run(batch, pooling), run(list(reversed(batch)), pooling)
        found |= {
            name: place
            for name, place in asked.items()
            if _alike(_values(forward[name])[::-1], _values(backward[name]))
        }
    return found


def _settle(
    run: Callable[[Mapping[str, Pooling]], dict[str, Fetched]],
    units: UnitAxes,
    candidates: Mapping[str, Iterator[Place]],
    expected: Mapping[str, Floats],
    n_samples: int,
) -> dict[str, Place] | Mixed:
    """Try each tensor's places in turn until one gives the expected rows."""
    found: dict[str, Place] = {}
    while len(found) < len(units):
        asked: dict[str, Place] = {}
        for name in units:
            if name in found:
                continue
            try:
                asked[name] = next(candidates[name])
            except StopIteration:
                return Mixed(name)
        pooling = {
            name: Pooling(units[name], place, n_samples if place is not None else 1)
            for name, place in asked.items()
        }
        for name, fetched in run(pooling).items():
            rows = np.broadcast_to(_values(fetched), expected[name].shape)
            if _alike(rows, expected[name]):
                found[name] = asked[name]
    return found


def _doubled(alone: Sequence[int], together: Sequence[int]) -> list[Place]:
    """Places that fit the shapes of one sample and of two."""
    if tuple(alone) == tuple(together):
        return [None]
    changed = [axis for axis, (one, two) in enumerate(zip(alone, together, strict=False)) if one != two]
    if len(alone) != len(together) or len(changed) != 1 or together[changed[0]] != 2 * alone[changed[0]]:
        return []
    (axis,) = changed
    return [SampleAxis(axis)] if alone[axis] == 1 else [SampleAxis(axis), SampleAxis(axis, innermost=True)]


def _rows(*results: Fetched) -> Floats:
    return np.concatenate([_values(result) for result in results])


def _values(result: Fetched) -> Floats:
    return _pooled(result).mean


def _pooled(result: Fetched) -> Pooled:
    if result.pooled is None:
        raise RuntimeError("a tensor came back without what was asked of it")
    return result.pooled


def _alike(found: Floats, expected: Floats) -> bool:
    scale = float(np.max(np.abs(expected[np.isfinite(expected)]), initial=0.0))
    return bool(np.allclose(found, expected, 0.0, RELATIVE_TOLERANCE * scale, equal_nan=True))


# Activation tensors that hold codes: what a quantized operation makes stands for (code - zero) * scale.


def activation_codes(flat: FlatModel, source: ModelSource) -> Mapping[str, Codes]:
    """The tensors of a model that hold codes with a constant scale and zero point.

    Args:
        flat: The model; operations in data order.
        source: Gives the values of its initializers.

    Returns:
        By tensor name. Tensors whose scale is data, or differs between channels, are left out.
    """
    found: dict[str, Codes] = {}
    for node in flat.nodes:
        spec = spec_of(node)
        codes = None if spec.codes_out is None else _of_inputs(node, spec.codes_out, flat, source)
        if _keeps_codes(spec, node) and node.input[0] in found:
            codes = found[node.input[0]]
        if codes is not None:
            found.update(dict.fromkeys((name for name in node.output if name), codes))
    return found


def _keeps_codes(spec: OpSpec, node: onnx.NodeProto) -> bool:
    """Whether an operation on codes gives codes of the same scale."""
    largest = spec.kind in (Kind.POOL, Kind.GLOBAL_POOL) and not spec.is_linear
    return spec.kind in VIEWING or (largest and spec.keeps_value) or node.op_type == "Relu"


def _of_inputs(node: onnx.NodeProto, position: int, flat: FlatModel, source: ModelSource) -> Codes | None:
    scale = _scalar(node, position, flat, source)
    zero = _scalar(node, position + 1, flat, source)
    has_zero = position + 1 < len(node.input) and node.input[position + 1] != ""
    if scale is None or (has_zero and zero is None):
        return None
    return Codes(scale, zero or 0.0)


def _scalar(node: onnx.NodeProto, position: int, flat: FlatModel, source: ModelSource) -> float | None:
    proto = flat.initializers.get(node.input[position]) if position < len(node.input) else None
    if proto is None or any(size != 1 for size in proto.dims):
        return None
    return float(np.ravel(source.array(proto).astype(np.float64))[0])


Progress = Callable[[int, int], None]

MEMORY_SHARE = 4
"""Tensors fetched in one run take at most a fourth of the child's memory; the rest is the model's own."""
BYTES_PER_ELEMENT = 4


@dataclass(frozen=True)
class Batching:
    """How samples were put into runs."""

    size: int
    """Samples per run."""
    places: Mapping[str, Place]
    """Where samples are, by tensor; empty where every run is one sample."""
    note: str
    """For the trace's settings."""


class SampleRunner:
    """Runs the samples of one trace through a child process."""

    def __init__(
        self,
        run: ConcreteRun,
        source: ModelSource,
        samples: Samples,
        targets: Sequence[Target],
        limits: RunLimits,
    ) -> None:
        """Prepare.

        Args:
            run: The concrete run of the first sample, with its control flow decided.
            source: The model.
            samples: What to run on.
            targets: Layers to record; their tensors must be in the run.
            limits: Of the child, for the whole trace.
        """
        self._run = run
        self._source = source
        self._samples = samples
        self._limits = limits
        self._by_tensor = by_tensor(targets)
        self._codes = activation_codes(run.flat, source)
        there = set(made(run.flat))
        self._fetched = [name for name in self._by_tensor if name in there]
        self._fed = [name for name in self._by_tensor if name not in there]

    def record(
        self,
        statistics: Mapping[int, UnitStatistics],
        batch_size: int,
        fixed: int | None,
        progress: Progress | None,
        *,
        batching: Batching | None = None,
        process: ModelProcess | None = None,
    ) -> Batching:
        """Run all samples and add their values to the statistics.

        Args:
            statistics: By layer id.
            batch_size: Maximum number of samples per run.
            fixed: Samples that every run must have, if the model declares it.
            progress: Called with (samples done, samples in all); None for nobody.
            batching: What an earlier trace of this model and these samples found out; found out by default.
            process: Runs the model, and stays open; one of its own by default.

        Raises:
            InvalidInputError: The model refuses the samples.
            LimitError: A limit was hit.
        """
        n = self._samples.n
        with ModelProcess(self._limits) if process is None else nullcontext(process) as child:
            batching = batching or self._batching(child, batch_size, fixed)
            groups = self._groups(batching.size // (fixed or 1))
            for number, group in enumerate(groups):
                child.load(assemble(self._run.flat, group, self._source), many_runs=True)
                for start in range(0, n, batching.size):
                    indices = range(start, min(start + batching.size, n))
                    self._add(child, group, indices, batching, statistics, with_inputs=number == 0)
                    if progress is not None:
                        progress((number * n + indices.stop) // len(groups), n)
        return batching

    def _batching(self, process: ModelProcess, batch_size: int, fixed: int | None) -> Batching:
        """Find out how many samples a run can take, and where they are in the tensors."""
        n = self._samples.n
        per_sample = self._bytes(self._fetched) // (fixed or 1)
        affordable = max(1, self._budget() // max(per_sample, 1))
        units = {name: self._by_tensor[name][0].axes for name in self._fetched}
        one_by_one = all(axis is None for axis in self._samples.axes.values())
        if fixed is not None:
            return self._fixed_batching(process, fixed, units)
        if one_by_one or n == 1 or min(batch_size, affordable) == 1:
            return Batching(1, {}, "sample by sample")
        try:
            process.load(assemble(self._run.flat, self._fetched, self._source))
            found = axes_of_dynamic_batch(self._runner(process), units, (0, n - 1))
        except ModelRefusedError:
            return Batching(1, {}, "sample by sample: the model refuses two samples at once")
        if isinstance(found, Mixed):
            note = f"sample by sample: a batch is not what its samples give alone, in {quoted(found.tensor)}"
            return Batching(1, {}, note)
        size = min(batch_size, affordable, n)
        return Batching(size, found, f"mini-batches of {size}")

    def _fixed_batching(
        self, process: ModelProcess, fixed: int, units: Mapping[str, tuple[int, ...]]
    ) -> Batching:
        process.load(assemble(self._run.flat, self._fetched, self._source))
        batch = self._padded(range(min(fixed, self._samples.n)), fixed)
        found = axes_of_fixed_batch(self._runner(process), units, batch)
        if isinstance(found, Mixed):
            raise InvalidInputError(
                f"the model takes {fixed} samples at once, but no axis of tensor {quoted(found.tensor)} "
                "follows them, so they cannot be told apart; change the model's batch to 1, or record its "
                "activations elsewhere and import them"
            )
        return Batching(
            fixed, found, f"fixed batches of {fixed}, the last one filled up with its last sample"
        )

    def _runner(self, process: ModelProcess) -> Callable[..., dict[str, Fetched]]:
        def run(indices: Sequence[int], pooling: Mapping[str, Pooling]) -> dict[str, Fetched]:
            fetch = list(pooling) or self._fetched
            return process.run(self._samples.feeds(indices), fetch, pooling=pooling, small=0)

        return run

    def _add(
        self,
        process: ModelProcess,
        group: Sequence[str],
        indices: range,
        batching: Batching,
        statistics: Mapping[int, UnitStatistics],
        *,
        with_inputs: bool,
    ) -> None:
        """Run some samples and add the values of a group of tensors, and with the first group of inputs."""
        count = len(indices)
        run_together = self._padded(indices, batching.size) if batching.note.startswith("fixed") else indices
        feeds = self._samples.feeds(run_together)
        size = len(run_together)
        pooling = {
            name: Pooling(
                self._by_tensor[name][0].axes, place, size if place is not None else 1, self._codes.get(name)
            )
            for name in group
            for place in [batching.places.get(name)]
        }
        found = process.run(feeds, group, pooling=pooling, small=0) if group else {}
        for name, fetched in found.items():
            self._take_in(name, _pooled(fetched), count, statistics)
        for name in self._fed if with_inputs else ():
            axis = self._samples.axes[name]
            where = None if axis is None or size == 1 else SampleAxis(axis)
            values = pooled(feeds[name], self._by_tensor[name][0].axes, where, size if where else 1)
            self._take_in(name, values, count, statistics)

    def _take_in(
        self,
        name: str,
        found: Pooled,
        count: int,
        statistics: Mapping[int, UnitStatistics],
    ) -> None:
        """Add samples to the layers of a tensor."""
        for target in self._by_tensor[name]:
            statistics[target.layer].add(found.rows(count))

    def _padded(self, indices: range, size: int) -> list[int]:
        return [min(indices.start + k, indices.stop - 1) for k in range(size)]

    def _bytes(self, names: Sequence[str]) -> int:
        """Memory of tensors in the run of the first sample."""
        total = 0
        for name in names:
            shape = self._run.values[name].shape or ()
            total += int(np.prod(shape, dtype=np.int64)) * BYTES_PER_ELEMENT
        return total

    def _budget(self) -> int:
        return self._limits.memory_bytes // MEMORY_SHARE

    def _groups(self, size: int) -> list[list[str]]:
        """Tensors in groups that fit into memory together; each group is one pass over the samples."""
        groups: list[list[str]] = [[]]
        used = 0
        for name in self._fetched:
            needed = self._bytes([name]) * size
            if groups[-1] and used + needed > self._budget():
                groups.append([])
                used = 0
            groups[-1].append(name)
            used += needed
        return groups
