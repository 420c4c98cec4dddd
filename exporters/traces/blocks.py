"""Running samples through a large model a block of operations at a time.

Of the weights, those of one block are in memory: it is loaded, every sample goes through it, and it makes
room for the next one. What later blocks read of a sample (hidden states, masks) is kept meanwhile.
"""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.errors import LimitError
from emergraph.exporters.onnxfile.dtypes import ELEMENT_TYPES, element_type_of
from emergraph.exporters.runtime.assembly import ModelSource, assemble
from emergraph.exporters.runtime.concrete import ConcreteRun, TensorValue
from emergraph.exporters.runtime.flat_model import FlatModel
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.ordering import outer_names_read
from emergraph.exporters.runtime.partial import Segment, segments
from emergraph.exporters.runtime.pooling import pooled
from emergraph.exporters.runtime.process import EVERYTHING, ModelProcess
from emergraph.exporters.traces.running import Batching, Progress, activation_codes
from emergraph.exporters.traces.samples import Samples
from emergraph.exporters.traces.statistics import UnitStatistics
from emergraph.exporters.traces.targets import Target

BLOCK_BYTES = 128 << 20
"""Bytes of weights, as the operations take them, from which on a block ends at the next narrow place."""
KEPT_SHARE = 2
"""What is kept of all samples may take one part in so many of the limit on memory."""

Array = NDArray[np.generic]


class BlockRunner:
    """Runs the samples of one trace, one by one, through each block of a model."""

    def __init__(
        self,
        run: ConcreteRun,
        source: ModelSource,
        samples: Samples,
        targets: Sequence[Target],
        limits: RunLimits,
    ) -> None:
        """Prepare; arguments as for `SampleRunner`."""
        self._run = run
        self._source = source
        self._samples = samples
        self._limits = limits
        self._targets: dict[str, list[Target]] = {}
        for target in targets:
            if target.tensor is not None:
                self._targets.setdefault(target.tensor, []).append(target)
        self._codes = activation_codes(run.flat, source)

    def record(
        self, statistics: Mapping[int, UnitStatistics], progress: Progress | None, *, most: int = BLOCK_BYTES
    ) -> Batching:
        """Run all samples and add their values to the statistics.

        Args:
            statistics: By layer id.
            progress: Called with (samples through blocks, samples times blocks); None for nobody.
            most: As `BLOCK_BYTES`.

        Raises:
            InvalidInputError: The model refuses the samples.
            LimitError: A limit was hit, or what has to be kept of the samples is too large.
        """
        flat, n = self._run.flat, self._samples.n
        starts = block_starts(self._run, most)
        types = {name: _element_type(one) for name, one in self._run.values.items()}
        kept = [dict(self._samples.feeds([index])) for index in range(n)]
        for one in kept:
            self._add(one, statistics, self._targets.keys() & one.keys())
        with ModelProcess(self._limits) as process:
            for number, segment in enumerate(segments(flat, types, starts)):
                self._check_kept(segment, n)
                made = (name for node in segment.flat.nodes for name in node.output)
                wanted = [name for name in made if name in self._targets]
                fetch = list(dict.fromkeys((*segment.passes_on, *wanted)))
                process.load(assemble(segment.flat, fetch, self._source))
                for index, values in enumerate(kept):
                    feeds = {name: values[name] for name in segment.reads}
                    results = process.run(feeds, fetch, small=EVERYTHING) if fetch else {}
                    found = {name: one.values for name, one in results.items() if one.values is not None}
                    self._add(found, statistics, wanted)
                    values.update({name: found[name] for name in segment.passes_on})
                    for name in segment.last_reads:
                        values.pop(name, None)
                    if progress is not None:
                        progress(number * n + index + 1, len(starts) * n)
        return Batching(1, {}, f"sample by sample, in {len(starts)} blocks")

    def _add(
        self,
        values: Mapping[str, Array],
        statistics: Mapping[int, UnitStatistics],
        names: Sequence[str] | set[str],
    ) -> None:
        """Add what one sample gave to the layers of some tensors."""
        for name in names:
            for target in self._targets[name]:
                codes = self._codes.get(name)
                statistics[target.layer].add(pooled(values[name], target.axes, codes=codes).rows(1))

    def _check_kept(self, segment: Segment, n: int) -> None:
        """Refuse to keep more of all samples than fits, before it is there."""
        needed = n * sum(_bytes(self._run, name) for name in {*segment.reads, *segment.passes_on})
        if needed > self._limits.memory_bytes // KEPT_SHARE:
            raise LimitError(
                f"what has to be kept of {n} samples between two blocks takes {needed >> 20} MiB; use fewer "
                "or shorter samples, or raise the limit with --memory-limit"
            )


def block_starts(run: ConcreteRun, most: int) -> list[int]:
    """Where to cut a model so that blocks of weights are about of a size, and little passes between them.

    A block ends where the fewest bytes pass on, once it has half of `most`; a single tensor may be larger.

    Args:
        run: The model, with the shapes of all its tensors.
        most: Bytes of weights of a block.

    Returns:
        Positions of the first nodes of blocks.
    """
    reads, passing = _weights_read(run.flat), _passing(run)
    starts, held, best = [0], dict[str, int](), 0
    position = 0
    while position < len(reads):
        if held and sum({**held, **reads[position]}.values()) > most:
            # at the narrowest place behind the first half, or right here
            cut = best or position
            if passing[cut] is not None:
                starts.append(cut)
                held, best, position = {}, 0, cut
        held.update(reads[position])
        position += 1
        width = passing[position]
        narrower = width is not None and width <= (passing[best] or 0) if best else width is not None
        if narrower and position < len(reads) and sum(held.values()) >= most // 2:
            best = position
    return starts


def _weights_read(flat: FlatModel) -> list[dict[str, int]]:
    """Bytes of the initializers that each node reads, by name."""
    sizes = {name: _initializer_bytes(proto) for name, proto in flat.initializers.items()}
    return [{name: sizes[name] for name in outer_names_read(node) if name in sizes} for node in flat.nodes]


def _element_type(one: TensorValue) -> int:
    return 0 if one.dtype is None else element_type_of(one.dtype) or 0


def _initializer_bytes(proto: onnx.TensorProto) -> int:
    return ELEMENT_TYPES[proto.data_type].n_bytes(prod(proto.dims))


def _passing(run: ConcreteRun) -> list[int | None]:
    """Bytes that are made before each node and read by it or behind it; None where they are no tensors."""
    nodes = run.flat.nodes
    last: dict[str, int] = {}
    for index, node in enumerate(nodes):
        last.update(dict.fromkeys(outer_names_read(node), index))
    change = [0] * (len(nodes) + 1)
    closed = [0] * (len(nodes) + 1)
    made = [(name, index) for index, node in enumerate(nodes) for name in node.output if name]
    for name, index in [*((value.name, -1) for value in run.flat.inputs), *made]:
        end = last.get(name, -1)
        if end <= index:
            continue
        one = run.values.get(name)
        is_tensor = one is not None and one.shape is not None and one.dtype is not None
        change[index + 1] += _bytes(run, name)
        change[end + 1] -= _bytes(run, name)
        closed[index + 1] += not is_tensor
        closed[end + 1] -= not is_tensor
    widths, blocked = np.cumsum(change), np.cumsum(closed)
    return [None if blocked[k] else int(widths[k]) for k in range(len(nodes) + 1)]


def _bytes(run: ConcreteRun, name: str) -> int:
    one = run.values.get(name)
    if one is None or one.shape is None or one.dtype is None:
        return 0
    return prod(one.shape) * one.dtype.itemsize
