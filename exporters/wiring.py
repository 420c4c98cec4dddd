"""Weights wired by the class that `transformers` has for them: a folder with a config.json, a GGUF file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from emergraph.exporters.onnxfile.names import listed
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.pytorch.checking import compare
from emergraph.exporters.pytorch.folderconfig import CONFIG
from emergraph.exporters.pytorch.tensors import Array
from emergraph.exporters.pytorch.wiredfolders import capture_wired, refuse_lacking
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.exporters.wiredmodel import WiredModel, identity, settings_digest
from emergraph.leftovers import Scratch


@dataclass(frozen=True)
class Wired:
    """A model that can be traced and run."""

    model: WiredModel
    feeds: Mapping[str, Array]
    """The example inputs of its operations, whose sizes are fixed."""
    notes: tuple[str, ...]
    """For the graph's warnings."""


def wired_identity(path: Path, *, root: Path | None = None) -> str:
    """The SHA-256 that the graph of a folder or a GGUF file has."""
    settings = settings_digest(path / CONFIG if path.is_dir() else None)
    return identity(read_weights(path, root=root), settings)


@contextmanager
def wired_model(
    path: Path,
    *,
    inputs: Mapping[str, Array] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    allow_missing_classes: bool = False,
    root: Path | None = None,
    limits: RunLimits | None = None,
) -> Iterator[Wired | None]:
    """Open a folder or a GGUF file as a model; its operations are written to a file that is gone afterwards.

    Args:
        path: A folder with `config.json`, or a GGUF file.
        inputs: Example inputs, which decide the sizes that the operations take; small ones by default.
        shapes: Shapes of those that are not given.
        allow_missing_classes: As for `read_weights`.
        root: As for `read_weights`.
        limits: Of the child processes.

    Yields:
        The model; None for a folder whose tensors have to be converted by transformers itself.

    Raises:
        UnsafeInputError: The folder asks for code, or for something that would have to be fetched.
        InvalidInputError: It cannot be read, its architecture is not known, torch cannot export its model, or
            the export computes something else than the module.
        LimitError: A limit was hit.
        MissingExtraError: A library that it needs is not installed.
    """
    limits = limits or RunLimits()
    with Scratch() as scratch:
        target = scratch.path / "operations.onnx"
        captured = capture_wired(
            path,
            target,
            allow_missing_classes=allow_missing_classes,
            root=root,
            inputs=inputs,
            shapes=shapes,
            limits=limits,
        )
        folder = path.is_dir()
        weights = read_weights(path, allow_missing_classes=allow_missing_classes, root=root)
        if captured.lacking:
            if not folder:
                raise refuse_lacking(captured, weights.source)
            yield None
            return
        settings = settings_digest(path / CONFIG if folder else None)
        model = WiredModel(read_onnx(target), weights, captured.recipes, settings)
        if captured.expected is not None:
            with ModelProcess(limits) as process:
                compare(model, captured.feeds, captured.expected, captured.label, process)
        notes = []
        if captured.left_over:
            notes.append(f"{captured.label} does not use {listed(captured.left_over)} of {weights.source}")
        if captured.unused:
            notes.append(f"{captured.label} does not use {listed(captured.unused)} of its own")
        yield Wired(model, captured.feeds, tuple(notes))
