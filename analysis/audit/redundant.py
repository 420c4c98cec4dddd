"""Redundant: what is there twice, what changes nothing, and what one layer could do instead of two."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.audit.agreement import AGREEMENT, SAMPLES, elementwise, runs_of
from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.kinds import Grade
from emergraph.analysis.audit.network import LayerWeights, Network
from emergraph.analysis.audit.subject import OnnxSubject, Subject, stored_tensors
from emergraph.analysis.audit.twins import twin_layers, twin_units
from emergraph.analysis.audit.words import bytes_text, count, names_text
from emergraph.analysis.modelruns.running import ModelRuns
from emergraph.exporters.nodes import attributes, input_name
from emergraph.exporters.operations import CONVOLUTIONS, DENSE, Kind, kind_of
from emergraph.exporters.runtime.quoting import quoted

Array = NDArray[np.generic]
Floats = NDArray[np.float64]

TWICE_BYTES = 1024
"""Tensors with the same values are worth a finding from so many wasted bytes on."""
ENERGY = 1 - 1e-6
"""Share of a matrix's squares that its leading singular values have to hold."""
MAX_SIDE = 2048
"""Matrices with a longer shorter side are not decomposed."""
WORTH = 0.75
"""Two factors are worth a finding when they have at most this share of the weights."""
_REPEATABLE = frozenset({"Relu", "Abs", "Sign", "Ceil", "Floor", "Round"})
"""Operations that change nothing the second time."""


def redundant(subject: Subject) -> Iterator[AuditFinding]:
    """Find what is redundant."""
    if subject.network is not None:
        yield from twin_units(subject.network, subject.in_time(subject.weights_by_layer.values()))
        yield from twin_layers(subject.network, subject.weights_by_layer)
        yield from low_ranks(subject)
    yield from stored_twice(subject)
    if subject.onnx is not None:
        yield from linear_chains(subject.onnx, subject.network)
        yield from identities(subject.onnx)
        yield from norms(subject.onnx)


def stored_twice(subject: Subject) -> Iterator[AuditFinding]:
    """Tensors whose bytes are those of another one."""
    groups: dict[tuple[str, tuple[int, ...]], list[tuple[str, Array]]] = {}
    for name, dtype, values in subject.in_time(stored_tensors(subject)):
        groups.setdefault((dtype, values.shape), []).append((name, values))
    same: dict[str, list[str]] = {}
    wasted = 0
    for (dtype, shape), members in groups.items():
        if len(members) < 2:
            continue
        for name, values in members:
            digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
            names = same.setdefault(f"{dtype} {shape} {digest}", [])
            wasted += values.nbytes if names else 0
            names.append(name)
    twice = [names for names in same.values() if len(names) > 1]
    if wasted >= TWICE_BYTES:
        copies = sum(len(names) - 1 for names in twice)
        verb = "is a copy" if copies == 1 else "are copies"
        sentence = (
            f"{count(copies, 'tensor')} of {bytes_text(wasted)} {verb} of others: "
            f"{names_text([' = '.join(names[:2]) for names in twice])}."
        )
        yield AuditFinding(
            id="STORED-TWICE",
            sentence=sentence,
            key=(sorted(digest for digest, names in same.items() if len(names) > 1),),
            tensors=[name for names in twice for name in names],
            evidence={"copies": copies, "bytes": wasted},
        )


@dataclass(frozen=True)
class _LowRank:
    """A weight matrix that two factors could stand for."""

    held: LayerWeights
    tensor: str
    matrix: Floats
    rank: int


def low_ranks(subject: Subject) -> Iterator[AuditFinding]:
    """Weight matrices that two factors could stand for, and what that does to the outputs."""
    network, onnx_subject = subject.network, subject.onnx
    found = list(_low_rank_matrices(subject))
    if network is None or not found:
        return
    with contextlib.ExitStack() as stack:
        runs = None
        if onnx_subject is not None and subject.outputs is not None:
            runs = stack.enter_context(runs_of(subject, onnx_subject))
        for one in subject.in_time(found):
            gap = None if runs is None or onnx_subject is None else _factorised(onnx_subject, runs, one)
            yield _low_rank_finding(subject, network, one, gap)


def _low_rank_finding(subject: Subject, network: Network, one: _LowRank, gap: float | None) -> AuditFinding:
    shape, layer, full = one.matrix.shape, one.held.layer, min(one.matrix.shape)
    saved = 1 - one.rank * sum(shape) / one.matrix.size
    sentence = (
        f"The {shape[0]} x {shape[1]} weights {quoted(one.tensor)} of layer {network.title(layer)} have rank "
        f"{one.rank} of {full} (at 1 - 1e-6 of their squares): two factors would have {100 * saved:.0f} % "
        "fewer weights"
    )
    agrees = gap is not None and gap <= AGREEMENT
    action = ""
    if gap is not None:
        n = count(min(subject.n_samples, SAMPLES), "input")
        sentence += f"; with them the outputs move by {gap:.2g} of their largest on {n}"
        sentence += ", which agrees" if agrees else f", more than the {AGREEMENT:g} that agrees"
        action = (
            "Replace the layer by two." if agrees else "Replace the layer by two only where that is enough."
        )
    return AuditFinding(
        id="LOW-RANK",
        sentence=f"{sentence}.",
        key=(network.keys[layer.id], list(shape), one.rank),
        tensors=[one.tensor],
        units={layer.name: list(range(layer.n_units))},
        evidence={"rank": one.rank, "full": full, "energy": ENERGY, "saved": saved, "difference": gap},
        grade=Grade.TESTED if agrees and subject.given else Grade.SUSPECTED,
        action=action,
    )


def _low_rank_matrices(subject: Subject) -> Iterator[_LowRank]:
    """Matrices of low rank, each tensor once; where units share its rows, no factor would have fewer."""
    sizes: dict[str, int] = {}
    if subject.network is not None:
        sizes = dict(subject.network.reader.tensors().select("name", "n_params").iter_rows())
    for held in subject.in_time(subject.weights_by_layer.values()):
        start = 0
        for width, tensor in zip(held.widths, held.tensors, strict=True):
            matrix = held.rows[:, start : start + width]
            start += width
            if matrix.size > sizes.pop(tensor, 0):
                continue
            rank = rank_at(matrix)
            if rank is not None and is_worth(rank, matrix.shape):
                yield _LowRank(held, tensor, matrix, rank)


def _factorised(onnx_subject: OnnxSubject, runs: ModelRuns, one: _LowRank) -> float | None:
    """Largest change of the outputs with two factors for the weights; None where they are not found."""
    if one.tensor not in onnx_subject.run.flat.initializers:
        return None
    stored = onnx_subject.value(one.tensor)
    left, sizes, right = np.linalg.svd(one.matrix, full_matrices=False)
    product = (left[:, : one.rank] * sizes[: one.rank]) @ right[: one.rank]
    for turned in (False, True):
        seen = stored.reshape(one.matrix.shape[::-1]).T if turned and stored.ndim == 2 else stored
        if seen.size != one.matrix.size or not np.allclose(seen.reshape(one.matrix.shape), one.matrix):
            continue
        put = (product.T if turned else product).reshape(stored.shape).astype(stored.dtype)
        found = runs.replaced({one.tensor: put})
        return max((elementwise(a, b) for a, b in zip(runs.expected, found, strict=True)), default=None)
    return None


def rank_at(matrix: Floats) -> int | None:
    """Return how many singular values hold `ENERGY` of the squares; None where that is not computed."""
    if min(matrix.shape) < 4 or min(matrix.shape) > MAX_SIDE or not np.isfinite(matrix).all():
        return None
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares = np.maximum(np.linalg.eigvalsh(wide @ wide.T)[::-1], 0)
    total = squares.sum()
    if total == 0:
        return None
    return int(np.searchsorted(np.cumsum(squares), ENERGY * total) + 1)


def is_worth(rank: int, shape: tuple[int, ...]) -> bool:
    """Whether two factors of a rank are enough smaller than the matrix."""
    return rank * sum(shape) <= WORTH * shape[0] * shape[1]


def linear_chains(subject: OnnxSubject, network: Network | None) -> Iterator[AuditFinding]:
    """Pairs of layers without a nonlinearity between them that one smaller layer could stand for."""
    layer_of = {} if network is None else _layers_by_operation(network)
    for first, second, saved in chains(subject):
        names = [layer_of.get(node.name, node.name) for node in (first, second)]
        sentence = (
            f"Nothing but linear operations lies between layers {quoted(first.name)} and "
            f"{quoted(second.name)}: one layer instead of both has {saved:,} fewer weights."
        )
        keys = [] if network is None else [_key_of(network, name) for name in names]
        yield AuditFinding(
            id="LINEAR-CHAIN",
            sentence=sentence,
            key=(keys, saved),
            operations=[first.name, second.name],
            units={} if network is None else {name: [] for name in names},
            evidence={"saved": saved},
        )


def _layers_by_operation(network: Network) -> dict[str, str]:
    names = dict(network.layers.select("id", "name").iter_rows())
    return {str(op): str(names[layer]) for op, layer in network.blocks.select("name", "layer").iter_rows()}


def _key_of(network: Network, layer: str) -> object:
    found = next((one for one in network.graph.layers if one.name == layer), None)
    return layer if found is None else network.keys[found.id]


def chains(subject: OnnxSubject) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto, int]]:
    """Yield contractions that follow each other linearly, and the weights that one of them would save."""
    for node in subject.run.flat.nodes:
        if not _is_layer(subject, node):
            continue
        after = next_layer(subject, node)
        if after is None:
            continue
        a, b = _weights(subject, node), _weights(subject, after)
        saved = 0 if a is None or b is None else _saved(node, a, after, b)
        if saved > 0:
            yield node, after, saved


def _is_layer(subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    return kind_of(node) in DENSE | {Kind.CONVOLUTION} and _weights(subject, node) is not None


def _weights(subject: OnnxSubject, node: onnx.NodeProto) -> Array | None:
    """(out, in, taps...) weights of a layer whose data are its first input."""
    data, name = input_name(node, 0), input_name(node, 1)
    if _is_constant(subject, data) or not _is_constant(subject, name):
        return None
    values = subject.constant(name)
    if values is None or values.ndim < 2 or values.dtype.kind not in "fV":
        return None
    if kind_of(node) is Kind.CONVOLUTION:
        return values
    turned = kind_of(node) is Kind.GEMM and bool(attributes(node).get("transB"))
    if values.ndim != 2 or attributes(node).get("transA"):
        return None
    return values if turned else values.T


def _is_constant(subject: OnnxSubject, name: str) -> bool:
    return name in subject.run.flat.initializers or name in subject.makers


def next_layer(subject: OnnxSubject, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The layer that alone reads a layer's result, with nothing but scales and shifts on the way."""
    name = node.output[0]
    while True:
        readers = subject.consumers.get(name, [])
        if len(readers) != 1 or readers[0] < 0:
            return None
        reader = subject.run.flat.nodes[readers[0]]
        if _is_layer(subject, reader) and input_name(reader, 0) == name:
            return reader
        if not _is_affine(subject, reader, name):
            return None
        name = reader.output[0]


def _is_affine(subject: OnnxSubject, node: onnx.NodeProto, name: str) -> bool:
    kind = kind_of(node)
    others = [other for other in node.input if other and other != name]
    if kind in (Kind.SUM, Kind.DIFFERENCE, Kind.PRODUCT):
        return len(others) == 1 and _is_constant(subject, others[0])
    if kind is Kind.QUOTIENT:
        return input_name(node, 0) == name and len(others) == 1 and _is_constant(subject, others[0])
    if kind is Kind.BATCH_NORM:
        training = {one.name for one in subject.run.flat.training}
        return node.name not in training and all(_is_constant(subject, other) for other in others)
    return kind is Kind.IDENTITY


def _saved(first: onnx.NodeProto, a: Array, second: onnx.NodeProto, b: Array) -> int:
    """Weights of two layers less those of the one that does the same; 0 where none does."""
    if kind_of(first) in DENSE and kind_of(second) in DENSE:
        return int(a.size + b.size - b.shape[0] * a.shape[1])
    if kind_of(first) is not Kind.CONVOLUTION or kind_of(second) is not Kind.CONVOLUTION:
        return 0
    grouped = any(int(str(attributes(node).get("group", 1))) != 1 for node in (first, second))
    pointwise = int(np.prod(b.shape[2:])) == 1 and not any(_list(second, "pads"))
    return int(a.size + b.size - b.shape[0] * a[0].size) if pointwise and not grouped else 0


def _list(node: onnx.NodeProto, name: str) -> list[int]:
    found = attributes(node).get(name)
    return list(found) if isinstance(found, list) else []


def identities(subject: OnnxSubject) -> Iterator[AuditFinding]:
    """Operations that do not change what they are given."""
    found = [node for node in subject.run.flat.nodes if is_identity(subject, node)]
    if found:
        counts = Counter(node.op_type for node in found)
        said = ", ".join(f"{n} x {op}" for op, n in counts.most_common(5))
        verb = "does not change what it is" if len(found) == 1 else "do not change what they are"
        yield AuditFinding(
            id="IDENTITY-OPERATION",
            sentence=f"{count(len(found), 'operation')} {verb} given: {said}.",
            key=(sorted(counts.items()),),
            operations=[node.name for node in found],
            evidence={"operations": len(found), "by_type": dict(counts)},
        )


def is_identity(subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    """Whether an operation gives what its first input is, for every input."""
    if not node.output or node.output[0] in subject.makers or node.output[0] not in subject.needed:
        return False
    if any(node.output[1:]) or _is_constant(subject, input_name(node, 0)):
        return False
    rule = _UNCHANGED.get(kind_of(node), _is_repeated)
    return rule(subject, node)


def _always(_subject: OnnxSubject, _node: onnx.NodeProto) -> bool:
    return True


def _keeps_type(subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    """Whether a cast is to the type that its input has; bfloat16 runs as float32, so that it hides types."""
    before, after = (subject.run.values.get(name) for name in (node.input[0], node.output[0]))
    if before is None or after is None or before.dtype is None or subject.has_bfloat16:
        return False
    return before.dtype == after.dtype


def _keeps_order(_subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    order = attributes(node).get("perm")
    return isinstance(order, list) and order == sorted(order)


def _is_alone(_subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    return len(node.input) == 1


def _is_repeated(subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    before = subject.maker_of.get(input_name(node, 0))
    return node.op_type in _REPEATABLE and before is not None and before.op_type == node.op_type


def _adds_nothing(subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    """Whether the second operand is nothing but zeros (of a sum) or ones (of a product), and no wider."""
    if len(node.input) != 2 or not _is_constant(subject, node.input[1]):
        return False
    values, data = subject.constant(node.input[1]), subject.run.values.get(node.input[0])
    made = subject.run.values.get(node.output[0])
    if values is None or data is None or made is None or data.shape is None or values.dtype.kind not in "fiu":
        return False
    neutral = 0 if kind_of(node) in (Kind.SUM, Kind.DIFFERENCE) else 1
    fits = values.ndim <= len(data.shape) and all(
        size == 1 or (size == other and size > 1)
        for size, other in zip(values.shape[::-1], data.shape[::-1], strict=False)
    )
    return bool(fits and made.shape == data.shape and (values == neutral).all())


_UNCHANGED: dict[Kind, Callable[[OnnxSubject, onnx.NodeProto], bool]] = {
    **dict.fromkeys((Kind.IDENTITY, Kind.DROPOUT), _always),
    **dict.fromkeys((Kind.CAST, Kind.CAST_LIKE), _keeps_type),
    **dict.fromkeys((Kind.SUM, Kind.DIFFERENCE, Kind.PRODUCT, Kind.QUOTIENT), _adds_nothing),
    Kind.TRANSPOSE: _keeps_order,
    Kind.CONCAT: _is_alone,
}
"""When an operation of a kind changes nothing."""


def norms(subject: OnnxSubject) -> Iterator[AuditFinding]:
    """Batch normalisations that the layer before can take in."""
    found = [node for node in subject.run.flat.nodes if is_foldable_norm(subject, node)]
    if found:
        verb = "follows" if len(found) == 1 else "follow"
        yield AuditFinding(
            id="FOLDABLE-NORM",
            sentence=f"{count(len(found), 'batch normalisation')} {verb} a layer that can take it in: "
            f"{names_text([node.name for node in found])}.",
            key=(len(found),),
            operations=[node.name for node in found],
            evidence={"operations": len(found)},
        )


def is_foldable_norm(subject: OnnxSubject, node: onnx.NodeProto) -> bool:
    """Whether a batch normalisation in inference mode is the only reader of a layer with constant weights."""
    if kind_of(node) is not Kind.BATCH_NORM or any(node.output[1:]):
        return False
    if node.name in {one.name for one in subject.run.flat.training}:
        return False
    before = subject.maker_of.get(input_name(node, 0))
    if before is None or kind_of(before) not in CONVOLUTIONS | {Kind.GEMM}:
        return False
    constants = [*before.input[1:], *node.input[1:]]
    alone = len(subject.consumers.get(node.input[0], [])) == 1
    return alone and all(_is_constant(subject, name) for name in constants if name)
