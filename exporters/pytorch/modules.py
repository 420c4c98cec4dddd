"""PyTorch modules and exported programs: through ONNX into the tracer, checked against the module itself."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emergraph.atomic import Outputs, joined
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.pytorch.checking import feeds_of
from emergraph.exporters.pytorch.huggingface import load_folder
from emergraph.exporters.pytorch.onnxexport import save_onnx
from emergraph.exporters.pytorch.tensors import Array, evaluating, outputs_of, require_torch
from emergraph.exporters.pytorch.usedparameters import parameters_in
from emergraph.exporters.pytorch.written_out import written_out
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.offline import call_offline
from emergraph.exporters.runtime.sources import as_source
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.leftovers import Scratch
from emergraph.outputs import check_output

if TYPE_CHECKING:
    import torch


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
