"""Activations of a module by forward hooks, where torch cannot export it to ONNX."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from emergraph.errors import InvalidInputError
from emergraph.exporters.pytorch.tensors import array_of, evaluating, require_torch
from emergraph.exporters.runtime.pooling import SampleAxis, pooled
from emergraph.exporters.traces.statistics import UnitStatistics, kept_samples
from emergraph.exporters.traces.targets import targets_of
from emergraph.graphstore.records import TraceHeader
from emergraph.graphstore.store import StoreFile
from emergraph.graphstore.text import first_line

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class HookTrace:
    """What forward hooks recorded."""

    trace: int
    """Id in the store."""
    graph: int
    n_samples: int
    layers: tuple[str, ...]
    """Layers with statistics."""
    left_out: Mapping[str, str]
    """Layers without, and why."""


def trace_module(
    module: "torch.nn.Module",
    batches: "Sequence[torch.Tensor | tuple[Any, ...]]",
    store: StoreFile,
    *,
    graph: str | int | None = None,
    name: str = "hooks",
    n_values: int = 1024,
) -> HookTrace:
    """Run a module on batches and store, per unit, statistics of what the submodule of its layer gives.

    For modules that torch cannot export: their weights have a graph from their state dict, whose layers are
    named after submodules. A layer "encoder.fc" gets the output of that submodule (before any function that
    follows it); all axes but samples (axis 0) and units (axis 1 of convolutions, else the last) are
    positions.

    Args:
        module: Left as it was; it runs in evaluation mode, without gradients.
        batches: Inputs, a tensor or a tuple of arguments each, samples along axis 0.
        store: Open for writing.
        graph: Name or id; the newest by default.
        name: Name of the trace.
        n_values: Most samples whose values are kept per unit.

    Raises:
        InvalidInputError: No layer is named after a submodule, or the module does not run.
        UsageError: There is no such graph.
    """
    torch = require_torch()
    reader = store.graph(graph)
    parts = dict(module.named_modules())
    targets = {target.name: target for target in targets_of(reader.layers()) if target.name in parts}
    if not targets:
        raise InvalidInputError(
            f"no layer of graph {reader.name!r} is named after a submodule of {type(module).__name__}"
        )
    n = sum(_rows(batch) for batch in batches)
    kept = kept_samples(n, sum(target.n_units for target in targets.values()), n_values)
    found = {key: UnitStatistics(target.n_units, kept) for key, target in targets.items()}
    left_out: dict[str, str] = {}

    def hook(key: str) -> Any:  # noqa: ANN401 - as torch takes it
        def take(part: Any, _args: Any, output: Any) -> None:  # noqa: ANN401
            tensor = output[0] if isinstance(output, tuple) else output
            axis = 1 if isinstance(part, torch.nn.modules.conv._ConvNd) else -1  # noqa: SLF001 - the one base
            if not isinstance(tensor, torch.Tensor) or tensor.ndim < 2:
                left_out[key] = "its output is not a tensor with samples and units"
            elif tensor.shape[axis] != targets[key].n_units:
                left_out[key] = f"its output has {tensor.shape[axis]} units, not {targets[key].n_units}"
            else:
                values = array_of(tensor).astype(np.float64)
                found[key].add(pooled(values, (axis % tensor.ndim,), SampleAxis(0), len(values)))

        return take

    with ExitStack() as stack:
        for key in targets:
            handle = parts[key].register_forward_hook(hook(key))
            stack.callback(handle.remove)
        stack.enter_context(evaluating(module))
        stack.enter_context(torch.no_grad())
        for batch in batches:
            _run(module, batch)
    complete = [key for key, statistics in found.items() if statistics.n == n and key not in left_out]
    left_out |= {
        key: f"it ran on {found[key].n} of {n} samples" for key in found if key not in {*complete, *left_out}
    }
    if not complete:
        raise InvalidInputError(f"no layer could be recorded: {next(iter(left_out.items()))}")
    header = TraceHeader(
        name=name, kind="inputs", n_samples=n, n_values=kept, settings={"recorded": "forward hooks"}
    )
    frame = pl.concat([found[key].frame(targets[key].first_unit) for key in complete])
    trace = store.write_trace(reader.id, header, frame)
    return HookTrace(trace=trace, graph=reader.id, n_samples=n, layers=tuple(complete), left_out=left_out)


def _rows(batch: Any) -> int:  # noqa: ANN401
    return len(batch[0] if isinstance(batch, tuple) else batch)


def _run(module: Any, batch: Any) -> None:  # noqa: ANN401
    try:
        module(*(batch if isinstance(batch, tuple) else (batch,)))
    except Exception as error:
        raise InvalidInputError(f"the module does not run on a batch: {first_line(error)}") from error
