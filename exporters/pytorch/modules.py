"""PyTorch modules and exported programs: through ONNX into the tracer, checked against the module itself."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emergraph.atomic import Outputs, joined
from emergraph.exporters.export import ExportOptions, ExportSummary, Progress, dry_run, export_onnx
from emergraph.exporters.onnxfile.names import listed
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.pytorch.checking import compare, feeds_of
from emergraph.exporters.pytorch.huggingface import load_folder
from emergraph.exporters.pytorch.onnxexport import save_onnx
from emergraph.exporters.pytorch.tensors import Array, evaluating, outputs_of, require_torch
from emergraph.exporters.pytorch.usedparameters import parameters_in
from emergraph.exporters.pytorch.written_out import written_out
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.offline import call_offline
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.sources import as_source
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.graphstore.store import StoreFile
from emergraph.leftovers import Scratch
from emergraph.outputs import check_output

if TYPE_CHECKING:
    import torch


def export_module(
    module: "torch.nn.Module | torch.export.ExportedProgram",
    args: Sequence[Any],
    store: StoreFile | None,
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
    with OnnxPlace.of(onnx_path) as place:
        captured = capture(module, args, place.path, kwargs=kwargs, dynamic_shapes=dynamic_shapes)
        return export_captured(captured, place, store, options=options, progress=progress)


@dataclass(frozen=True)
class OnnxPlace:
    """Where the ONNX file of a module is written: kept by the end of the command, or gone by then."""

    path: Path
    _kept: Path | None
    _outputs: Outputs

    @staticmethod
    @contextlib.contextmanager
    def of(kept: str | Path | None) -> "Iterator[OnnxPlace]":
        """Make room for a file that is kept at a path, or for one that is not.

        Raises:
            UsageError: There must not be an output at the path.
        """
        with Scratch() as scratch, joined() as outputs:
            if kept is None:
                yield OnnxPlace(scratch.path / "model.onnx", None, outputs)
                return
            check_output(kept)
            yield OnnxPlace(outputs.stage(Path(kept)), Path(kept), outputs)

    @property
    def kept_as(self) -> str:
        """Name under which the file is kept; "" where it is not."""
        return "" if self._kept is None else self._kept.name

    def keep_weights(self) -> None:
        """Keep the second file, too, that torch writes for models of more than 2 GiB."""
        weights = self.path.with_name(f"{self.path.name}.data")
        if self._kept is not None and weights.exists():
            beside = self._kept.resolve().with_name(weights.name)
            check_output(beside)
            self._outputs.stage(beside)


@dataclass(frozen=True, kw_only=True)
class Captured:
    """A module in an ONNX file, with what it is and what it computes; needs no torch any more."""

    label: str
    """Class of the module."""
    format: str
    """"module" or "exported_program"."""
    feeds: Mapping[str, Array]
    """The example inputs, by the names that they have in the file."""
    expected: tuple[Array, ...]
    """What the module gives for them."""
    used: frozenset[str]
    """Names of the file's tensors that are parameters."""
    unused: tuple[str, ...]
    """Names of parameters that no operation reads."""


def capture(
    module: "torch.nn.Module | torch.export.ExportedProgram",
    args: Sequence[Any],
    path: Path,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,  # noqa: ANN401 - as torch.export takes it
) -> Captured:
    """Run a module on example inputs and write it to an ONNX file; arguments as for `export_module`.

    Raises:
        InvalidInputError: torch cannot export the module.
        MissingExtraError: torch or onnxscript is not installed.
    """
    torch = require_torch()
    is_module = isinstance(module, torch.nn.Module)
    label = type(module).__name__ if is_module else type(module.graph_module).__name__
    named = dict(kwargs or {})
    with evaluating(module), written_out(module):
        expected = outputs_of(module, args, named)
        save_onnx(module, tuple(args), named, dynamic_shapes, path, label)
    source = as_source(read_onnx(path))
    used, unused = parameters_in(source, module)
    return Captured(
        label=label,
        format="module" if is_module else "exported_program",
        feeds=feeds_of(source, args, named),
        expected=tuple(expected),
        used=used,
        unused=unused,
    )


def export_captured(
    captured: Captured,
    place: OnnxPlace,
    store: StoreFile | None,
    *,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Trace the ONNX file of a module, if it computes what the module computed; as for `export_module`.

    Raises:
        InvalidInputError: The export computes something else.
    """
    options = options or ExportOptions()
    label, path = captured.label, place.path
    place.keep_weights()
    source = as_source(read_onnx(path, limits=options.read_limits))
    with ModelProcess(options.run_limits) as process:
        compare(source, captured.feeds, captured.expected, label, process)
    chosen = replace(
        options,
        name=options.name or label,
        source=options.source or label,
        format=captured.format,
        inputs=captured.feeds,
        input_shapes={},
        parameters=captured.used,
        kept_as=place.kept_as,
        notes=(
            *options.notes,
            *([f"{label} does not use {listed(captured.unused)} of its own"] if captured.unused else []),
        ),
    )
    if store is None:
        summary = dry_run(path, options=chosen, progress=progress)
    else:
        summary = export_onnx(path, store, options=chosen, progress=progress)
    return replace(summary, source=chosen.source or label)


@dataclass(frozen=True)
class CapturedFolder:
    """A folder's model in an ONNX file."""

    module: Captured
    weights: str
    """Name of the weight file."""
    unused: tuple[str, ...]
    """Tensors of the weight file that the model does not have."""


def capture_folder(
    folder: Path,
    path: Path,
    *,
    allow_missing_classes: bool = False,
    root: Path | None = None,
    limits: RunLimits | None = None,
) -> CapturedFolder:
    """Build the model of a folder in a child process, and write it to an ONNX file.

    Args:
        folder: With `config.json`.
        path: The ONNX file.
        allow_missing_classes: As for `read_weights`.
        root: As for `read_weights`.
        limits: Of the child.

    Raises:
        UnsafeInputError: The folder asks for code, or for something that would have to be fetched.
        InvalidInputError: It cannot be read, or torch cannot export its model.
        LimitError: A limit was hit.
        MissingExtraError: A library that it needs is not installed.
    """
    return call_offline(_captured, folder, path, allow_missing_classes, root, limits=limits)


def _captured(folder: Path, path: Path, allow_missing_classes: bool, root: Path | None) -> CapturedFolder:
    weights = read_weights(folder, allow_missing_classes=allow_missing_classes, root=root)
    module, kwargs, unused = load_folder(folder, weights, root=root)
    return CapturedFolder(capture(module, (), path, kwargs=kwargs), weights.source, unused)
