"""Input sequences: in-context lists of entities, windows of a text, or a file of ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import perm
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.information.options import SequenceOptions, TextUnit
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.runtime.inputfile import read_input_file
from emergraph.exporters.weightfiles.npzfile import read_npy
from emergraph.paths import read_file

MAX_FILE_BYTES = 1 << 30
LARGEST_LIST = 1 << 22
"""Permutations up to this many are drawn without repeats from all of them."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences of equal length to run a model on."""

    values: NDArray[np.generic]
    """(n, length) ids; or (n, length, features) numbers for models without an embedding."""
    population: int | None
    """Distinct sequences that there are, each as likely; None where they are drawn from who knows what."""
    description: str

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.values)

    @property
    def length(self) -> int:
        """Positions of one."""
        return int(self.values.shape[1])


def chosen_sequences(options: SequenceOptions, seed: int) -> Sequences | None:
    """Return the sequences that were asked for; None where no source was named.

    Args:
        options: The source.
        seed: Of what is drawn from it.

    Raises:
        UsageError: The source does not make sense.
        InvalidInputError: A file is missing or has another form.
    """
    n = options.samples
    if options.sequences is not None:
        return read_sequences(options.sequences, n=n, seed=seed)
    if options.text is not None:
        return text_sequences(options.text, length=options.length, unit=options.tokens, n=n, seed=seed)
    if options.entities is None:
        return None
    ids = range(options.first_id + 1, options.first_id + 1 + options.entities)
    there = perm(options.entities, min(options.shots, options.entities))
    return entity_sequences(ids, options.first_id, shots=options.shots, n=min(n, there), seed=seed)


def entity_sequences(
    entities: Sequence[int], separator: int, *, shots: int, n: int | None = None, seed: int = 0
) -> Sequences:
    """Return in-context lists: `shots` distinct entities, a separator after each, in every order.

    This is the data of arXiv 2405.12617, section 4: 25 entities and 4 shots give 303 600 sequences of 8
    tokens, 16 and 5 shots 524 160 of 10, 15 and 5 shots 360 360.

    Args:
        entities: Ids of the entities, distinct.
        separator: Id that follows each.
        shots: Entities in a sequence.
        n: How many to draw, without repeats; all by default.
        seed: Of the draw.

    Raises:
        UsageError: Fewer entities than shots, repeated ids, or more sequences than can be listed.

    Example:
        >>> found = entity_sequences([1, 2, 3], 0, shots=2)
        >>> found.population, found.values[0].tolist()
        (6, [1, 0, 2, 0])
    """
    if len(set(entities)) != len(entities) or separator in entities:
        raise UsageError("entities: expected distinct ids, none of them the separator")
    if not 1 <= shots <= len(entities):
        raise UsageError(f"{shots} shots of {len(entities)} entities: expected 1 to {len(entities)}")
    population = perm(len(entities), shots)
    if population > LARGEST_LIST:
        raise UsageError(
            f"{len(entities)} entities in {shots} shots are {population} sequences; expected at most "
            f"{LARGEST_LIST}: use fewer entities or shots"
        )
    n = population if n is None else n
    if not 1 <= n <= population:
        raise UsageError(f"{n} sequences asked for; expected 1 to {population}, which is all there are")
    if n == population:
        ranks = np.arange(population)
    else:
        ranks = np.sort(np.random.default_rng(seed).choice(population, n, replace=False))
    chosen = np.asarray(entities, np.int64)[_permutations(ranks, len(entities), shots)]
    values = np.full((n, 2 * shots), separator, np.int64)
    values[:, ::2] = chosen
    told = f"{n} of {population} lists of {shots} out of {len(entities)} entities"
    return Sequences(values, population, told)


def _permutations(ranks: NDArray[np.int64], size: int, length: int) -> NDArray[np.int64]:
    """(n, length) the permutations of these ranks in lexicographic order."""
    left = np.tile(np.arange(size), (len(ranks), 1))
    found = np.empty((len(ranks), length), np.int64)
    rest = ranks
    for place in range(length):
        step = perm(size - place - 1, length - place - 1)
        digit, rest = rest // step, rest % step
        found[:, place] = np.take_along_axis(left, digit[:, None], 1)[:, 0]
        keep = np.arange(left.shape[1]) != digit[:, None]
        left = left[keep].reshape(len(ranks), -1)
    return found


def text_sequences(
    path: str | Path, *, length: int, unit: TextUnit = TextUnit.BYTES, n: int = 2000, seed: int = 0
) -> Sequences:
    """Return windows of a text file, at random places.

    Args:
        path: A text in UTF-8.
        length: Tokens of a window.
        unit: What a token is; see `TextUnit`.
        n: Windows, at most.
        seed: Of the places.

    Raises:
        InvalidInputError: The file is missing, no UTF-8, or shorter than a window.
    """
    path = Path(path)
    try:
        text = read_file(path, limit=MAX_FILE_BYTES, stream=True).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path.name}: not a text in UTF-8 (byte {error.start})") from error
    ids = text_ids(text, unit)
    places = len(ids) - length + 1
    if length < 1 or places < 1:
        raise InvalidInputError(f"{path.name}: {len(ids)} {unit}; expected at least the length of {length}")
    starts = np.random.default_rng(seed).choice(places, min(n, places), replace=False)
    values = ids[np.sort(starts)[:, None] + np.arange(length)]
    return Sequences(values, None, f"{len(values)} windows of {length} {unit} of {path.name}")


def text_ids(text: str, unit: TextUnit) -> NDArray[np.int64]:
    """Return a text as ids; see `TextUnit`."""
    if unit == TextUnit.BYTES:
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64)
    tokens = np.array(text.split() if unit == TextUnit.WORDS else list(text))
    if tokens.size == 0:
        return np.zeros(0, np.int64)
    _, inverse, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    ranks = np.empty(len(counts), np.int64)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return np.asarray(ranks[inverse])


def read_sequences(path: str | Path, *, n: int | None = None, seed: int = 0) -> Sequences:
    """Read sequences from a file: .npz or .npy with one array, or lines of ids.

    Args:
        path: An array (sequences, length) of ids or (sequences, length, features) of numbers; or a text with
            one sequence a line, the ids separated by spaces or commas.
        n: Most sequences, drawn without repeats; all by default.
        seed: Of the draw.

    Raises:
        InvalidInputError: Missing, of another form, or lines of different length.
    """
    path = Path(path)
    values = _array(path) if path.suffix.lower() in {".npz", ".npy"} else _lines(path)
    if values.ndim not in {2, 3} or min(values.shape) < 1:
        raise InvalidInputError(
            f"{path.name}: an array of shape {list(values.shape)}; expected (sequences, length) or "
            "(sequences, length, features)"
        )
    if values.ndim == 2 and values.dtype.kind not in "iu":
        raise InvalidInputError(f"{path.name}: ids of type {values.dtype}; expected whole numbers")
    if n is not None and n < len(values):
        values = values[np.sort(np.random.default_rng(seed).choice(len(values), n, replace=False))]
    return Sequences(values, None, f"{len(values)} sequences of {path.name}")


def _array(path: Path) -> NDArray[np.generic]:
    if path.suffix.lower() == ".npz":
        arrays = read_input_file(path).arrays
        if len(arrays) != 1:
            raise InvalidInputError(f"{path.name}: {len(arrays)} arrays; expected one, the sequences")
        return next(iter(arrays.values()))
    return read_npy(read_file(path, limit=MAX_FILE_BYTES), path.name)


def _lines(path: Path) -> NDArray[np.generic]:
    try:
        lines = read_file(path, limit=MAX_FILE_BYTES, stream=True).decode("utf-8").splitlines()
        rows = [[int(word) for word in line.replace(",", " ").split()] for line in lines if line.strip()]
    except ValueError as error:
        raise InvalidInputError(
            f"{path.name}: expected one sequence of ids a line, such as 5 0 7 0; for running text use --text"
        ) from error
    if len({len(row) for row in rows}) != 1:
        raise InvalidInputError(
            f"{path.name}: expected at least one line, and the same number of ids on each"
        )
    return np.array(rows, np.int64)
