"""Hidden states of an ONNX model, run by onnxruntime in a child process under limits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.information.options import BlockOptions, Micro
from emergraph.analysis.information.sequences import Sequences
from emergraph.analysis.information.states import Array, BlockStates, Progress, collect_states
from emergraph.choices import unknown
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.counting import CountingSink
from emergraph.exporters.export import ExportOptions, dry_run
from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.runtime.assembly import assemble
from emergraph.exporters.runtime.concrete import concrete_run, made
from emergraph.exporters.runtime.feeds import input_hints, is_steering
from emergraph.exporters.runtime.flat_model import FlatInput, FlatModel
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.inputwords import parse_values
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import EVERYTHING, ModelProcess
from emergraph.exporters.runtime.quoting import quoted
from emergraph.exporters.runtime.sources import as_source
from emergraph.graphstore.arrays import FloatArray, IntArray
from emergraph.graphstore.inplace import Matrix
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.records import Block, Kernels, LayerKind, MatrixKernels, Place
from emergraph.graphstore.store import StoreFile

# The blocks of a model, found in its graph by the residual stream that runs through them.

ATTENTION = frozenset({LayerKind.SCORE, LayerKind.CONTEXT})


@dataclass(frozen=True)
class ChainLayer:
    """What the chain needs to know of a layer."""

    name: str
    """Also the name of the operation that makes its units."""
    kind: str
    n_units: int
    sources: frozenset[int]
    """Layers that edges lead from, by position in the list of layers."""
    tensor: str | None = None
    """Tensor with the activations, where the graph names one."""


@dataclass(frozen=True)
class BlockChain:
    """Blocks of equal width, one after the other."""

    boundaries: tuple[ChainLayer, ...]
    """The stream before the first block and after each."""
    width: int

    @property
    def n_blocks(self) -> int:
        """How many blocks there are."""
        return len(self.boundaries) - 1


def layers_of_graph(reader: GraphReader) -> list[ChainLayer]:
    """The layers of a stored graph, with their sources."""
    layers, blocks = reader.layers(), reader.blocks()
    place = {int(layer): position for position, layer in enumerate(layers["id"])}
    sources: dict[int, set[int]] = {}
    for layer, from_layers in blocks.select("layer", "src_layers").iter_rows():
        sources.setdefault(place[layer], set()).update(place[source] for source in from_layers)
    columns = ("name", "kind", "n_units", "activation_tensor")
    return [
        ChainLayer(str(name), str(kind), int(count), frozenset(sources.get(position, ())), tensor)
        for position, (name, kind, count, tensor) in enumerate(layers.select(columns).iter_rows())
    ]


class ChainSink(CountingSink):
    """A sink that keeps which layers lead to which, and no edges."""

    def __init__(self) -> None:
        super().__init__()
        self._units: dict[int, set[int]] = {}

    def write_matrix(
        self,
        block: Block,
        src_units: IntArray,
        dst_units: IntArray,
        weights: FloatArray | Matrix,
        kernels: MatrixKernels | None = None,
        place: Place | None = None,
    ) -> int:
        """Note the sources."""
        self._units.setdefault(block.layer, set()).update(_ends(src_units))
        return super().write_matrix(block, src_units, dst_units, weights, kernels, place)

    def write_edges(
        self,
        block: Block,
        src: IntArray,
        dst: IntArray,
        weight: FloatArray | None = None,
        kernels: Kernels | None = None,
    ) -> int:
        """Note the sources."""
        self._units.setdefault(block.layer, set()).update(_ends(src))
        return super().write_edges(block, src, dst, weight, kernels)

    def chain_layers(self) -> list[ChainLayer]:
        """The layers with their sources, after everything was written."""
        order = sorted(self.layers, key=lambda layer: layer.first_unit)
        owner = {
            unit: position
            for position, layer in enumerate(order)
            for unit in range(layer.first_unit, layer.first_unit + layer.n_units)
        }
        return [
            ChainLayer(
                layer.name,
                str(layer.kind),
                layer.n_units,
                frozenset(owner[unit] for unit in self._units.get(layer.id, ())),
                layer.activation_tensor,
            )
            for layer in order
        ]


def _ends(units: IntArray) -> Iterable[int]:
    return set(units.reshape(-1).tolist())


def find_chain(layers: Sequence[ChainLayer]) -> BlockChain:
    """Return the chain of blocks of a graph.

    Args:
        layers: In topological order.

    Raises:
        InvalidInputError: There is no residual stream.
    """
    ancestors = _ancestors(layers)
    before = _longest_rows(layers, ancestors)
    if not before:
        raise InvalidInputError(
            "no residual stream was found in the graph: no junction adds to its source what was "
            "computed from it; name the hidden states with --blocks TENSOR,TENSOR,..."
        )
    end = max(before, key=lambda layer: (before[layer][1], layers[layer].n_units, -layer))
    row = [end]
    while row[-1] in before:
        row.append(before[row[-1]][0])
    row.reverse()
    starts = [step for step, (a, b) in enumerate(pairwise(row)) if _has_attention(layers, ancestors, a, b)]
    kept = [row[step] for step in starts] + [row[-1]] if starts else row
    return BlockChain(tuple(layers[layer] for layer in kept), layers[end].n_units)


def _ancestors(layers: Sequence[ChainLayer]) -> list[set[int]]:
    found: list[set[int]] = []
    for layer in layers:
        mine: set[int] = set()
        for source in layer.sources:
            if source < len(found):  # a recurrent edge leads from a layer that comes later, or from itself
                mine |= {source} | found[source]
        found.append(mine)
    return found


def _longest_rows(
    layers: Sequence[ChainLayer], ancestors: Sequence[set[int]]
) -> Mapping[int, tuple[int, int]]:
    """By junction at the end of a row: the layer before it, and how many steps the row has."""
    before: dict[int, tuple[int, int]] = {}
    for position, layer in enumerate(layers):
        if layer.kind != LayerKind.JUNCTION:
            continue
        for source in sorted(layer.sources):
            branches = layer.sources - {source}
            same = layers[source].n_units == layer.n_units
            if same and any(source in ancestors[branch] for branch in branches):
                steps = before[source][1] + 1 if source in before else 1
                if position not in before or steps > before[position][1]:
                    before[position] = (source, steps)
    return before


def _has_attention(layers: Sequence[ChainLayer], ancestors: Sequence[set[int]], start: int, end: int) -> bool:
    branch = ancestors[end] - ancestors[start] - {start}
    return any(layers[layer].kind in ATTENTION and start in ancestors[layer] for layer in branch)


INTEGERS = frozenset({2, 3, 4, 5, 6, 7, 12, 13})
"""Element types of ids."""
SAME = 1e-3
"""Of the largest value: states of a sequence alone and in a batch that differ by more depend on the batch."""


@dataclass(frozen=True, kw_only=True)
class StateOptions:
    """How a model is run over sequences."""

    tensors: Sequence[str] | None = None
    """Tensors with the hidden states before the first block and after each; found in the graph by default."""
    input_name: str | None = None
    """Input that takes the sequences; the one that picks rows of an embedding by default."""
    inputs: Mapping[str, Array] = field(default_factory=dict)
    """Values of inputs that all sequences share."""
    micro: Micro = Micro.ALONE
    batch: int = 64
    limits: RunLimits = field(default_factory=RunLimits)
    root: Path | None = None
    """Folder inside which files of the model may be symbolic links."""


def state_options(blocks: BlockOptions, *, limits: RunLimits, root: Path | None) -> StateOptions:
    """Return how a model is run for the blocks that were asked for."""
    return StateOptions(
        tensors=blocks.blocks or None,
        input_name=blocks.ids,
        inputs=parse_values(blocks.input),
        micro=blocks.micro,
        root=root,
        limits=limits,
    )


def onnx_chain(
    path: str | Path,
    store: StoreFile | None = None,
    *,
    limits: RunLimits | None = None,
    root: Path | None = None,
) -> BlockChain:
    """Find the chain of blocks of an ONNX file, in its graph if a store has it, else by tracing it.

    Args:
        path: The model.
        store: Is looked up by the file's sha256.
        limits: Of the small run that tracing needs.
        root: Folder that symbolic links of external data may lead to.

    Raises:
        InvalidInputError: The file cannot be read, or no residual stream is found.
    """
    if store is not None:
        same = store.find_graph(read_onnx(path, root=root).sha256)
        if same is not None:
            return find_chain(layers_of_graph(store.graph(same)))
    sink = ChainSink()
    dry_run(path, options=ExportOptions(run_limits=limits or RunLimits(), root=root), sink=sink)
    return find_chain(sink.chain_layers())


def onnx_states(
    path: str | Path,
    sequences: Sequences,
    *,
    store: StoreFile | None = None,
    options: StateOptions | None = None,
    progress: Progress | None = None,
) -> BlockStates:
    """Run an ONNX model over sequences and keep the hidden states between its blocks.

    Args:
        path: The model; its blocks have equal width, and tensors [batch, position, width] between them.
        sequences: What to run.
        store: Where to look for the model's graph, which tells the blocks.
        options: Tensors, input, micro level, limits.
        progress: Called with (sequences run, sequences in all).

    Raises:
        InvalidInputError: The model has no such chain, refuses the sequences, or its tensors have other axes.
        UsageError: An input or tensor does not exist.
        LimitError: A limit was hit.
    """
    options = options or StateOptions()
    file = read_onnx(path, root=options.root)
    source = as_source(file)
    flat = flatten(source.model, read_tensor=source.array, overridden=frozenset(options.inputs))
    name = options.input_name or _sequence_input(file, flat, sequences)
    declared = [value.name for value in flat.inputs]
    if name not in declared:
        raise UsageError(unknown("input", name, declared))
    dtype = _checked_ids(file, flat, name, sequences)
    chain = None if options.tensors else onnx_chain(path, store, limits=options.limits, root=options.root)
    with ModelProcess(options.limits) as process:
        runner = _Runner(file, name, dtype, options, chain, process)
        notes = (
            ["runs one sequence at a time: a batch changes its states"] if runner.depends(sequences) else []
        )
        names = options.tensors or [layer.name for layer in (chain.boundaries if chain else ())]
        return collect_states(
            runner,
            sequences,
            list(names)[1:],
            options.micro,
            batch=1 if notes else options.batch,
            progress=progress,
            notes=notes,
        )


class _Runner:
    """Runs sequences of any length; each length has its own concrete run, which fixes masks and positions."""

    def __init__(
        self,
        file: OnnxFile,
        name: str,
        dtype: np.dtype[np.generic],
        options: StateOptions,
        chain: BlockChain | None,
        process: ModelProcess,
    ) -> None:
        self._file, self._name, self._dtype = file, name, dtype
        self._options, self._chain, self._process = options, chain, process
        self._loaded: int | None = None
        self._tensors: list[str] = []
        self._made_up: dict[str, Array] = {}

    def __call__(self, values: Array) -> list[Array]:
        if values.shape[1] != self._loaded:
            self._load(values[:1])
        feeds = {name: _repeated(array, len(values)) for name, array in self._made_up.items()}
        feeds |= {name: np.asarray(array) for name, array in self._options.inputs.items()}
        feeds[self._name] = values.astype(self._dtype)
        found = self._process.run(feeds, list(dict.fromkeys(self._tensors)), small=EVERYTHING)
        return [
            _by_position(name, found[name].values, len(values), values.shape[1]) for name in self._tensors
        ]

    def depends(self, sequences: Sequences) -> bool:
        """Whether the states of a sequence change with what it is run together with."""
        if self._options.batch == 1 or sequences.n < 2:
            return False
        pair = sequences.values[[0, -1]]
        alone, together = self(pair[:1]), self(pair)
        return any(
            bool(np.abs(one[0] - two[0]).max() > SAME * np.abs(one[0]).max())
            for one, two in zip(alone, together, strict=True)
        )

    def _load(self, first: Array) -> None:
        given = {**self._options.inputs, self._name: first.astype(self._dtype)}
        run = concrete_run(self._file, inputs=given, limits=self._options.limits)
        self._made_up = {name: array for name, array in run.inputs.items() if name not in given}
        self._tensors = self._names(run.flat)
        self._process.load(
            assemble(run.flat, list(dict.fromkeys(self._tensors)), as_source(self._file)), many_runs=True
        )
        self._loaded = first.shape[1]

    def _names(self, flat: FlatModel) -> list[str]:
        available = made(flat)
        if self._options.tensors:
            for name in self._options.tensors:
                if name not in available:
                    raise UsageError(unknown("tensor", name, available))
            return list(self._options.tensors)
        by_node = {node.name: node.output[0] for node in flat.nodes if node.output}
        boundaries = self._chain.boundaries if self._chain is not None else ()
        return [_tensor_of(layer, by_node) for layer in boundaries]


def _tensor_of(layer: ChainLayer, by_node: Mapping[str, str]) -> str:
    name = by_node.get(layer.name) or layer.tensor
    if name is None:
        raise InvalidInputError(
            f"layer {quoted(layer.name)} has no tensor with its values; name the hidden states with --blocks"
        )
    return name


def _repeated(array: Array, n: int) -> Array:
    """A synthetic input for n sequences: axis 0 is theirs, unless it is a scalar."""
    return array if array.ndim == 0 else np.repeat(array[:1], n, axis=0)


def _by_position(name: str, values: Array | None, n: int, length: int) -> NDArray[np.float32]:
    """(n, length, width), whatever the order of the first two axes, merged or not."""
    if values is None:
        raise InvalidInputError(f"tensor {quoted(name)} came back without values")
    found = np.asarray(values, np.float32)
    if found.ndim == 3 and found.shape[:2] == (n, length):
        return found
    if found.ndim == 3 and found.shape[:2] == (length, n):
        return np.ascontiguousarray(found.transpose(1, 0, 2))
    if found.ndim == 2 and found.shape[0] == n * length:
        return found.reshape(n, length, -1)
    raise InvalidInputError(
        f"tensor {quoted(name)} has shape {list(found.shape)}; expected [{n}, {length}, width] for {n} "
        f"sequences of {length} tokens"
    )


def _sequence_input(file: OnnxFile, flat: FlatModel, sequences: Sequences) -> str:
    """The input that takes ids: one that picks rows of a table, or the only one that can."""
    ids = sequences.values.ndim == 2
    fitting = [v for v in flat.inputs if (v.element_type in INTEGERS) == ids and not is_steering(v.name)]
    rows = input_hints(flat, as_source(file)).rows
    picking = [value for value in fitting if value.name in rows]
    if len(picking) == 1 or len(fitting) == 1:
        return (picking if len(picking) == 1 else fitting)[0].name
    names = ", ".join(quoted(value.name) for value in flat.inputs) or "none"
    what = "ids (integers)" if ids else "numbers"
    if not fitting:
        raise UsageError(f"no input takes {what}, so the model has no sequences to run on; inputs: {names}")
    raise UsageError(f"cannot tell which input takes the {what}: name it with --ids; available: {names}")


def _checked_ids(file: OnnxFile, flat: FlatModel, name: str, sequences: Sequences) -> np.dtype[np.generic]:
    """The element type of the input; ids beyond the embedding are refused."""
    from emergraph.exporters.onnxfile.dtypes import numpy_dtype

    declared: FlatInput = next(value for value in flat.inputs if value.name == name)
    rows = input_hints(flat, as_source(file)).rows.get(name)
    values = sequences.values
    if values.ndim == 2 and values.size:
        low, high = int(values.min()), int(values.max())
        if low < 0 or (rows is not None and high >= rows):
            raise InvalidInputError(
                f"ids from {low} to {high}; the embedding of {quoted(name)} has {rows} rows, counted from 0"
            )
    return numpy_dtype(declared.element_type) or np.dtype(np.float32)
