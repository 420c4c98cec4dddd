"""A model file and what to run it on; the file with some of its tensors replaced."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.modelruns.samples import LabelledSamples, kept_name
from emergraph.errors import InvalidInputError
from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.text import printable

Array = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class ModelFiles(LabelledSamples):
    """The model behind a graph, and what to run it on; without inputs it is not run."""

    model: Path
    limits: RunLimits = field(default_factory=RunLimits)
    root: Path | None = None
    """Folder that symbolic links of external data may lead to."""

    def kept(self) -> dict[str, object]:
        """Return what a run keeps of them."""
        return {"model": kept_name(self.model), **super().kept()}


def model_of(reader: GraphReader, path: Path, *, root: Path | None = None) -> OnnxFile:
    """The file of a graph, checked; links of its external data may lead to somewhere below `root`.

    Raises:
        InvalidInputError: It is not the file that the graph was exported from.
    """
    file = read_onnx(path, root=root)
    if file.sha256 != str(reader.summary["sha256"]):
        raise InvalidInputError(
            f"{printable(str(path), limit=100)} is not the model of graph "
            f"{printable(reader.name, limit=60)!r}: their SHA-256 differ; give the file that was exported"
        )
    return file
