"""A smaller model for a structured removal: channels that nothing needs any more are cut out of every tensor.

Which channels those are follows from the masked model alone (`channels`): a channel goes when every
contraction reads it with zeros, or when it is constant and its contribution fits into a bias. So a removed
unit whose channel a residual sum, an output or an unknown operation still needs stays, as zeros, and is
reported.
The smaller model is run beside the masked one before it is written.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.modelruns.storedcodes import StoredCodes
from emergraph.analysis.pruning.channels.constants import ModelConstants
from emergraph.analysis.pruning.channels.cutting import cut_model
from emergraph.analysis.pruning.channels.tracks import ChannelMap, ChannelReader, channel_map
from emergraph.analysis.pruning.channels.unneeded import Groups, Unneeded, channel_groups
from emergraph.analysis.pruning.maskedtensors import Zeroed
from emergraph.analysis.pruning.removal import Removal
from emergraph.exporters.nodes import made_of_constants
from emergraph.exporters.runtime.assembly import ModelSource
from emergraph.exporters.runtime.concrete import ConcreteRun
from emergraph.exporters.runtime.folding import folder_of
from emergraph.exporters.runtime.limits import RunLimits

Array = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class CutReport:
    """What became of the removed units of a structured removal."""

    removed_units: int
    cut_units: int
    """Those whose channels could be cut out."""
    kept: Mapping[str, int]
    """Removed units whose channels stay, as zeros: reason -> number."""
    channels_before: int
    channels_after: int
    """Of all contractions, units that became constant or useless included."""
    parameters_before: int
    parameters_after: int
    """Elements of the contractions' weights."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**vars(self), "kept": dict(self.kept)}


@dataclass(frozen=True, kw_only=True)
class ModelCosts:
    """Multiply-adds of one run, two FLOPs each, and bytes of the file."""

    flops: float
    """Of weights that are not zero."""
    flops_if_removed: float
    """Of all weights of the smaller model."""
    file_bytes_if_removed: float
    """Size of the file without what was cut."""

    def to_dict(self) -> dict[str, float]:
        """Plain values, for JSON."""
        return asdict(self)


class Shrinker:
    """Cuts channels out of a model, for any number of masks of it.

    Args:
        run: A concrete run of the model.
        source: The model's values.
        file_bytes: Size of the model with all its values.
        limits: Of the process that computes constants.
    """

    def __init__(
        self, run: ConcreteRun, source: ModelSource, *, file_bytes: int = 0, limits: RunLimits | None = None
    ) -> None:
        self._run, self._source, self._file_bytes = run, source, file_bytes
        self._makers = made_of_constants(run.flat.nodes, run.flat.initializers)
        self._folder = folder_of(run.flat, source, limits)
        self._zeros = StoredCodes(run.flat, lambda name: source.array(run.flat.initializers[name]))

    @cached_property
    def channels(self) -> ChannelMap:
        """The channels of the model; the same for every mask."""
        shapes = {name: value.shape for name, value in self._run.values.items() if value.shape is not None}
        return channel_map(self._run.flat, shapes, self._constants({}))

    @cached_property
    def _groups(self) -> Groups:
        return channel_groups(self.channels)

    @cached_property
    def _roots(self) -> dict[str, list[ChannelReader]]:
        """Initializer -> the contractions whose weights are made of it."""
        found: dict[str, list[ChannelReader]] = {}
        for reader in self.channels.readers:
            stack = [self._run.flat.nodes[reader.node].input[reader.position]]
            while stack:
                name = stack.pop()
                if name in self._run.flat.initializers:
                    found.setdefault(name, []).append(reader)
                elif name in self._makers:
                    stack.extend(self._makers[name].input)
        return found

    def _constants(self, zeroed: Zeroed) -> ModelConstants:
        flat = self._run.flat

        def values(name: str) -> Array:
            array = self._source.array(flat.initializers[name])
            return self._zeros.put(name, array, zeroed[name]) if name in zeroed else array

        self._folder.renew()
        return ModelConstants(flat, values, self._makers, self._folder)

    def unneeded(self, zeroed: Zeroed) -> Unneeded:
        """What can go from a masked model."""
        return Unneeded(self.channels, self._groups, self._constants(zeroed))

    def smaller(self, zeroed: Zeroed) -> tuple[onnx.ModelProto, Unneeded]:
        """The smaller model of a mask, and what was cut."""
        unneeded = self.unneeded(zeroed)
        return cut_model(unneeded, self._source.model, self._run.flat.opsets), unneeded

    def report(self, unneeded: Unneeded, removal: Removal, level: int) -> CutReport:
        """What became of the removed units.

        Args:
            unneeded: What was cut.
            removal: A removal of units.
            level: Index of the level.
        """
        graph = removal.items.table.graph
        kept: Counter[str] = Counter()
        counted = np.zeros(graph.n_units, dtype=bool)
        n_cut = 0
        for block in removal.items.blocks:
            layer = graph.layers[block.target]
            gone = np.flatnonzero(removal.units[layer.units] <= level)
            gone = gone[~counted[layer.first_unit + gone]]
            counted[layer.first_unit + gone] = True
            if not len(gone):
                continue
            out = self._out(self._roots.get(block.block.tensor or "", ()), layer.n_units)
            if out is None:
                kept["is made by an operation that is not cut"] += len(gone)
                continue
            stays = unneeded.keeps(out[gone])
            n_cut += int((~stays).sum())
            kept.update(unneeded.why(int(channel)) for channel in out[gone[stays]])
        made = [r for r in self.channels.readers if r.out is not None]
        before = np.unique(np.concatenate([r.out for r in made if r.out is not None] or [np.empty(0, int)]))
        sizes = [self._sizes(reader, unneeded) for reader in self.channels.readers]
        return CutReport(
            removed_units=int(counted.sum()),
            cut_units=n_cut,
            kept=dict(kept.most_common()),
            channels_before=len(before),
            channels_after=int(unneeded.keeps(before).sum()) if len(before) else 0,
            parameters_before=int(sum(size for size, _ in sizes)),
            parameters_after=int(sum(left for _, left in sizes)),
        )

    def costs(self, zeroed: Zeroed) -> ModelCosts:
        """Multiply-adds and size of a masked model and of its smaller one."""
        unneeded = self.unneeded(zeroed)
        masked = removed = cut_bytes = 0.0
        for reader in self.channels.readers:
            values = unneeded.constants.value(self._weights(reader))
            size, left = self._sizes(reader, unneeded)
            masked += 2.0 * reader.uses * np.count_nonzero(values)
            removed += 2.0 * reader.uses * left
            stored = self._stored(self._weights(reader))
            cut_bytes += (size - left) * stored
        return ModelCosts(
            flops=float(masked),
            flops_if_removed=float(removed),
            file_bytes_if_removed=float(self._file_bytes - cut_bytes),
        )

    def _weights(self, reader: ChannelReader) -> str:
        return str(self._run.flat.nodes[reader.node].input[reader.position])

    def _stored(self, name: str) -> float:
        """Bytes per element of a weight in the file, quantized ones included."""
        roots = [
            root for root, readers in self._roots.items() if any(self._weights(r) == name for r in readers)
        ]
        values = [self._source.array(self._run.flat.initializers[root]) for root in roots]
        largest = max(values, key=lambda v: v.size, default=None)
        return 0.0 if largest is None else float(largest.dtype.itemsize)

    def _sizes(self, reader: ChannelReader, unneeded: Unneeded) -> tuple[int, int]:
        """Elements of a reader's weights, before and after."""
        shape = list(self.channels.constants.value(self._weights(reader)).shape)
        before = int(np.prod(shape))
        for ids, axis in ((reader.ids, reader.in_axis), (reader.out, reader.out_axis)):
            if ids is not None:
                shape[axis] = int(unneeded.keeps(ids).sum())
        return before, int(np.prod(shape))

    @staticmethod
    def _out(readers: Sequence[ChannelReader], n_units: int) -> NDArray[np.int64] | None:
        for reader in readers:
            if reader.out is not None and len(reader.out) == n_units:
                return reader.out
        return None


Outputs = Callable[[onnx.ModelProto], Sequence[Array]]


def largest_difference(expected: Sequence[Array], found: Sequence[Array]) -> float:
    """The largest difference of two models' outputs, over the largest output (at least 1)."""
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf")
        if a.dtype.kind in "fiub" and a.size:
            x, y = a.astype(np.float64), b.astype(np.float64)
            same = (x == y) | (np.isnan(x) & np.isnan(y))
            gap = np.where(same, 0.0, np.abs(x - y))
            scale = max(1.0, float(np.abs(np.nan_to_num(x, posinf=0, neginf=0)).max()))
            worst = max(worst, float(np.nan_to_num(gap, nan=np.inf).max()) / scale)
    return worst
