"""Looking for sizes and values of the inputs that a model accepts."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError
from emergraph.exporters.onnxfile.dtypes import numpy_dtype
from emergraph.exporters.runtime.assembly import ModelSource
from emergraph.exporters.runtime.feeds import STYLES, input_hints, make_feeds, scalar_choices
from emergraph.exporters.runtime.flat_model import FlatInput, FlatModel
from emergraph.exporters.runtime.process import Fetched, ModelProcess
from emergraph.exporters.runtime.quoting import plain, quoted
from emergraph.exporters.runtime.refusals import ModelRefusedError
from emergraph.exporters.runtime.sizes import RANKS, Shape, axes_of, candidate_sizes, declared_text

Array = NDArray[np.generic]
Feeds = dict[str, Array]


class InputSearch:
    """Candidates for the inputs of one model, and the search through them."""

    def __init__(
        self,
        flat: FlatModel,
        source: ModelSource,
        given: Mapping[str, Array],
        shapes: Mapping[str, Shape],
        seed: int,
    ) -> None:
        """Prepare a search.

        Args:
            flat: The model.
            source: Its tensors.
            given: Inputs that the caller decides.
            shapes: Shapes that the caller decides.
            seed: Of made-up float values.
        """
        self.attempts = 0
        self._inputs = flat.inputs
        self._hints = input_hints(flat, source)
        self._given = given
        self._decided: dict[str, Shape] = {**shapes, **{name: array.shape for name, array in given.items()}}
        self._seed = seed

    def candidates(self) -> Iterator[Feeds]:
        """Feeds in the order to try: deciding scalars slowest, then ranks, sizes, ways to fill integers."""
        open_inputs = [value for value in self._inputs if value.name not in self._given]
        no_rank = any(v.shape is None and v.name not in self._decided for v in open_inputs)
        integers = any(_is_integer(v) and v.shape != () for v in open_inputs)
        choices = scalar_choices(open_inputs, self._hints, self._given)
        for scalars, rank in itertools.product(choices, RANKS if no_rank else RANKS[:1]):
            axes = axes_of(self._inputs, self._decided, rank)
            for sizes in candidate_sizes(axes):
                shapes = axes.filled(sizes)
                for style in STYLES if integers else STYLES[:1]:
                    made_up = make_feeds(
                        open_inputs, shapes, self._hints, scalars=scalars, style=style, seed=self._seed
                    )
                    yield {v.name: {**self._given, **made_up}[v.name] for v in self._inputs}

    def run(self, process: ModelProcess, fetch: Sequence[str]) -> tuple[Feeds, dict[str, Fetched]]:
        """The first feeds that the loaded model accepts, and what it gave for `fetch`.

        Raises:
            InvalidInputError: It accepts none of them.
            LimitError: A limit was hit.
        """
        first: tuple[Feeds, ModelRefusedError] | None = None
        last: Feeds = {}
        for feeds in self.candidates():
            self.attempts += 1
            try:
                return feeds, process.run(feeds, fetch)
            except ModelRefusedError as error:
                first = first or (feeds, error)
                last = feeds
        if first is None:
            raise InvalidInputError(
                "the model's inputs cannot be chosen automatically; give them with --input"
            )
        raise self._nothing_works(*first, last)

    def _nothing_works(self, first: Feeds, error: ModelRefusedError, last: Feeds) -> InvalidInputError:
        open_inputs = [v for v in self._inputs if v.name not in self._decided]
        if not open_inputs:
            return InvalidInputError(f"the model refuses the inputs {_shapes_text(first)}: {error}")
        declared = ", ".join(f"{quoted(v.name)} {declared_text(v)}" for v in open_inputs)
        return InvalidInputError(
            f"no sizes were found that the model accepts for {declared}: {self.attempts} tried, from "
            f"{_shapes_text(first)} to {_shapes_text(last)}; first refusal: {error}; "
            f"give sizes with --input-shape {plain(open_inputs[0].name)}=1,..."
        )


def _is_integer(value: FlatInput) -> bool:
    dtype = numpy_dtype(value.element_type)
    return dtype is not None and dtype.kind in "iu"


def _shapes_text(feeds: Feeds) -> str:
    return ", ".join(f"{plain(name)}={list(array.shape)}" for name, array in feeds.items())
