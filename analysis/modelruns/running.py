"""A model and variants of it, run on the same samples in one child process."""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError
from emergraph.exporters.runtime.assembly import ModelSource, assemble
from emergraph.exporters.runtime.flat_model import FlatModel
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import EVERYTHING, ModelProcess
from emergraph.exporters.runtime.sources import ReplacedSource
from emergraph.exporters.traces.prepare import Prepared
from emergraph.graphstore.text import printable

Array = NDArray[np.generic]


class ModelRuns:
    """Runs of a model as it is, and with other values in some of its tensors.

    Args:
        flat: The model.
        source: Its values.
        prepared: The samples.
        limits: Of the child process; each run has them anew.
        only: The inputs that the model has; None: all of the samples'.
    """

    def __init__(
        self,
        flat: FlatModel,
        source: ModelSource,
        prepared: Prepared,
        *,
        limits: RunLimits,
        only: Collection[str] | None = None,
    ) -> None:
        self._flat, self._source, self._prepared, self._only = flat, source, prepared, only
        self.process = ModelProcess(limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        self.process.close()

    @cached_property
    def expected(self) -> list[Array]:
        """Outputs of the model as it is."""
        return self.of(self._source)

    def replaced(self, values: Mapping[str, Array]) -> list[Array]:
        """Outputs with other values in some tensors, by name."""
        protos = self._flat.initializers
        return self.of(ReplacedSource(self._source, {id(protos[name]): v for name, v in values.items()}))

    def of(self, source: ModelSource) -> list[Array]:
        """Outputs with the values of a source."""
        self.process.renew()
        self.process.load(assemble(self._flat, self._flat.outputs, source), many_runs=True)
        return model_outputs(self.process, self._prepared, self._flat.outputs, only=self._only)


def model_outputs(
    process: ModelProcess, prepared: Prepared, names: Sequence[str], *, only: Collection[str] | None = None
) -> list[Array]:
    """Every output for all samples, samples on a first axis of their own or on the model's.

    Args:
        process: With the model loaded.
        prepared: The samples.
        names: Outputs.
        only: The inputs that the model has; None: all of the samples'.
    """
    parts: list[list[Array]] = [[] for _ in names]
    size = prepared.fixed or 1
    n = prepared.samples.n
    for start in range(0, n, size):
        indices = [min(i, n - 1) for i in range(start, start + size)]
        feeds = prepared.samples.feeds(indices)
        if only is not None:
            feeds = {name: array for name, array in feeds.items() if name in only}
        fetched = process.run(feeds, list(names), small=EVERYTHING)
        for part, name in zip(parts, names, strict=True):
            values = fetched[name].values
            if values is None:
                raise InvalidInputError(f"output {printable(name, limit=60)!r} is not a tensor of numbers")
            part.append(samples_of(values, size, n - start))
    return [stacked(part) for part in parts]


def samples_of(values: Array, size: int, left: int) -> Array:
    """What an output says of the samples of one run, samples first.

    Args:
        values: The output.
        size: Samples of a run.
        left: Samples that are not repeated to fill the last run.
    """
    whole = values if values.ndim and size == values.shape[0] else values[None]
    return whole[:left] if size > 1 else whole


def stacked(part: Sequence[Array]) -> Array:
    """Samples one after another; of outputs with sizes of their own, all elements in a row."""
    if len({array.shape[1:] for array in part}) == 1:
        return np.concatenate(part)
    return np.concatenate([array.reshape(-1) for array in part])
