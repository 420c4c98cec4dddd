"""Redundant: what is there twice, what changes nothing, and what one layer could do instead of two."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
from emergraph.analysis.audit.words import bytes_text, count, names_text
from emergraph.analysis.modelruns.running import ModelRuns
from emergraph.analysis.unitgraph import UnitLayer
from emergraph.exporters.runtime.quoting import quoted
from emergraph.graphstore.records import LayerKind

Array = NDArray[np.generic]
Floats = NDArray[np.float64]

TWICE_BYTES = 1024
"""Tensors with the same values are worth a finding from so many wasted bytes on."""
WORTH = 0.75
"""Two factors are worth a finding when they have at most this share of the weights."""
SAME = 1e-6
"""Rows are alike where no entry differs by more than this share of the largest: rounding of float32."""
HOMOGENEOUS = frozenset({None, "Relu", "LeakyRelu"})
"""Nonlinearities with f(s x) = s f(x) for every positive s."""
_MIN_LAYER = 16
"""Weights of a layer that is compared as a whole: smaller ones are alike by chance."""


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


@dataclass(frozen=True)
class Twin:
    """A unit that is a positive multiple of another one of its layer."""

    kept: int
    other: int
    factor: float
    """other = factor * kept."""


def twin_units(network: Network, weights: Iterable[LayerWeights]) -> Iterator[AuditFinding]:
    """Find units of a layer that are the same up to a positive factor."""
    for held in weights:
        layer = held.layer
        found = twins_of(network, held)
        target = layer
        if layer.kind == LayerKind.RNN_GATE:
            cells = _hidden_layer(network, layer)
            found, target = ([], layer) if cells is None else (cell_twins(network, held, cells), cells)
        if not found:
            continue
        pairs = ", ".join(f"{t.other} = {t.factor:.4g} x {t.kept}" for t in found[:_PAIRS])
        more = f" and {len(found) - _PAIRS} more" if len(found) > _PAIRS else ""
        verb = "is" if len(found) == 1 else "are"
        sentence = (
            f"{len(found)} of the {count(target.n_units, 'unit')} of layer {network.title(target)} {verb} "
            f"the same as others, up to a positive factor: {pairs}{more}."
        )
        yield AuditFinding(
            id="TWIN-UNITS",
            sentence=sentence,
            key=(network.keys[target.id], sorted([t.kept, t.other] for t in found)),
            units={target.name: sorted({t.kept for t in found} | {t.other for t in found})},
            evidence={"twins": [vars(t) for t in found], "of": target.n_units},
        )


_PAIRS = 3


def twins_of(network: Network, held: LayerWeights) -> list[Twin]:
    """Return the twins of a layer of neurons without a state of their own."""
    layer = held.layer
    if layer.kind not in (LayerKind.DENSE, LayerKind.CONV):
        return []
    units = network.units[layer.first_unit : layer.first_unit + layer.n_units]
    affine = [units[name].fill_null(np.nan).to_numpy() for name in ("bias", "scale", "shift")]
    kinds = units["activation"].to_list()
    bare = np.isnan(affine[1]) & np.isnan(affine[2])

    def fits(kept: int, other: int, factor: float) -> bool:
        if kinds[kept] != kinds[other]:
            return False
        if abs(factor - 1) <= SAME:
            return all(_equal(column[kept], column[other]) for column in affine)
        bias = affine[0]
        scaled = _equal(factor * bias[kept], bias[other])
        return bool(kinds[kept] in HOMOGENEOUS and bare[kept] and bare[other] and scaled)

    return [twin for twin in _proportional(held.rows) if fits(twin.kept, twin.other, twin.factor)]


def _equal(a: float, b: float) -> bool:
    if np.isnan(a) or np.isnan(b):
        return bool(np.isnan(a) and np.isnan(b))
    return bool(abs(a - b) <= SAME * max(abs(a), abs(b)))


def _proportional(rows: Floats) -> Iterator[Twin]:
    """Rows that are positive multiples of an earlier row; rows of zeros are none."""
    if rows.shape[1] == 0 or not np.isfinite(rows).all():
        return
    norms = np.sqrt((rows**2).sum(axis=1))
    alive = np.flatnonzero(norms > 0)
    if len(alive) < 2:
        return
    unit = rows[alive] / norms[alive, None]
    # equal rows have equal projections, so that only neighbours in their order are compared
    direction = np.random.default_rng(0).standard_normal(rows.shape[1])
    place = unit @ direction
    order = np.argsort(place, kind="stable")
    leader: dict[int, int] = {}
    for start, current in enumerate(order):
        for earlier in order[:start][::-1]:
            if place[current] - place[earlier] > 10 * SAME * np.sqrt(rows.shape[1]):
                break
            gap = np.abs(unit[current] - unit[earlier]).max()
            if gap <= SAME * np.abs(unit[current]).max():
                leader[int(current)] = leader.get(int(earlier), int(earlier))
                break
    groups: dict[int, list[int]] = {}
    for member, first in leader.items():
        groups.setdefault(first, [first]).append(member)
    for members in groups.values():
        positions = sorted(int(alive[member]) for member in members)
        for other in positions[1:]:
            yield Twin(positions[0], other, float(norms[other] / norms[positions[0]]))


def cell_twins(network: Network, held: LayerWeights, cells: UnitLayer) -> list[Twin]:
    """Return the cells of a recurrent layer all of whose gates are the same."""
    n_gates = held.layer.n_units // cells.n_units
    if n_gates * cells.n_units != held.layer.n_units:
        return []
    gates = network.units[held.layer.first_unit : held.layer.first_unit + held.layer.n_units]
    bias = gates["bias"].fill_null(np.nan).to_numpy()
    rows = np.concatenate([held.rows, np.nan_to_num(bias)[:, None]], axis=1)
    whole = rows.reshape(n_gates, cells.n_units, -1).swapaxes(0, 1).reshape(cells.n_units, -1)
    return [twin for twin in _proportional(whole) if abs(twin.factor - 1) <= SAME]


def _hidden_layer(network: Network, gates: UnitLayer) -> UnitLayer | None:
    """The layer that gates read from the step before; None where cells begin with states of their own."""
    into = network.blocks.filter(
        (network.blocks["layer"] == gates.id) & (network.blocks["kind"] == "recurrent")
    )
    sources = {int(one) for one in into["src_layer"].drop_nulls().to_list()}
    hidden = [network.graph.layer_of(one) for one in sources]
    hidden = [layer for layer in hidden if layer.kind == LayerKind.RNN_HIDDEN]
    if len(hidden) != 1 or len(sources) != 1:
        return None
    kinds = {layer.id: layer.kind for layer in network.graph.layers}
    around = {hidden[0].id} | {
        layer.id for layer in network.graph.layers if layer.kind == LayerKind.RNN_CELL and layer.id > gates.id
    }
    for layer, source in network.blocks.select("layer", "src_layer").iter_rows():
        if layer in around and source is not None and kinds[int(source)] == LayerKind.INPUT:
            return None
    return hidden[0]


def twin_layers(network: Network, weights: Mapping[int, LayerWeights]) -> Iterator[AuditFinding]:
    """Find layers with the same weights and biases that are not one tensor used twice."""
    found: dict[str, list[LayerWeights]] = {}
    for held in weights.values():
        rows = held.rows
        if rows.size < _MIN_LAYER or not rows.any():
            continue
        units = network.units[held.layer.first_unit : held.layer.first_unit + held.layer.n_units]
        bias = units["bias"].fill_null(np.nan).to_numpy()
        text = hashlib.sha256(str(rows.shape).encode() + rows.tobytes() + bias.tobytes()).hexdigest()
        found.setdefault(text, []).append(held)
    for group in found.values():
        if len({held.tensors for held in group}) < 2:
            continue
        names = [held.layer.name for held in group]
        sentence = f"{count(len(group), 'layer')} have the same weights and biases: {names_text(names)}."
        yield AuditFinding(
            id="TWIN-LAYERS",
            sentence=sentence,
            key=(sorted(str(network.keys[held.layer.id]) for held in group),),
            units={held.layer.name: list(range(held.layer.n_units)) for held in group},
            tensors=[tensor for held in group for tensor in held.tensors],
            evidence={"layers": len(group), "parameters": group[0].layer.n_params},
        )
