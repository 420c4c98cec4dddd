"""From a module of a weight file to layers and blocks, given the units that it reads (or new ones)."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.codings import coded_tensor
from emergraph.exporters.counts import Counts
from emergraph.exporters.tracing.builder import GraphBuilder, LayerDraft
from emergraph.exporters.tracing.codes import CodedWeights
from emergraph.exporters.tracing.tracks import Track
from emergraph.exporters.tracing.weights import KernelMatrix, kernel_matrix, left_in_file
from emergraph.exporters.weightfiles.encodings.parameter import (
    COUNTED,
    Parameter,
    Part,
    count_parameter,
    count_values,
)
from emergraph.exporters.weightfiles.wiring_modules import Module, ModuleKind
from emergraph.exporters.weightfiles.wiring_parameters import column_kernels
from emergraph.graphstore.modelfiles import Coding
from emergraph.graphstore.records import EdgeKind, Kernels, LayerKind, matrix_restores

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating]

BATCH_NORM_EPSILON = 1e-5
"""torch's default; a weight file does not hold it."""


@dataclass(frozen=True)
class Held:
    """The block whose matrix is a tensor, so that its values need not be stored again."""

    block: int
    transposed: bool


@dataclass
class Wiring:
    """The graph under construction, and what became of each tensor."""

    builder: GraphBuilder
    roles: dict[str, str] = field(default_factory=dict)
    """Role of each tensor that is understood."""
    held: dict[str, Held] = field(default_factory=dict)
    _counts: dict[str, Counts] = field(default_factory=dict)

    def counts(self, parameter: Parameter) -> Counts:
        """Zeros and the like of a parameter's weights, counted once."""
        if parameter.canonical not in self._counts:
            self._counts[parameter.canonical] = count_parameter(parameter)
        return self._counts[parameter.canonical]

    def part_counts(self, part: Part) -> Counts:
        """The same of a tensor that takes part in making weights; none unless it is a parameter itself."""
        if part.role not in COUNTED:
            return Counts(n_params=0, n_zeros=0, n_nonfinite=0)
        name = part.tensor.alias_of or part.tensor.name
        if name not in self._counts:
            self._counts[name] = count_values(part.tensor)
        return self._counts[name]

    def understand(self, parameter: Parameter, role: str) -> None:
        """Note what a parameter, with its parts, is used for."""
        self.roles.setdefault(parameter.canonical, role)
        for part in parameter.parts:
            self.roles.setdefault(part.tensor.alias_of or part.tensor.name, part.role)

    def count(self, layer: LayerDraft, *parameters: Parameter | None) -> None:
        """Add parameters to a layer's counts."""
        for parameter in parameters:
            if parameter is not None:
                for counts in (self.counts(parameter), *(self.part_counts(part) for part in parameter.parts)):
                    layer.n_params += counts.n_params
                    layer.n_zeros += counts.n_zeros
                layer.dtype = layer.dtype or parameter.tensor.dtype

    def source(self, name: str, count: int) -> LayerDraft:
        """A layer of inputs."""
        return self.builder.add_layer(f"{name}:in", "Input", LayerKind.INPUT, count)

    def block(
        self,
        layer: LayerDraft,
        parameter: Parameter,
        src: IntArray,
        dst: IntArray,
        matrix: KernelMatrix,
        *,
        op: str,
        kind: EdgeKind = EdgeKind.WEIGHT,
        note: str | None = None,
    ) -> int:
        """Write a block of the parameter's edges and return its number."""
        alias = f"tied with {parameter.canonical}" if parameter.tensor.alias_of else None
        weights, place = (matrix.weights, None) if matrix.coded is None else matrix.coded
        written = self.builder.matrix(
            layer,
            name=layer.name,
            op=op,
            kind=kind,
            src_units=src,
            dst_units=dst,
            weights=weights,
            place=place,
            kernels=matrix.kernels,
            tensor=parameter.canonical,
            note="; ".join(part for part in (note, alias) if part) or None,
        )
        return written.id

    def codes(self, parameter: Parameter) -> CodedWeights | None:
        """What a parameter is of codes that can stay in the file; None where edges do not, or they cannot."""
        coding = parameter.source() if self.builder.tensors.in_place else None
        if not isinstance(coding, Coding):
            return None
        tensor = parameter.tensor
        found = coded_tensor(coding, lambda _: tensor.array() if (held := tensor.held()) is None else held)
        if found is None:
            return None
        axes = tuple(range(len(parameter.shape)))
        return CodedWeights(parameter.canonical, found.decoded, axes, coding)

    def hold(self, parameter: Parameter, block: int, *, transposed: bool) -> None:
        """Note that a block's matrix is the whole tensor, if it can restore it bit for bit."""
        tensor = parameter.tensor
        plain = len(tensor.shape) == 2 and parameter.is_plain
        if plain and matrix_restores(tensor.dtype, self.counts(parameter).n_nonfinite):
            self.held.setdefault(parameter.canonical, Held(block, transposed))


def input_size(module: Module) -> int:
    """Return how many inputs a module has; of a convolution those of one group, of a table one."""
    if module.kind is ModuleKind.EMBEDDING:
        return 1
    if module.kind in {ModuleKind.LSTM, ModuleKind.GRU, ModuleKind.RNN}:
        return module.parts["weight_ih"].shape[1]
    shape = module.weight.shape
    if module.kind is ModuleKind.CONV:
        if module.inputs_first:
            return shape[-2]
        return shape[0] if module.transposed or module.depthwise else shape[1]
    return shape[0] if module.inputs_first else shape[1]


def write_dense(
    wiring: Wiring, module: Module, sources: IntArray, *, repeat: int = 1, note: str | None = None
) -> list[LayerDraft]:
    """Write a dense layer; packed ones as a layer for each part.

    Args:
        wiring: The graph.
        module: A module of kind DENSE.
        sources: (n_inputs / repeat,) units that it reads.
        repeat: Consecutive inputs that each unit stands for: the positions of a flattened convolution.
        note: What a reader should know.

    Returns:
        The new layers, one for each packed part.
    """
    weight, bias = module.weight, module.parts.get("bias")
    matrices = _packed_parts(wiring, module, codes=repeat == 1)
    wiring.understand(weight, "weight")
    if bias is not None:
        wiring.understand(bias, "bias")
    shifts = None if bias is None else bias.floats().astype(np.float64).reshape(-1)
    width = matrices[0].weights.shape[1]
    names = [module.name] if module.packed == 1 else [f"{module.name}:{part}" for part in "qkv"]
    layers = []
    for index, name in enumerate(names):
        part = slice(index * width, (index + 1) * width)
        layer = wiring.builder.add_layer(name, module.op, LayerKind.DENSE, width)
        layer.raw = Track(None, None, bias=None if shifts is None else shifts[part])
        matrix = matrices[index]
        if repeat > 1:
            grouped = matrix.weights.reshape(-1, repeat, width)
            matrix = kernel_matrix(np.swapaxes(grouped, 1, 2), taps=1)
        block = wiring.block(layer, weight, sources, layer.units, matrix, op=module.op, note=note)
        if repeat == 1 and module.packed == 1:
            wiring.hold(weight, block, transposed=not module.inputs_first)
        layers.append(layer)
    wiring.count(layers[0], weight, bias)
    return layers


def _packed_parts(wiring: Wiring, module: Module, *, codes: bool) -> list[KernelMatrix]:
    """The matrices (inputs, outputs) of a dense layer, one for each packed part.

    Args:
        wiring: The graph.
        module: A module of kind DENSE.
        codes: Whether weights that are codes may stay so.
    """

    def cut(values: NDArray[np.generic]) -> list[KernelMatrix]:
        oriented = values if module.inputs_first else values.T
        width = oriented.shape[1] // module.packed
        return [KernelMatrix(oriented[:, k * width : (k + 1) * width]) for k in range(module.packed)]

    coded = wiring.codes(module.weight) if codes else None
    left = None if coded is None else left_in_file(coded, cut(coded.stand_in))
    return cut(module.weight.held()) if left is None else left


def write_embedding(wiring: Wiring, module: Module) -> LayerDraft:
    """Write a table: one source unit, and one edge to each feature that stands for a column of the table."""
    weight = module.weight
    source = wiring.builder.add_layer(f"{module.name}:table", module.op, LayerKind.EMBEDDING, 1)
    layer = wiring.builder.add_layer(module.name, module.op, LayerKind.DENSE, weight.shape[1])
    wiring.understand(weight, "embedding")
    wiring.count(layer, weight)
    matrix = KernelMatrix(*column_kernels(weight.floats()))
    wiring.block(layer, weight, source.units, layer.units, matrix, op=module.op, note="embedding")
    return layer


def write_convolution(
    wiring: Wiring, module: Module, sources: IntArray, *, groups: int = 1, note: str | None = None
) -> LayerDraft:
    """Write a convolution; an output sees the inputs of its own group only.

    Args:
        wiring: The graph.
        module: A module of kind CONV.
        sources: (groups * inputs of one group,) units that it reads.
        groups: Groups of channels.
        note: What a reader should know.
    """
    weight, bias = module.weight, module.parts.get("bias")
    values = weight.held()
    if module.inputs_first:
        values = np.moveaxis(values, (-2, -1), (0, 1))
    elif not module.transposed:
        values = np.swapaxes(values, 0, 1)
    n_out = values.shape[1] * (groups if module.transposed else 1)
    layer = wiring.builder.add_layer(module.name, module.op, LayerKind.CONV, n_out)
    shifts = None if bias is None else bias.floats().astype(np.float64).reshape(-1)
    layer.raw = Track(None, None, bias=shifts)
    wiring.understand(weight, "weight")
    if bias is not None:
        wiring.understand(bias, "bias")
    wiring.count(layer, weight, bias)
    matrix = kernel_matrix(values, taps=values.ndim - 2)
    if groups == 1:
        wiring.block(layer, weight, sources, layer.units, matrix, op=module.op, note=note)
    else:
        note = "; ".join(part for part in (f"group={groups}", note) if part)
        _grouped(wiring, layer, weight, sources, matrix, groups, transposed=module.transposed, note=note)
    return layer


def _grouped(
    wiring: Wiring,
    layer: LayerDraft,
    weight: Parameter,
    sources: IntArray,
    matrix: KernelMatrix,
    groups: int,
    *,
    transposed: bool,
    note: str,
) -> None:
    """One block of edges: an input reaches the outputs of its own group only."""
    ins, outs = sources.size // groups, layer.count // groups
    rows = np.arange(sources.size)[:, None]
    columns = (rows // ins) * outs + np.arange(outs)
    taken = (rows, np.arange(outs)[None]) if transposed else (rows % ins, columns)
    count = matrix.weights != 0 if matrix.kernels is None else matrix.kernels.n_params
    keep = count[taken] > 0
    kernels = None
    if matrix.kernels is not None:
        kernels = Kernels(**{name: values[taken][keep] for name, values in vars(matrix.kernels).items()})
    alias = f"tied with {weight.canonical}" if weight.tensor.alias_of else None
    wiring.builder.edges(
        layer,
        name=layer.name,
        op=layer.op,
        kind=EdgeKind.WEIGHT,
        src=np.broadcast_to(sources[:, None], columns.shape)[keep],
        dst=layer.units[columns][keep],
        weight=matrix.weights[taken][keep],
        kernels=kernels,
        tensor=weight.canonical,
        note="; ".join(part for part in (note, alias) if part),
    )


def norm_columns(module: Module) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Return the factor and the shift that a normalisation applies to each feature, and what was assumed.

    With running statistics (batch norm) they are folded: scale = gamma / sqrt(var + 1e-5),
    shift = beta - mean * scale; else they are gamma and beta as they are.
    """
    parts = {
        name: part.floats().astype(np.float64).reshape(-1)
        for name, part in module.parts.items()
        if name != "num_batches_tracked"
    }
    size = next(iter(parts.values())).size
    scale, shift = parts.get("weight", np.ones(size)), parts.get("bias", np.zeros(size))
    if "running_mean" in parts and "running_var" in parts:
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # of a variance below 0, as torch
            scale = scale / np.sqrt(parts["running_var"] + BATCH_NORM_EPSILON)
            shift = shift - parts["running_mean"] * scale
        return scale, shift, f"batch norm with epsilon {BATCH_NORM_EPSILON:g}"
    return scale, shift, "scale and shift; the normalisation itself is not in the file"


def understand_norm(wiring: Wiring, module: Module) -> None:
    """Note the roles of a normalisation's tensors."""
    roles = {"weight": "scale", "bias": "shift", "running_mean": "shift", "running_var": "scale"}
    for name, part in module.parts.items():
        if name in roles:
            wiring.understand(part, roles[name])


def apply_norm(wiring: Wiring, module: Module, layer: LayerDraft) -> str:
    """Put a normalisation's factor and shift on the units of the layer before it; return what was assumed."""
    scale, shift, note = norm_columns(module)
    track = layer.raw or Track(None, None)
    before_scale = np.ones(layer.count) if track.scale is None else track.scale
    before_shift = np.zeros(layer.count) if track.shift is None else track.shift
    layer.raw = replace(track, scale=before_scale * scale, shift=before_shift * scale + shift)
    understand_norm(wiring, module)
    wiring.count(layer, *(part for name, part in module.parts.items() if name != "num_batches_tracked"))
    return note
