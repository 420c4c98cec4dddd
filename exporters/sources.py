"""Any model that a user has: an ONNX file, a weight file, a folder, or the name of a factory of a module."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from emergraph.choices import unknown
from emergraph.errors import UsageError
from emergraph.exporters.export import (
    ExportOptions,
    ExportSummary,
    Progress,
    dry_run,
    export_file,
    export_onnx,
    to_write,
)
from emergraph.exporters.filetensors import leaves_edges
from emergraph.exporters.onnxfile.names import listed
from emergraph.exporters.placements import EdgePlacement
from emergraph.exporters.sourcekinds import SourceKind, note_files, source_kind

if TYPE_CHECKING:
    import torch

    from emergraph.exporters.pytorch.modules import Captured, OnnxPlace
    from emergraph.exporters.weightfiles.weightfile import WeightFile
    from emergraph.exporters.weightfiles.wiring import WiringSummary
    from emergraph.graphstore.store import StoreFile


class Wiring(StrEnum):
    """How the layers of a weight file are joined."""

    AUTO = "auto"
    """A folder whose config.json names an architecture: as transformers has it; else not at all."""
    NONE = "none"
    SEQUENTIAL = "sequential"


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Choices that only some kinds of models have."""

    wire: Wiring = Wiring.AUTO
    weights: Path | None = None
    """Weights for the module of a factory."""
    onnx_path: Path | None = None
    """Where to keep the ONNX file that a module is traced through."""
    allow_missing_classes: bool = False
    """Read the tensors of a pickle that also holds objects of other classes."""


def export_any(
    model: str | Path,
    store: "StoreFile | None",
    *,
    options: ExportOptions | None = None,
    source: SourceOptions | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Write the graph of whatever a user has named.

    Args:
        model: An ONNX file, a weight file, a folder in Hugging Face's layout, or the factory of a module:
            `package.module:callable` or `FILE.py:callable`.
        store: Open for writing; None to write nothing and only say what would be written.
        options: As for `export_onnx`.
        source: Wiring and weights.
        progress: Called with (operations done, operations in all).

    Raises:
        UsageError: An option does not go with this kind of model.
        InvalidInputError: The model cannot be read.
        UnsafeInputError: It asks for something that is refused.
        MissingExtraError: It needs an optional library.
    """
    start = perf_counter()
    summary = _export_kind(model, store, options or ExportOptions(), source or SourceOptions(), progress)
    # a model that has to be wired or converted first takes longer than its trace
    return replace(summary, seconds=perf_counter() - start)


def _export_kind(
    model: str | Path,
    store: "StoreFile | None",
    options: ExportOptions,
    source: SourceOptions,
    progress: Progress | None,
) -> ExportSummary:
    kind = source_kind(model)
    _check_choices(kind, source)
    if kind is SourceKind.ONNX:
        if store is None:
            return dry_run(model, options=options, progress=progress)
        return export_onnx(model, store, options=options, progress=progress)
    if kind is SourceKind.FACTORY:
        return _export_factory(str(model), store, options, source, progress)
    if kind in (SourceKind.FOLDER, SourceKind.GGUF) and source.wire is Wiring.AUTO:
        if source.onnx_path is None:
            return _export_wired(Path(model), kind, store, options, source, progress)
        return _export_folder(Path(model), store, options, source, progress)
    from emergraph.exporters.weightfiles.reader import read_weights

    weights = read_weights(model, allow_missing_classes=source.allow_missing_classes, root=options.root)
    return _export_weights(weights, store, options, source)


def _check_choices(kind: SourceKind, source: SourceOptions) -> None:
    if source.weights is not None and kind is not SourceKind.FACTORY:
        raise UsageError(
            "--weights goes with a factory: emergraph export package.module:factory STORE --weights FILE"
        )
    if source.wire is not Wiring.AUTO and kind not in (
        SourceKind.WEIGHTS,
        SourceKind.FOLDER,
        SourceKind.GGUF,
    ):
        raise UsageError(f"--wire {source.wire} goes with a weight file; this model says how it is wired")
    if source.onnx_path is not None and kind not in (SourceKind.FACTORY, SourceKind.FOLDER):
        raise UsageError("--keep-onnx goes with a PyTorch module")


def _export_factory(
    spec: str,
    store: "StoreFile | None",
    options: ExportOptions,
    source: SourceOptions,
    progress: Progress | None,
) -> ExportSummary:
    from emergraph.exporters.pytorch.factory import load_module
    from emergraph.exporters.pytorch.weights import load_weights
    from emergraph.exporters.weightfiles.reader import read_weights

    module, args = load_module(spec, programs=True)
    if source.weights is not None:
        load_weights(module, read_weights(source.weights, root=options.root))
    kwargs = _example_inputs(module, options) if args is None else {}
    name = options.name or spec.rpartition(":")[2]
    return export_module(
        module,
        args or (),
        store,
        kwargs=kwargs,
        onnx_path=source.onnx_path,
        options=replace(options, name=name, source=spec, wiring="declared" if source.weights else "traced"),
        progress=progress,
    )


def _example_inputs(module: Any, options: ExportOptions) -> Mapping[str, Any]:  # noqa: ANN401
    """Inputs by argument name, from values and shapes that a user gave."""
    import torch

    random = torch.Generator().manual_seed(options.seed)
    found = {name: torch.from_numpy(array.copy()) for name, array in options.inputs.items()}
    for name, shape in options.input_shapes.items():
        found.setdefault(name, torch.randn(shape, generator=random))
    forward = getattr(module, "forward", None)
    known = {} if forward is None else inspect.signature(forward).parameters
    names = ", ".join(known) or "each argument"
    if not found:
        raise UsageError(
            f"a module needs example inputs: give --input-shape NAME=1,3,64,64 for "
            f"{names}, or let the factory return (module, arguments)"
        )
    takes_any = any(argument.kind is inspect.Parameter.VAR_KEYWORD for argument in known.values())
    extra = sorted(found.keys() - known.keys())
    if extra and forward is not None and not takes_any:
        raise UsageError(unknown(f"input of {type(module).__name__}", extra[0], known))
    return found


def _export_wired(
    model: Path,
    kind: SourceKind,
    store: "StoreFile | None",
    options: ExportOptions,
    source: SourceOptions,
    progress: Progress | None,
) -> ExportSummary:
    """A folder or a GGUF file by the class that transformers has for it; the weights stay where they are."""
    from emergraph.exporters.wiring import wired_model

    note_files(model, root=options.root)
    with wired_model(
        model,
        allow_missing_classes=source.allow_missing_classes,
        root=options.root,
        limits=options.run_limits,
    ) as wired:
        if wired is None:  # its tensors have to be converted in a way that only transformers itself knows
            return _export_folder(model, store, options, source, progress)
        stem = model.resolve().name if kind is SourceKind.FOLDER else model.stem
        chosen = replace(
            options,
            name=options.name or stem,
            source=wired.model.name,
            format="module" if kind is SourceKind.FOLDER else "gguf",
            wiring="declared",
            inputs=wired.feeds,
            input_shapes={},
            parameters=frozenset(wired.model.recipes),
            notes=(*options.notes, *wired.notes),
        )
        if store is None:
            return dry_run(wired.model, options=chosen, progress=progress)
        return export_file(wired.model, store, options=chosen, progress=progress)


def _export_folder(
    folder: Path,
    store: "StoreFile | None",
    options: ExportOptions,
    source: SourceOptions,
    progress: Progress | None,
) -> ExportSummary:
    from emergraph.exporters.pytorch.modules import OnnxPlace, capture_folder

    note_files(folder, root=options.root)
    with OnnxPlace.of(source.onnx_path) as place:
        captured = capture_folder(
            folder,
            place.path,
            allow_missing_classes=source.allow_missing_classes,
            root=options.root,
            limits=options.run_limits,
        )
        note = f"{captured.module.label} does not use {listed(captured.unused)} of {captured.weights}"
        chosen = replace(
            options,
            name=options.name or folder.resolve().name,
            source=captured.weights,
            wiring="declared",
            notes=(*options.notes, *([note] if captured.unused else [])),
        )
        return export_captured(captured.module, place, store, options=chosen, progress=progress)


def _export_weights(
    weights: "WeightFile", store: "StoreFile | None", options: ExportOptions, source: SourceOptions
) -> ExportSummary:
    from emergraph.exporters.counting import CountingSink
    from emergraph.exporters.weightfiles.wiring import Wire, export_weights, weights_header, weights_in_file

    start = perf_counter()
    wire = Wire.SEQUENTIAL if source.wire is Wiring.SEQUENTIAL else Wire.NONE
    header = replace(
        weights_header(weights, wire=wire, name=options.name), step=options.step, parent=options.parent
    )
    in_place = leaves_edges(options.edges, weights_in_file(weights))
    if in_place:
        header = replace(header, settings={**header.settings, "edges": EdgePlacement.IN_PLACE.value})
    if store is None:
        sink = CountingSink(in_place=in_place)
        found = export_weights(weights, sink, wire=wire, in_place=in_place)
        summary = _weights_summary(header.name, weights, found, start, size=sink.estimated_bytes)
        return replace(summary, in_place=in_place, to_write=to_write(sink))
    known = None if options.force else store.find_graph(weights.sha256, header.settings)
    if known is not None:
        name = store.graph(known).name
        return replace(
            _weights_summary(name, weights, None, start, graph=known), reused=True, in_place=in_place
        )
    with store.write_graph(header, in_place=in_place) as writer:
        found = export_weights(weights, writer, wire=wire, in_place=in_place)
        graph = writer.finish(found.footer())
    summary = _weights_summary(store.graph(graph).name, weights, found, start, graph=graph)
    return replace(summary, in_place=in_place)


def _weights_summary(
    name: str,
    weights: "WeightFile",
    found: "WiringSummary | None",
    start: float,
    *,
    graph: int | None = None,
    size: int | None = None,
) -> ExportSummary:
    return ExportSummary(
        graph=graph,
        name=name,
        source=weights.source,
        sha256=weights.sha256,
        reused=False,
        trace=found,
        branches=(),
        input_shapes={},
        seconds=perf_counter() - start,
        estimated_bytes=size,
    )


def export_module(
    module: "torch.nn.Module | torch.export.ExportedProgram",
    args: Sequence[Any],
    store: "StoreFile | None",
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
    from emergraph.exporters.pytorch.modules import OnnxPlace, capture

    with OnnxPlace.of(onnx_path) as place:
        captured = capture(module, args, place.path, kwargs=kwargs, dynamic_shapes=dynamic_shapes)
        return export_captured(captured, place, store, options=options, progress=progress)


def export_captured(
    captured: "Captured",
    place: "OnnxPlace",
    store: "StoreFile | None",
    *,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Trace the ONNX file of a module, if it computes what the module computed; as for `export_module`.

    Raises:
        InvalidInputError: The export computes something else.
    """
    from emergraph.exporters.onnxfile.reader import read_onnx
    from emergraph.exporters.pytorch.checking import compare
    from emergraph.exporters.runtime.process import ModelProcess
    from emergraph.exporters.runtime.sources import as_source

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
