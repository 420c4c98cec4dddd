"""Exporting an ONNX file: read it safely, run it once, trace its units, write one graph into a store."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.counting import CountingSink
from emergraph.exporters.filetensors import is_weight, leaves_edges
from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.onnxfile.limits import ReadLimits
from emergraph.exporters.onnxfile.names import listed
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.placements import EdgePlacement
from emergraph.exporters.runtime.concrete import ConcreteRun, concrete_run
from emergraph.exporters.runtime.folding import folder_of
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.sources import as_source
from emergraph.exporters.summary import GraphSummary
from emergraph.exporters.tracing.bodies import body_runner
from emergraph.exporters.tracing.context import TracedModel
from emergraph.exporters.tracing.prepare import FileParameter, open_branches, traced_model
from emergraph.exporters.tracing.tracer import trace
from emergraph.exporters.trainingmode import training_warnings
from emergraph.exporters.weightfiles.dtypes import FLOATING
from emergraph.exporters.wiredmodel import WiredModel, WiredTensor
from emergraph.graphstore.records import GraphHeader, GraphSink
from emergraph.graphstore.store import StoreFile

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What decides an export besides the file."""

    name: str | None = None
    """Name of the graph in the store; the file's stem by default."""
    inputs: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """Values of inputs, for the concrete run."""
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of inputs, for the concrete run."""
    seed: int = 0
    """Of synthetic inputs."""
    all_branches: bool = False
    """Trace both branches of every If whose condition depends on the inputs, not only the one taken."""
    source: str | None = None
    """What the graph was made from, where that is not the file itself (a module's class)."""
    format: str = "onnx"
    wiring: str = "traced"
    """"declared" where the user named the class that weights belong to."""
    parameters: frozenset[str] | None = None
    """Names of the tensors that are parameters, where that is known (a module's, without its buffers)."""
    notes: tuple[str, ...] = ()
    """Lines for the graph's warnings."""
    step: int | None = None
    """Training step of a snapshot."""
    parent: int | None = None
    """Graph that this one is a variant of."""
    edges: EdgePlacement = EdgePlacement.AUTO
    """Whether edges become rows of the store, or stay in the file."""
    kept_as: str | None = None
    """Name under which the file is kept, where that is not its own; "" where it is not kept."""
    force: bool = False
    """Export even if the store holds a graph of the same file and settings."""
    root: Path | None = None
    """Folder that symbolic links of external data may lead to."""
    read_limits: ReadLimits = field(default_factory=ReadLimits)
    run_limits: RunLimits = field(default_factory=RunLimits)


@dataclass(frozen=True, kw_only=True)
class ToWrite:
    """What an export does besides tracing."""

    rows: int
    """Edges that become rows."""
    weights: int
    """Weights that stay in the file, and are summed up."""
    bytes: int
    """Bytes of tensors whose checksum is computed."""


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What an export did."""

    graph: int | None
    """Id of the graph in the store; None for a dry run."""
    name: str
    source: str
    """File name of the model."""
    sha256: str
    reused: bool
    """The store already held this graph; nothing was written."""
    trace: GraphSummary | None
    """None when the graph was reused."""
    branches: tuple[str, ...]
    """Branches of If operations that were followed."""
    input_shapes: Mapping[str, tuple[int, ...]]
    """Of the concrete run."""
    seconds: float
    in_place: bool = False
    """Edges stay in the file where the file holds their weights as they are."""
    estimated_bytes: int | None = None
    """For a dry run: what the graph would take in a store."""
    to_write: ToWrite | None = None
    """For a dry run: what is left to do after the trace."""

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        plain = asdict(self)
        plain["input_shapes"] = {name: list(shape) for name, shape in self.input_shapes.items()}
        if self.trace is not None and not self.in_place:
            del plain["trace"]["rows"]  # all of them are
        return plain


def export_onnx(
    path: str | Path,
    store: StoreFile,
    *,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Trace the units of an ONNX file and write its graph into a store, in one transaction.

    Args:
        path: The model file. Nothing in it is executed but the operations of the model themselves, by
            onnxruntime in a child process under limits.
        store: Open for writing.
        options: Inputs, limits, naming.
        progress: Called with (operations done, operations in all).

    Returns:
        Counts, coverage and the id of the graph.

    Raises:
        InvalidInputError: The file is not a model, or no operation with weights in it is understood.
        UnsafeInputError: The file asks for something that is refused.
        LimitError: A limit of time or memory was hit; the store is as it was.
        StoreError: The store cannot be written.

    Example:
        >>> from emergraph.graphstore.store import open_store
        >>> with open_store("net.duckdb", mode="create") as store:  # doctest: +SKIP
        ...     export_onnx("model.onnx", store).graph
        1
    """
    options = options or ExportOptions()
    file = read_onnx(path, limits=options.read_limits, root=options.root)
    return export_file(file, store, options=options, progress=progress)


def export_file(
    file: OnnxFile | WiredModel,
    store: StoreFile,
    *,
    options: ExportOptions,
    progress: Progress | None = None,
) -> ExportSummary:
    """Trace the units of a model that is open; as for `export_onnx`."""
    start = perf_counter()
    in_place = _in_place(file, options)
    settings = _settings(options, in_place=in_place)
    known = None if options.force else store.find_graph(file.sha256, settings)
    if known is not None:
        return ExportSummary(
            graph=known,
            name=store.graph(known).name,
            source=file.name,
            sha256=file.sha256,
            reused=True,
            in_place=in_place,
            trace=None,
            branches=(),
            input_shapes={},
            seconds=perf_counter() - start,
        )
    run = _run(file, options)
    header = GraphHeader(
        name=options.name or Path(file.name).stem,
        source=options.source or file.name,
        sha256=file.sha256,
        format=options.format,
        producer=_producer(file.model),
        wiring=options.wiring,
        parent=options.parent,
        step=options.step,
        settings=settings,
    )
    with store.write_graph(header, in_place=in_place) as writer:
        summary = _trace(file, run, writer, options, progress, in_place=in_place)
        graph = writer.finish(summary.footer(branches=_branches(run, summary)))
    name = store.graph(graph).name
    return _summary(file, run, summary, graph=graph, name=name, start=start, in_place=in_place)


def dry_run(
    path: str | Path | WiredModel,
    *,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
    sink: CountingSink | None = None,
) -> ExportSummary:
    """Do all that `export_onnx` does but write: coverage, edges, and the size that a store would take.

    Args:
        path: As in `export_onnx`, or a model that is open.
        options: As in `export_onnx`.
        progress: As in `export_onnx`.
        sink: What counts; one that keeps more is asked afterwards what it saw.
    """
    options = options or ExportOptions()
    start = perf_counter()
    file = (
        path
        if isinstance(path, WiredModel)
        else read_onnx(path, limits=options.read_limits, root=options.root)
    )
    run = _run(file, options)
    in_place = _in_place(file, options)
    sink = sink or CountingSink(in_place=in_place)
    summary = _trace(file, run, sink, options, progress, in_place=in_place)
    name = options.name or Path(file.name).stem
    size = sink.estimated_bytes
    found = _summary(file, run, summary, graph=None, name=name, start=start, size=size, in_place=in_place)
    return replace(found, to_write=to_write(sink))


def to_write(sink: CountingSink) -> ToWrite:
    """What an export to a store would do besides what it did to a sink that counts."""
    return ToWrite(rows=sink.n_edges - sink.n_in_place, weights=sink.n_in_place, bytes=sink.n_bytes)


def _in_place(file: OnnxFile | WiredModel, options: ExportOptions) -> bool:
    """Whether the edges of a file's graph stay in it.

    Raises:
        UsageError: They should, but the file is gone when the export ends.
    """
    if options.kept_as == "":
        if options.edges is EdgePlacement.IN_PLACE:
            raise UsageError(
                "--edges in-place needs a file that stays: keep the ONNX file of a module, --keep-onnx FILE"
            )
        return False
    return leaves_edges(options.edges, _weights_in_file(file))


def _weights_in_file(file: OnnxFile | WiredModel) -> Iterator[tuple[int, ...]]:
    """Shapes of the tensors whose weights can stay in a file."""
    for tensor in file.tensors.values():
        coded = isinstance(tensor, WiredTensor) and tensor.is_coded
        if is_weight(tensor.dtype, codes=True) and (coded or tensor.held() is not None):
            yield tensor.shape


LARGE_BYTES = 2 << 30
"""Bytes of weights from which on a file is run without those of its matrices."""
_MATRIX = 1 << 14
"""Elements of a matrix that is left out then."""


def _run(file: OnnxFile | WiredModel, options: ExportOptions) -> ConcreteRun:
    """The concrete run; of a large file without its weights, where the shapes follow without them."""
    withheld = file.withheld if isinstance(file, WiredModel) else _large_matrices(file)
    try:
        return _run_without(withheld, file, options)
    except InvalidInputError:
        if isinstance(file, WiredModel) or not withheld:
            raise
        return _run_without(frozenset(), file, options)


def _large_matrices(file: OnnxFile) -> frozenset[str]:
    tensors = file.tensors
    if sum(tensor.n_bytes for tensor in tensors.values()) <= LARGE_BYTES:
        return frozenset()
    floats = {name: one for name, one in tensors.items() if one.dtype in FLOATING and len(one.shape) > 1}
    return frozenset(name for name, one in floats.items() if one.n_elements > _MATRIX)


def _run_without(
    withheld: frozenset[str], file: OnnxFile | WiredModel, options: ExportOptions
) -> ConcreteRun:
    return concrete_run(
        file,
        withheld=withheld,
        inputs=dict(options.inputs),
        input_shapes=dict(options.input_shapes),
        limits=options.run_limits,
        seed=options.seed,
    )


def _trace(
    file: OnnxFile | WiredModel,
    run: ConcreteRun,
    sink: GraphSink,
    options: ExportOptions,
    progress: Progress | None,
    *,
    in_place: bool,
) -> GraphSummary:
    with traceable(file, run, options) as model:
        files = _files(file, options)
        summary = trace(model, sink, files=files, in_place=in_place, progress=progress)
    if not summary.n_weight_edges:
        raise InvalidInputError(_nothing_understood(file.name, summary))
    training = training_warnings(run.flat.training)
    return replace(summary, warnings=(*summary.warnings, *training, *options.notes))


@contextmanager
def traceable(file: OnnxFile | WiredModel, run: ConcreteRun, options: ExportOptions) -> Iterator[TracedModel]:
    """A model as the tracer takes it; its constants can be computed as long as the context lasts."""

    def parameter(proto: onnx.TensorProto) -> FileParameter:
        lazy = file.tensor_of(proto)
        if isinstance(lazy, WiredTensor):
            return FileParameter(lazy.shape, lazy.dtype, lazy.array, lazy.held, lazy.coded)
        return FileParameter(lazy.shape, lazy.dtype, lazy.array, lazy.held)

    source, limits = as_source(file), options.run_limits
    bodies = body_runner(run.flat, source, limits=limits, seed=options.seed)
    if options.all_branches:
        run = replace(run, flat=open_branches(source, run.flat))
    with folder_of(run.flat, source, limits) as folder:
        yield traced_model(run, parameter, folder=folder, run_body=bodies, parameters=options.parameters)


def _files(file: OnnxFile | WiredModel, options: ExportOptions) -> Mapping[str, memoryview]:
    """The mapped files that weights are in, by the names under which they are kept."""
    if isinstance(file, WiredModel):
        return file.weights.files
    outside = {name: mapped.content for name, mapped in file.external_files.items()}
    return {options.kept_as or file.name: file.content, **outside}


def _branches(run: ConcreteRun, summary: GraphSummary) -> tuple[str, ...]:
    """Branches that the run took, and those that were traced besides."""
    return tuple(dict.fromkeys((*run.branches, *summary.branches)))


def _nothing_understood(name: str, summary: GraphSummary) -> str:
    start = f"{name}: no operation with weights is understood, so no weighted graph can be created"
    if summary.opaque:
        why = {op.op: op.reason or "no reason is known" for op in reversed(summary.opaque)}
        return f"{start}; not understood: {listed([f'{op} ({why[op]})' for op in sorted(why)])}"
    if summary.n_parameters:
        return f"{name}: all weights of its operations are zero, so no weighted graph can be created"
    return f"{name}: no operation of this model has weights, so no weighted graph can be created"


def _producer(model: onnx.ModelProto) -> str:
    return " ".join(part for part in (model.producer_name, model.producer_version) if part)


def _settings(options: ExportOptions, *, in_place: bool) -> dict[str, object]:
    """What decides the graph besides the file, as plain JSON values."""
    return {
        "inputs": {name: _described(array) for name, array in sorted(options.inputs.items())},
        "input_shapes": {name: list(shape) for name, shape in sorted(options.input_shapes.items())},
        "seed": options.seed,
        **({"branches": "all"} if options.all_branches else {}),
        **({"edges": EdgePlacement.IN_PLACE.value} if in_place else {}),
    }


def _described(array: NDArray[np.generic]) -> object:
    """A small value itself; of a large one its shape and a checksum."""
    if array.size <= 16 and array.dtype.kind in "biuf":
        return array.tolist()
    import hashlib

    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}


def _summary(
    file: OnnxFile | WiredModel,
    run: ConcreteRun,
    summary: GraphSummary,
    *,
    graph: int | None,
    name: str,
    start: float,
    in_place: bool,
    size: int | None = None,
) -> ExportSummary:
    return ExportSummary(
        graph=graph,
        name=name,
        source=file.name,
        sha256=file.sha256,
        reused=False,
        trace=summary,
        branches=_branches(run, summary),
        input_shapes={key: tuple(array.shape) for key, array in run.inputs.items()},
        seconds=perf_counter() - start,
        in_place=in_place,
        estimated_bytes=size,
    )
