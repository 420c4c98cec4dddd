"""What schemes of encoding look tensors up in: the file by name, and the configuration beside it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.weightfiles.encodings.parameter import Encoding, Parameter, Part
from emergraph.exporters.weightfiles.tensors import LazyTensor
from emergraph.exporters.weightfiles.weightfile import WeightFile

_TEXT = 1 << 16


@dataclass
class Stored:
    """The tensors of a file that no scheme has taken yet, and what stands beside it."""

    file: WeightFile
    taken: set[str] = field(default_factory=set)
    found: dict[str, Parameter] = field(default_factory=dict)
    """Parameters that schemes have made, by the name of the tensor that holds them."""

    @property
    def config(self) -> Mapping[str, object]:
        """`quantization_config` of the file's folder; empty where there is none."""
        config = self.file.config.get("quantization_config")
        return config if isinstance(config, dict) else {}

    def ending(self, suffix: str) -> Iterator[tuple[str, LazyTensor]]:
        """Yield tensors by what stands before a suffix of their names."""
        for name, tensor in self.file.tensors.items():
            if name.endswith(suffix) and name not in self.taken and len(name) > len(suffix):
                yield name.removesuffix(suffix), tensor

    def get(self, name: str) -> LazyTensor | None:
        """Return a tensor by name, unless a scheme has taken it."""
        return None if name in self.taken else self.file.tensors.get(name)

    def value(self, name: str) -> object:
        """Return a plain value that the file holds under a name: metadata, or a tensor of one element."""
        wrapper = self.file.metadata.get("weights under")
        for key in (name, f"{wrapper}.{name}"):
            if key in self.file.metadata:
                return self.file.metadata[key]
        tensor = self.get(name)
        if tensor is None or tensor.n_elements != 1:
            return None
        return tensor.array().reshape(-1)[0].item()

    def text(self, name: str) -> str | None:
        """Return the text that a tensor of bytes holds."""
        tensor = self.get(name)
        if tensor is None or tensor.dtype not in {"uint8", "int8"} or tensor.n_elements > _TEXT:
            return None
        try:
            return tensor.array().tobytes().decode("utf-8")
        except UnicodeDecodeError:
            return None

    def settings(self, name: str) -> dict[str, object] | None:
        """Return the JSON object that a tensor of bytes holds."""
        try:
            parsed = json.loads(self.text(name) or "")
        except (ValueError, RecursionError):
            return None
        return parsed if isinstance(parsed, dict) else None

    def make(self, name: str, tensor: LazyTensor, encoding: Encoding) -> None:
        """Note that a scheme has made a parameter, and take its tensors."""
        self.found[tensor.name] = Parameter(name=name, tensor=tensor, encoding=encoding)
        self.taken.update((tensor.name, *(part.tensor.name for part in encoding.parts)))

    def refuse(self, name: str, tensor: LazyTensor, scheme: str, problem: str, *parts: LazyTensor) -> None:
        """Note that a parameter is encoded in a way that the file does not define, and take its tensors."""
        held = tuple(Part(part, "quantization") for part in parts)
        why = f"{scheme}: {problem}"
        self.make(name, tensor, Encoding(scheme=scheme, shape=tensor.shape, parts=held, problem=why))


def quantization(*tensors: LazyTensor | None) -> tuple[Part, ...]:
    """Return tensors as parts of a quantization; None stands for one that is not there."""
    return tuple(Part(tensor, "quantization") for tensor in tensors if tensor is not None)


def weight_name(base: str) -> str:
    """Return the name of the weight that is packed as `base.qweight`: of a module or of a parameter."""
    return base if "weight" in base.rpartition(".")[2] else f"{base}.weight"


def count(value: object) -> int | None:
    """Return a value from a file as a positive integer, or None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 < value < 1 << 62 else None


def counts(value: object) -> tuple[int, ...] | None:
    """Return a value from a file as a shape, or None."""
    if not isinstance(value, (list, tuple)) or not value or len(value) > 8:
        return None
    sizes = tuple(count(item) for item in value)
    return None if None in sizes else sizes  # type: ignore[return-value]


def as_bytes(tensor: LazyTensor) -> NDArray[np.uint8]:
    """Return the stored bytes of a tensor of whole bytes per element, flat."""
    return np.ascontiguousarray(tensor.array()).reshape(-1).view(np.uint8)
