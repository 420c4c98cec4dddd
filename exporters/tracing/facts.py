"""What a concrete run tells about tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

Array = NDArray[np.generic]


@dataclass(frozen=True)
class TensorFacts:
    """What the concrete run tells about a tensor."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    value: Array | None = None
    """Only for small or integer tensors."""


@dataclass(frozen=True)
class BodyRun:
    """A body of a Loop, a Scan or a branch that was run once on its own."""

    nodes: Sequence[onnx.NodeProto]
    facts: Mapping[str, TensorFacts]
    branches: tuple[str, ...]


BodyRunner = Callable[[onnx.GraphProto, Mapping[str, TensorFacts]], BodyRun]
"""Runs a body; the facts name the tensors that it reads from outside and its own inputs."""
