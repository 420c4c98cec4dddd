"""Which channels of a pruned model nothing needs."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.pruning.channels.constants import ModelConstants
from emergraph.analysis.pruning.channels.constantvalues import constant_values, weight_sums, weights_present
from emergraph.analysis.pruning.channels.tracks import FIXED, ChannelMap, ChannelReader, Ids
from emergraph.exporters.runtime.quoting import quoted

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Groups:
    """Channels that go only together."""

    label: Ids
    """(n_channels,) group of each channel."""
    fixed: Mask
    """(n_groups,) whether something needs the group whatever the weights are."""
    reasons: dict[int, str]
    """Why, by group."""


def channel_groups(channels: ChannelMap) -> Groups:
    """Join the channels that sums and other operations keep together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = channels.n_channels
    first = np.concatenate([a for a, _ in channels.pairs] or [np.empty(0, np.int64)])
    second = np.concatenate([b for _, b in channels.pairs] or [np.empty(0, np.int64)])
    joined = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(n, n))
    n_groups, label = connected_components(joined, directed=False)
    fixed = np.zeros(n_groups, dtype=bool)
    reasons: dict[int, str] = {}
    always = (np.array([FIXED]), "is joined with something that is not a channel")
    for ids, reason in (*channels.fixed, always):
        for group in np.unique(label[ids]).tolist():
            reasons.setdefault(group, reason)
        fixed[label[ids]] = True
    return Groups(label.astype(np.int64), fixed, reasons)


@dataclass(eq=False)
class Unneeded:
    """The channels of one pruned model that can be cut out, and why others cannot."""

    channels: ChannelMap
    groups: Groups
    constants: ModelConstants
    """Of the pruned model."""

    def __post_init__(self) -> None:
        self.reasons: dict[int, str] = dict(self.groups.reasons)
        """Group -> what needs it, in words."""
        self._sums = {
            r.node: weight_sums(r, self.constants, channels_node(self.channels, r))
            for r in self.channels.readers
            if r.out is not None
        }
        self.constant = constant_values(self.channels, self.constants, lambda r: self._sums[r.node])
        """Tensor name -> value of each constant channel, NaN for others."""

    @cached_property
    def needed(self) -> Mask:
        """(n_groups,) groups that stay.

        A channel is needed when a contraction reads it with a weight other than zero for a channel that is
        needed itself, unless its value is the same everywhere and can go into the bias. Every tensor keeps
        one channel.
        """
        needed = self.groups.fixed.copy()
        reads = [read for reader in self.channels.readers if (read := self._read(reader)) is not None]
        while True:
            self._settle(needed, reads)
            extra = self._empty(needed)
            if not len(extra):
                return needed
            needed[extra] = True
            for group in extra.tolist():
                self.reasons.setdefault(group, "is the last one of its tensor")

    def keeps(self, ids: Ids) -> Mask:
        """Which of some channels stay."""
        return np.asarray(self.needed[self.groups.label[ids]])

    def why(self, channel: int) -> str:
        """What needs a channel, in words."""
        return self.reasons.get(int(self.groups.label[channel]), "is not needed")

    def _read(self, reader: ChannelReader) -> tuple[ChannelReader, Ids, Ids | None, Mask] | None:
        if reader.ids is None:
            return None
        node = channels_node(self.channels, reader)
        present = weights_present(reader, self.constants, node)
        name = node.input[0 if reader.position else 1]
        value = self.constant[name]
        spared = (value == 0) | (~np.isnan(value) & reader.foldable)
        label = self.groups.label
        out = None if reader.out is None else label[reader.out]
        return reader, label[reader.ids], out, present & ~spared[None, :]

    def _settle(self, needed: Mask, reads: list[tuple[ChannelReader, Ids, Ids | None, Mask]]) -> None:
        changed = True
        while changed:
            changed = False
            for reader, ids, out, present in reversed(reads):
                rows = present if out is None else present[needed[out]]
                new = np.unique(ids[rows.any(axis=0)])
                new = new[~needed[new]]
                if not len(new):
                    continue
                changed = True
                needed[new] = True
                node = channels_node(self.channels, reader)
                for group in new.tolist():
                    self.reasons.setdefault(group, f"is read by {node.op_type} {quoted(node.name)}")

    def _empty(self, needed: Mask) -> Ids:
        """One group for every tensor that would have no channel left."""
        found = []
        for track in self.channels.tracks.values():
            groups = self.groups.label[track.ids]
            if len(groups) and not needed[groups].any():
                found.append(int(groups.min()))
        return np.unique(np.array(found, dtype=np.int64))


def channels_node(channels: ChannelMap, reader: ChannelReader) -> onnx.NodeProto:
    """The node of a reader."""
    return channels.flat.nodes[reader.node]
