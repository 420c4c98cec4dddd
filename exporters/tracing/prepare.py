"""From a model and one concrete run of it to what the tracer needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.codings import CodedTensor
from emergraph.exporters.runtime.assembly import ModelSource
from emergraph.exporters.runtime.branches import literal_conditions, take_branches
from emergraph.exporters.runtime.concrete import ConcreteRun
from emergraph.exporters.runtime.flat_model import FlatModel
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.folding import Folder
from emergraph.exporters.tracing.context import ParameterTensor, TracedModel
from emergraph.exporters.tracing.facts import BodyRunner, TensorFacts

_OBJECT = np.dtype(object)


@dataclass(frozen=True)
class FileParameter:
    """A parameter tensor that is read from the model file when asked for."""

    shape: tuple[int, ...]
    dtype_name: str
    _read: Callable[[], NDArray[np.generic]]
    _held: Callable[[], NDArray[np.generic] | None] = lambda: None
    _coded: Callable[[], CodedTensor | None] = lambda: None

    def array(self) -> NDArray[np.generic]:
        """The values."""
        return self._read()

    def held(self) -> NDArray[np.generic] | None:
        """The values as the file holds them, without a copy; None where it does not."""
        return self._held()

    def coded(self) -> CodedTensor | None:
        """The values as they follow from what the file holds; None where it holds them as they are."""
        return self._coded()


def traced_model(
    run: ConcreteRun,
    parameter: Callable[[onnx.TensorProto], ParameterTensor],
    *,
    folder: Folder,
    run_body: BodyRunner | None = None,
    parameters: frozenset[str] | None = None,
) -> TracedModel:
    """Put the flat model, its parameters and the facts of the concrete run together.

    Args:
        run: The concrete run, with its control flow decided.
        parameter: Gives the tensor behind an initializer's proto.
        folder: Computes what follows from parameters alone.
        run_body: Runs the bodies of Loops and Scans on their own.
        parameters: Names of the initializers that are parameters; None: all are.
    """
    facts: dict[str, TensorFacts] = {
        name: TensorFacts(value.shape, value.dtype if value.dtype is not None else _OBJECT, value.value)
        for name, value in run.values.items()
        if value.shape is not None
    }
    initializers: Mapping[str, ParameterTensor] = {
        name: parameter(proto) for name, proto in run.flat.initializers.items()
    }
    return TracedModel(
        nodes=run.flat.nodes,
        initializers=initializers,
        facts=facts,
        inputs=[value.name for value in run.flat.inputs],
        outputs=run.flat.outputs,
        opsets=run.flat.opsets,
        folder=folder,
        parameters=parameters,
        run_body=run_body,
    )


def open_branches(source: ModelSource, taken: FlatModel) -> FlatModel:
    """The model flattened again with its Ifs kept, except those that a constant decides.

    Tensors have the names that they have in `taken`, the model with its branches taken, so that the facts of
    its run hold for both.
    """
    inputs = frozenset(value.name for value in taken.inputs)
    flat = flatten(source.model, read_tensor=source.array, overridden=inputs)
    while decisions := literal_conditions(flat):
        flat = take_branches(flat, decisions)
    return flat
