"""Packed weights that no scheme has taken: named as not understood, never read as a matrix of bytes."""

import re

from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.encodings.stored import Stored

_INTEGERS = frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32"})
_MARKS = re.compile(
    r"(.+\.)?(qweight(_type)?|weight_packed|W_q|qzeros|codebooks|codes|Qidxs|trellis|packed_weight|\w*_blocks)"
)
"""Last parts of names that only packed weights have."""
_WEIGHT = re.compile(r"(.+[._])?(weight|kernel)(\._(data|packed))?")


def find(stored: Stored) -> None:
    """Name the tensors that hold weights in a way that the file does not define.

    These are integers under a name that only packed weights have, bytes without a sign and a scale under the
    name of a weight, and any integers there where the configuration names a method of quantization.
    """
    method = stored.config.get("quant_method")
    for name, tensor in list(stored.file.tensors.items()):
        if name in stored.taken or tensor.dtype not in _INTEGERS or len(tensor.shape) < 2:
            continue
        scales = stored.get(re.sub(r"_blocks$", "_scales", name))
        held = [scales] if scales is not None and scales is not tensor else []
        if _MARKS.fullmatch(name):
            problem = "the file does not define what they stand for"
            stored.refuse(name, tensor, f"packed {tensor.dtype}", problem, *held)
        elif _WEIGHT.fullmatch(name) and isinstance(method, str):
            scheme = f"{tensor.dtype} of {printable(method, 40)}"
            stored.refuse(name, tensor, scheme, "how its values are laid out is not known", *held)
        elif _WEIGHT.fullmatch(name) and tensor.dtype != "int8" and tensor.quantization is None:
            problem = "there is no scale and no description of how they are packed"
            stored.refuse(name, tensor, tensor.dtype, problem)
