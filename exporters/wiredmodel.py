"""A model whose operations are in one file and whose weights are in another."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.codings import CodedTensor, coded_tensor
from emergraph.exporters.onnxfile.dtypes import ELEMENT_TYPES
from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.onnxfile.tensors import OnnxTensor
from emergraph.exporters.runtime.assembly import StoredTensor, stored_array
from emergraph.exporters.runtime.sources import FileSource
from emergraph.exporters.weightfiles.encodings.parameter import Parameter
from emergraph.exporters.weightfiles.recipes import Made, stored_names, values_of
from emergraph.exporters.weightfiles.tensors import LazyTensor
from emergraph.exporters.weightfiles.weightfile import WeightFile
from emergraph.exporters.weightfiles.wiring_parameters import parameters
from emergraph.graphstore.modelfiles import Coding, WantedTensor
from emergraph.paths import open_file

_LOCATION = "weights"
MASK = "attention_mask"
"""An input that says which positions count: all of them, where nobody says."""


@dataclass(frozen=True)
class WiredTensor:
    """A parameter of the model, made of tensors of the weight file."""

    shape: tuple[int, ...]
    computed_as: str
    """Element type of the parameter in the operations."""
    _recipe: Made = field(repr=False)
    _found: Mapping[str, Parameter] = field(repr=False)

    @property
    def dtype(self) -> str:
        """Element type in the file, where it holds the values as they are."""
        held = self.held()
        return self.computed_as if held is None else held.dtype.name

    def array(self) -> NDArray[np.generic]:
        """The values, in the type that the operations take."""
        return values_of(self._recipe, self._found).astype(self.computed_as, copy=False)

    def held(self) -> NDArray[np.generic] | None:
        """The values as the file holds them, without a copy; None where it holds something else."""
        if not isinstance(self._recipe, str):
            return None
        parameter = self._found[self._recipe]
        return parameter.tensor.held() if parameter.is_plain else None

    @property
    def is_coded(self) -> bool:
        """Whether the values follow from something else that the file holds."""
        parts = [self._found[name].tensor.held() for name in stored_names(self._recipe)]
        return self.held() is None and all(part is not None for part in parts)

    def coded(self) -> CodedTensor | None:
        """The values as they follow from what the file holds; None where no part can be told alone."""
        coding = _coding(self._recipe, self._found)
        if not isinstance(coding, Coding):
            return None
        held = {
            self._found[name].tensor.name: self._found[name].tensor for name in stored_names(self._recipe)
        }
        return coded_tensor(coding, lambda one: _values(held[one.name]))


def _coding(made: Made, found: Mapping[str, Parameter]) -> Coding | WantedTensor | None:
    """How a parameter follows from what the file holds."""
    if isinstance(made, str):
        return found[made].source()
    parts = [_coding(part, found) for part in made.parts]
    known = tuple(part for part in parts if part is not None)
    return Coding(made.op, made.args, known) if len(known) == len(parts) else None


def _values(tensor: LazyTensor) -> NDArray[np.generic]:
    held = tensor.held()
    return tensor.array() if held is None else held


@dataclass(frozen=True)
class WiredModel:
    """Operations without weights, and the weights; looks like an `OnnxFile` to what traces it.

    Args:
        file: The operations; parameters are inputs of it.
        weights: The weight file.
        recipes: How each of these inputs is made of tensors of the weight file.
        settings: SHA-256 of what else decides the operations (a config.json), "" where nothing does.
    """

    file: OnnxFile = field(repr=False)
    weights: WeightFile = field(repr=False)
    recipes: Mapping[str, Made] = field(repr=False)
    settings: str = ""

    @property
    def name(self) -> str:
        """File name of the weights."""
        return self.weights.source

    @property
    def sha256(self) -> str:
        """What identifies the model: of the weights, and of what else decides it."""
        return identity(self.weights, self.settings)

    @property
    def withheld(self) -> frozenset[str]:
        """Parameters that a concrete run does without."""
        return frozenset(self.recipes)

    @property
    def tensors(self) -> dict[str, OnnxTensor | WiredTensor]:
        """Initializers by name."""
        return {proto.name: self.tensor_of(proto) for proto in self.model.graph.initializer}

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The model with its parameters as initializers, without their values."""
        model = onnx.ModelProto()
        model.CopyFrom(self.file.model)
        values = list(model.graph.input)
        del model.graph.input[:]
        for value in values:
            if value.name not in self.recipes:
                model.graph.input.append(value)
                continue
            tensor = value.type.tensor_type
            proto = model.graph.initializer.add(
                name=value.name,
                data_type=tensor.elem_type,
                dims=[axis.dim_value for axis in tensor.shape.dim],
                data_location=onnx.TensorProto.EXTERNAL,
            )
            proto.external_data.add(key="location", value=_LOCATION)
        return model

    def tensor_of(self, proto: onnx.TensorProto) -> OnnxTensor | WiredTensor:
        """The tensor behind a proto of `model`, or a copy of one."""
        recipe = self._recipe(proto)
        if recipe is None:
            return self.file.tensor_of(proto)
        dtype = ELEMENT_TYPES[proto.data_type].name
        return WiredTensor(tuple(proto.dims), dtype, recipe, self._found)

    def stored(self, proto: onnx.TensorProto) -> StoredTensor:
        """The values of a tensor as bytes."""
        if self._recipe(proto) is None:
            return FileSource(self.file).stored(proto)
        return stored_array(self.array(proto), proto.data_type)

    def array(self, proto: onnx.TensorProto) -> NDArray[np.generic]:
        """The values of a tensor."""
        return self.tensor_of(proto).array()

    @cached_property
    def _found(self) -> Mapping[str, Parameter]:
        return parameters(self.weights)

    def _recipe(self, proto: onnx.TensorProto) -> Made | None:
        outside = proto.data_location == onnx.TensorProto.EXTERNAL and len(proto.external_data) == 1
        return self.recipes.get(proto.name) if outside else None


def identity(weights: WeightFile, settings: str) -> str:
    """SHA-256 of a model, by its weights and the digest of what else decides it."""
    if not settings:
        return weights.sha256
    return hashlib.sha256(f"{weights.sha256}  \n{settings}  config\n".encode()).hexdigest()


def settings_digest(path: Path | None) -> str:
    """SHA-256 of a configuration file; "" for none."""
    if path is None:
        return ""
    with open_file(path) as file:
        return hashlib.sha256(file.read()).hexdigest()
