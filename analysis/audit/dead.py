"""Dead and unread: units without a path, what nothing reads, outputs that do not vary."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.audit.activity import Activity
from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.network import Mask, Network, by_layer
from emergraph.analysis.audit.subject import OnnxSubject, Subject
from emergraph.analysis.audit.words import bytes_text, count, names_text, share, units_text
from emergraph.analysis.unitgraph import ROLES, UnitLayer
from emergraph.exporters.runtime.quoting import quoted
from emergraph.graphstore.records import LayerKind, Role

Chain = list[tuple[UnitLayer, list[int]]]
"""Layers with the positions of chosen units."""

BULK_BYTES = 64 * 1024
BULK_SHARE = 0.05
"""Unread initializers of so many bytes, or of this share of all, are suspicious and not only waste."""


def dead(subject: Subject) -> Iterator[AuditFinding]:
    """Find what is dead or unread."""
    if subject.network is not None and subject.network.wired:
        yield from unconnected(subject.network)
    if subject.onnx is not None:
        yield from unread(subject.onnx)
    if subject.network is not None and subject.activity is not None:
        yield from silent(subject.network, subject.activity)
    if subject.onnx is not None and subject.network is not None and subject.given:
        yield from flat_outputs(subject, subject.onnx, subject.network)


def unconnected(network: Network) -> Iterator[AuditFinding]:
    """Units that no input reaches, and units that no output depends on."""
    graph = network.graph
    is_input = graph.role == ROLES.index(Role.INPUT)
    is_output = graph.role == ROLES.index(Role.OUTPUT)
    unreached = graph.neuron & ~network.reached & ~is_input & ~is_output
    for chain in chains_of(network, unreached):
        those = "it has one value" if _n_units(chain) == 1 else "they have one value each"
        sentence = f"{_some(chain)} reached by no input: {those}, whatever the inputs are."
        yield _units("DEAD-UNREACHED", network, chain, sentence)
    outputs = ~network.reached & is_output
    for layer, positions in by_layer(network, outputs):
        what = "element" if len(positions) == 1 else "elements"
        sentence = (
            f"{count(len(positions), what)} of the {layer.n_units} that {network.title(layer)} gives out "
            f"{'is' if len(positions) == 1 else 'are'} constant: no input reaches them."
        )
        yield _units("DEAD-OUTPUT", network, [(layer, positions)], sentence)
    unread_units = graph.neuron & ~network.read & ~_whole_inputs(network)
    for chain in chains_of(network, unread_units):
        sentence = f"{_some(chain)} read by nothing that an output depends on."
        yield _units("DEAD-UNREAD", network, chain, sentence)


def chains_of(network: Network, mask: Mask) -> list[Chain]:
    """Return the layers of chosen units, those together that lead into each other with nothing chosen apart.

    One cause often shows in many layers: a pruned chain is one finding, which names it.
    """
    groups = {layer.id: (layer, positions) for layer, positions in by_layer(network, mask)}
    leader: dict[int, int] = {layer: layer for layer in groups}
    behind: dict[int, frozenset[int]] = {}

    def first(layer: int) -> int:
        while leader[layer] != layer:
            layer = leader[layer]
        return layer

    sources = network.sources_of_layers
    for layer in network.graph.layers:  # in the order of data
        reads = frozenset[int]().union(*(behind.get(source, frozenset()) for source in sources[layer.id]))
        if layer.id not in groups:  # what makes no units of its own passes them on
            behind[layer.id] = frozenset() if network.has_weights(layer) else reads
            continue
        for other in reads:
            leader[first(other)] = first(layer.id)
        behind[layer.id] = frozenset({layer.id})
    chains: dict[int, Chain] = {}
    for layer_id, group in groups.items():
        chains.setdefault(first(layer_id), []).append(group)
    return list(chains.values())


def _whole_inputs(network: Network) -> Mask:
    """Inputs of which nothing is read: a matter of this file's interface, see DEAD-INPUT."""
    found = np.zeros(network.graph.n_units, dtype=bool)
    for layer in network.graph.layers:
        if layer.kind in (LayerKind.INPUT, LayerKind.EMBEDDING) and not network.read[layer.units].any():
            found[layer.units] = True
    return found


def _n_units(chain: Chain) -> int:
    return sum(len(positions) for _, positions in chain)


def _some(chain: Chain) -> str:
    return f"{_of_layers(chain)} {'is' if _n_units(chain) == 1 else 'are'}"


def _of_layers(chain: Chain) -> str:
    n, whole = _n_units(chain), sum(layer.n_units for layer, _ in chain)
    which = "All" if n == whole else f"{n:,} of the"
    names = [layer.name for layer, _ in chain]
    if len(names) == 1:
        return f"{which} {count(whole, 'unit')} of layer {quoted(names[0])}"
    return f"{which} {count(whole, 'unit')} of {len(names)} layers in a row ({names_text(names)})"


def _units(id_: str, network: Network, chain: Chain, sentence: str, **evidence: object) -> AuditFinding:
    keys = [part for layer, positions in chain for part in (network.keys[layer.id], list(positions))]
    return AuditFinding(
        id=id_,
        sentence=sentence,
        key=tuple(keys),
        units={layer.name: positions for layer, positions in chain},
        evidence={
            "units": _n_units(chain),
            "of": sum(layer.n_units for layer, _ in chain),
            "layers": len(chain),
            **evidence,
        },
    )


def unread(onnx: OnnxSubject) -> Iterator[AuditFinding]:
    """Inputs, initializers and operations that no output depends on."""
    flat, graph, needed = onnx.run.flat, onnx.file.model.graph, onnx.needed_in_file
    defaults = {proto.name for proto in graph.initializer}
    for value in graph.input:
        if value.name not in needed and value.name not in defaults:
            sentence = f"Nothing that an output depends on reads input {quoted(value.name)}."
            yield AuditFinding(id="DEAD-INPUT", sentence=sentence, key=(value.name,))
    yield from _unread_initializers(onnx)
    useless = [node for node in graph.node if any(node.output) and needed.isdisjoint(node.output)]
    if useless:
        kinds = sorted(node.op_type for node in useless)
        yield AuditFinding(
            id="DEAD-OPERATION",
            sentence=f"No output depends on {count(len(useless), 'operation')}: {names_text(kinds)}.",
            key=(kinds,),
            operations=[node.name or node.output[0] for node in useless],
            evidence={"operations": len(useless)},
        )
    if flat.branches:
        names = list(flat.branches)
        sentence = (
            f"{count(len(names), 'branch')} taken by these inputs; the file also holds the others, which "
            f"were not looked into: {names_text(names)}."
        )
        yield AuditFinding(
            id="DEAD-BRANCH", sentence=sentence, key=(len(names),), evidence={"branches": names}
        )


def _unread_initializers(onnx: OnnxSubject) -> Iterator[AuditFinding]:
    tensors = onnx.file.tensors
    outputs = {value.name for value in onnx.file.model.graph.output}
    read = onnx.names_read | outputs
    found = {name: tensor for name, tensor in tensors.items() if name not in read}
    if not found:
        return
    total = sum(tensor.n_bytes for tensor in tensors.values())
    bulk = {n: t for n, t in found.items() if is_bulk(t.n_bytes, total)}
    for id_, group in (
        ("DEAD-INITIALIZER", {n: t for n, t in found.items() if n not in bulk}),
        ("UNUSED-BULK", bulk),
    ):
        if group:
            size = sum(tensor.n_bytes for tensor in group.values())
            sentence = (
                f"Nothing reads {count(len(group), 'initializer')} of {bytes_text(size)} "
                f"({share(size, total)} of all values): {names_text(list(group))}."
            )
            shapes = sorted([tensor.dtype, *tensor.shape] for tensor in group.values())
            yield AuditFinding(
                id=id_,
                sentence=sentence,
                key=(shapes,),
                tensors=list(group),
                evidence={"bytes": size, "share": size / max(total, 1)},
            )


def is_bulk(n_bytes: int, total: int) -> bool:
    """Whether an unread initializer is so large that it is suspicious."""
    return n_bytes >= BULK_BYTES or (n_bytes >= 4096 and n_bytes >= BULK_SHARE * total)


def silent(network: Network, activity: Activity) -> Iterator[AuditFinding]:
    """Units that inputs reach and that had one value all the same."""
    watched = activity.measured & network.reached & network.graph.neuron
    watched &= network.graph.role == ROLES.index(Role.HIDDEN)
    still = watched & (activity.low == activity.high)
    if not activity.given:
        yield from _silent_by_chance(activity, list(by_layer(network, still)))
        return
    n_watched = int(watched.sum())
    bound = silence_bound(activity.n, n_watched)
    for chain in ([group] for group in by_layer(network, still)):  # each is silent by itself
        those = "it does" if _n_units(chain) == 1 else "each does"
        sentence = (
            f"{_of_layers(chain)} had one and the same value on all {activity.n} inputs; with 95 % "
            f"confidence for all {count(n_watched, 'unit')} watched at once, {those} so on more than "
            f"{100 * (1 - bound):.3g} % of such inputs."
        )
        evidence = {"n_inputs": activity.n, "n_watched": n_watched, "active_at_most": bound}
        yield _units("DEAD-SILENT", network, chain, sentence, **evidence)


def silence_bound(n_inputs: int, n_watched: int) -> float:
    """Return the share of inputs on which no silent unit of a network does anything, with 95 % confidence.

    The units that are reported were picked for their silence. Each of those watched that is active on a
    larger share b is silent on all inputs with probability `(1 - b)^n_inputs`, all together with at most
    n_watched times as much (Bonferroni), whatever units have to do with each other.

    Example:
        >>> round(silence_bound(300, 1), 4), round(silence_bound(300, 500), 4)
        (0.0099, 0.0302)
    """
    return float(1 - (0.05 / n_watched) ** (1 / n_inputs))


def _silent_by_chance(
    activity: Activity, groups: list[tuple[UnitLayer, list[int]]]
) -> Iterator[AuditFinding]:
    """What random inputs leave silent may well respond to inputs that mean something."""
    if groups:
        n = sum(len(positions) for _, positions in groups)
        found = {layer.name: (len(positions), layer.n_units) for layer, positions in groups}
        sentence = f"{units_text(found)} had one and the same value on {activity.n} random inputs."
        yield AuditFinding(
            id="DEAD-SILENT-RANDOM",
            sentence=sentence,
            key=(),
            units={layer.name: positions for layer, positions in groups},
            evidence={"units": n, "n_inputs": activity.n},
        )


def flat_outputs(subject: Subject, onnx: OnnxSubject, network: Network) -> Iterator[AuditFinding]:
    """Elements of outputs that did not vary over the inputs, although inputs reach them."""
    outputs = subject.outputs
    if outputs is None or subject.n_samples < 2:
        return
    is_output = network.graph.role == ROLES.index(Role.OUTPUT)
    if network.wired and is_output.any() and not network.reached[is_output].all():
        return  # said by DEAD-OUTPUT
    for number, (name, values) in enumerate(zip(onnx.run.flat.outputs, outputs, strict=True)):
        flat = _constant_elements(values, subject.n_samples)
        if flat is None or not flat.any():
            continue
        which = "All" if flat.all() else str(int(flat.sum()))
        sentence = (
            f"{which} of the {flat.size} elements of output {quoted(name)} did not change over "
            f"{subject.n_samples} inputs."
        )
        yield AuditFinding(
            id="DEAD-FLAT-OUTPUT",
            sentence=sentence,
            key=(number, np.flatnonzero(flat).tolist()[:1000]),
            evidence={"elements": int(flat.sum()), "of": int(flat.size), "n_inputs": subject.n_samples},
        )


def _constant_elements(values: NDArray[np.generic], n: int) -> NDArray[np.bool_] | None:
    """Per element of a sample's output, whether all samples have the same; None for samples elsewhere."""
    if values.dtype.kind not in "fiub" or values.ndim < 1 or len(values) != n:
        return None
    rows = values.reshape(n, -1).astype(np.float64)
    return np.asarray((rows == rows[:1]).all(axis=0))
