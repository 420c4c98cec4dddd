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

from emergraph.analysis.audit.activity import Activity
from emergraph.analysis.audit.network import LayerWeights, Network
from emergraph.analysis.modelruns.running import ModelRuns
from emergraph.analysis.modelruns.storedcodes import StoredCodes
from emergraph.errors import EmergraphError
from emergraph.exporters.nodes import made_of_constants
from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.onnxfile.findings import Finding, Severity
from emergraph.exporters.runtime.concrete import ConcreteRun
from emergraph.exporters.runtime.flat_model import names_used
from emergraph.exporters.runtime.folding import Folder, folder_of
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.sources import FileSource
from emergraph.exporters.sourcekinds import SourceKind
from emergraph.exporters.traces.prepare import Prepared

if TYPE_CHECKING:
    from emergraph.exporters.weightfiles.weightfile import WeightFile

Array = NDArray[np.generic]
T = TypeVar("T")

RANDOM_SAMPLES = 8
"""Samples that are made up where none are given."""
MOST_SAMPLES = 256
"""Samples of a file that an audit looks at; each is a run of the model."""
AGREEMENT = 1e-4
"""Outputs agree where |a - b| <= AGREEMENT * max(1, max |a|), element by element."""
SAMPLES = 4
"""Samples on which variants of a model are tried."""


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


def runs_of(subject: Subject, onnx_subject: OnnxSubject) -> ModelRuns:
    """Runs of a model and of variants of it on its first samples."""
    few = onnx_subject.prepared.first(SAMPLES)
    return ModelRuns(onnx_subject.run.flat, onnx_subject.source, few, limits=subject.limits)


def elementwise(a: Array, b: Array) -> float:
    """The largest |a - b| over max(1, max |a|); infinite where shapes, types, integers or NaNs differ."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if a.dtype.kind != "f":
        return 0.0 if np.array_equal(a, b) else float("inf")
    if not a.size:
        return 0.0
    x, y = a.astype(np.float64), b.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(x - y))
    finite = np.abs(x[np.isfinite(x)])
    scale = max(1.0, float(finite.max(initial=0.0)))
    return float(np.nan_to_num(gap, nan=np.inf).max()) / scale
