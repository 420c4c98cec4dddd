"""Path counts between all positions of a convolutional network, without unrolling its graph.

The graph of a store has one unit per channel. Here every element of a tensor is a unit: the recursion of the
path count runs backwards through the model's own operations on arrays of the size of its tensors, with
`positionops` in place of edges. Neurons are the elements of inputs and of what dense and convolution
operations produce; pooling windows, junctions and movements are transparent.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.emergence.positionops import PASSING, WEIGHTED, Tensors, carried_back
from emergraph.analysis.emergence.result import Magnitude
from emergraph.analysis.paths.options import Interior
from emergraph.errors import LimitError, UsageError
from emergraph.exporters.operations import ARITHMETIC, LINEAR, kind_of

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class NeuronTensor:
    """A tensor whose elements are neurons, and the one that holds their activations."""

    name: str
    activation: str
    layer: str
    """Name of the operation, or of the input."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PositionCount:
    """Path-count emergence between positions."""

    active: Magnitude
    """E with interior "active"."""
    any: Magnitude
    """E with interior "any"."""
    n_active: int
    n_inactive: int
    layers: pl.DataFrame
    """One row per neuron tensor: layer, tensor, shape, n_positions, n_active, log10_start_active and
    log10_start_any (paths that start there; null for none)."""

    def of(self, interior: Interior | str) -> Magnitude:
        """E with this interior."""
        return self.active if interior == Interior.ACTIVE else self.any

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "counts": {str(i): self.of(i).to_dict() for i in (Interior.ACTIVE, Interior.ANY)},
            "n_active": self.n_active,
            "n_inactive": self.n_inactive,
            "layers": self.layers.to_dicts(),
        }


def neuron_tensors(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[str], tensors: Tensors
) -> tuple[NeuronTensor, ...]:
    """The inputs, and what every operation with weights produces, with where activations are read.

    A neuron's activation is read after the element-wise operations that follow its own, up to the first
    nonlinearity, as long as each has one reader; scales and shifts by constants are among them.

    Args:
        nodes: The model's operations in order.
        inputs: Names of its inputs.
        tensors: Shapes and constants.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for reader, name in ((n, name) for n in nodes for name in n.input):
        readers.setdefault(name, []).append(reader)
    made = [n for n in nodes if kind_of(n) in WEIGHTED and _has_weights(n, tensors)]
    return (
        *(NeuronTensor(name, name, name) for name in inputs),
        *(NeuronTensor(n.output[0], _read_at(n.output[0], readers, tensors), n.name) for n in made),
    )


def _has_weights(node: onnx.NodeProto, tensors: Tensors) -> bool:
    return any(tensors.constant(name) is not None for name in node.input[:2])


def _read_at(name: str, readers: Mapping[str, list[onnx.NodeProto]], tensors: Tensors) -> str:
    while len(readers.get(name, [])) == 1:
        (node,) = readers[name]
        alone = sum(tensors.constant(other) is None for other in node.input if other) == 1
        same = node.output[0] and tensors.shape(node.output[0]) == tensors.shape(name)
        kind = kind_of(node)
        passes = kind in PASSING and node.input[0] == name
        if not (passes or (kind in ARITHMETIC and alone)) or not same:
            return name
        name = node.output[0]
        if kind in PASSING - LINEAR:
            return name
    return name


def position_count(
    nodes: Sequence[onnx.NodeProto],
    neurons: Sequence[NeuronTensor],
    active: Mapping[str, Bools],
    tensors: Tensors,
) -> PositionCount:
    """Count the paths from inactive to active positions, for both interiors.

    With T(v) the sum over what v leads to: `p(v) = h(v) (1 + T(v))`, `E = sum (1 - h) T` for interior
    "active"; `q(v) = h(v) + T(v)` for "any"; other elements hand T on. Exact below 2**53.

    Args:
        nodes: The model's operations, each after what it reads.
        neurons: From `neuron_tensors`.
        active: By the name of the neuron tensor, like it in shape, the axis of samples included with size 1.
        tensors: Shapes and constants.

    Raises:
        UsageError: Positions cannot be followed through an operation.
        LimitError: Counts are beyond float64.
    """
    counting = _Counting({neuron.name for neuron in neurons}, active, tensors)
    for node in reversed(nodes):
        for output, name in enumerate(node.output):
            if name and counting.reached(name):
                counting.carry_back(node, output)
    for neuron in neurons:
        counting.end(neuron.name)
    return _result(neurons, active, counting.starts)


class _Counting:
    """Sums at every tensor of what its elements lead to, and the paths that start at each neuron tensor."""

    def __init__(self, neurons: Collection[str], active: Mapping[str, Bools], tensors: Tensors) -> None:
        self._neurons, self._active, self._tensors = neurons, active, tensors
        self._onward: dict[str, list[Floats]] = {}
        self.starts: dict[str, list[float]] = {}

    def reached(self, name: str) -> bool:
        """Whether paths can start at a tensor or lead on from it."""
        return name in self._onward or name in self._neurons

    def carry_back(self, node: onnx.NodeProto, output: int) -> None:
        """Hand what an output of a node leads to on to the node's inputs."""
        name = node.output[output]
        sums = self.end(name) if name in self._neurons else self._onward.pop(name)
        backs = [carried_back(node, part, self._tensors, output) for part in sums]
        for source in backs[0]:
            if self._tensors.constant(source) is None:
                parts = [back[source] for back in backs]
                before = self._onward.get(source)
                self._onward[source] = (
                    parts if before is None else [a + b for a, b in zip(before, parts, strict=True)]
                )

    def end(self, name: str) -> list[Floats]:
        """Let paths start and end at a neuron tensor, once; return what arrives at its targets."""
        if name in self.starts:
            return []
        h = self._active[name].astype(np.float64)
        zero = np.zeros(self._tensors.shape(name))
        sums = self._onward.pop(name, [zero, zero])
        if h.shape != zero.shape:
            raise UsageError(f"activity of '{name}' has shape {list(h.shape)}, expected {list(zero.shape)}")
        self.starts[name] = [float(np.sum((1 - h) * part)) for part in sums]
        return [h * (1 + sums[0]), h + sums[1]]


def _result(
    neurons: Sequence[NeuronTensor], active: Mapping[str, Bools], starts: Mapping[str, list[float]]
) -> PositionCount:
    totals = [math.fsum(start[i] for start in starts.values()) for i in range(2)]
    if not all(map(math.isfinite, totals)):
        raise LimitError("the counts between positions are beyond 1.8e308; count channels instead")
    rows = [
        {
            "layer": neuron.layer,
            "tensor": neuron.activation,
            "shape": list(active[neuron.name].shape),
            "n_positions": active[neuron.name].size,
            "n_active": int(active[neuron.name].sum()),
            "log10_start_active": _log10(starts[neuron.name][0]),
            "log10_start_any": _log10(starts[neuron.name][1]),
        }
        for neuron in neurons
    ]
    n_active = sum(int(h.sum()) for h in active.values())
    return PositionCount(
        active=_magnitude(totals[0]),
        any=_magnitude(totals[1]),
        n_active=n_active,
        n_inactive=sum(h.size for h in active.values()) - n_active,
        layers=pl.DataFrame(rows),
    )


def _log10(value: float) -> float | None:
    return math.log10(value) if value > 0 else None


def _magnitude(value: float) -> Magnitude:
    return Magnitude(value=value, log10=math.log10(value) if value > 0 else -math.inf)
