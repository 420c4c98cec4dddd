"""Suspicious: units far outside their layer, edits of weights, and data that hides in tensors."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.network import LayerWeights, Network, rank_at
from emergraph.analysis.audit.subject import Subject, matched, stored_tensors
from emergraph.analysis.audit.words import count, units_text
from emergraph.exporters.runtime.quoting import quoted
from emergraph.exporters.weightfiles.encodings.bitsandbytes import is_settings
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
Array = NDArray[np.generic]
Bytes = NDArray[np.uint8]

TEXT = 48
"""So many bytes in a row that read as text are no chance."""
_LETTERS = 0.5
_SPACES = 0.08
_ENCODED = 0.97
"""Shares of letters and spaces in words and code, and of the characters of base64, numbers and addresses."""
_DISTINCT = 8
_RUN = re.compile(rb"[\x20-\x7e\n\t]{%d,}" % TEXT)
_MAGIC = {
    "a program for Linux": re.compile(rb"\x7fELF[\x01\x02][\x01\x02]\x01"),
    "a program for Windows": re.compile(rb"MZ[\s\S]{58}[\s\S]\x00\x00\x00[\s\S]{0,448}?PE\x00\x00"),
    "a zip archive": re.compile(rb"PK\x03\x04[\x00-\x3f]\x00[\x00-\xff][\x00\x08][\x00\x08]\x00"),
    "a 7z archive": re.compile(rb"7z\xbc\xaf\x27\x1c"),
    "a PNG image": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "a PDF document": re.compile(rb"%PDF-1\.\d"),
    "a shell script": re.compile(rb"#! ?/(usr/)?bin/(env )?[a-z]"),
}
MIN_ELEMENTS = 4096
"""Elements from which on the lowest bits of a tensor have a distribution."""
LOST_BITS = 0.5
"""Trained float32 weights have 8 bits of entropy in their lowest byte (fewer where all were rounded), less
what few elements lose: this much is more than that."""
FULL = 0.02
"""Where the low bits of most numbers are zero (rounded to 16 bits once), those of others should be, too: a
larger share than this is odd."""


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


@dataclass(frozen=True)
class Hidden:
    """Something found in the bytes of a tensor."""

    id: str
    what: str
    where: str
    """"the bytes", "the lowest bytes" or "the lowest bits"."""


def hidden(subject: Subject) -> Iterator[AuditFinding]:
    """Look into the bytes of all tensors."""
    for name, dtype, values in subject.in_time(stored_tensors(subject)):
        if values.dtype == np.uint8 and is_settings(name, values.tobytes()):
            continue
        for found in hidden_in(dtype, values):
            sentence = f"Tensor {quoted(name)} holds {found.what} in {found.where} of its numbers."
            yield AuditFinding(
                id=found.id,
                sentence=sentence,
                key=(dtype, list(values.shape), found.where, found.what),
                tensors=[name],
                evidence={"what": found.what, "where": found.where},
            )


def hidden_in(dtype: str, values: Array) -> Iterator[Hidden]:
    """Yield what the bytes of a tensor hold besides numbers."""
    if values.size < TEXT // 8 or values.dtype.kind not in "fiuV":
        return
    raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    width = values.dtype.itemsize
    planes = {"the bytes": raw}
    if values.dtype.kind in "fV" and width > 1:
        planes["the lowest bytes"] = raw[::width]
    if values.dtype.kind in "fV" or width == 1:
        lowest = raw[::width] & 1
        planes["the lowest bits"] = np.packbits(lowest)
        planes["the lowest bits "] = np.packbits(lowest, bitorder="little")
    for where, plane in planes.items():
        yield from _in_bytes(plane, where.strip())
    if dtype == "float32" and values.size >= MIN_ELEMENTS:
        yield from _in_bits(np.ascontiguousarray(values).reshape(-1))


def _in_bytes(plane: Bytes, where: str) -> Iterator[Hidden]:
    data = plane.tobytes()
    for what, pattern in _MAGIC.items():
        if pattern.search(data):
            yield Hidden("HIDDEN-FILE", f"the beginning of {what}", where)
    texts = [match.group() for match in _RUN.finditer(data) if reads_as_text(match.group())]
    if texts:
        n = sum(map(len, texts))
        yield Hidden("HIDDEN-TEXT", f"{count(n, 'byte')} of text ({_shown(texts[0])})", where)


def reads_as_text(run: bytes) -> bool:
    """Whether printable bytes are words, or of an alphabet such as base64, and not few of them repeated.

    Bytes that happen to be printable, as the lowest ones of weights can be that training has hardly moved,
    have neither spaces nor an alphabet.
    """
    letters = sum(chr(byte).isalnum() for byte in run)
    spaces = sum(byte in b" \t\n" for byte in run)
    encoded = letters + sum(byte in b"+/=_-:.?&%@" for byte in run)
    words = letters + spaces >= _LETTERS * len(run) and spaces >= _SPACES * len(run)
    return len(set(run)) >= _DISTINCT and (words or encoded >= _ENCODED * len(run))


def _shown(text: bytes) -> str:
    return quoted(text[:32].decode("ascii"))


def _in_bits(values: Array) -> Iterator[Hidden]:
    words = values[np.isfinite(values) & (values != 0)].view(np.uint32)
    if len(words) < MIN_ELEMENTS:
        return
    rounded = share_of_rounded(words)
    if 0.5 <= rounded < 1:
        full = 1 - rounded
        if full <= FULL or len(np.unique(words)) < len(words) // 4:
            odd = np.flatnonzero(words & 0x1FFF)
            if len(odd) >= 8 and np.diff(odd).size and np.median(np.diff(odd)) == 1:
                yield Hidden(
                    "HIDDEN-BITS",
                    f"{count(len(odd), 'number')} in a row that were not rounded",
                    "the lowest bits",
                )
        return
    if rounded == 1 or len(np.unique(words)) < len(words) // 2:
        return
    lowest = words & 0xFF
    free = free_bits(int(np.bitwise_or.reduce(lowest)))
    bits = entropy(np.bincount(lowest, minlength=256))
    if free and bits < free - LOST_BITS:
        yield Hidden("HIDDEN-BITS", f"{bits:.2f} bits where {free} are expected", "the lowest bytes")


def free_bits(seen: int) -> int:
    """Return how many bits of a lowest byte vary, when rounding left the last ones at zero.

    Args:
        seen: All lowest bytes, or-ed.

    Example:
        >>> free_bits(0b1111_1111), free_bits(0b1000_0000), free_bits(0)
        (8, 1, 0)
    """
    return 8 - (seen & -seen).bit_length() + 1 if seen else 0


def share_of_rounded(words: NDArray[np.uint32]) -> float:
    """Share of float32 numbers whose low 13 bits are zero, as those of float16 and bfloat16 are."""
    return float(np.count_nonzero((words & 0x1FFF) == 0) / len(words))


def entropy(counts: NDArray[np.int64]) -> float:
    """Bits per symbol of a distribution."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
