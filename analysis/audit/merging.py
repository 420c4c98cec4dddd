"""Twins merged and silent units cut, by changing the weights that read them: then nothing needs them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.audit.finding import AuditFinding
from emergraph.analysis.audit.subject import OnnxSubject
from emergraph.analysis.pruning.channels.tracks import ChannelMap, ChannelReader
from emergraph.analysis.pruning.channels.unneeded import Groups

Array = NDArray[np.generic]


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
