"""Reading weights out of files without running anything from them, and wiring them into a graph."""

from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.reader import check_weights, read_weights
from emergraph.exporters.weightfiles.tensors import LazyTensor, Quantization
from emergraph.exporters.weightfiles.weightfile import Skipped, WeightFile

__all__ = [
    "LazyTensor",
    "Quantization",
    "Skipped",
    "WeightFile",
    "WeightLimits",
    "check_weights",
    "read_weights",
]
