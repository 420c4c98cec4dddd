"""Suspicious: units far outside their layer, edits of weights, and data that hides in tensors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.hidden import hidden
from emergraph.analysis.audit.network import LayerWeights, Network, rank_at
from emergraph.analysis.audit.subject import Subject, matched
from emergraph.analysis.audit.words import count, units_text
from emergraph.exporters.runtime.quoting import quoted
from emergraph.graphstore.records import LayerKind

Floats = NDArray[np.float64]

MIN_UNITS = 32
"""Units of a layer that has a distribution."""
MIN_SPREAD = 0.01
"""Where the units of a layer are more alike than this (of norms: 1 %), somebody has designed them."""
TAILS = 4
"""Degrees of freedom of Student's t that robust z are compared with: trained layers have heavy tails. Chosen
on half of the third-party files, see docs/audit.md."""
FAINT = 0.01
"""A norm below this share of the layer's median is next to nothing."""
MAX_SHARE = 0.1
FALSE_DISCOVERIES = 0.01
"""Share of chance findings that is held among all units of a network."""
LOW_RANK_SHARE = 0.05
"""A difference from the reference of at most this share of the full rank is an edit of few associations."""


@dataclass(frozen=True)
class Odd:
    """A unit far outside its layer."""

    layer: int
    position: int
    measure: str
    z: float
    p: float


def suspicious(subject: Subject) -> Iterator[AuditFinding]:
    """Find what a person should look at."""
    if subject.network is not None:
        yield from odd_units(subject.network, subject.weights_by_layer)
        yield from faint_units(subject.network, subject.weights_by_layer)
        if subject.reference is not None and subject.reference.network is not None:
            yield from edits(subject, subject.reference)
    yield from hidden(subject)


def odd_units(network: Network, weights: Mapping[int, LayerWeights]) -> Iterator[AuditFinding]:
    """Find units whose norm or number of weights is far outside the distribution of their layer."""
    tested = [odd for held in weights.values() for odd in scores(held)]
    chosen = discoveries(np.array([odd.p for odd in tested]), FALSE_DISCOVERIES)
    found: dict[tuple[int, str], list[Odd]] = {}
    for odd, is_odd in zip(tested, chosen, strict=True):
        if is_odd:
            found.setdefault((odd.layer, odd.measure), []).append(odd)
    for (layer_id, measure), group in found.items():
        layer = network.graph.layer_of(layer_id)
        if len(group) > MAX_SHARE * layer.n_units:
            continue  # a part of the layer, and no outlier
        worst = max(group, key=lambda odd: abs(odd.z))
        positions = sorted(odd.position for odd in group)
        verb = "is" if len(group) == 1 else "are"
        sentence = (
            f"{len(group)} of the {count(layer.n_units, 'unit')} of layer {network.title(layer)} {verb} far "
            f"outside the others in {measure}: unit {worst.position} by {worst.z:+.1f} robust deviations."
        )
        yield AuditFinding(
            id="ODD-UNIT",
            sentence=sentence,
            key=(network.keys[layer_id], measure, positions),
            units={layer.name: positions},
            evidence={"measure": measure, "z": {str(o.position): round(o.z, 2) for o in group}},
        )


def faint_units(network: Network, weights: Mapping[int, LayerWeights]) -> Iterator[AuditFinding]:
    """Find units whose weights are next to nothing beside those of their layer, but not zero."""
    found = {}
    for held in weights.values():
        if held.layer.kind not in (LayerKind.DENSE, LayerKind.CONV) or not np.isfinite(held.rows).all():
            continue
        norms = np.sqrt((held.rows**2).sum(axis=1))
        positions = np.flatnonzero((norms > 0) & (norms < FAINT * np.median(norms)))
        if len(positions):
            found[held.layer.name] = (network.keys[held.layer.id], positions.tolist())
    n = sum(len(positions) for _, positions in found.values())
    if n:
        n_units = {held.layer.name: held.layer.n_units for held in weights.values()}
        sizes = {name: (len(positions), n_units[name]) for name, (_, positions) in found.items()}
        verb = "has" if n == 1 else "have"
        yield AuditFinding(
            id="FAINT-UNIT",
            sentence=f"{units_text(sizes)} {verb} weights of less than {100 * FAINT:g} % of the median norm "
            "of their layer.",
            key=(sorted(str(entry) for entry in found.values()),),
            units={name: positions for name, (_, positions) in found.items()},
            evidence={"units": n, "share_of_median": FAINT},
        )


def scores(held: LayerWeights) -> Iterator[Odd]:
    """Yield every unit of a layer with its robust z and p for each measure that varies."""
    layer = held.layer
    if layer.n_units < MIN_UNITS or layer.kind not in (LayerKind.DENSE, LayerKind.CONV):
        return
    if not np.isfinite(held.rows).all():
        return
    norms = np.sqrt((held.rows**2).sum(axis=1))
    alive = norms > 0
    if alive.sum() < MIN_UNITS:
        return
    filled = np.count_nonzero(held.rows, axis=1)
    measures = {"the norm of its weights": np.log(norms[alive])}
    if len(np.unique(filled[alive])) > MIN_UNITS // 4:
        measures["the number of its weights"] = filled[alive].astype(np.float64)
    for measure, values in measures.items():
        z = robust_z(values)
        for position, one, p in zip(np.flatnonzero(alive), z, p_values(z), strict=True):
            yield Odd(layer.id, int(position), measure, float(one), float(p))


def robust_z(values: Floats) -> Floats:
    """Deviations from the median over 1.4826 times their median size; zeros where most are alike."""
    deviations = values - np.median(values)
    spread = 1.4826 * np.median(np.abs(deviations))
    return deviations / spread if spread >= MIN_SPREAD else np.zeros_like(values)


def p_values(z: Floats) -> Floats:
    """P of a robust z as large or larger, against Student's t with `TAILS` degrees of freedom."""
    from scipy.stats import t

    return np.asarray(t.sf(z, TAILS))


def discoveries(p: Floats, rate: float) -> NDArray[np.bool_]:
    """Choose p values so that the share of chance among the chosen is held (Benjamini and Hochberg, 1995)."""
    order = np.argsort(p, kind="stable")
    below = np.flatnonzero(p[order] <= rate * np.arange(1, len(p) + 1) / max(len(p), 1))
    chosen = np.zeros(len(p), dtype=bool)
    if len(below):
        chosen[order[: below[-1] + 1]] = True
    return chosen


def edits(subject: Subject, reference: Subject) -> Iterator[AuditFinding]:
    """Find layers that differ from the reference by a matrix of very low rank."""
    for held, other in matched(subject, reference):
        start = 0
        for width, tensor in zip(held.widths, held.tensors, strict=True):
            part = slice(start, start + width)
            start += width
            gap = held.rows[:, part] - other.rows[:, part]
            rank = rank_at(gap) if gap.any() else None
            if rank is None or rank > max(1, LOW_RANK_SHARE * min(gap.shape)):
                continue
            whole = float(np.linalg.norm(other.rows[:, part]))
            size = float(np.linalg.norm(gap)) / whole if whole else 1.0
            layer = held.layer
            sentence = (
                f"The {gap.shape[0]} x {gap.shape[1]} weights {quoted(tensor)} differ from the "
                f"reference's by a matrix of rank {rank}, {100 * size:.3g} % of their norm."
            )
            assert subject.network is not None  # noqa: S101 - its layers were matched
            yield AuditFinding(
                id="RANK-ONE-UPDATE",
                sentence=sentence,
                key=(subject.network.keys[layer.id], rank),
                tensors=[tensor],
                units={layer.name: np.flatnonzero(gap.any(axis=1)).tolist()},
                evidence={"rank": rank, "relative_norm": size},
            )
