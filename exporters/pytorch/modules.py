"""PyTorch modules and exported programs: through ONNX into the tracer, checked against the module itself."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emergraph.atomic import joined
from emergraph.exporters.export import ExportOptions, ExportSummary, Progress, dry_run, export_onnx, listed
from emergraph.exporters.onnxfile import read_onnx
from emergraph.exporters.pytorch.checking import compare, feeds_of
from emergraph.exporters.pytorch.onnxexport import save_onnx
from emergraph.exporters.pytorch.tensors import evaluating, outputs_of, require_torch
from emergraph.exporters.pytorch.usedparameters import parameters_in
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.sources import as_source
from emergraph.graphstore.store import Store
from emergraph.leftovers import Scratch
from emergraph.outputs import check_output

if TYPE_CHECKING:
    import torch


def export_module(
    module: "torch.nn.Module | torch.export.ExportedProgram",
    args: Sequence[Any],
    store: Store | None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,  # noqa: ANN401 - as torch.export takes it
    onnx_path: str | Path | None = None,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Trace the units of a PyTorch module and write its graph into a store.

    The module is exported to ONNX as it is (nothing folded or renamed, so that parameters keep their names),
    the export is run on the same inputs as the module, and refused when their outputs differ. The module is
    exported in evaluation mode and left as it was.

    Args:
        module: A module, or a program from `torch.export.export`.
        args: Example inputs, positional.
        store: Open for writing; None to write nothing and only say what would be written.
        kwargs: Example inputs by name.
        dynamic_shapes: Which axes may vary, as for `torch.export.export`.
        onnx_path: Where to keep the ONNX file (traces of activations need it); nowhere by default.
        options: As for `export_onnx`; `inputs` and `input_shapes` are not used.
        progress: Called with (operations done, operations in all).

    Returns:
        What the export did; `sha256` is that of the ONNX file.

    Raises:
        InvalidInputError: torch cannot export the module, or the export computes something else.
        MissingExtraError: torch or onnxscript is not installed.

    Example:
        >>> import torch
        >>> from emergraph.graphstore.store import open_store
        >>> with open_store("net.duckdb", mode="create") as store:  # doctest: +SKIP
        ...     export_module(torch.nn.Linear(3, 2), (torch.zeros(1, 3),), store).graph
        0
    """
    torch = require_torch()
    options = options or ExportOptions()
    is_module = isinstance(module, torch.nn.Module)
    label = type(module).__name__ if is_module else type(module.graph_module).__name__
    with Scratch() as scratch, joined() as outputs:
        if onnx_path is None:
            path = scratch.path / "model.onnx"
        else:
            check_output(onnx_path)
            path = outputs.stage(Path(onnx_path))
        named = dict(kwargs or {})
        with evaluating(module):
            expected = outputs_of(module, args, named)
            save_onnx(module, tuple(args), named, dynamic_shapes, path, label)
        weights = path.with_name(f"{path.name}.data")  # torch writes it for models of more than 2 GiB
        if onnx_path is not None and weights.exists():
            beside = Path(onnx_path).resolve().with_name(weights.name)
            check_output(beside)
            outputs.stage(beside)
        file = read_onnx(path, limits=options.read_limits)
        used, unused = parameters_in(as_source(file), module)
        feeds = feeds_of(as_source(file), args, named)
        with ModelProcess(options.run_limits) as process:
            compare(as_source(file), feeds, expected, label, process)
        chosen = replace(
            options,
            name=options.name or label,
            source=options.source or label,
            format="module" if is_module else "exported_program",
            inputs={name: feeds[name] for name in feeds},
            input_shapes={},
            parameters=used,
            notes=(
                *options.notes,
                *([f"{label} does not use {listed(unused)} of its own"] if unused else []),
            ),
        )
        if store is None:
            summary = dry_run(path, options=chosen, progress=progress)
        else:
            summary = export_onnx(path, store, options=chosen, progress=progress)
        return replace(summary, source=chosen.source or label)
