"""What travels from an exporter into a store: graphs, layers, units, blocks of edges, tensors, operations.

The rules that every exporter keeps and every analysis relies on:

* Unit ids count from 0 within a graph; a layer's units are the contiguous range
  `first_unit .. first_unit + n_units - 1`, and layers do not overlap.
* **Layer ids are a topological order**: an edge of any kind but `recurrent` and `norm` leads from a layer to
  one with a strictly higher id. A reverse sweep over target layers therefore sees every successor first.
* Within a graph no pair (block, src, dst) repeats. Parallel edges in different blocks are possible
  (x + f(x) through two operations), and count as separate paths.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the kinds below are names on the command line, which starts without numpy
    import numpy as np
    from numpy.typing import NDArray

    from emergraph.graphstore.arrays import FloatArray, IntArray
    from emergraph.graphstore.inplace import Matrix
    from emergraph.graphstore.modelfiles import Coding


class EdgeKind(StrEnum):
    """What carries the influence along an edge. The kind belongs to the block."""

    WEIGHT = "weight"
    """Parameters of the model."""
    RECURRENT = "recurrent"
    """Parameters (or a carried state, NULL weight), from the previous time step."""
    IDENTITY = "identity"
    """A sum, a copy or a reduction: residual junctions, fan-out, means."""
    GATE = "gate"
    """A product of two activations; NULL weight."""
    ATTENTION = "attention"
    """Query and key into a score, score and value into a context feature; NULL weight."""
    NORM = "norm"
    """A unit's group statistic, by way of one hub per group; NULL weight."""
    OPAQUE = "opaque"
    """An operation that is not understood; NULL weight."""


PATH_KINDS = (EdgeKind.WEIGHT, EdgeKind.IDENTITY, EdgeKind.GATE, EdgeKind.ATTENTION)
"""The kinds that path counts follow unless asked otherwise."""


class LayerKind(StrEnum):
    """What a layer's units are."""

    INPUT = "input"
    EMBEDDING = "embedding"
    """The one source unit of an embedding table."""
    DENSE = "dense"
    CONV = "conv"
    RNN_GATE = "rnn_gate"
    RNN_CELL = "rnn_cell"
    RNN_HIDDEN = "rnn_hidden"
    JUNCTION = "junction"
    """Structural: distinct pairs of units that an operation joins."""
    GATE = "gate"
    """Structural: distinct pairs of units that an operation multiplies."""
    SCORE = "score"
    """Structural: attention scores, one per head."""
    CONTEXT = "context"
    """Structural: context features of attention."""
    REDUCTION = "reduction"
    """Structural: a sum, mean or maximum over distinct units."""
    HUB = "hub"
    """Structural: the group statistic of a normalisation."""
    OPAQUE = "opaque"
    """Structural: the output of an operation that is not understood."""


NEURON_LAYER_KINDS = frozenset(
    {
        LayerKind.INPUT,
        LayerKind.EMBEDDING,
        LayerKind.DENSE,
        LayerKind.CONV,
        LayerKind.RNN_GATE,
        LayerKind.RNN_CELL,
        LayerKind.RNN_HIDDEN,
    }
)
"""Layer kinds whose units are neurons; the units of all others are structural."""


class SplitBy(StrEnum):
    """Why a layer has more units than its weight has outputs: positions are units of their own."""

    WEIGHTS = "weights contract over positions"
    """Here or before: token mixing, features of a flattened sequence."""
    POINTWISE = "positions carry distinct labels into a pointwise convolution"
    """A dense layer or a kernel of size 1 is used at positions that are different units of one layer."""
    IMAGE = "a flattened image"
    """The same, of the model's input: another operation contracts its positions."""
    STEPS = "unrolled steps"
    """Steps of a recurrence, one behind the other."""


class Role(StrEnum):
    """Where a unit stands between the model's inputs and outputs."""

    INPUT = "input"
    HIDDEN = "hidden"
    OUTPUT = "output"


class TracedAs(StrEnum):
    """What the tracer did with an operation."""

    CONSTANT = "constant"
    """Folded: it depends on parameters or shapes only."""
    MOVED = "moved"
    ELEMENTWISE = "elementwise"
    JOINED = "joined"
    """Element-wise of two activations."""
    CONTRACTED = "contracted"
    """Contraction with parameters."""
    ATTENDED = "attended"
    """Contraction of two activations."""
    REDUCED = "reduced"
    NORMALISED = "normalised"
    EMBEDDED = "embedded"
    RECURRENT = "recurrent"
    CONTROL = "control"
    """Decides which or where, carries no value: comparisons, indices, shapes."""
    OPAQUE = "opaque"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer: a contiguous range of units that one operation (or input) produces."""

    id: int
    name: str
    """Unique within its graph."""
    op: str
    """ONNX operation type, or "Input"."""
    kind: LayerKind
    depth: int
    """Length of the longest path of layers from an input; 0 for inputs."""
    first_unit: int
    n_units: int
    n_params: int = 0
    """Parameters of the weight tensors that lead into the layer, plus biases, scales and shifts."""
    n_zeros: int = 0
    """Exact zeros among them."""
    dtype: str = ""
    """Element type of the weights as stored in the file, e.g. "float32", "int8"."""
    activation_tensor: str | None = None
    """Name of the tensor that holds the units' activations; None when no tensor does."""
    activation_axes: tuple[int, ...] | None = None
    """Axes of that tensor which, raveled in C order, give the index of the unit within the layer."""
    split_by: SplitBy | None = None
    """Why there are more units than the weight has outputs; None when there are not."""


@dataclass(frozen=True, kw_only=True)
class UnitColumns:
    """Per-unit columns of one layer; every array has one entry per unit (NaN where not known)."""

    layer: int
    role: Role
    bias: "NDArray[np.float64] | None" = None
    scale: "NDArray[np.float64] | None" = None
    """Product of the element-wise factors applied to the unit (batch norm, gamma, constants)."""
    shift: "NDArray[np.float64] | None" = None
    activation: str | None = None
    """Nonlinearity applied to the unit, e.g. "Relu"; None for linear."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One use of a weight tensor, or one structural operation: a set of edges of one kind into one layer.

    `src_units[i]` and `dst_units[j]` name the units that row i and column j of the block's matrix stand for
    (only for blocks written as matrices). `dense` is set by the writer: all pairs are edges.
    """

    id: int
    """Counts from 0 within the graph; the store gives its own, store-wide id."""
    name: str
    """Name of the operation."""
    op: str
    kind: EdgeKind
    layer: int
    """Target layer."""
    tensor: str | None = None
    """Parameter tensor behind the edges; None for structural blocks."""
    shared_with: int | None = None
    """First block of this graph that uses the same tensor."""
    note: str | None = None
    """What a reader should know, e.g. "axis=token"."""


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """Side columns of edges that stand for several parameters; one entry per edge."""

    l1: "NDArray[np.float64]"
    """Sum of absolute values."""
    l2: "NDArray[np.float64]"
    """Square root of the sum of squares."""
    max_abs: "NDArray[np.float64]"
    n_params: "NDArray[np.int32]"
    """Non-zero parameters behind the edge, at least 1."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the entries of a matrix lie in a tensor that stays in the model file.

    Entry (i, j) is element `offset + i * row_step + j * column_step` of the tensor in C order.
    """

    tensor: str
    """Name of the tensor."""
    offset: int
    row_step: int
    column_step: int
    coding: "Coding | None" = None
    """How weights follow from the elements, where these are codes."""


@dataclass(frozen=True, kw_only=True)
class FilePlace:
    """Which bytes of which file hold a tensor, in C order, little-endian."""

    file: str
    """File name without folders; never opened by the tool."""
    offset: int
    """First byte."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A parameter tensor of the model, stored once.

    Exactly one of two ways restores it bit for bit from the store: `data` (the raw little-endian C-order
    bytes of `dtype`), or `block`: the matrix of that block, whose rows (sources) and columns (targets) are
    units, is the tensor (`block_transposed=False`, shape (sources, targets)) or its transpose (`True`, shape
    (targets, sources)); `matrix_restores` says when a matrix can. Both are None for elements without bytes
    (strings). A tensor with `in_file` and a checksum may stay in the model file instead, if the graph is one
    whose edges do: the writer decides.
    """

    name: str
    """Unique within its graph."""
    dtype: str
    """numpy or ml_dtypes name: "float32", "bfloat16", "int4", "float8_e4m3fn", ..."""
    shape: tuple[int, ...]
    n_params: int
    n_zeros: int
    """Exact zeros; for quantized tensors, values at the zero point."""
    n_nonfinite: int = 0
    understood: bool = True
    """Whether the tracer knows what the parameters do."""
    role: str = "weight"
    """"weight", "bias", "scale", "shift", "embedding", "quantization", "other", or "buffer": of a module, and
    no parameter of it."""
    data: bytes | memoryview | None = None
    block: int | None = None
    block_transposed: bool = False
    sha256: str | None = None
    """SHA-256 of the raw bytes; the writer computes it when there is `data`. Restoring checks it."""
    in_file: FilePlace | None = None
    """Where the file holds the values, or what they are made of; None where it does not, or nobody knows."""
    made: "Coding | None" = None
    """How the values follow from what the file holds; None where it holds them as they are."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One node of the model as the tracer met it."""

    index: int
    name: str
    op: str
    domain: str
    traced_as: TracedAs
    reason: str | None = None
    """Why it is opaque, or what a reader should know."""
    n_params: int = 0


@dataclass(frozen=True, kw_only=True)
class GraphHeader:
    """What is known about a graph before its first edge."""

    name: str
    source: str
    """File name of the model, without folders."""
    sha256: str
    format: str
    """"onnx", "module", "exported_program", "state_dict", "safetensors", "npz", ..."""
    producer: str = ""
    wiring: str = "traced"
    """"traced", "declared", "inferred" or "none"."""
    parent: int | None = None
    step: int | None = None
    settings: dict[str, object] = field(default_factory=dict)
    """What decided the trace: input shapes and values, folding options. Stored as JSON."""


@dataclass(frozen=True, kw_only=True)
class GraphFooter:
    """What is known about a graph when its last edge is written."""

    branches: Sequence[str] = ()
    """Branches of If operations that were followed, e.g. "If_0:then"."""
    n_parameters: int
    n_parameters_understood: int
    n_operations: int
    n_operations_understood: int
    warnings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class TraceHeader:
    """What is known about an activation trace beside its per-unit numbers."""

    name: str
    """Unique within its graph; the store appends a number when it is taken."""
    kind: str
    """"inputs" (the model ran on given ones), "random" (it ran on random ones) or "imported"."""
    n_samples: int
    n_values: int = 0
    """Samples whose values are kept, the first ones."""
    source: str = ""
    """File name of the inputs or recordings, without folders."""
    sha256: str | None = None
    """Of that file."""
    seed: int | None = None
    settings: dict[str, object] = field(default_factory=dict)
    """How the trace was made. Stored as JSON."""


class GraphSink(Protocol):
    """Where an exporter writes. The store's writer is one; a counting sink for dry runs is another."""

    def write_matrix(
        self,
        block: Block,
        src_units: "IntArray",
        dst_units: "IntArray",
        weights: "FloatArray | Matrix",
        kernels: "MatrixKernels | None" = None,
        place: Place | None = None,
    ) -> int:
        """Write the non-zero entries of `weights` (n_src, n_dst) as edges; return how many.

        A weight of exactly zero is not an edge; NaN and infinities are. With `kernels`, an entry is an edge
        where `kernels.n_params > 0`, even if its weight (the sum) is zero. With `place`, the weights are
        entries of a tensor of the model file, and may stay there; a `Matrix` comes to sinks alone that leave
        them there.
        """
        ...

    def write_edges(
        self,
        block: Block,
        src: "IntArray",
        dst: "IntArray",
        weight: "FloatArray | None" = None,
        kernels: Kernels | None = None,
    ) -> int:
        """Write the listed edges as they are (NULL weight when `weight` is None); return how many."""
        ...

    def write_layers(self, layers: Sequence[Layer]) -> None:
        """Write all layers, once, at the end."""
        ...

    def write_units(self, columns: Sequence[UnitColumns]) -> None:
        """Write the units of all layers, once, after the layers."""
        ...

    def write_tensor(self, tensor: Tensor) -> None:
        """Write one parameter tensor."""
        ...

    def write_operations(self, operations: Sequence[Operation]) -> None:
        """Write all operations, once, at the end."""
        ...


@dataclass(frozen=True, kw_only=True)
class MatrixKernels:
    """`Kernels` for a whole matrix block: every array has the shape of the weights (n_src, n_dst)."""

    l1: "FloatArray"
    l2: "FloatArray"
    max_abs: "FloatArray"
    n_params: "NDArray[np.int32]"


def matrix_restores(dtype: str, n_nonfinite: int) -> bool:
    """Whether the matrix of a block can hold a tensor bit for bit, so that it needs no raw `data`.

    The store keeps weights as float32: exact for float32 and for all types of up to 16 bits, but NaNs of
    those change their bits on the way.

    Args:
        dtype: Element type of the tensor, by its numpy or ml_dtypes name.
        n_nonfinite: NaN and infinite values among the elements.
    """
    return dtype == "float32" or (dtype in _UP_TO_16_BITS and n_nonfinite == 0)


_UP_TO_16_BITS = frozenset(
    {
        "bool",
        *("int2", "int4", "int8", "int16", "uint2", "uint4", "uint8", "uint16"),
        *("float16", "bfloat16", "float4_e2m1fn", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    }
)
