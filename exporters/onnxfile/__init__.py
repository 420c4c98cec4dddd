"""Reading untrusted ONNX files: bounds first, memory later, code never."""

from emergraph.exporters.onnxfile.check import check_onnx
from emergraph.exporters.onnxfile.findings import Finding, Severity
from emergraph.exporters.onnxfile.limits import ReadLimits
from emergraph.exporters.onnxfile.reader import OnnxFile, read_onnx
from emergraph.exporters.onnxfile.sparse import SparseTensor
from emergraph.exporters.onnxfile.tensors import OnnxTensor

__all__ = [
    "Finding",
    "OnnxFile",
    "OnnxTensor",
    "ReadLimits",
    "Severity",
    "SparseTensor",
    "check_onnx",
    "read_onnx",
]
