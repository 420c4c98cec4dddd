"""Constants that operations make of other constants, computed by onnxruntime in the child process.

Each is computed when its values are asked for and not kept: the child holds what one constant is made of,
this process one result. Nothing is optimised, so that a folded constant has the bits that it has in a run of
the model. Where onnxruntime has no kernel, the rules of `quantization` and the reference implementation of
ONNX step in, for that operation alone.
"""

import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import ml_dtypes  # noqa: F401 - registers the array types that constants may have
import numpy as np
import onnx

from emergraph.exporters.nodes import operation_type
from emergraph.exporters.onnxfile.dtypes import BY_NAME
from emergraph.exporters.operations import normal_domain
from emergraph.exporters.runtime.assembly import ModelSource, StoredTensor, assemble, stored_array
from emergraph.exporters.runtime.derivations import Array, Made, Read, Source, Step
from emergraph.exporters.runtime.flat_model import FlatModel
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import EVERYTHING, ModelProcess
from emergraph.exporters.runtime.quantization import NODE_RULES
from emergraph.exporters.runtime.reference import EvaluationError, run_node
from emergraph.exporters.runtime.refusals import ModelRefusedError


class Folder:
    """Computes constants of one model; the child process starts with the first one.

    Args:
        opsets: Version per domain of the model.
        ir_version: Of the model.
        limits: Of the child; the seconds count what folding takes in all.
        base: The model's file, for attributes whose values are large.

    Example:
        >>> from onnx import helper
        >>> double = Step(helper.make_node("Add", ["a", "a"], ["b"]), (one := lambda: np.ones(2), one))
        >>> with Folder({"": 17}) as folder:
        ...     folder.values(Made(double, 0)).tolist()
        [2.0, 2.0]
    """

    def __init__(
        self,
        opsets: Mapping[str, int],
        *,
        ir_version: int = 0,
        limits: RunLimits | None = None,
        base: ModelSource | None = None,
    ) -> None:
        self._opsets = dict(opsets)
        self._ir_version = ir_version
        self._limits = limits or RunLimits()
        self._base = base
        self._seconds_left = self._limits.wall_seconds
        self._process: ModelProcess | None = None
        self._end: weakref.finalize[[], Folder] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, if there is one; a folder that nothing refers to any more ends it, too."""
        if self._end is not None:
            self._end()
        self._process = self._end = None

    def renew(self) -> None:
        """Restart the limit on wall time."""
        self._seconds_left = self._limits.wall_seconds

    def values(self, made: Made) -> Array:
        """The values of a constant.

        Raises:
            EvaluationError: Nothing at hand can compute one of its operations.
            LimitError: A limit of time or memory was hit.
        """
        steps = _in_order(made)
        try:
            return self._run(steps, made)
        except ModelRefusedError as error:
            if len(steps) == 1:
                return self._by_rule(made.step, [_read(one) for one in made.step.inputs], error)[
                    made.position
                ]
        return self._one_by_one(steps, made)

    def named(self, name: str, makers: Mapping[str, onnx.NodeProto], read: Callable[[str], Array]) -> Array:
        """The values of a constant of a model whose constants have names.

        Args:
            name: A tensor that follows from constants alone.
            makers: The operation that makes a tensor, by name; the others are read.
            read: Gives the values of a tensor that no operation makes.
        """
        steps: dict[int, Step] = {}
        todo = [makers[name]]
        while todo:
            node = todo[-1]
            open_ones = [makers[i] for i in node.input if i in makers and id(makers[i]) not in steps]
            if open_ones:
                todo.extend(open_ones)
                continue
            todo.pop()
            steps[id(node)] = Step(
                node, tuple(_source(i, makers, steps, read) if i else None for i in node.input)
            )
        node = makers[name]
        return self.values(Made(steps[id(node)], list(node.output).index(name)))

    def _run(self, steps: Sequence[Step], wanted: Made) -> Array:
        """All steps in one run of the child, which gives back the wanted tensor alone."""
        flat, source, name = _model(steps, wanted, self._base)
        flat = replace(flat, opsets=self._opsets, ir_version=self._ir_version)
        if self._process is None:
            self._process = ModelProcess(self._limits)
            self._end = weakref.finalize(self, self._process.close)
        self._process.renew(self._seconds_left)
        start = time.monotonic()
        try:
            self._process.load(assemble(flat, [name], source))
            fetched = self._process.run({}, [name], small=EVERYTHING)[name]
        finally:
            self._seconds_left -= time.monotonic() - start
        if fetched.values is None:
            raise ModelRefusedError(f"{operation_type(wanted.step.node)} does not give a tensor of numbers")
        return fetched.values

    def _one_by_one(self, steps: Sequence[Step], wanted: Made) -> Array:
        """One run per step; a result is dropped behind its last use."""
        last_use = {id(one.step): index for index, step in enumerate(steps) for one in _made_inputs(step)}
        done: dict[int, list[Array]] = {}
        for index, step in enumerate(steps):
            inputs = [
                done[id(one.step)][one.position] if isinstance(one, Made) else _read(one)
                for one in step.inputs
            ]
            done[id(step)] = self._outputs(step, inputs)
            for key in [key for key in done if last_use.get(key, len(steps)) <= index]:
                del done[key]
        return done[id(wanted.step)][wanted.position]

    def _outputs(self, step: Step, inputs: Sequence[Array | None]) -> list[Array]:
        alone = Step(step.node, tuple(None if a is None else _giving(a) for a in inputs))
        try:
            return [
                self._run([alone], Made(alone, position)) if name else np.empty(0)
                for position, name in enumerate(step.node.output)
            ]
        except ModelRefusedError as error:
            return self._by_rule(step, inputs, error)

    def _by_rule(self, step: Step, inputs: Sequence[Array | None], refusal: ModelRefusedError) -> list[Array]:
        """The outputs of an operation that onnxruntime has no kernel for."""
        node = step.node
        rule = NODE_RULES.get(node.op_type) if normal_domain(node.domain) in _QUANTIZING else None
        try:
            return rule(node, inputs) if rule is not None else run_node(node, inputs, self._opsets)
        except (ValueError, EvaluationError) as error:
            version = self._opsets.get(normal_domain(node.domain), 1)
            raise EvaluationError(
                f"constants cannot be computed by {operation_type(node)} of version {version}: {refusal}"
            ) from error


def folder_of(flat: FlatModel, source: ModelSource, limits: RunLimits | None = None) -> Folder:
    """What computes the constants of a model."""
    return Folder(flat.opsets, ir_version=flat.ir_version, limits=limits, base=source)


_QUANTIZING = frozenset({"", "com.microsoft"})


@dataclass(frozen=True)
class _Arrays:
    """Constants in memory as the tensors of a model; large attributes stay in the file."""

    arrays: Mapping[str, Array]
    base: ModelSource | None
    model: onnx.ModelProto

    def stored(self, tensor: onnx.TensorProto) -> StoredTensor:
        """The values of a tensor as raw bytes."""
        if tensor.name in self.arrays:
            return stored_array(self.arrays[tensor.name])
        if self.base is None:
            raise EvaluationError(f"the values of tensor {tensor.name!r} are not at hand")
        return self.base.stored(tensor)

    def array(self, tensor: onnx.TensorProto) -> Array:
        """The values of a tensor."""
        return self.arrays[tensor.name]


def _model(steps: Sequence[Step], wanted: Made, base: ModelSource | None) -> tuple[FlatModel, _Arrays, str]:
    """The steps as a model without inputs, and the name of the wanted tensor in it."""
    leaves: dict[int, tuple[str, Source]] = {}
    made = {id(step): index for index, step in enumerate(steps)}

    def name_of(one: Source | None) -> str:
        if one is None:
            return ""
        if isinstance(one, Made):
            return f"step{made[id(one.step)]}/{one.position}"
        return leaves.setdefault(id(one), (f"leaf{len(leaves)}", one))[0]

    nodes = []
    for index, step in enumerate(steps):
        node = onnx.NodeProto()
        node.CopyFrom(step.node)
        del node.input[:]
        del node.output[:]
        node.input.extend(name_of(one) for one in step.inputs)
        node.output.extend(
            f"step{index}/{position}" if name else "" for position, name in enumerate(step.node.output)
        )
        node.name = step.node.name or f"step{index}"
        nodes.append(node)
    arrays = {name: np.asarray(_read(one)) for name, one in leaves.values()}
    protos = {name: _declared(name, array) for name, array in arrays.items()}
    flat = FlatModel(
        nodes=tuple(nodes), initializers=protos, inputs=(), outputs=(), opsets={}, ir_version=0, declared={}
    )
    return flat, _Arrays(arrays, base, onnx.ModelProto()), name_of(wanted)


def _declared(name: str, array: Array) -> onnx.TensorProto:
    """A proto without values, but for text, which travels in the proto itself."""
    if array.dtype.kind in "OU":
        text: onnx.TensorProto = onnx.numpy_helper.from_array(array.astype(object), name)
        return text
    element = BY_NAME.get(array.dtype.name)
    if element is None:
        raise EvaluationError(f"constants of type {array.dtype} cannot be computed with")
    return onnx.TensorProto(name=name, data_type=element.code, dims=array.shape)


def _in_order(made: Made) -> list[Step]:
    """The steps behind a constant, each after those that it needs."""
    found: dict[int, Step] = {}
    todo = [made.step]
    while todo:
        step = todo[-1]
        if id(step) in found:
            todo.pop()
            continue
        open_ones = [one.step for one in _made_inputs(step) if id(one.step) not in found]
        if open_ones:
            todo.extend(open_ones)
            continue
        found[id(step)] = todo.pop()
    return list(found.values())


def _made_inputs(step: Step) -> Iterator[Made]:
    return (one for one in step.inputs if isinstance(one, Made))


def _read(one: Source | None) -> Array | None:
    if one is None or isinstance(one, Made):
        return None
    return one()


def _giving(array: Array) -> Read:
    return lambda: array


def _source(
    name: str, makers: Mapping[str, onnx.NodeProto], steps: Mapping[int, Step], read: Callable[[str], Array]
) -> Source:
    if name not in makers:
        return lambda: read(name)
    node = makers[name]
    return Made(steps[id(node)], list(node.output).index(name))
