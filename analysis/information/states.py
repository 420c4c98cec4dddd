"""Hidden states at the boundaries of blocks, wherever they come from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.information.codes import distinct_states
from emergraph.analysis.information.options import Micro
from emergraph.analysis.information.sequences import Sequences
from emergraph.errors import InvalidInputError

Array = NDArray[np.generic]
Progress = Callable[[int, int], None]
"""Called with the sequences run and the sequences in all."""


@dataclass(frozen=True, eq=False)
class BlockStates:
    """Hidden states before and after every block of a chain."""

    blocks: tuple[str, ...]
    """Names of the blocks."""
    last: tuple[Array, ...]
    """Per boundary, one more than blocks: (n, width) at the last position."""
    inputs: NDArray[np.int64]
    """(n, length) which distinct token each token is; sequences with equal rows are the same input."""
    micro: Mapping[Micro, tuple[Array, ...]]
    """Per boundary: alone (tokens, width), by the numbers in `inputs`; first (n, 1, width); positions
    (n, length, width)."""
    population: int | None = None
    """Distinct sequences that there are, each as likely."""
    description: str = ""
    """The sequences, in words."""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse states that do not fit together.

        Raises:
            InvalidInputError: Widths or numbers of samples differ.
        """
        shapes = {np.shape(states) for states in self.last}
        if len(self.last) != len(self.blocks) + 1 or len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise InvalidInputError(
                f"hidden states of shapes {sorted(shapes)} for {len(self.blocks)} blocks: expected one array "
                "(samples, width) more than blocks, all of the same width"
            )

    @property
    def n(self) -> int:
        """Sequences."""
        return len(self.last[0])

    @property
    def width(self) -> int:
        """Numbers of one hidden state."""
        return int(self.last[0].shape[1])


Runner = Callable[[Array], list[Array]]
"""Runs some sequences (n, length[, features]); gives (n, length, width) per boundary."""


def collect_states(
    run: Runner,
    sequences: Sequences,
    blocks: Sequence[str],
    micro: Micro,
    *,
    batch: int = 64,
    progress: Progress | None = None,
    notes: Sequence[str] = (),
) -> BlockStates:
    """Run sequences, and tokens alone if asked for, and keep what information emergence needs.

    Args:
        run: The model.
        sequences: What to run.
        blocks: Names of the blocks.
        micro: Which micro states to keep.
        batch: Most sequences per run.
        progress: Called after each run.
        notes: What the result should tell.
    """
    values = sequences.values
    tokens = values.reshape(sequences.n * sequences.length, *values.shape[2:])
    numbers = token_numbers(tokens)
    total = sequences.n
    places = {Micro.FIRST: slice(0, 1), Micro.POSITIONS: slice(None)}
    last: list[list[Array]] = [[] for _ in range(len(blocks) + 1)]
    kept: list[list[Array]] = [[] for _ in last]
    for start in range(0, total, batch):
        for boundary, states in enumerate(run(values[start : start + batch])):
            last[boundary].append(np.array(states[:, -1]))
            if micro in places:
                kept[boundary].append(np.array(states[:, places[micro]]))
        if progress is not None:
            progress(min(start + batch, total), total)
    if micro == Micro.ALONE:
        _, first = np.unique(numbers, return_index=True)
        alone = tokens[first][:, None]
        for start in range(0, len(alone), batch):
            for boundary, states in enumerate(run(alone[start : start + batch])):
                kept[boundary].append(np.array(states[:, 0]))
    return BlockStates(
        blocks=tuple(blocks),
        last=tuple(np.concatenate(parts) for parts in last),
        inputs=numbers.reshape(sequences.n, sequences.length),
        micro={micro: tuple(np.concatenate(parts) for parts in kept)},
        population=sequences.population,
        description=sequences.description,
        notes=tuple(notes),
    )


def token_numbers(tokens: Array) -> NDArray[np.int64]:
    """Which distinct token each is, from 0."""
    if tokens.ndim == 1:
        return np.unique(tokens, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return distinct_states(tokens)
