"""Where the values of a model's tensors come from: a checked file, or memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.runtime.assembly import ModelSource, Place, StoredTensor, stored_array

Array = NDArray[np.generic]


def as_source(file: OnnxFile | ModelSource) -> ModelSource:
    """A checked file as a source; a source as it is."""
    return FileSource(file) if isinstance(file, OnnxFile) else file


@dataclass(frozen=True)
class FileSource:
    """A checked model file; large values stay in it, and the child maps them itself."""

    file: OnnxFile

    @property
    def model(self) -> onnx.ModelProto:
        """The weightless model."""
        return self.file.model

    def stored(self, tensor: onnx.TensorProto) -> StoredTensor:
        """The values of a tensor, and where in which file they are."""
        lazy = self.file.tensor_of(tensor)
        raw = lazy.raw()
        return StoredTensor(lazy.shape, lazy.data_type, raw, self._place(raw))

    def array(self, tensor: onnx.TensorProto) -> NDArray[np.generic]:
        """The values of a tensor."""
        return self.file.tensor_of(tensor).array()

    def _place(self, raw: memoryview) -> Place | None:
        """Which bytes of which mapped file a view shows; None for values in memory."""
        if not raw.nbytes:
            return None
        mapped = [(self.file.path, self.file.content)]
        mapped.extend((external.path, external.content) for external in self.file.external_files.values())
        for path, content in mapped:
            if raw.obj is content.obj:
                return Place(Path(path).resolve(), _address(raw) - _address(content))
        return None


@dataclass(frozen=True)
class InMemorySource:
    """A model that is wholly in memory, made by this program."""

    model: onnx.ModelProto

    def stored(self, tensor: onnx.TensorProto) -> StoredTensor:
        """The values of a tensor as raw bytes."""
        if tensor.HasField("raw_data"):
            raw = tensor.raw_data
        else:
            raw = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor)).raw_data
        return StoredTensor(tuple(int(d) for d in tensor.dims), int(tensor.data_type), raw)

    def array(self, tensor: onnx.TensorProto) -> NDArray[np.generic]:
        """The values of a tensor."""
        return np.asarray(onnx.numpy_helper.to_array(tensor))


def _address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


@dataclass(frozen=True, eq=False)
class ReplacedSource:
    """A model file with some tensors replaced."""

    base: ModelSource
    replaced: Mapping[int, Array]
    """By the identity of the tensor's proto."""

    @property
    def model(self) -> onnx.ModelProto:
        """The weightless model of the file."""
        return self.base.model

    def stored(self, tensor: onnx.TensorProto) -> StoredTensor:
        """The values of a tensor."""
        if id(tensor) not in self.replaced:
            return self.base.stored(tensor)
        return stored_array(self.replaced[id(tensor)], tensor.data_type)

    def array(self, tensor: onnx.TensorProto) -> Array:
        """The same as an array."""
        found = self.replaced.get(id(tensor))
        return self.base.array(tensor) if found is None else found
