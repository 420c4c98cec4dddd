"""What is audited: the file, its checked contents, one run of the model, and the network behind it."""

import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.audit.activity import Activity, run_samples
from emergraph.analysis.audit.control import note_decisions
from emergraph.analysis.audit.network import LayerWeights, Network
from emergraph.analysis.modelruns.storedcodes import StoredCodes
from emergraph.atomic import together
from emergraph.errors import EmergraphError, InvalidInputError
from emergraph.exporters.checking import check_any
from emergraph.exporters.export import ExportOptions
from emergraph.exporters.modeltensors import open_model
from emergraph.exporters.nodes import made_of_constants
from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.onnxfile.findings import Finding, Severity
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.runtime.concrete import ConcreteRun
from emergraph.exporters.runtime.flat_model import names_used
from emergraph.exporters.runtime.folding import Folder, folder_of
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.sizes import open_shapes_note
from emergraph.exporters.runtime.sources import FileSource
from emergraph.exporters.sourcekinds import SourceKind, source_kind
from emergraph.exporters.sources import SourceOptions, export_any
from emergraph.exporters.traces.options import TraceOptions
from emergraph.exporters.traces.prepare import Prepared, given_samples, random_samples
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.graphstore.modelfiles import model_given
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.store import open_store
from emergraph.leftovers import Scratch

if TYPE_CHECKING:
    from emergraph.exporters.weightfiles.weightfile import WeightFile

Array = NDArray[np.generic]
T = TypeVar("T")

RANDOM_SAMPLES = 8
"""Samples that are made up where none are given."""
MOST_SAMPLES = 256
"""Samples of a file that an audit looks at; each is a run of the model."""


class BudgetSpentError(Exception):
    """The time is over; `audit_model` says what is left out."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a user gives besides the model."""

    inputs: Mapping[str, Array] = field(default_factory=dict)
    """Samples by input name; empty: random ones."""
    values: Mapping[str, Array] = field(default_factory=dict)
    """Inputs that all samples share, such as a sampling rate."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    root: Path | None = None
    """Folder that symbolic links of the model may lead to."""
    limits: RunLimits = field(default_factory=RunLimits)
    seed: int = 0
    store: Path | None = None
    """Where the graph is made, and stays; by default in a store of the moment."""


@dataclass(frozen=True, eq=False)
class OnnxSubject:
    """An ONNX file, the operations that one run took, and what they were run on."""

    file: OnnxFile
    run: ConcreteRun
    prepared: Prepared

    @cached_property
    def source(self) -> FileSource:
        """The values of the file."""
        return FileSource(self.file)

    @cached_property
    def codes(self) -> StoredCodes:
        """How tensors are stored."""
        flat = self.run.flat
        return StoredCodes(flat, self.value)

    def value(self, name: str) -> Array:
        """The values of an initializer, as they are stored."""
        return self.source.array(self.run.flat.initializers[name])

    @cached_property
    def folder(self) -> Folder:
        """Computes what follows from constants."""
        return folder_of(self.run.flat, self.source)

    def constant(self, name: str) -> Array | None:
        """The values of a constant, also of one that operations make; None for what is none."""
        if name in self.run.flat.initializers:
            return self.value(name)
        if name in self.makers:
            with contextlib.suppress(EmergraphError):
                return self.folder.named(name, self.makers, self.value)
        return None

    @cached_property
    def makers(self) -> Mapping[str, onnx.NodeProto]:
        """The operations that make constants of constants, by what they make."""
        return made_of_constants(self.run.flat.nodes, self.run.flat.initializers)

    @cached_property
    def needed(self) -> frozenset[str]:
        """Names of the tensors that an output depends on."""
        return _closure(self.run.flat.nodes, self.run.flat.outputs)

    @cached_property
    def names_read(self) -> frozenset[str]:
        """Names that any operation of the file's main graph reads, those of branches not taken included."""
        return frozenset(names_used(list(self.file.model.graph.node)))

    @cached_property
    def needed_in_file(self) -> frozenset[str]:
        """Names of the file's main graph that an output depends on, whichever branches are taken."""
        graph = self.file.model.graph
        return _closure(graph.node, [value.name for value in graph.output])

    @cached_property
    def has_bfloat16(self) -> bool:
        """Whether any tensor is of bfloat16, which runs as float32 here."""
        flat = self.run.flat
        stored = {proto.data_type for proto in flat.initializers.values()}
        cast = {a.i for node in flat.nodes for a in node.attribute if a.name in ("to", "dtype")}
        given = {value.element_type for value in flat.inputs}
        return onnx.TensorProto.BFLOAT16 in stored | cast | given

    @cached_property
    def maker_of(self) -> Mapping[str, onnx.NodeProto]:
        """The operation that makes each tensor."""
        return {name: node for node in self.run.flat.nodes for name in node.output if name}

    @cached_property
    def consumers(self) -> Mapping[str, list[int]]:
        """By tensor, the operations that read it; -1 for an output of the model."""
        found: dict[str, list[int]] = {}
        for index, node in enumerate(self.run.flat.nodes):
            for name in sorted(names_used([node])):
                found.setdefault(name, []).append(index)
        for name in self.run.flat.outputs:
            found.setdefault(name, []).append(-1)
        return found


def _closure(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> frozenset[str]:
    """Outputs, and all that they depend on."""
    makers = {name: node for node in nodes for name in node.output if name}
    stack, seen = list(outputs), set(outputs)
    while stack:
        node = makers.get(stack.pop())
        for name in names_used([node]) if node is not None else ():
            if name and name not in seen:
                seen.add(name)
                stack.append(name)
    return frozenset(seen)


@dataclass(eq=False)
class Subject:
    """A model that is audited."""

    path: str
    kind: SourceKind
    checks: Sequence[Finding]
    given: bool = False
    """Whether the samples are a user's."""
    onnx: OnnxSubject | None = None
    weights: "WeightFile | None" = None
    network: Network | None = None
    store: Path | None = None
    model: Path | None = None
    """The ONNX file that is run: the model itself, or what a module was written to."""
    activity: Activity | None = None
    outputs: Sequence[Array] | None = None
    """Of the samples that were run, samples first; None where the model was not run."""
    n_samples: int = 0
    notes: list[str] = field(default_factory=list)
    reference: "Subject | None" = None
    """What the model is compared with."""
    limits: RunLimits = field(default_factory=RunLimits)
    """Of the processes that run it."""
    end: float = math.inf
    """When the budget is spent, by the monotonic clock."""

    def time_is_over(self) -> bool:
        """Whether the budget is spent."""
        return time.monotonic() > self.end

    def check_time(self) -> None:
        """End the section that is being looked at, where the budget is spent.

        Raises:
            BudgetSpentError: It is.
        """
        if self.time_is_over():
            raise BudgetSpentError

    def in_time(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items, until the budget is spent.

        Raises:
            BudgetSpentError: It is.
        """
        for item in items:
            self.check_time()
            yield item

    @cached_property
    def weights_by_layer(self) -> "dict[int, LayerWeights]":
        """The weights of every layer whose units can be compared, by layer."""
        found: dict[int, LayerWeights] = {}
        for layer in self.in_time(() if self.network is None else self.network.weight_layers()):
            if self.network is not None and (held := self.network.weights(layer)) is not None:
                found[layer.id] = held
        return found

    @property
    def refused(self) -> bool:
        """Whether `check` found something with which the file is not loaded."""
        return any(finding.severity is Severity.ERROR for finding in self.checks)


@contextlib.contextmanager
def opened(model: str | Path, given: Given) -> Iterator[Subject]:
    """Check a file and, where nothing speaks against it, read, run and trace it.

    What cannot be had (a format without operations, an operation that is not understood) is left out with a
    note.
    """
    kind = source_kind(model)
    checks = [] if kind is SourceKind.FACTORY else check_any(model, root=given.root)
    subject = Subject(
        path=str(model), kind=kind, checks=checks, given=bool(given.inputs), limits=given.limits
    )
    if subject.refused:
        yield subject
        return
    with Scratch() as scratch, contextlib.ExitStack() as closing:
        reader = _graph(subject, given, scratch.path, closing)
        if reader is not None:
            subject.network = Network(reader)
        _look_inside(subject, given)
        if subject.onnx is not None:
            closing.callback(subject.onnx.folder.close)
            if subject.network is not None:
                note_decisions(subject.network, subject.onnx.run.flat)
        yield subject


def _graph(subject: Subject, given: Given, folder: Path, closing: contextlib.ExitStack) -> GraphReader | None:
    """The model's graph in a store of the moment; None, and a note, where there is none."""
    subject.store = given.store or folder / "audit.duckdb"
    subject.model = Path(subject.path)
    source = SourceOptions()
    if subject.kind in (SourceKind.FACTORY, SourceKind.FOLDER):
        subject.model = folder / "model.onnx"
        source = SourceOptions(onnx_path=subject.model)
    scalars = {name: array for name, array in given.inputs.items() if np.asarray(array).size == 1}
    options = ExportOptions(
        name=Path(subject.path).stem,
        inputs={**scalars, **given.values},
        input_shapes=given.shapes,
        root=given.root,
        run_limits=given.limits,
        seed=given.seed,
    )
    try:
        # what is made here is there at once, and not only when the command ends
        with together(), open_store(subject.store, mode="create", in_place=True) as store:
            export_any(subject.path, store, options=options, source=source)
    except InvalidInputError as error:
        subject.notes.append(f"no graph: {error}")
        return None
    opened = closing.enter_context(open_store(subject.store))
    graph = opened.graph()
    if graph.lacks_weights:
        model = subject.model if subject.model.is_file() else Path(subject.path)
        root = given.root if model == Path(subject.path) else None
        with model_given(open_model(model, root=root)):
            graph = opened.graph()
    return graph


def _look_inside(subject: Subject, given: Given) -> None:
    if subject.kind in (SourceKind.WEIGHTS, SourceKind.GGUF):
        from emergraph.exporters.weightfiles.reader import read_weights

        subject.weights = read_weights(subject.path, root=given.root)
        return
    if subject.model is None or not subject.model.is_file():
        return
    root = given.root if subject.model == Path(subject.path) else None
    file = read_onnx(subject.model, root=root)
    options = TraceOptions(
        run_limits=given.limits, inputs=given.values, input_shapes=given.shapes, root=given.root
    )
    if given.inputs:
        prepared = given_samples(file, given.inputs, options)
    else:
        prepared = random_samples(file, RandomInputs(n=RANDOM_SAMPLES, seed=given.seed), options)
    if prepared.open_shapes:
        subject.notes.append(open_shapes_note(prepared.open_shapes))
    subject.onnx = OnnxSubject(file, prepared.run, prepared)


def run_subject(subject: Subject, given: Given, *, seconds: float) -> None:
    """Run the model on its samples, as many as the time allows, and keep outputs and what units did."""
    if subject.onnx is None:
        return
    layers = None if subject.network is None else subject.network.layers
    n_units = 0 if subject.network is None else subject.network.graph.n_units
    try:
        found = run_samples(
            subject.onnx.prepared,
            subject.onnx.source,
            layers,
            n_units,
            limits=given.limits,
            seconds=seconds,
            most=MOST_SAMPLES,
        )
    except InvalidInputError as error:
        subject.notes.append(f"not run: {error}")
        return
    subject.outputs, subject.n_samples = found.outputs, found.n
    subject.activity = Activity(
        n=found.n,
        given=subject.given,
        low=found.low,
        high=found.high,
        measured=found.measured,
        tensors=found.tensors,
    )


def matched(subject: Subject, reference: Subject) -> Iterator[tuple[LayerWeights, LayerWeights]]:
    """Yield layers that stand at the same place of both networks and have the same shape."""
    if subject.network is None or reference.network is None:
        return
    others = {reference.network.keys[layer]: held for layer, held in reference.weights_by_layer.items()}
    for layer, held in subject.weights_by_layer.items():
        other = others.get(subject.network.keys[layer])
        if other is not None and other.rows.shape == held.rows.shape and other.widths == held.widths:
            yield held, other


def stored_tensors(subject: Subject) -> Iterator[tuple[str, str, Array]]:
    """Yield the tensors of numbers of a file with their types and values, one at a time."""
    if subject.onnx is not None:
        flat = subject.onnx.run.flat
        for name, proto in flat.initializers.items():
            tensor = subject.onnx.file.tensor_of(proto)
            if not tensor.dtype.startswith(("string", "complex")):
                yield name, tensor.dtype, tensor.array()
    elif subject.weights is not None:
        for name, lazy in subject.weights.tensors.items():
            if lazy.alias_of is None and not lazy.dtype.startswith("complex"):
                yield name, lazy.dtype, lazy.array()
