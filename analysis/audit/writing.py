"""Writing a smaller model without what is dispensable, after running it beside the original."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.audit.dispensable import chains, is_foldable_norm, is_identity
from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.kinds import Grade
from emergraph.analysis.audit.result import Smaller
from emergraph.analysis.audit.simplify import Simplifier, n_elements
from emergraph.analysis.audit.subject import AGREEMENT, Given, OnnxSubject, Subject, elementwise
from emergraph.analysis.modelruns.running import model_outputs
from emergraph.analysis.pruning.channels.tracks import ChannelMap, ChannelReader
from emergraph.analysis.pruning.channels.unneeded import Groups, channel_groups
from emergraph.analysis.pruning.modelruns import file_bytes
from emergraph.analysis.pruning.smaller import Shrinker
from emergraph.atomic import write_atomically
from emergraph.errors import UsageError
from emergraph.exporters.nodes import depends_on
from emergraph.exporters.operations import spec_of
from emergraph.exporters.runtime.assembly import assemble
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.quoting import quoted
from emergraph.exporters.runtime.sources import InMemorySource, ReplacedSource
from emergraph.exporters.runtime.wholemodel import model_bytes

Array = NDArray[np.generic]

METADATA = "emergraph.audit"
"""Key of the model's metadata that says what was left out because it was tested."""


def write_smaller(
    subject: Subject, given: Given, findings: Sequence[AuditFinding], out: Path, *, also_tested: bool = False
) -> Smaller:
    """Write a model without what the findings prove to be dispensable, if it agrees with the original.

    Args:
        subject: What was audited.
        given: What it was run on.
        findings: Of the audit.
        out: The file.
        also_tested: Cut units, too, that were silent on all inputs given; the file says so.

    Raises:
        UsageError: The model cannot be written smaller, or the result does not agree.
        LimitError: It does not fit one ONNX file.
    """
    onnx_subject = subject.onnx
    if onnx_subject is None:
        raise UsageError("--write needs operations to write: only ONNX files, modules and folders have them")
    chosen = [f for f in findings if f.grade is Grade.PROVED or (also_tested and f.id == "DEAD-SILENT")]
    model, applied = smaller_model(subject, onnx_subject, chosen)
    difference, bitwise, n = agreement(onnx_subject, model, given)
    is_exact = bitwise or not _is_coded(onnx_subject)
    _check(onnx_subject, difference, is_exact=is_exact, also_tested=also_tested)
    tested = [f for f in chosen if f.grade is Grade.TESTED] if applied.get("DEAD-SILENT") else []
    if tested or not is_exact:
        _note(model, tested, n)
    content = model_bytes(model)
    write_atomically(out, content)
    before = sum(int(np.prod(p.dims)) for p in onnx_subject.run.flat.initializers.values())
    return Smaller(
        applied=applied,
        values_before=before,
        values_after=n_elements(model),
        bytes_before=file_bytes(onnx_subject.file),
        bytes_after=len(content),
        n_inputs=n,
        difference=difference,
        bitwise=bitwise,
        branches=onnx_subject.run.flat.branches,
    )


def smaller_model(
    subject: Subject, onnx_subject: OnnxSubject, findings: Sequence[AuditFinding]
) -> tuple[onnx.ModelProto, dict[str, int]]:
    """Return the model without what findings name, and by id how much went."""
    run, flat = onnx_subject.run, onnx_subject.run.flat
    shrinker = Shrinker(run, onnx_subject.source)
    operations = _operations(subject)
    merger = Merger(onnx_subject, shrinker.channels, channel_groups(shrinker.channels), operations)
    applied: dict[str, int] = {}
    for finding in findings:
        done = sum(merger.apply(merge) for merge in merges_of([finding]))
        if done:
            applied[finding.id] = applied.get(finding.id, 0) + done
    replaced = {id(flat.initializers[name]): values for name, values in merger.replaced.items()}
    shrinker = Shrinker(run, ReplacedSource(onnx_subject.source, replaced))
    model, unneeded = shrinker.smaller({})
    made = [r.out for r in shrinker.channels.readers if r.out is not None and not r.depthwise]
    channels = np.unique(np.concatenate(made)) if made else np.empty(0, np.int64)
    cut = int((~unneeded.keeps(channels)).sum()) if len(channels) else 0
    merged = sum(applied.values())
    if cut > merged:
        applied["DEAD-UNREACHED or DEAD-UNREAD"] = cut - merged
    _keep_metadata(model, onnx_subject.file.model)
    _simplify(model, onnx_subject, applied)
    spare = sum(f.id in ("DEAD-INITIALIZER", "UNUSED-BULK") and len(f.tensors) for f in findings)
    if spare:
        applied["DEAD-INITIALIZER or UNUSED-BULK"] = spare
    return model, applied


def _operations(subject: Subject) -> dict[str, str]:
    """By layer, the operation whose weights make its units."""
    if subject.network is None:
        return {}
    names = dict(subject.network.layers.select("id", "name").iter_rows())
    weights = subject.network.blocks.filter(subject.network.blocks["kind"] == "weight")
    return {str(names[layer]): str(op) for op, layer in weights.select("name", "layer").iter_rows()}


def _simplify(model: onnx.ModelProto, subject: OnnxSubject, applied: dict[str, int]) -> None:
    nodes = subject.run.flat.nodes
    simplifier = Simplifier(model)
    same = frozenset(node.name for node in nodes if is_identity(subject, node))
    norms = frozenset(node.name for node in nodes if is_foldable_norm(subject, node))
    pairs = [(a.name, b.name) for a, b, _ in chains(subject)]
    steps = {
        "IDENTITY-OPERATION": lambda: simplifier.drop_identities(same),
        "FOLDABLE-NORM": lambda: simplifier.fold_norms(norms),
        "LINEAR-CHAIN": lambda: simplifier.fold_chains(pairs),
        "STORED-TWICE": simplifier.store_once,
    }
    for id_, step in steps.items():
        if done := step():
            applied[id_] = done
    simplifier.finish()


def _keep_metadata(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    model.metadata_props.extend(original.metadata_props)
    model.doc_string = original.doc_string
    model.graph.doc_string = original.graph.doc_string


def _note(model: onnx.ModelProto, tested: Sequence[AuditFinding], n_inputs: int) -> None:
    text: dict[str, Any] = {
        "grade": str(Grade.TESTED),
        "n_inputs": n_inputs,
        "agreement": f"|a - b| <= {AGREEMENT:g} max(1, max |a|)",
    }
    if tested:
        text["cut"] = {layer: list(units) for f in tested for layer, units in f.units.items()}
        text["active_at_most"] = max(float(f.evidence["active_at_most"]) for f in tested)
    model.metadata_props.add(key=METADATA, value=json.dumps(text))


def _is_coded(subject: OnnxSubject) -> bool:
    return any(subject.codes.is_coded(tensor) for tensor in subject.run.flat.initializers)


def _check(subject: OnnxSubject, difference: float, *, is_exact: bool, also_tested: bool) -> None:
    name = quoted(subject.file.name)
    if difference > AGREEMENT:
        raise UsageError(
            f"{name}: the smaller model's outputs differ by {difference:.3g} of their size, more than "
            f"{AGREEMENT:g}; nothing was written; please report this"
        )
    if not is_exact and not also_tested:
        raise UsageError(
            f"{name}: the model is quantized, and the smaller one's outputs are not equal bit by bit (they "
            f"differ by {difference:.3g} of their size), so that this is tested and not proved; nothing was "
            "written: give --inputs FILE.npz and --also tested"
        )


def agreement(subject: OnnxSubject, model: onnx.ModelProto, given: Given) -> tuple[float, bool, int]:
    """Run both models on the samples; return the largest difference, whether all is equal, and samples.

    Outputs that depend on random numbers are left out.

    Raises:
        UsageError: All outputs do.
    """
    flat, source = subject.run.flat, InMemorySource(model)
    small = flatten(model, read_tensor=source.array)
    drawn = [name for node in flat.nodes if spec_of(node).is_random for name in node.output if name]
    chance = depends_on(flat.nodes, drawn)
    names = [name for name in flat.outputs if name not in chance]
    if not names:
        raise UsageError("every output depends on random numbers: no model can be shown to agree with it")
    wanted = {value.name for value in small.inputs}
    with ModelProcess(given.limits) as process:
        process.load(assemble(flat, names, subject.source))
        expected = model_outputs(process, subject.prepared, names)
        process.load(assemble(small, names, source))
        found = model_outputs(process, subject.prepared, names, only=wanted)
    worst = max((elementwise(a, b) for a, b in zip(expected, found, strict=True)), default=0.0)
    bitwise = all(_same_bits(a, b) for a, b in zip(expected, found, strict=True))
    return worst, bitwise, subject.prepared.samples.n


def _same_bits(a: Array, b: Array) -> bool:
    return bool(a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())


@dataclass(frozen=True)
class Merge:
    """What is read from a unit is read from another one, or from none."""

    layer: str
    gone: int
    into: int | None
    factor: float = 0.0


def merges_of(findings: Sequence[AuditFinding]) -> list[Merge]:
    """Return what twins and silent units ask for."""
    found = []
    for finding in findings:
        for layer, positions in finding.units.items():
            if finding.id == "TWIN-UNITS":
                twins = finding.evidence["twins"]
                found += [Merge(layer, t["other"], t["kept"], t["factor"]) for t in twins]
            elif finding.id == "DEAD-SILENT":
                found += [Merge(layer, position, None) for position in positions]
    return found


class Merger:
    """Changes of weights that make units unneeded.

    Args:
        subject: The model.
        channels: Its channels.
        groups: Which of them go together.
        operations: Name of the operation that makes each layer's units.
    """

    def __init__(
        self, subject: OnnxSubject, channels: ChannelMap, groups: Groups, operations: Mapping[str, str]
    ) -> None:
        self._subject, self._channels, self._groups = subject, channels, groups
        self._operations = operations
        self.replaced: dict[str, Array] = {}
        """Initializers with other values, by name."""

    def apply(self, merge: Merge) -> bool:
        """Take one merge in, if every reader of the unit allows it; tell whether."""
        made = self._made(merge.layer)
        if made is None or made.out is None:
            return False
        gone = int(made.out[merge.gone])
        kept = None if merge.into is None else int(made.out[merge.into])
        if not self._free(gone) or (kept is not None and not self._free(kept)):
            return False
        readers = [r for r in self._channels.readers if r.ids is not None and gone in r.ids]
        if not readers or not all(self._can_change(reader, kept) for reader in readers):
            return False
        for reader in readers:
            self._change(reader, gone, kept, merge.factor)
        return True

    def _made(self, layer: str) -> ChannelReader | None:
        wanted = self._operations.get(layer, layer)
        nodes = self._channels.flat.nodes
        return next(
            (r for r in self._channels.readers if nodes[r.node].name == wanted and not r.depthwise), None
        )

    def _free(self, channel: int) -> bool:
        """Whether a channel goes alone, and only weights read it."""
        label = self._groups.label
        return not self._groups.fixed[label[channel]] and int((label == label[channel]).sum()) == 1

    def _name(self, reader: ChannelReader) -> str:
        return str(self._channels.flat.nodes[reader.node].input[reader.position])

    def _can_change(self, reader: ChannelReader, kept: int | None) -> bool:
        name = self._name(reader)
        plain = name in self._subject.run.flat.initializers and not self._subject.codes.is_coded(name)
        uses = [node for node in self._channels.flat.nodes if name in node.input]
        if not plain or len(uses) != 1 or reader.depthwise or reader.ids is None:
            return False
        return kept is None or kept in reader.ids

    def _change(self, reader: ChannelReader, gone: int, kept: int | None, factor: float) -> None:
        name = self._name(reader)
        values = self.replaced.get(name)
        if values is None:
            values = np.array(self._subject.value(name))
        turned = np.moveaxis(values, reader.in_axis, 0)
        assert reader.ids is not None  # noqa: S101 - can_change has looked
        ids = reader.ids.tolist()
        if kept is not None:
            more = factor * turned[ids.index(gone)].astype(np.float64)
            total = turned[ids.index(kept)].astype(np.float64) + more
            turned[ids.index(kept)] = total.astype(values.dtype)
        turned[ids.index(gone)] = 0
        self.replaced[name] = values
