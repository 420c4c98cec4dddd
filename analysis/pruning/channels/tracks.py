"""Channels ride along a model's operations: which index of which axis of which tensor is which channel.

A channel begins where a contraction makes it, rides through everything that handles each channel by itself,
and is joined with the channels that a sum adds to it. It can be cut out of the model only as a whole. Where
an operation needs all channels of an axis (a softmax, a layer normalisation, an output), they are fixed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.pruning.channels.constants import ModelConstants
from emergraph.exporters.nodes import attributes, subgraphs
from emergraph.exporters.operations import kind_of
from emergraph.exporters.runtime.flat_model import FlatModel, names_used
from emergraph.exporters.runtime.quoting import quoted

Ids = NDArray[np.int64]
FIXED = 0
"""The channel that is always needed."""


class UnfollowedError(Exception):
    """A rule cannot follow channels through its operation; they are fixed."""


@dataclass(frozen=True, eq=False)
class ChannelTrack:
    """The channels of one axis of a tensor."""

    axis: int
    ids: Ids
    """(size of the axis,) number of each index's channel."""


@dataclass(frozen=True, eq=False)
class ConstantCut:
    """An axis of a constant input that goes with channels."""

    position: int
    axis: int
    ids: Ids


@dataclass(frozen=True, eq=False)
class ChannelReader:
    """A contraction: what it makes depends on the channels that it reads with a weight other than zero."""

    node: int
    position: int
    """Which input the weights are."""
    ids: Ids | None
    """Channels read; None where the input's are not known."""
    in_axis: int
    out: Ids | None
    """Channels made; None where all of them are needed."""
    out_axis: int
    foldable: bool
    """Whether a channel of one constant value can go into the bias."""
    uses: float
    """How often each weight is multiplied in one run."""
    depthwise: bool = False
    """Whether each channel made is one that was read."""


Keeps = Callable[[Ids], NDArray[np.bool_]]
Rewrite = Callable[[onnx.NodeProto, Keeps, ModelConstants], list[onnx.NodeProto]]
"""Changes a copy of a node for the channels that stay; gives the nodes that take its place."""


@dataclass(eq=False)
class ChannelMap:
    """Channels of a flat model, filled by the rules; see `channelmap`."""

    flat: FlatModel
    shapes: Mapping[str, tuple[int, ...]]
    constants: ModelConstants
    """Of the unpruned model."""
    tracks: dict[str, ChannelTrack] = field(default_factory=dict)
    readers: list[ChannelReader] = field(default_factory=list)
    cuts: dict[int, list[ConstantCut]] = field(default_factory=dict)
    rewrites: dict[int, list[Rewrite]] = field(default_factory=dict)
    n_channels: int = 1
    pairs: list[tuple[Ids, Ids]] = field(default_factory=list)
    fixed: list[tuple[Ids, str]] = field(default_factory=list)
    node: onnx.NodeProto = field(default_factory=onnx.NodeProto)
    """The node that a rule looks at."""
    index: int = -1

    def track(self, position: int) -> ChannelTrack | None:
        """The channels of an input of the current node."""
        return self.tracks.get(self.name(position))

    def name(self, position: int) -> str:
        """Name of an input of the current node, empty where it is left out."""
        return self.node.input[position] if position < len(self.node.input) else ""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor in the concrete run.

        Raises:
            UnfollowedError: It is not known.
        """
        if name in self.shapes:
            return self.shapes[name]
        if name in self.constants:
            return tuple(self.constants.value(name).shape)
        raise UnfollowedError("of shapes that are not known")

    def is_constant(self, position: int) -> bool:
        """Whether an input of the current node is there and does not depend on the model's inputs."""
        return self.name(position) in self.constants

    def value(self, position: int) -> NDArray[np.generic]:
        """A constant input of the current node.

        Raises:
            UnfollowedError: It is not a constant.
        """
        if not self.is_constant(position):
            raise UnfollowedError("whose settings are computed")
        return self.constants.value(self.name(position))

    def attribute(self, name: str, default: object = None) -> object:
        """An attribute of the current node."""
        return attributes(self.node).get(name, default)

    def integer(self, name: str, default: int) -> int:
        """A whole-number attribute of the current node."""
        return int(str(self.attribute(name, default)))

    @property
    def opset(self) -> int:
        """Version of the default domain."""
        return self.flat.opsets.get("", 1)

    def new(self, n: int) -> Ids:
        """Channels that begin here."""
        ids = np.arange(self.n_channels, self.n_channels + n)
        self.n_channels += n
        return ids

    def follow(self, ids: Ids | None, axis: int, output: int = 0) -> None:
        """Say which channels an output has; None for fixed ones."""
        name = self.node.output[output] if output < len(self.node.output) else ""
        if ids is None or not name:
            return
        axis = axis % len(self.shape(name))
        if self.shape(name)[axis] != len(ids):
            raise UnfollowedError("whose output has another size")
        self.tracks[name] = ChannelTrack(axis, ids)

    def unite(self, a: Ids, b: Ids) -> None:
        """Two tensors' channels go only together."""
        self.pairs.append((a, b))

    def fix(self, ids: Ids, reason: str) -> None:
        """Channels that stay."""
        self.fixed.append((ids, reason))

    def cut(self, position: int, axis: int, ids: Ids | None) -> None:
        """A constant input goes with channels."""
        if ids is not None:
            self.cuts.setdefault(self.index, []).append(ConstantCut(position, axis, ids))

    def rewrite(self, how: Rewrite) -> None:
        """The current node changes with the channels that stay."""
        self.rewrites.setdefault(self.index, []).append(how)


def channel_map(
    flat: FlatModel, shapes: Mapping[str, tuple[int, ...]], constants: ModelConstants
) -> ChannelMap:
    """Follow the channels of a model.

    Args:
        flat: The model.
        shapes: Of every tensor, from a concrete run.
        constants: Of the unpruned model.
    """
    found = ChannelMap(flat=flat, shapes=shapes, constants=constants)
    for index, node in enumerate(flat.nodes):
        found.node, found.index = node, index
        if all(name in constants for name in node.output if name):
            continue
        before = len(found.readers), len(found.pairs), len(found.fixed)
        try:
            _rule(node)(found)
        except UnfollowedError as error:
            _undo(found, before)
            _fix_inputs(found, str(error))
    for name in flat.outputs:
        if name in found.tracks:
            found.fix(found.tracks[name].ids, "is an output of the model")
    return found


def _rule(node: onnx.NodeProto) -> Callable[[ChannelMap], None]:
    from emergraph.analysis.pruning.channels.rules import RULES

    rule = RULES.get(kind_of(node))
    if rule is None or any(True for _ in subgraphs(node)):
        raise UnfollowedError("which needs all channels")
    return rule


def _undo(found: ChannelMap, before: tuple[int, int, int]) -> None:
    del found.readers[before[0] :], found.pairs[before[1] :], found.fixed[before[2] :]
    found.cuts.pop(found.index, None)
    found.rewrites.pop(found.index, None)
    for name in found.node.output:
        found.tracks.pop(name, None)


def _fix_inputs(found: ChannelMap, reason: str) -> None:
    for name in sorted(names_used([found.node])):
        if name in found.tracks:
            found.fix(
                found.tracks[name].ids,
                f"is read by {found.node.op_type} {quoted(found.node.name)}, {reason}",
            )
