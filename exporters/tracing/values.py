"""What the tracer knows of a tensor: a constant, labels that name its units, or control."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from emergraph.errors import InvalidInputError
from emergraph.exporters.tracing.constants import Constant
from emergraph.exporters.tracing.labels import Labels
from emergraph.exporters.tracing.tracks import Track


@dataclass(frozen=True)
class Bank:
    """Matrices of a table, of which the data chooses one for each position: weights of routed experts.

    As long as nothing but a contraction reads them they are weights; for anything else they become units.
    """

    table: Constant
    axis: int
    """Of the table: which matrix."""
    feature: Labels
    """Of the tensor's shape: which number of a matrix every element is; the same along axes of positions."""


@dataclass(frozen=True)
class Value:
    """A tensor as the tracer sees it: exactly one of constant, labelled, bank, control.

    Control tensors depend on the inputs but only decide which or where (indices, shapes of data); no units.
    """

    shape: tuple[int, ...]
    constant: Constant | None = None
    labels: Labels | None = None
    tracks: Mapping[int, Track] = field(default_factory=dict)
    """By layer id."""
    dtype: np.dtype[np.generic] | None = None
    bank: Bank | None = None

    @property
    def carried(self) -> Labels:
        """The labels of a tensor that is known to carry units.

        Raises:
            InvalidInputError: It carries none.
        """
        if self.labels is None:
            raise InvalidInputError(f"a tensor of shape {list(self.shape)} was expected to carry units")
        return self.labels


def merged_tracks(values: list[Value]) -> dict[int, Track]:
    """Union of the tracks of several values; the first one wins."""
    tracks: dict[int, Track] = {}
    for value in values:
        for layer, track in value.tracks.items():
            tracks.setdefault(layer, track)
    return tracks
