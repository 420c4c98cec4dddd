"""From a TensorProto of the weightless model to its values, wherever they are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from onnx import SparseTensorProto, TensorProto

from emergraph.exporters.onnxfile.dtypes import RAW_DATA
from emergraph.exporters.onnxfile.external import ExternalFiles
from emergraph.exporters.onnxfile.findings import refusal
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.sparse import SparseTensor, checked_sparse
from emergraph.exporters.onnxfile.stored import Stored, in_file, inline_values
from emergraph.exporters.onnxfile.tensors import OnnxTensor, check_declared, checked_tensor
from emergraph.exporters.onnxfile.weightless_model import MAPPED_LOCATION, MappedValues


@dataclass(frozen=True)
class TensorSource:
    """Where the tensors of a weightless model find their values."""

    content: memoryview
    """The model file."""
    mapped: Mapping[int, MappedValues]
    """Values that were left in it, by offset."""
    external: ExternalFiles

    def tensor_of(self, proto: TensorProto) -> OnnxTensor:
        """Return the tensor behind a proto of the weightless model, checked.

        Raises:
            InvalidInputError: Type, shape and values do not fit each other.
            UnsafeInputError: External data that leads outside, absurd sizes.
        """
        where = f"tensor {printable(proto.name)!r}"
        if proto.HasField("segment"):
            raise refusal("ONNX-TENSOR-SEGMENT", "is stored in segments, which no reader supports", where)
        if proto.data_location == TensorProto.EXTERNAL:
            stored = self._outside(proto, where)
        else:
            stored = inline_values(proto, where)
        return checked_tensor(proto.name, proto.data_type, tuple(proto.dims), stored)

    def sparse_tensor_of(self, proto: SparseTensorProto) -> SparseTensor:
        """Return the sparse tensor behind a proto of the weightless model, its indices checked."""
        return checked_sparse(self.tensor_of(proto.values), self.tensor_of(proto.indices), tuple(proto.dims))

    def _outside(self, proto: TensorProto, where: str) -> Stored:
        entries = {entry.key: entry.value for entry in proto.external_data}
        if len(entries) < len(proto.external_data):
            raise refusal("ONNX-WIRE-DUPLICATE", "external data has a key twice; readers disagree", where)
        if entries.get("location") == MAPPED_LOCATION:
            values = self.mapped[int(entries["offset"])]
            return in_file(self.content[values.start : values.end], values.field)
        element = check_declared(proto.data_type, tuple(proto.dims), where)
        if element.name == "string":
            raise refusal("ONNX-TENSOR-DATA", "text outside the file, which cannot hold it", where)
        n_bytes = element.n_bytes(math.prod(proto.dims))
        return in_file(self.external.values(entries, n_bytes, where), RAW_DATA)
