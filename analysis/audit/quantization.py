"""Quantization: codes that are not used or not enough, and what rounding did to weights and outputs."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.network import LayerWeights
from emergraph.analysis.audit.subject import SAMPLES, OnnxSubject, Subject, matched
from emergraph.analysis.audit.words import count, share
from emergraph.analysis.modelruns.running import ModelRuns
from emergraph.analysis.pruning.modelruns import compare
from emergraph.errors import InvalidInputError
from emergraph.exporters.nodes import input_name
from emergraph.exporters.onnxfile.dtypes import ELEMENT_TYPES
from emergraph.exporters.operations import Kind, kind_of
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.quoting import quoted

Array = NDArray[np.generic]
Floats = NDArray[np.float64]

MIN_CODES = 16
"""Codes of a tensor that is looked at."""
CLIPPED = {8: 0.01, 4: 0.15}
"""By bits: share of codes at the ends from which on weights were cut off; few bits have wide last steps."""
NOISY_DB = 20.0
"""Signal to noise of a layer's weights below which rounding is a tenth of them."""
KEEP = 0.01
"""A layer should stay in float where rounding it alone changes the outputs by more of their norm."""
ALIEN_DB = 3.0
"""Below this, the reference's weights are others."""


def quantization(subject: Subject) -> Iterator[AuditFinding]:
    """Find what is odd about quantized weights."""
    if subject.onnx is not None:
        yield from codes(subject.onnx)
        if subject.activity is not None and subject.given:
            yield from activations(subject, subject.onnx)
    if subject.reference is not None:
        yield from noise(subject, subject.reference)
        if subject.onnx is not None and subject.reference.onnx is not None:
            yield from outputs(subject, subject.onnx, subject.reference.onnx)
            yield from sensitive_layers(subject, subject.onnx, subject.reference, subject.reference.onnx)


def codes(onnx: OnnxSubject) -> Iterator[AuditFinding]:
    """Tensors that use few codes, or have many at the ends."""
    for name, proto in onnx.run.flat.initializers.items():
        element = ELEMENT_TYPES.get(proto.data_type)
        if element is None or not onnx.codes.is_coded(name) or "int" not in element.name:
            continue
        values = onnx.value(name)
        if values.size < MIN_CODES or values.ndim < 2 or element.bits not in CLIPPED:
            continue
        zero = onnx.codes.of(name).astype(np.int64)
        centred = values.astype(np.int64) - zero
        weights = onnx.codes.weights(name, values).astype(np.float64)
        limit = 1 << (element.bits - 1)
        yield from _unused(name, centred, weights, limit)
        yield from _clipped(name, values, element.bits, signed=element.name.startswith("int"))


def _unused(name: str, centred: NDArray[np.int64], weights: Floats, limit: int) -> Iterator[AuditFinding]:
    """Scales so large that half of the codes are never used."""
    axis, groups = _scale_groups(centred, weights)
    largest = np.abs(groups).max(axis=1)
    largest = largest[largest > 0]
    small = int((largest < limit // 2).sum())
    if len(largest) and small > len(largest) / 2:
        bits = float(np.log2(limit / max(float(np.median(largest)), 1.0)))
        per = "scale" if axis is None else "channel's scale"
        verb = "is" if small == 1 else "are"
        sentence = (
            f"{count(small, per)} of the {len(largest)} of tensor {quoted(name)} {verb} "
            f"so large that less than half of the codes are used: {bits:.1f} bits are lost."
        )
        yield AuditFinding(
            id="QUANT-UNUSED",
            sentence=sentence,
            key=(list(centred.shape), small),
            tensors=[name],
            evidence={"groups": small, "of": len(largest), "largest": int(largest.max()), "limit": limit},
        )


def _scale_groups(centred: NDArray[np.int64], weights: Floats) -> tuple[int | None, NDArray[np.int64]]:
    """Codes by the scale that they have: along an axis, or all of one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(centred != 0, weights / centred, np.nan)
    for axis in range(centred.ndim):
        rows = np.moveaxis(scale, axis, 0).reshape(centred.shape[axis], -1)
        some = rows[~np.isnan(rows).all(axis=1)]
        if len(some) and np.allclose(np.nanmin(some, axis=1), np.nanmax(some, axis=1), rtol=1e-5):
            firsts = np.nanmin(some, axis=1)
            if not np.allclose(firsts, firsts[0], rtol=1e-5):
                return axis, np.moveaxis(centred, axis, 0).reshape(centred.shape[axis], -1)
    return None, centred.reshape(1, -1)


def _clipped(name: str, values: Array, bits: int, *, signed: bool) -> Iterator[AuditFinding]:
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    wide = values.astype(np.int64)
    ends = int(((wide <= low + signed) | (wide >= high)).sum())
    if is_clipped(ends, values.size, bits):
        sentence = (
            f"{ends:,} of the {values.size:,} codes of tensor {quoted(name)} ({share(ends, values.size)}) "
            "stand at the ends of their range, where larger weights were cut off."
        )
        yield AuditFinding(
            id="QUANT-CLIPPED",
            sentence=sentence,
            key=(list(values.shape), ends),
            tensors=[name],
            evidence={"at_ends": ends, "of": int(values.size)},
        )


def is_clipped(ends: int, size: int, bits: int) -> bool:
    """Whether more codes stand at the ends than the largest weight of each scale explains."""
    return ends > max(4, CLIPPED[bits] * size)


def activations(subject: Subject, onnx: OnnxSubject) -> Iterator[AuditFinding]:
    """Quantized activations whose range does not hold what was measured."""
    assert subject.activity is not None  # noqa: S101 - the caller has looked
    for node in onnx.run.flat.nodes:
        if kind_of(node) is not Kind.QUANTIZE or node.input[0] not in subject.activity.tensors:
            continue
        scale, zero = onnx.constant(input_name(node, 1)), onnx.constant(input_name(node, 2))
        if scale is None or scale.size != 1:
            continue
        point = 0 if zero is None else int(zero.reshape(-1)[0])
        codes_of = np.dtype(np.uint8) if zero is None else zero.dtype
        if codes_of.kind not in "iu":
            continue
        info = np.iinfo(codes_of.name)
        step = float(scale.reshape(-1)[0])
        low, high = (info.min - point) * step, (info.max - point) * step
        found = subject.activity.tensors[node.input[0]]
        beyond = max(low - found[0], found[1] - high, 0.0)
        if beyond > 0.1 * (high - low):
            sentence = (
                f"Activations that {node.op_type} {quoted(node.name)} takes in reach from {found[0]:.3g} to "
                f"{found[1]:.3g} on {count(subject.n_samples, 'input')}; its codes hold {low:.3g} to "
                f"{high:.3g}."
            )
            yield AuditFinding(
                id="QUANT-ACTIVATION",
                sentence=sentence,
                key=(node.op_type, round(low, 6), round(high, 6)),
                operations=[node.name],
                evidence={"range": [low, high], "measured": list(found), "n_inputs": subject.n_samples},
            )


def decibels(signal: Floats, noise_: Floats) -> float:
    """Signal to noise: ten times the decimal logarithm of the ratio of squares."""
    power = float((noise_**2).sum())
    return float("inf") if power == 0 else 10 * np.log10(max(float((signal**2).sum()), 1e-300) / power)


def noise(subject: Subject, reference: Subject) -> Iterator[AuditFinding]:
    """Layers whose weights quantization has changed much."""
    pairs = [
        (held, other, decibels(other.rows, held.rows - other.rows))
        for held, other in matched(subject, reference)
    ]
    if not pairs:
        subject.notes.append(
            "the reference has no layer at the same place as this model's: it is another one"
        )
        return
    if all(level < ALIEN_DB for _, _, level in pairs):
        subject.notes.append("the reference has the same layers with other weights: no noise of rounding")
        return
    for held, other, level in pairs:
        if level >= NOISY_DB:
            continue
        per_unit = [decibels(a, b - a) for a, b in zip(other.rows, held.rows, strict=True) if a.any()]
        worst = int(np.argmin(per_unit)) if per_unit else 0
        assert subject.network is not None  # noqa: S101 - its layers were matched
        sentence = (
            f"The weights of layer {quoted(held.layer.name)} are {level:.1f} dB above the noise that "
            f"rounding made of the reference's, those of its worst unit "
            f"{min(per_unit, default=level):.1f} dB."
        )
        yield AuditFinding(
            id="QUANT-NOISE",
            sentence=sentence,
            key=(subject.network.keys[held.layer.id],),
            units={held.layer.name: [worst]},
            tensors=list(held.tensors),
            evidence={"decibels": level, "worst_unit": min(per_unit, default=level)},
        )


def outputs(subject: Subject, onnx: OnnxSubject, reference: OnnxSubject) -> Iterator[AuditFinding]:
    """How far outputs are from those of the reference, on the same inputs."""
    expected = reference_outputs(onnx, reference, subject.n_samples, subject.limits)
    if expected is None or subject.outputs is None:
        subject.notes.append("the reference takes other inputs: its outputs were not compared")
        return
    for name, a, found_there in zip(onnx.run.flat.outputs, expected, subject.outputs, strict=False):
        b = found_there[: len(a)]
        if a.dtype.kind != "f" or a.shape != b.shape or not np.isfinite(a).all() or not np.isfinite(b).all():
            continue
        x, y = a.astype(np.float64), b.astype(np.float64)
        relative = float(np.sqrt(((x - y) ** 2).sum() / max((x**2).sum(), 1e-300)))
        if relative == 0:
            continue
        sentence = (
            f"Output {quoted(name)} differs from the reference's by {100 * relative:.3g} % of its norm on "
            f"{count(len(a), 'input')}, in one element by {np.abs(x - y).max():.3g}."
        )
        found = AuditFinding(
            id="QUANT-OUTPUT",
            sentence=sentence,
            key=(onnx.run.flat.outputs.index(name),),
            evidence={"relative": relative, "largest": float(np.abs(x - y).max()), "n_inputs": len(a)},
        )
        yield found if subject.given else found.only_suspected()


def reference_outputs(
    onnx: OnnxSubject, reference: OnnxSubject, n: int, limits: RunLimits
) -> list[Array] | None:
    """Outputs of the reference on the model's samples; None where it takes others."""
    runs = _reference_runs(onnx, reference, n, limits)
    if runs is None:
        return None
    with runs, contextlib.suppress(InvalidInputError):
        return runs.expected
    return None


def _reference_runs(onnx: OnnxSubject, reference: OnnxSubject, n: int, limits: RunLimits) -> ModelRuns | None:
    """Runs of the reference on the model's samples; None where it takes others."""
    flat, samples = reference.run.flat, onnx.prepared.samples
    wanted = {value.name for value in flat.inputs}
    if not n or not wanted <= samples.feeds([0]).keys():
        return None
    return ModelRuns(flat, reference.source, onnx.prepared.first(n), limits=limits, only=wanted)


def sensitive_layers(
    subject: Subject, onnx: OnnxSubject, reference: Subject, other: OnnxSubject
) -> Iterator[AuditFinding]:
    """Layers that should stay in float: what rounding the weights of each alone does to the outputs."""
    runs = _reference_runs(onnx, other, SAMPLES, subject.limits)
    if runs is None or subject.network is None:
        return
    effects: dict[str, float] = {}
    keys = {}
    n_layers = 0
    with runs, contextlib.suppress(InvalidInputError):
        for held, theirs in matched(subject, reference):
            rounded = _rounded(onnx, other, held, theirs)
            n_layers += bool(rounded)
            if not rounded or subject.time_is_over():
                continue
            effect = relative_change(runs.expected, runs.replaced(rounded))
            if effect is not None:
                effects[held.layer.name] = effect
                keys[held.layer.name] = subject.network.keys[held.layer.id]
    ranked = sorted((name for name in effects if effects[name] > KEEP), key=lambda name: -effects[name])
    if not ranked:
        return
    said = ", ".join(f"{quoted(name)} by {100 * effects[name]:.2g} %" for name in ranked[:3])
    looked = "" if len(effects) == n_layers else f" ({len(effects)} of {n_layers} layers were tried)"
    sentence = (
        f"Rounding the weights of one layer alone changes the reference's outputs most in {said} of their "
        f"norm{looked}."
    )
    found = AuditFinding(
        id="QUANT-SENSITIVE",
        sentence=sentence,
        key=(sorted(str(keys[name]) for name in ranked),),
        units={name: [] for name in ranked},
        evidence={"effects": {name: effects[name] for name in sorted(effects, key=lambda n: -effects[n])}},
    )
    yield found if subject.given else found.only_suspected()


def _rounded(
    onnx: OnnxSubject, reference: OnnxSubject, held: LayerWeights, theirs: LayerWeights
) -> dict[str, Array]:
    """The reference's tensors of a layer with the values that the quantized ones stand for."""
    found: dict[str, Array] = {}
    for name, other in zip(held.tensors, theirs.tensors, strict=True):
        coded = name in onnx.run.flat.initializers and onnx.codes.is_coded(name)
        if not coded or other not in reference.run.flat.initializers:
            continue
        values = np.asarray(onnx.codes.weights(name, onnx.value(name)), dtype=np.float64)
        whole = reference.value(other)
        seen = [v for v in (values, values.T) if v.shape == whole.shape]
        if seen and whole.dtype.kind == "f":
            wide = whole.astype(np.float64)
            nearest = min(seen, key=lambda v: float(((v - wide) ** 2).sum()))
            found[other] = nearest.astype(whole.dtype)
    return found


def relative_change(expected: Sequence[Array], found: Sequence[Array]) -> float | None:
    """The difference of outputs over their norm; None where there is none to be had."""
    value = compare(expected, found)["relative_mse"]
    return None if value is None else float(np.sqrt(value))
