"""Running a model over samples and keeping one number per unit and sample."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError
from emergraph.exporters.runtime.assembly import ModelSource, assemble
from emergraph.exporters.runtime.concrete import ConcreteRun, made
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.pooling import SampleAxis, pooled
from emergraph.exporters.runtime.process import Fetched, ModelProcess, Pooling
from emergraph.exporters.runtime.quoting import quoted
from emergraph.exporters.runtime.refusals import ModelRefusedError
from emergraph.exporters.traces.codes import activation_codes
from emergraph.exporters.traces.sampleaxes import (
    Mixed,
    Place,
    axes_of_dynamic_batch,
    axes_of_fixed_batch,
)
from emergraph.exporters.traces.samples import Samples
from emergraph.exporters.traces.statistics import UnitStatistics
from emergraph.exporters.traces.targets import Target

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
        self._by_tensor: dict[str, list[Target]] = {}
        for target in targets:
            if target.tensor is not None:
                self._by_tensor.setdefault(target.tensor, []).append(target)
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
            name: Pooling(self._by_tensor[name][0].axes, place, size if place is not None else 1)
            for name in group
            for place in [batching.places.get(name)]
        }
        found = process.run(feeds, group, pooling=pooling, small=0) if group else {}
        for name, fetched in found.items():
            self._take_in(name, np.asarray(fetched.values, np.float64), count, statistics)
        for name in self._fed if with_inputs else ():
            axis = self._samples.axes[name]
            where = None if axis is None or size == 1 else SampleAxis(axis)
            values = pooled(feeds[name], self._by_tensor[name][0].axes, where, size if where else 1)
            self._take_in(name, values, count, statistics)

    def _take_in(
        self,
        name: str,
        rows: NDArray[np.float64],
        count: int,
        statistics: Mapping[int, UnitStatistics],
    ) -> None:
        """Add rows to the layers of a tensor; a tensor that all samples share counts for each of them."""
        if name in self._codes:
            rows = self._codes[name].floats(rows)
        wanted = rows[:count] if len(rows) >= count else np.broadcast_to(rows, (count, rows.shape[1]))
        for target in self._by_tensor[name]:
            statistics[target.layer].add(wanted)

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
