"""Units, cells and layers that are there twice."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.network import LayerWeights, Network
from emergraph.analysis.audit.words import count, names_text
from emergraph.analysis.unitgraph import UnitLayer
from emergraph.graphstore.records import LayerKind

Floats = NDArray[np.float64]

SAME = 1e-6
"""Rows are alike where no entry differs by more than this share of the largest: rounding of float32."""
HOMOGENEOUS = frozenset({None, "Relu", "LeakyRelu"})
"""Nonlinearities with f(s x) = s f(x) for every positive s."""
_MIN_LAYER = 16
"""Weights of a layer that is compared as a whole: smaller ones are alike by chance."""


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
