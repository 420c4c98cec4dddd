"""Numbers: values that are no numbers, that their type cannot hold, or that no longer move."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.audit.activity import Activity
from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.network import SATURATED, Network, by_layer
from emergraph.analysis.audit.subject import OnnxSubject, Subject, stored_tensors
from emergraph.analysis.audit.words import count, names_text, share
from emergraph.exporters.nodes import attributes, input_name
from emergraph.exporters.operations import Kind, kind_of, spec_of
from emergraph.exporters.runtime.quoting import quoted
from emergraph.graphstore.records import LayerKind

Array = NDArray[np.generic]

FLOAT16_MAX = 65504.0
_LARGEST = {
    "float16": float(np.finfo(np.float16).max),
    "float32": float(np.finfo(np.float32).max),
    "float64": float(np.finfo(np.float64).max),
}
_SMALLEST_NORMAL = {"float16": 2.0**-14, "float32": 2.0**-126, "float64": 2.0**-1022}
NEAR_END = 1e-3
"""So near an end an activation is saturated: its slope is at most that."""
VARIANCE_SHARE = 1e-2
"""Batch variances below this share of epsilon are none: what is normalised was constant in training."""


@dataclass(frozen=True)
class TensorFacts:
    """What is odd about the values of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    n: int
    nonfinite: int
    subnormal: int
    at_limit: int
    beyond_float16: int


def numbers(subject: Subject) -> Iterator[AuditFinding]:
    """Find what is wrong with numbers."""
    yield from of_tensors(list(tensor_facts(subject)), subject.network)
    if subject.onnx is not None:
        yield from of_outputs(subject, subject.onnx)
        yield from of_operations(subject.onnx)
        yield from variances(subject.onnx)
    if subject.network is not None:
        yield from dead_gates(subject.network)
        if subject.activity is not None and subject.given:
            yield from ranges(subject.network, subject.activity)
            yield from saturated(subject.network, subject.activity)


def tensor_facts(subject: Subject) -> Iterator[TensorFacts]:
    """Look at the values of all tensors of numbers, whatever holds them."""
    parameters = None if subject.network is None else _parameters(subject.network)
    for name, dtype, values in subject.in_time(stored_tensors(subject)):
        if not values.size or (parameters is not None and name not in parameters):
            continue
        wide = values.astype(np.float32) if dtype in _WIDENED else values
        if wide.dtype.kind != "f":
            continue
        size = np.abs(wide)
        finite = np.isfinite(size)
        largest = _LARGEST.get(dtype, np.inf)
        normal = _SMALLEST_NORMAL.get(dtype, 0.0) if dtype != "float16" else 0.0
        yield TensorFacts(
            name=name,
            dtype=dtype,
            shape=values.shape,
            n=int(values.size),
            nonfinite=0 if _is_mask(wide, finite) else int(values.size - np.count_nonzero(finite)),
            subnormal=int(np.count_nonzero((size > 0) & (size < normal))),
            at_limit=_some(size == largest),
            beyond_float16=_some(finite & (size > FLOAT16_MAX)),
        )


_WIDENED = frozenset({"bfloat16"})


def _is_mask(values: Array, finite: NDArray[np.bool_]) -> bool:
    """Whether a tensor is nothing but zeros and minus infinities, which is how masks are added."""
    gone = values[~finite].astype(np.float64)
    return bool(np.isneginf(gone).all() and not values[finite].any() and finite.any())


def _some(chosen: NDArray[np.bool_]) -> int:
    """How many are chosen; a single number is a setting, such as what a mask adds, and no weight."""
    return int(np.count_nonzero(chosen)) if chosen.size > 1 else 0


def _parameters(network: Network) -> frozenset[str]:
    """Names of the tensors that are parameters: no masks, shapes or indices."""
    tensors = network.reader.tensors().filter(pl.col("role").is_in(_PARAMETERS))
    return frozenset(tensors["name"].to_list())


_PARAMETERS = ("weight", "bias", "scale", "shift", "embedding", "quantization", "buffer")


def of_tensors(facts: list[TensorFacts], network: Network | None) -> Iterator[AuditFinding]:
    """Findings about stored values."""
    rows = (
        ("NUM-NONFINITE", "nonfinite", "NaN or infinite"),
        ("NUM-SUBNORMAL", "subnormal", "subnormal, and rounded to zero by some processors"),
        ("NUM-LIMIT", "at_limit", "at the largest value of their type"),
        ("NUM-FLOAT16-WEIGHT", "beyond_float16", "beyond 65504, which is as far as float16 goes"),
    )
    for id_, field, what in rows:
        found = [fact for fact in facts if getattr(fact, field)]
        if id_ == "NUM-FLOAT16-WEIGHT":
            found = [fact for fact in found if not fact.at_limit]
        if not found:
            continue
        n, total = sum(getattr(fact, field) for fact in found), sum(fact.n for fact in found)
        sentence = (
            f"{count(n, 'value')} of {count(len(found), 'tensor')} ({share(n, total)} of theirs) "
            f"{'is' if n == 1 else 'are'} {what}: {names_text([fact.name for fact in found])}."
        )
        yield AuditFinding(
            id=id_,
            sentence=sentence,
            key=(sorted([sorted(fact.shape), getattr(fact, field)] for fact in found),),
            tensors=[fact.name for fact in found],
            units=_units_of(network, {fact.name for fact in found}) if id_ == "NUM-NONFINITE" else {},
            evidence={"values": n, "of": total},
        )


def _units_of(network: Network | None, tensors: set[str]) -> Mapping[str, list[int]]:
    """Units that read weights that are not finite, by layer."""
    if network is None:
        return {}
    blocks = [block for block in network.graph.blocks if block.tensor in tensors and block.n_edges]
    found: dict[str, list[int]] = {}
    for block, edges in network.graph.iter_edges(blocks, columns=("dst", "weight", "l1")):
        layer = network.graph.layer_of(block.layer)
        bad = edges["dst"][~(np.isfinite(edges["weight"]) & np.isfinite(edges["l1"]))]
        if len(bad):
            positions = np.unique(bad - layer.first_unit).tolist()
            found[layer.name] = sorted({*found.get(layer.name, []), *positions})
    return found


def of_outputs(subject: Subject, onnx_subject: OnnxSubject) -> Iterator[AuditFinding]:
    """Outputs that are no numbers."""
    for number, (name, values) in enumerate(
        zip(onnx_subject.run.flat.outputs, subject.outputs or (), strict=False)
    ):
        if values.dtype.kind != "f" or np.isfinite(values).all():
            continue
        n = int(np.count_nonzero(~np.isfinite(values)))
        verb = "is" if n == 1 else "are"
        sentence = f"{count(n, 'value')} of {values.size:,} of output {quoted(name)} {verb} NaN or infinite."
        found = AuditFinding(
            id="NUM-NAN-OUTPUT", sentence=sentence, key=(number,), evidence={"values": n, "of": values.size}
        )
        yield found if subject.given else found.only_suspected()


def of_operations(onnx_subject: OnnxSubject) -> Iterator[AuditFinding]:
    """Operations in training mode, and such that draw random numbers."""
    flat = onnx_subject.run.flat
    training = list(flat.training)
    if training:
        kinds = sorted(one.op for one in training)
        sentence = f"{count(len(training), 'operation')} in training mode: {names_text(kinds)}."
        yield AuditFinding(
            id="NUM-TRAINING", sentence=sentence, key=(kinds,), operations=[one.name for one in training]
        )
    drawn = [
        node
        for node in flat.nodes
        if spec_of(node).is_random and not onnx_subject.needed.isdisjoint(node.output)
    ]
    if drawn:
        kinds = sorted(node.op_type for node in drawn)
        drawing = count(len(drawn), "operation")
        sentence = f"Outputs depend on {drawing} that draw random numbers: {names_text(kinds)}."
        yield AuditFinding(
            id="NUM-RANDOM", sentence=sentence, key=(kinds,), operations=[node.name for node in drawn]
        )


def variances(onnx_subject: OnnxSubject) -> Iterator[AuditFinding]:
    """Batch normalisations whose stored variance is next to nothing."""
    flat = onnx_subject.run.flat
    training = {one.name for one in flat.training}
    for node in flat.nodes:
        if kind_of(node) is not Kind.BATCH_NORM or node.name in training:
            continue
        variance = onnx_subject.constant(input_name(node, 4))
        if variance is None:
            continue
        epsilon = float(str(attributes(node).get("epsilon", 1e-5)))
        channels = tiny_variances(variance, epsilon)
        if len(channels):
            verb = "is" if len(channels) == 1 else "are"
            sentence = (
                f"{len(channels)} of the {count(variance.size, 'batch variance')} of {node.op_type} "
                f"{quoted(node.name)} {verb} below {VARIANCE_SHARE:g} times its epsilon of {epsilon:.3g}."
            )
            yield AuditFinding(
                id="NUM-VARIANCE",
                sentence=sentence,
                key=(variance.size, channels.tolist()),
                operations=[node.name],
                tensors=[input_name(node, 4)],
                units={node.name: channels.tolist()},
                evidence={"channels": len(channels), "of": int(variance.size), "epsilon": epsilon},
            )


def tiny_variances(variance: Array, epsilon: float) -> NDArray[np.int64]:
    """Channels whose variance is next to nothing beside epsilon."""
    return np.flatnonzero(variance.reshape(-1).astype(np.float64) < VARIANCE_SHARE * epsilon)


def dead_gates(network: Network) -> Iterator[AuditFinding]:
    """Gates of recurrent cells that read nothing."""
    graph = network.graph
    gates = np.array([layer.kind == LayerKind.RNN_GATE for layer in graph.layers], dtype=bool)
    for layer, positions in by_layer(network, gates[graph.unit_layer] & ~network.fed):
        sentence = (
            f"{count(len(positions), 'gate')} of the {layer.n_units} of layer {network.title(layer)} "
            f"{'reads' if len(positions) == 1 else 'read'} nothing: all weights are zero."
        )
        yield AuditFinding(
            id="NUM-DEAD-GATE",
            sentence=sentence,
            key=(network.keys[layer.id], positions),
            units={layer.name: positions},
            evidence={"gates": len(positions), "of": layer.n_units},
        )


def ranges(network: Network, activity: Activity) -> Iterator[AuditFinding]:
    """Units whose activation float16 could not hold."""
    with np.errstate(invalid="ignore"):
        reach = np.maximum(np.abs(activity.low), np.abs(activity.high))
        beyond = activity.measured & np.isfinite(reach) & (reach > FLOAT16_MAX) & network.graph.neuron
    for layer, positions in by_layer(network, beyond):
        largest = float(reach[layer.units][positions].max())
        sentence = (
            f"{len(positions)} of the {count(layer.n_units, 'unit')} of layer {network.title(layer)} reached "
            f"{largest:.3g} on {count(activity.n, 'input')}; float16 ends at 65504."
        )
        yield AuditFinding(
            id="NUM-FLOAT16-ACTIVATION",
            sentence=sentence,
            key=(network.keys[layer.id], positions),
            units={layer.name: positions},
            evidence={"largest": largest, "n_inputs": activity.n},
        )


def saturated(network: Network, activity: Activity) -> Iterator[AuditFinding]:
    """Units whose sigmoid or tanh stands at one end of its range on all inputs."""
    kinds = network.units["activation"].to_list()
    chosen = np.zeros(network.graph.n_units, dtype=bool)
    for name, (bottom, top) in SATURATED.items():
        own = np.array([kind == name for kind in kinds], dtype=bool)
        inside = (activity.low >= bottom - NEAR_END) & (activity.high <= top + NEAR_END)
        at_end = (activity.high <= bottom + NEAR_END) | (activity.low >= top - NEAR_END)
        chosen |= own & activity.measured & inside & at_end
    chosen &= network.reached
    for layer, positions in by_layer(network, chosen):
        sentence = (
            f"{len(positions)} of the {count(layer.n_units, 'unit')} of layer {network.title(layer)} stood "
            f"at one end of their {kinds[layer.first_unit + positions[0]]} (within {NEAR_END:g}) on all "
            f"{activity.n} inputs."
        )
        yield AuditFinding(
            id="NUM-SATURATED",
            sentence=sentence,
            key=(network.keys[layer.id], positions),
            units={layer.name: positions},
            evidence={"units": len(positions), "of": layer.n_units, "n_inputs": activity.n},
        )
