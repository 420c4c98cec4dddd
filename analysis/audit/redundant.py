"""Redundant: what is there twice, what changes nothing, and what one layer could do instead of two."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.audit.dispensable import chains, is_foldable_norm, is_identity
from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.kinds import Grade
from emergraph.analysis.audit.network import ENERGY, LayerWeights, Network, rank_at
from emergraph.analysis.audit.subject import (
    AGREEMENT,
    SAMPLES,
    OnnxSubject,
    Subject,
    elementwise,
    runs_of,
    stored_tensors,
)
from emergraph.analysis.audit.twins import twin_layers, twin_units
from emergraph.analysis.audit.words import bytes_text, count, names_text
from emergraph.analysis.modelruns.running import ModelRuns
from emergraph.exporters.runtime.quoting import quoted

Array = NDArray[np.generic]
Floats = NDArray[np.float64]

TWICE_BYTES = 1024
"""Tensors with the same values are worth a finding from so many wasted bytes on."""
WORTH = 0.75
"""Two factors are worth a finding when they have at most this share of the weights."""


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
