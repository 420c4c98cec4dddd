"""`record_trace`: run a model on samples and store what the units of its graph do.

A large model is run a block of operations at a time. Of the weights, those of one block are in memory: it is
loaded, every sample goes through it, and it makes room for the next one. What later blocks read of a sample
(hidden states, masks) is kept meanwhile.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
import polars as pl
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.onnxfile.dtypes import ELEMENT_TYPES, element_type_of
from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.onnxfile.limits import ReadLimits
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.runtime.assembly import ModelSource, assemble
from emergraph.exporters.runtime.concrete import ConcreteRun, TensorValue
from emergraph.exporters.runtime.flat_model import FlatModel
from emergraph.exporters.runtime.inputfile import InputFile
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.ordering import outer_names_read
from emergraph.exporters.runtime.partial import Segment, segments
from emergraph.exporters.runtime.pooling import pooled
from emergraph.exporters.runtime.process import EVERYTHING, ModelProcess
from emergraph.exporters.runtime.quoting import quoted
from emergraph.exporters.runtime.sources import as_source
from emergraph.exporters.sourcekinds import SourceKind, has_config, note_files, source_kind
from emergraph.exporters.traces.options import TraceOptions
from emergraph.exporters.traces.prepare import Prepared, given_samples, random_samples
from emergraph.exporters.traces.running import Batching, Progress, SampleRunner, activation_codes
from emergraph.exporters.traces.samples import RandomInputs, Samples
from emergraph.exporters.traces.statistics import UnitStatistics, kept_samples
from emergraph.exporters.traces.targets import Target, by_tensor, recordable, targets_of
from emergraph.exporters.wiredmodel import MASK, WiredModel
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.records import TraceHeader
from emergraph.graphstore.store import StoreFile

Array = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class TraceSummary:
    """What a trace recorded."""

    trace: int
    """Id in the store."""
    name: str
    graph: int
    n_samples: int
    n_values: int
    """Samples whose values are kept."""
    n_layers: int
    n_units: int
    """Units with statistics."""
    left_out: Mapping[str, str]
    """Layers without statistics, and why."""
    batching: str
    """How samples were put into runs."""
    seconds: float
    open_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of random inputs that the model would take in other sizes, too."""

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


def record_trace(
    store: StoreFile,
    graph: str | int | None,
    model: str | Path,
    samples: InputFile | RandomInputs | Mapping[str, Array],
    *,
    options: TraceOptions | None = None,
    progress: Progress | None = None,
) -> TraceSummary:
    """Run a graph's model on samples and store what every unit does, over samples and positions.

    A channel has a value in each pixel, a feature one at each token: all of them count. For the first samples
    three numbers are kept as well: the mean over positions, the mean of absolute values, and the largest. Ifs
    stay at the branch that the graph has. Samples are on axis 0 of the inputs unless `options.sample_axes`
    says otherwise, and run in mini-batches if two samples together give what each gives alone; else one by
    one.

    Args:
        store: Open for writing.
        graph: Name or id; the newest by default.
        model: The file or folder that the graph was exported from. A folder or a GGUF file runs sample by
            sample and block by block, so that the weights of one block are in memory; its samples have the
            sizes of the first one.
        samples: Arrays by input name, a file of them, or a wish for random ones.
        options: Batches, limits, naming.
        progress: Called with (samples done, samples in all).

    Raises:
        InvalidInputError: The file is not the graph's model, or the samples do not fit it.
        UsageError: No such graph or input.
        LimitError: A limit was hit; the store is as it was.

    Example:
        >>> with open_store("net.duckdb", mode="write") as store:  # doctest: +SKIP
        ...     record_trace(store, None, "model.onnx", RandomInputs(100)).n_units
        1234
    """
    options = options or TraceOptions()
    reader = store.graph(graph)
    begin = perf_counter()
    model = Path(model)
    if source_kind(model) is SourceKind.WEIGHTS and has_config(model.parent):
        model = model.parent  # what the graph of a folder calls its source is the file of its weights
    kind = source_kind(model)
    if kind is SourceKind.WEIGHTS:
        raise InvalidInputError(
            f"{quoted(model.name)} holds weights without a network; name the folder with its config.json, an "
            "ONNX file, or import activations that were recorded elsewhere (--import)"
        )
    if kind in (SourceKind.FOLDER, SourceKind.GGUF):
        with _wired(reader, model, samples, options) as (wired, chosen):
            return _record(store, reader, wired, samples, chosen, progress, begin)
    file = read_onnx(model, limits=options.read_limits or ReadLimits(), root=options.root)
    _check_same(reader, file.name, file.sha256)
    return _record(store, reader, file, samples, options, progress, begin)


def _record(
    store: StoreFile,
    reader: GraphReader,
    file: OnnxFile | WiredModel,
    samples: InputFile | RandomInputs | Mapping[str, Array],
    options: TraceOptions,
    progress: Progress | None,
    begin: float,
) -> TraceSummary:
    if isinstance(samples, RandomInputs):
        prepared = random_samples(file, samples, options)
    else:
        arrays = samples.arrays if isinstance(samples, InputFile) else samples
        prepared = given_samples(file, arrays, options)
    _check_branches(reader, prepared.run)
    targets, left_out = recordable(targets_of(reader.layers()), prepared.run)
    kept = kept_samples(prepared.samples.n, sum(t.n_units for t in targets), options.n_values)
    statistics = {target.layer: UnitStatistics(target.n_units, kept) for target in targets}
    asked = (prepared.run, as_source(file), prepared.samples, targets, options.run_limits)
    if isinstance(file, WiredModel):
        batching = BlockRunner(*asked).record(statistics, progress)
    else:
        batching = SampleRunner(*asked).record(statistics, options.batch_size, prepared.fixed, progress)
    header = _header(samples, prepared, batching, kept, options)
    frame = pl.concat([statistics[target.layer].frame(target.first_unit) for target in targets])
    trace = store.write_trace(reader.id, header, frame)
    return TraceSummary(
        trace=trace,
        name=str(reader.traces().filter(pl.col("id") == trace)["name"].item()),
        graph=reader.id,
        n_samples=prepared.samples.n,
        n_values=kept,
        n_layers=len(targets),
        n_units=frame.height,
        left_out=left_out,
        batching=batching.note,
        seconds=perf_counter() - begin,
        open_shapes=prepared.open_shapes,
    )


@contextmanager
def _wired(
    reader: GraphReader,
    model: Path,
    samples: InputFile | RandomInputs | Mapping[str, Array],
    options: TraceOptions,
) -> Iterator[tuple[WiredModel, TraceOptions]]:
    """Open a folder or a GGUF file for samples of these sizes, and say what they all share."""
    from emergraph.exporters.wiring import wired_identity, wired_model  # loads transformers' tables

    note_files(model, root=options.root)
    _check_same(reader, model.name, wired_identity(model, root=options.root))
    first: dict[str, Array] = {}
    if not isinstance(samples, RandomInputs):
        arrays = samples.arrays if isinstance(samples, InputFile) else samples
        for name, array in arrays.items():
            axis = options.sample_axes.get(name, 0)
            first[name] = array if axis is None or not array.ndim else np.take(array, [0], axis)
    first.update(options.inputs)
    with wired_model(
        model, inputs=first, shapes=options.input_shapes, root=options.root, limits=options.run_limits
    ) as wired:
        if wired is None:
            raise InvalidInputError(
                f"{quoted(model.name)}: its tensors have to be converted by transformers; export the folder "
                "with --keep-onnx FILE and give that file"
            )
        shared = {name: array for name, array in wired.feeds.items() if name == MASK and name not in first}
        yield wired.model, replace(options, inputs={**shared, **options.inputs}, input_shapes={})


def _check_same(reader: GraphReader, name: str, sha256: str) -> None:
    expected = str(reader.summary["sha256"])
    if sha256 != expected:
        raise InvalidInputError(
            f"{quoted(name)} is not the model of graph {quoted(reader.name)}: expected "
            f"{quoted(str(reader.summary['source']))} with SHA-256 {expected[:12]}…, found "
            f"{sha256[:12]}…; give that file, or export this one"
        )


def _check_branches(reader: GraphReader, run: ConcreteRun) -> None:
    """Refuse inputs that take other branches than the graph has: its tensors would not exist."""
    stored = [str(branch) for branch in reader.summary["branches"] or ()]  # type: ignore[attr-defined]
    # A graph may hold more branches than a run takes: both of an If, and those in bodies of loops.
    if not set(run.branches) <= set(stored) or bool(stored) != bool(run.branches):
        taken = sorted(set(run.branches) - set(stored)) or ["none"]
        expected = sorted(set(stored) - set(run.branches)) or ["none"]
        raise InvalidInputError(
            f"the samples take branch {', '.join(map(quoted, taken[:3]))}, but graph {quoted(reader.name)} "
            f"has {', '.join(map(quoted, expected[:3]))}; export the model with inputs like these"
        )


def _header(
    samples: InputFile | RandomInputs | Mapping[str, Array],
    prepared: Prepared,
    batching: Batching,
    kept: int,
    options: TraceOptions,
) -> TraceHeader:
    settings: dict[str, object] = {
        "batching": batching.note,
        "sample_axes": dict(prepared.samples.axes),
        "made_up": list(prepared.made_up),
        "input_shapes": {name: list(array.shape) for name, array in prepared.run.inputs.items()},
        "open_shapes": {name: list(shape) for name, shape in prepared.open_shapes.items()},
        "statistics": "over samples and positions",
    }
    header = TraceHeader(
        name=options.name or "inputs",
        kind="inputs",
        n_samples=prepared.samples.n,
        n_values=kept,
        settings=settings,
    )
    if isinstance(samples, RandomInputs):
        name = options.name or f"random-n{samples.n}-seed{samples.seed}"
        return replace(header, name=name, kind="random", seed=samples.seed)
    if isinstance(samples, InputFile):
        name = options.name or Path(samples.source).stem
        return replace(header, name=name, source=samples.source, sha256=samples.sha256)
    return header


BLOCK_BYTES = 128 << 20
"""Bytes of weights, as the operations take them, from which on a block ends at the next narrow place."""
KEPT_SHARE = 2
"""What is kept of all samples may take one part in so many of the limit on memory."""


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
        self._targets = by_tensor(targets)
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
