"""Snapshots of a module while it is trained: weights, activations on probe inputs, and metrics."""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.atomic import write_atomically
from emergraph.errors import InvalidInputError, StoreError, UsageError
from emergraph.exporters.pytorch.checking import compare, feeds_of
from emergraph.exporters.pytorch.structure import CurrentWeights, ModuleStructure, export_structure
from emergraph.exporters.pytorch.tensors import evaluating, on_device_of, outputs_of, require_torch
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.wholemodel import whole_model
from emergraph.exporters.traces.running import Batching, SampleRunner
from emergraph.exporters.traces.samples import GivenSamples
from emergraph.exporters.traces.statistics import UnitStatistics, kept_samples
from emergraph.exporters.traces.targets import Target
from emergraph.graphstore.records import GraphHeader, TraceHeader
from emergraph.graphstore.store import StoreFile, open_store
from emergraph.graphstore.storefile import check_place
from emergraph.graphstore.text import printable
from emergraph.leftovers import Scratch

if TYPE_CHECKING:
    import torch

Array = NDArray[np.generic]
_WAIT_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class RecorderOptions:
    """What decides a recording besides the module and the probe inputs."""

    every: int = 1
    """Of how many calls of `step` one is recorded; the first always is."""
    name: str | None = None
    """Name of the snapshots; "-" and the step are appended. The module's class by default."""
    n_values: int = 32
    """Most probe samples whose values are kept per unit, the first ones; statistics are over all."""
    batch_size: int = 256
    """Most probe samples per run."""
    check: bool = True
    """Compare the outputs of each snapshot with the module's, on two probe samples."""
    patience: float = 60.0
    """Seconds to wait for a store that another process is reading."""
    any_name: bool = False
    """Let a new store have a name that does not end in .duckdb or .db."""
    models: Path | None = None
    """Folder that gets each snapshot as an ONNX file, too, which `prune --write` and `audit` ask for."""
    limits: RunLimits = field(default_factory=RunLimits)


class Recorder:
    """Writes snapshots of a module into a store; made by `record`, used in a `with` statement.

    The structure is exported once, when the block is entered; a step only reads the weights, runs the probe
    inputs in a child process and writes. The store is open only while a step is written, in one transaction:
    others can read it in between, and a killed training keeps every finished step.
    """

    def __init__(
        self,
        module: "torch.nn.Module",
        store: str | Path,
        inputs: Any,  # noqa: ANN401 - a tensor, a tuple of arguments, or a dict of them
        options: RecorderOptions,
    ) -> None:
        if options.every < 1:
            raise UsageError(f"every={options.every}: expected at least 1")
        self._module = module
        self._path = Path(store)
        self._options = options
        self._args, self._kwargs = _arguments(inputs)
        self._n = _sample_count([self._args, self._kwargs])
        self._scratch: Scratch | None = None
        self._structure: ModuleStructure | None = None
        self._samples: GivenSamples | None = None
        if options.models is not None and not options.models.is_dir():
            raise UsageError(f"models: {printable(str(options.models), limit=100)} is not a folder")
        self._batching: Batching | None = None
        self._process: ModelProcess | None = None
        self._calls = 0
        self.graphs: list[int] = []
        """Ids of the snapshots, oldest first."""

    def __enter__(self) -> Self:
        check_place(self._path, may_make=True, any_name=self._options.any_name)
        self._scratch = Scratch()
        try:
            self._prepare(self._scratch.path)
        except BaseException:
            self._scratch.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._structure = self._samples = None
        if self._process is not None:
            self._process.close()
        if self._scratch is not None:
            self._scratch.close()

    def step(self, step: int, **metrics: float) -> int | None:
        """Record the module as it is now.

        Args:
            step: Epoch or training step; kept as the graph's `step`.
            **metrics: Numbers about this step, such as loss and accuracy.

        Returns:
            Id of the snapshot's graph; None when this call is left out by `every`.

        Raises:
            UsageError: The recorder is not inside its `with` block.
            InvalidInputError: The module has changed its shape, or its export computes something else now.
            StoreError: The store cannot be written.
        """
        if self._structure is None or self._process is None:
            raise UsageError("the recorder is closed: call step inside `with emergraph.record(...) as rec:`")
        self._calls += 1
        if (self._calls - 1) % self._options.every:
            return None
        source = self._structure.current(self._module)
        self._process.renew()
        if self._options.check and self.graphs:
            self._check(source, self._process)
        trace, frame = self._activations(source, self._process)
        with self._opened() as store:
            graph = self._write(store, source, step, (trace, frame), metrics)
        self.graphs.append(graph)
        return graph

    def add_metrics(self, **metrics: float) -> None:
        """Add numbers to the last snapshot: those that are known only after it was taken.

        Raises:
            UsageError: There is no snapshot yet.
            StoreError: The store cannot be written.

        Example:
            >>> rec.step(epoch, loss=loss)  # doctest: +SKIP
            >>> rec.add_metrics(val_accuracy=evaluate(model))  # doctest: +SKIP
        """
        if not self.graphs:
            raise UsageError("no snapshot yet: call step before add_metrics")
        with self._opened() as store:
            store.write_metrics(self.graphs[-1], metrics)

    def _prepare(self, folder: Path) -> None:
        """Export the module on its first two samples; how many there may be is left open."""
        torch = require_torch()
        args, kwargs = self._first_samples(2)
        free = torch.export.Dim.AUTO if self._n > 1 else None
        shapes = _tree_map(lambda t: {0: free} if free and _has_samples(t, 2) else None, (args, kwargs))
        structure = export_structure(
            self._module,
            args,
            folder=folder,
            kwargs=kwargs,
            dynamic_shapes=shapes[1] if kwargs else shapes[0],
            limits=self._options.limits,
        )
        arrays = feeds_of(structure.base, self._args, self._kwargs)
        axes = {name: 0 if _is_sampled(array, self._n) else None for name, array in arrays.items()}
        self._structure, self._samples = structure, GivenSamples(self._n, arrays, axes)
        self._process = ModelProcess(self._options.limits)

    def _first_samples(self, count: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """They lie where the module is now: a trainer may have moved it since."""

        def cut(tensor: Any) -> Any:  # noqa: ANN401
            return tensor[:count] if _has_samples(tensor, self._n) else tensor

        args, kwargs = _tree_map(cut, (self._args, self._kwargs))
        args, kwargs = on_device_of(self._module, (args, kwargs))
        return tuple(args), kwargs

    def _check(self, source: CurrentWeights, process: ModelProcess) -> None:
        """Refuse a snapshot that does not compute what the module computes; randomness is not used up."""
        structure, _ = self._ready()
        args, kwargs = self._first_samples(2)
        with require_torch().random.fork_rng(devices=[]), evaluating(self._module):
            expected = outputs_of(self._module, args, kwargs)
        compare(source, structure.feeds, expected, structure.label, process)

    def _ready(self) -> tuple[ModuleStructure, GivenSamples]:
        if self._structure is None or self._samples is None:
            raise UsageError("the recorder is closed")
        return self._structure, self._samples

    def _activations(self, source: CurrentWeights, process: ModelProcess) -> tuple[TraceHeader, pl.DataFrame]:
        structure, samples = self._ready()
        targets = [
            Target(
                layer=layer.id,
                name=layer.name,
                first_unit=layer.first_unit,
                n_units=layer.n_units,
                tensor=layer.activation_tensor,
                axes=layer.activation_axes,
            )
            for layer in structure.layers
            if layer.activation_tensor is not None and layer.activation_axes is not None
        ]
        kept = kept_samples(samples.n, sum(t.n_units for t in targets), self._options.n_values)
        statistics = {target.layer: UnitStatistics(target.n_units, kept) for target in targets}
        runner = SampleRunner(structure.run, source, samples, targets, self._options.limits)
        self._batching = runner.record(
            statistics,
            self._options.batch_size,
            self._fixed(),
            None,
            batching=self._batching,
            process=process,
        )
        header = TraceHeader(
            name="probe",
            kind="inputs",
            n_samples=samples.n,
            n_values=kept,
            settings={
                "batching": self._batching.note,
                "sample_axes": dict(samples.axes),
                "statistics": "over samples and positions",
            },
        )
        frames = [statistics[target.layer].frame(target.first_unit) for target in targets]
        return header, pl.concat(frames)

    def _fixed(self) -> int | None:
        """The batch that the export insists on, if it does."""
        structure, samples = self._ready()
        for value in structure.run.flat.inputs:
            if samples.axes[value.name] == 0 and value.shape:
                size = value.shape[0]
                return size if isinstance(size, int) and size > 1 else None
        return None

    def _write(
        self,
        store: StoreFile,
        source: CurrentWeights,
        step: int,
        trace: tuple[TraceHeader, pl.DataFrame],
        metrics: Mapping[str, float],
    ) -> int:
        structure, _ = self._ready()
        name = f"{self._options.name or structure.label}-{step}"
        kept, sha256 = structure.label, source.sha256()
        if self._options.models is not None:
            content = whole_model(source)
            kept, sha256 = f"{_file_name(name)}.onnx", hashlib.sha256(content).hexdigest()
            write_atomically(self._options.models / kept, content)
        header = GraphHeader(
            name=name,
            source=kept,
            sha256=sha256,
            format="module",
            producer=structure.producer,
            parent=self.graphs[0] if self.graphs else None,
            step=step,
            settings={
                "snapshot": True,
                "input_shapes": {name: list(array.shape) for name, array in structure.feeds.items()},
            },
        )
        with store.write_graph(header) as writer:
            summary = structure.write(source, writer)
            writer.write_trace(*trace)
            writer.write_metrics(metrics)
            return writer.finish(summary.footer(branches=structure.run.branches))

    def _opened(self) -> StoreFile:
        """The store, as soon as no other process has it open."""
        until = time.monotonic() + self._options.patience
        while True:
            try:
                return open_store(self._path, mode="create", any_name=self._options.any_name)
            except StoreError as error:
                if "locked by another process" not in str(error) or time.monotonic() >= until:
                    raise
            time.sleep(_WAIT_SECONDS)


def record(
    module: "torch.nn.Module",
    store: str | Path,
    *,
    inputs: Any,  # noqa: ANN401 - a tensor, a tuple of arguments, or a dict of them
    every: int = 1,
    name: str | None = None,
    options: RecorderOptions | None = None,
) -> Recorder:
    """Record a module while it is trained: its graph, activations on probe inputs, and metrics, per step.

    Args:
        module: It is left as it is: recording runs it in evaluation mode on two samples, without gradients.
        store: The store, which is created if missing.
        inputs: Probe inputs: a tensor, a tuple of arguments, or a dict of arguments by name. Tensors with as
            many rows as the first one are samples along axis 0; all others are the same for all samples.
        every: Of how many calls of `step` one is recorded.
        name: Name of the snapshots; the module's class by default.
        options: More choices; `every` and `name` given here win.

    Returns:
        The recorder, to be used in a `with` statement.

    Raises:
        InvalidInputError: torch cannot export the module, or the export computes something else.
        MissingExtraError: torch is not installed.

    Example:
        >>> with record(model, "run.duckdb", inputs=probe) as rec:  # doctest: +SKIP
        ...     for epoch in range(30):
        ...         loss = train(model)
        ...         rec.step(epoch, loss=loss)
    """
    require_torch()
    chosen = options or RecorderOptions()
    if every != 1:
        chosen = replace(chosen, every=every)
    if name is not None:
        chosen = replace(chosen, name=name)
    return Recorder(module, store, inputs, chosen)


def _file_name(name: str) -> str:
    """The name of a graph as that of a file: no separators, nothing that hides it."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "model"


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:  # noqa: ANN401
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, Sequence):
        return tuple(inputs), {}
    return (inputs,), {}


def _sample_count(values: Any) -> int:  # noqa: ANN401
    torch = require_torch()
    for leaf in torch.utils._pytree.tree_leaves(values):  # noqa: SLF001 - the public alias is experimental
        if isinstance(leaf, torch.Tensor) and leaf.ndim and leaf.shape[0]:
            return int(leaf.shape[0])
    raise InvalidInputError("the probe inputs hold no tensor with samples along axis 0")


def _has_samples(value: Any, n: int) -> bool:  # noqa: ANN401
    return isinstance(value, require_torch().Tensor) and value.ndim > 0 and value.shape[0] == n


def _is_sampled(array: Array, n: int) -> bool:
    return array.ndim > 0 and array.shape[0] == n


def _tree_map(function: Any, values: Any) -> Any:  # noqa: ANN401
    return require_torch().utils._pytree.tree_map(function, values)  # noqa: SLF001 - as above
