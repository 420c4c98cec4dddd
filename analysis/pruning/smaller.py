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
from emergraph.analysis.pruning.channels.constantvalues import weight_sums
from emergraph.analysis.pruning.channels.tracks import ChannelMap, ChannelReader, channel_map
from emergraph.analysis.pruning.channels.unneeded import Groups, Unneeded, channel_groups
from emergraph.analysis.pruning.maskedtensors import Zeroed
from emergraph.analysis.pruning.removal import Removal
from emergraph.errors import UsageError
from emergraph.exporters.nodes import input_name, made_of_constants
from emergraph.exporters.operations import ADD, Kind, kind_of
from emergraph.exporters.runtime.assembly import ModelSource
from emergraph.exporters.runtime.concrete import ConcreteRun
from emergraph.exporters.runtime.flat_model import names_used
from emergraph.exporters.runtime.folding import folder_of
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.ordering import in_data_order
from emergraph.exporters.runtime.quoting import quoted

# A model without the channels that it does not need: smaller tensors, the same operations.

BIAS = 2
"""Which input of a convolution or a Gemm its bias is."""


def cut_model(unneeded: Unneeded, original: onnx.ModelProto, opsets: Mapping[str, int]) -> onnx.ModelProto:
    """Build the smaller model.

    Inputs and outputs are the original's; functions are inlined and branches taken, as in the flat model.

    Args:
        unneeded: What can go.
        original: For names, types and metadata.
        opsets: Version per domain.

    Returns:
        A model with all values inside.
    """
    channels, constants = unneeded.channels, unneeded.constants
    nodes: list[onnx.NodeProto] = []
    readers = {reader.node: reader for reader in channels.readers}
    for index, node in enumerate(channels.flat.nodes):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        _cut_constants(copy, index, unneeded)
        made = [copy]
        for rewrite in channels.rewrites.get(index, ()):
            made = rewrite(copy, unneeded.keeps, constants)
        if index in readers:
            made = _fold(made[0], readers[index], unneeded, node)
        nodes.extend(made)
    return _assembled([*constants.added_nodes, *nodes], unneeded, original, opsets)


def _cut_constants(copy: onnx.NodeProto, index: int, unneeded: Unneeded) -> None:
    by_position: dict[int, dict[int, np.ndarray]] = {}
    for cut in unneeded.channels.cuts.get(index, ()):
        by_position.setdefault(cut.position, {})[cut.axis] = unneeded.keeps(cut.ids)
    for position, keeps in by_position.items():
        copy.input[position] = unneeded.constants.cut(copy.input[position], keeps)


def _fold(
    copy: onnx.NodeProto, reader: ChannelReader, unneeded: Unneeded, node: onnx.NodeProto
) -> list[onnx.NodeProto]:
    """Add what constant channels contributed to the bias of the contraction that read them."""
    if reader.ids is None or reader.out is None:
        return [copy]
    gone = ~unneeded.keeps(reader.ids)
    value = unneeded.constant[node.input[0 if reader.position else 1]]
    gone &= np.nan_to_num(value) != 0
    if not gone.any():
        return [copy]
    constants = unneeded.constants
    sums = weight_sums(reader, constants, node)[unneeded.keeps(reader.out)]
    more = sums[:, gone] @ value[gone]
    if not more.any():
        return [copy]
    kind = constants.value(node.input[reader.position]).dtype
    if kind_of(copy) is Kind.MATMUL:
        made = f"{copy.output[0]}/without_constants"
        final = copy.output[0]
        copy.output[0] = made
        added = constants.add(more.astype(kind), "bias")
        return [copy, onnx.helper.make_node(ADD, [made, added], [final], name=f"{copy.name}/bias")]
    held: np.ndarray = np.zeros(len(more))
    if name := input_name(node, 2):
        stored = constants.value(name).astype(np.float64).reshape(-1)
        held = stored[unneeded.keeps(reader.out)] if stored.size == len(reader.out) else stored
    while len(copy.input) < BIAS + 1:
        copy.input.append("")
    copy.input[BIAS] = constants.add((held + more).astype(kind), "bias")
    return [copy]


def _assembled(
    nodes: list[onnx.NodeProto], unneeded: Unneeded, original: onnx.ModelProto, opsets: Mapping[str, int]
) -> onnx.ModelProto:
    flat = unneeded.channels.flat
    nodes = _used(nodes, flat.outputs)
    read = names_used(nodes) | set(flat.outputs)
    graph = onnx.GraphProto(name=original.graph.name or "model")
    held = {value.name for value in flat.inputs}
    graph.input.extend(value for value in original.graph.input if value.name in held)
    graph.output.extend(original.graph.output)
    for name, proto in flat.initializers.items():
        if name in read:
            graph.initializer.append(_filled(proto, name, unneeded.constants))
    graph.initializer.extend(proto for name, proto in unneeded.constants.added.items() if name in read)
    graph.node.extend(in_data_order(nodes))  # what was constant may depend on operations of the model now
    model = onnx.ModelProto(
        ir_version=max(original.ir_version, 4), producer_name="emergraph", domain=original.domain
    )
    model.graph.CopyFrom(graph)
    domains = {node.domain for node in nodes} | {""}
    for domain, version in opsets.items():
        if domain in domains:
            model.opset_import.add(domain=domain, version=version)
    return model


def _filled(proto: onnx.TensorProto, name: str, constants: ModelConstants) -> onnx.TensorProto:
    if proto.data_type == onnx.TensorProto.STRING:
        copy = onnx.TensorProto()
        copy.CopyFrom(proto)
        copy.name = name
        return copy
    filled: onnx.TensorProto = onnx.numpy_helper.from_array(np.array(constants.values(name), order="C"), name)
    if filled.data_type != proto.data_type:
        raise UsageError(
            f"tensor {quoted(name)} has an element type that no smaller model is written with; "
            "write the masked model instead: --masked"
        )
    return filled


def _used(nodes: list[onnx.NodeProto], outputs: tuple[str, ...]) -> list[onnx.NodeProto]:
    """The nodes that outputs depend on."""
    makers = {name: node for node in nodes for name in node.output if name}
    stack, seen = list(outputs), set()
    while stack:
        node = makers.get(stack.pop())
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        stack.extend(names_used([node]))
    return [node for node in nodes if id(node) in seen]


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
    """Of those that are left in the smaller model, never more."""
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
            removed += 2.0 * reader.uses * np.count_nonzero(self._kept(values, reader, unneeded))
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
    def _kept(values: Array, reader: ChannelReader, unneeded: Unneeded) -> Array:
        """The weights of a reader that the smaller model has."""
        for ids, axis in ((reader.ids, reader.in_axis), (reader.out, reader.out_axis)):
            if ids is not None and values.shape[axis] == len(ids):
                values = np.compress(unneeded.keeps(ids), values, axis=axis)
        return values

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
