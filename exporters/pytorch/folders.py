"""Model folders, opened in a child process without a network: what the parent gets are files and arrays."""

from dataclasses import dataclass
from pathlib import Path

from emergraph.exporters.pytorch.huggingface import load_folder
from emergraph.exporters.pytorch.modules import Captured, capture
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.offline import call_offline
from emergraph.exporters.weightfiles import read_weights


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
