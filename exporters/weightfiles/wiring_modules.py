"""Which tensors belong together, and what kind of layer they are: told from names and shapes alone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from emergraph.exporters.weightfiles.dtypes import FLOATING
from emergraph.exporters.weightfiles.encodings.parameter import Parameter
from emergraph.exporters.weightfiles.plainarrays import plain_groups


class ModuleKind(StrEnum):
    """What a group of parameters is."""

    DENSE = "dense"
    CONV = "conv"
    EMBEDDING = "embedding"
    NORM = "norm"
    LSTM = "lstm"
    GRU = "gru"
    RNN = "rnn"
    OTHER = "other"
    """Parameters whose use the file does not show, and buffers."""


_OPERATIONS = {
    ModuleKind.DENSE: "Gemm",
    ModuleKind.CONV: "Conv",
    ModuleKind.EMBEDDING: "Gather",
    ModuleKind.NORM: "Normalization",
    ModuleKind.LSTM: "LSTM",
    ModuleKind.GRU: "GRU",
    ModuleKind.RNN: "RNN",
    ModuleKind.OTHER: "Parameter",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Module:
    """Parameters of one layer."""

    name: str
    """What their names have in common."""
    kind: ModuleKind
    parts: Mapping[str, Parameter] = field(repr=False)
    """By role: "weight", "bias", "running_mean", "weight_ih", ... ; of OTHER by the last part of the name."""
    inputs_first: bool = False
    """Whether the weight's first axis is the inputs, as in Hugging Face's Conv1D and in Flax."""
    transposed: bool = False
    """Of convolutions: transposed, whose weight is (inputs, outputs / groups, ...)."""
    depthwise: bool = False
    """Of convolutions: every channel has its own kernels."""
    packed: int = 1
    """Blocks of equal size that the outputs consist of: 3 for query | key | value."""
    why: str = ""
    """What told the kind, or why it is not known."""
    reads: str | None = None
    """The module whose units it reads, where the names say so: the first matrix of a low-rank pair."""

    @property
    def op(self) -> str:
        """The operation of an ONNX model that does what the module does."""
        return "ConvTranspose" if self.transposed else _OPERATIONS[self.kind]

    @property
    def weight(self) -> Parameter:
        """The weight; every kind but OTHER has one, recurrent ones by two names."""
        return self.parts["weight"]


_LEAF = re.compile(
    r"(?P<stem>.*?)(?P<role>weight|bias|kernel|gamma|beta|running_mean|running_var|num_batches_tracked)"
)
_RECURRENT = re.compile(r"(?P<role>(weight|bias)_(ih|hh|hr))(?P<stem>_l\d+(_reverse)?)?")
_ROLES = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
_EMBEDDING = re.compile(
    r"(.*[._])?(w[tp]e|embed(ding)?s?(_tokens|_positions)?|embed_.*|emb|.*_emb(ed|eddings?)?|token_embedding_table)"
)
_DEPTHWISE = re.compile(r"(.*[._])?(dw|depth_?wise)(_?conv)?([._].*)?", re.IGNORECASE)
_TRANSPOSED = re.compile(r".*(transpose|deconv|upconv|conv_?tr\b).*", re.IGNORECASE)
_FILTERS = re.compile(r"(forward_)?basis(_buffer)?|filters?|filter_bank")
"""A fixed filter bank, such as a Fourier transform that is written as a convolution."""
_SECOND = re.compile(r"(?P<start>.*[._]lora_(embedding_)?)(?P<side>B|up)(?P<end>(\.[^.]+)?)")
"""The second matrix of a low-rank pair; the first one is A or down."""
_FIRST = {"B": "A", "up": "down"}
_TABLE = re.compile(r".*\.lora_embedding_A(\.[^.]+)?")
_PACKED = re.compile(r"(.*[._])?(in_proj|c_attn|qkv|to_qkv|qkv_proj|wqkv)", re.IGNORECASE)


def group_modules(found: Mapping[str, Parameter], *, plain: bool = False) -> list[Module]:
    """Group parameters by what their names have in common, and recognise what each group is.

    Args:
        found: Parameters by name, in file order.
        plain: Whether matrices are layers whatever their names, as in a file of plain arrays.

    Returns:
        Modules in the order in which the file first names one of their parameters; every parameter is in
        exactly one.
    """
    groups: dict[str, dict[str, Parameter]] = {}
    for name, parameter in found.items():
        path, _, leaf = name.rpartition(".")
        key, role = _key(path, leaf)
        group = groups.setdefault(key, {})
        group[role if role not in group else leaf] = parameter
    named = groups
    if plain:
        groups = plain_groups(groups)
    inputs_first = _inputs_first_names(groups)
    modules = {name: _recognise(name, parts, inputs_first) for name, parts in groups.items()}
    for name, module in modules.items():
        if module.kind is ModuleKind.EMBEDDING and groups[name] != named[name]:
            modules[name] = replace(module, kind=ModuleKind.DENSE, why="weight (outputs, inputs)")
    return [replace(module, reads=_first_of_pair(module, modules)) for module in modules.values()]


def _first_of_pair(module: Module, modules: Mapping[str, Module]) -> str | None:
    match = _SECOND.fullmatch(module.name)
    if match is None or module.kind not in {ModuleKind.DENSE, ModuleKind.CONV}:
        return None
    first = modules.get(match["start"] + _FIRST[match["side"]] + match["end"])
    if first is None or first.kind not in {ModuleKind.DENSE, ModuleKind.CONV, ModuleKind.EMBEDDING}:
        return None
    given = first.weight.shape[1 if first.kind is ModuleKind.EMBEDDING else 0]
    plain = not (module.inputs_first or module.transposed or first.inputs_first or first.transposed)
    return first.name if plain and given == module.weight.shape[1] else None


def _key(path: str, leaf: str) -> tuple[str, str]:
    """The module that a parameter belongs to, and its role there."""
    recurrent = _RECURRENT.fullmatch(leaf)
    if recurrent:
        return _join(path, (recurrent["stem"] or "").lstrip("_")), recurrent["role"]
    plain = _LEAF.fullmatch(leaf)
    if plain:
        return _join(path, plain["stem"].rstrip("_")), _ROLES.get(plain["role"], plain["role"])
    return _join(path, leaf), "weight" if _FILTERS.fullmatch(leaf) else leaf


def _join(path: str, stem: str) -> str:
    return ".".join(part for part in (path, stem) if part) or "weights"


def _inputs_first_names(groups: Mapping[str, Mapping[str, Parameter]]) -> set[str]:
    """Last parts of module names whose weights have shapes that only inputs-first explains.

    A square weight does not show its layout; its namesakes in other layers do: a GPT-2 has a square
    `attn.c_proj` and an oblong `mlp.c_proj`.
    """
    proofs: set[str] = set()
    for name, parts in groups.items():
        weight, bias = parts.get("weight"), parts.get("bias")
        if weight is not None and bias is not None and len(weight.shape) == 2:
            rows, columns = weight.shape
            if bias.shape == (columns,) and rows != columns:
                proofs.add(name.rpartition(".")[2])
    return proofs


def _recognise(name: str, parts: Mapping[str, Parameter], inputs_first: set[str]) -> Module:
    problem = next((part.problem for part in parts.values() if part.problem), "")
    if problem:
        return Module(name=name, kind=ModuleKind.OTHER, parts=parts, why=problem)
    if "weight_ih" in parts and "weight_hh" in parts:
        return _recurrent(name, parts)
    weight, bias = parts.get("weight"), parts.get("bias")
    if weight is None or not _is_number(weight):
        norm = "running_mean" in parts and "running_var" in parts
        why = "statistics of a batch norm" if norm else "the file does not show what the values are used for"
        return Module(name=name, kind=ModuleKind.NORM if norm else ModuleKind.OTHER, parts=parts, why=why)
    rank = len(weight.shape)
    if rank and weight.n_elements > 1 and (rank == 1 or (bias is not None and bias.shape == weight.shape)):
        fits = bias is None or bias.shape == weight.shape
        why = "one factor per feature" if fits else "weight and bias do not fit each other"
        return Module(name=name, kind=ModuleKind.NORM if fits else ModuleKind.OTHER, parts=parts, why=why)
    if rank < 2 or not weight.n_elements:
        why = "a single value" if rank < 2 else "no elements"
        return Module(name=name, kind=ModuleKind.OTHER, parts=parts, why=why)
    return _matrix(name, parts, inputs_first) if rank == 2 else _convolution(name, parts)


def _is_number(parameter: Parameter) -> bool:
    return (
        parameter.tensor.dtype in FLOATING
        or not parameter.is_plain
        or parameter.tensor.dtype in {"int8", "uint8"}
    )


def _recurrent(name: str, parts: Mapping[str, Parameter]) -> Module:
    """The number of gates is the ratio of the recurrent weight's sides; projections are not unpacked."""
    into, again = parts["weight_ih"], parts["weight_hh"]
    square = len(into.shape) == 2 and len(again.shape) == 2 and again.shape[1] > 0
    gates = again.shape[0] // again.shape[1] if square and again.shape[0] % again.shape[1] == 0 else 0
    kind = {4: ModuleKind.LSTM, 3: ModuleKind.GRU, 1: ModuleKind.RNN}.get(gates)
    biases = [parts[role] for role in ("bias_ih", "bias_hh") if role in parts]
    fits = square and into.shape[0] == again.shape[0] and all(b.shape == (into.shape[0],) for b in biases)
    if kind is None or not fits or "weight_hr" in parts:
        why = (
            "a recurrent layer with projections"
            if "weight_hr" in parts
            else "no number of gates fits the shapes"
        )
        return Module(name=name, kind=ModuleKind.OTHER, parts=parts, why=why)
    return Module(name=name, kind=kind, parts=parts, why=f"{gates} gates of {again.shape[1]} cells")


def _matrix(name: str, parts: Mapping[str, Parameter], inputs_first: set[str]) -> Module:
    weight, bias = parts["weight"], parts.get("bias")
    rows, columns = weight.shape
    last = name.rpartition(".")[2]
    low_rank = _SECOND.fullmatch(name) is not None or ".lora_A" in name
    if bias is None and (_TABLE.fullmatch(name) or (_EMBEDDING.fullmatch(name) and not low_rank)):
        return Module(name=name, kind=ModuleKind.EMBEDDING, parts=parts, why="a table, by its name")
    if bias is not None and bias.shape not in {(rows,), (columns,)}:
        return Module(
            name=name, kind=ModuleKind.OTHER, parts=parts, why="weight and bias do not fit each other"
        )
    flax = weight.name.endswith("kernel")
    turned = flax or (last in inputs_first and (bias is None or bias.shape == (columns,)))
    turned = turned or (bias is not None and bias.shape == (columns,) and rows != columns)
    inputs, outputs = (rows, columns) if turned else (columns, rows)
    packed = 3 if _PACKED.fullmatch(name) and outputs == 3 * inputs else 1
    why = "weight (inputs, outputs)" if turned else "weight (outputs, inputs)"
    return Module(name=name, kind=ModuleKind.DENSE, parts=parts, inputs_first=turned, packed=packed, why=why)


def _convolution(name: str, parts: Mapping[str, Parameter]) -> Module:
    weight, bias = parts["weight"], parts.get("bias")
    first, second = weight.shape[:2]
    flax = weight.name.endswith("kernel")
    outputs = weight.shape[-1] if flax else first
    size = None if bias is None else bias.shape
    if flax:
        fits = size in {None, (outputs,)}
        return Module(
            name=name,
            kind=ModuleKind.CONV if fits else ModuleKind.OTHER,
            parts=parts,
            inputs_first=True,
            why="kernel (..., inputs, outputs)",
        )
    transposed = (size == (second,) and first != second) or (
        _TRANSPOSED.fullmatch(name) is not None and size in {None, (second,)}
    )
    if size is not None and size not in {(first,), (second,)}:
        return Module(
            name=name, kind=ModuleKind.OTHER, parts=parts, why="weight and bias do not fit each other"
        )
    depthwise = second == 1 and first > 1 and _DEPTHWISE.fullmatch(name) is not None and not transposed
    why = "weight (inputs, outputs, ...)" if transposed else "weight (outputs, inputs / groups, ...)"
    return Module(
        name=name,
        kind=ModuleKind.CONV,
        parts=parts,
        transposed=transposed,
        depthwise=depthwise,
        why="depthwise, by its name" if depthwise else why,
    )
