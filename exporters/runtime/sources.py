"""Model sources for the concrete run."""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.runtime.assembly import StoredTensor


@dataclass(frozen=True)
class InMemorySource:
    """A model that is wholly in memory."""

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
