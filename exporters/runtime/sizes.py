"""Small legal sizes for the dynamic axes of a model's inputs, in the order in which they are tried."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from emergraph.errors import InvalidInputError
from emergraph.exporters.runtime.flat_model import FlatInput
from emergraph.exporters.runtime.quoting import plain, quoted

Shape = tuple[int, ...]
Sizes = Mapping[str, int]

APART = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
"""Distinct sizes for the axes that are not batches, so that no two axes can be taken for each other."""

LADDER = (
    *(4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 384, 416, 480, 512, 576, 608, 640, 768),
    *(800, 1024, 1280, 1536, 2048, 4096, 8000, 16000, 32000, 48000),
)
"""Sizes for models that want more: powers of two, image sides, audio frames and seconds."""

RANKS = (2, 4, 3, 1, 0)
"""Ranks for inputs that do not even declare that."""

MAX_SUBSETS = 16

_BATCH_NAME = re.compile(r"batch|^bsz?$|^num_?samples$", re.IGNORECASE)
_LENGTH_NAME = re.compile(r"seq|len|time|step|frame|token|height|width|^h$|^w$|^t$|^l$|^s$", re.IGNORECASE)


@dataclass(frozen=True)
class Axes:
    """The axes of all inputs as fixed sizes and named unknowns."""

    shapes: Mapping[str, tuple[int | str, ...]]
    """By input: a size, or the key of an unknown."""
    batch: tuple[str, ...]
    """Unknowns that count samples."""
    other: tuple[str, ...]
    """The other unknowns, in order of appearance."""
    sums: Mapping[str, tuple[str, ...]]
    """Unknowns that are the sum of others, such as "past_sequence_length + sequence_length"."""

    def filled(self, sizes: Sizes) -> dict[str, Shape]:
        """The shape of every input once all unknowns have a size."""
        full = dict(sizes)
        for key, terms in self.sums.items():
            full.setdefault(key, sum(int(t) if t.isdigit() else full[t] for t in terms))
        return {
            name: tuple(axis if isinstance(axis, int) else full[axis] for axis in shape)
            for name, shape in self.shapes.items()
        }


def axes_of(inputs: Sequence[FlatInput], given: Mapping[str, Shape], default_rank: int) -> Axes:
    """Sort the axes of the inputs into fixed, batch and other.

    A name that repeats is one unknown. The first axis of an input counts samples unless its name says
    otherwise.

    Args:
        inputs: The inputs of the model.
        given: Shapes that the user decided; a named axis is then known everywhere.
        default_rank: Rank of inputs that declare none.

    Raises:
        InvalidInputError: A given shape has another rank than declared, or contradicts another given shape.
    """
    known = _known(inputs, given)
    shapes: dict[str, tuple[int | str, ...]] = {}
    batch: dict[str, None] = {}
    other: dict[str, None] = {}
    for value in inputs:
        if value.name in given:
            shapes[value.name] = given[value.name]
            continue
        declared = value.shape if value.shape is not None else (None,) * default_rank
        axes: list[int | str] = []
        for position, axis in enumerate(declared):
            if isinstance(axis, int):
                axes.append(axis)
                continue
            key = axis if axis is not None else f"{value.name}[{position}]"
            if key in known:
                axes.append(known[key])
                continue
            axes.append(key)
            counts = _BATCH_NAME.search(axis or "") or (position == 0 and not _LENGTH_NAME.search(axis or ""))
            (batch if counts else other)[key] = None
        shapes[value.name] = tuple(axes)
    sums = _sums((*batch, *other), known)
    return Axes(
        shapes,
        tuple(key for key in batch if key not in sums),
        tuple(key for key in other if key not in batch and key not in sums),
        sums,
    )


def _known(inputs: Sequence[FlatInput], given: Mapping[str, Shape]) -> dict[str, int]:
    known: dict[str, int] = {}
    for value in inputs:
        shape = given.get(value.name)
        if shape is None or value.shape is None:
            continue
        if len(shape) != len(value.shape):
            raise InvalidInputError(
                f"input {quoted(value.name)} was given shape {list(shape)} with {len(shape)} axes; "
                f"the model declares {len(value.shape)}: {declared_text(value)}"
            )
        for axis, size in zip(value.shape, shape, strict=True):
            if isinstance(axis, str) and known.setdefault(axis, size) != size:
                raise InvalidInputError(
                    f"axis {quoted(axis)} was given two sizes, {known[axis]} and {size} "
                    f"(input {quoted(value.name)}); expected one"
                )
    return known


def _sums(keys: Sequence[str], known: Sizes) -> dict[str, tuple[str, ...]]:
    """Names that say they are sums of other names or numbers."""
    found: dict[str, tuple[str, ...]] = {}
    for key in keys:
        terms = tuple(term.strip() for term in key.split("+"))
        if key == "total_sequence_length":
            terms = ("past_sequence_length", "sequence_length")
        resolved = tuple(str(known[term]) if term in known else term for term in terms)
        if len(terms) > 1 and all(term.isdigit() or (term in keys and term != key) for term in resolved):
            found[key] = resolved
    return found


def candidate_sizes(axes: Axes) -> Iterator[dict[str, int]]:
    """Sizes for all unknowns, in the order to try.

    First batches of 1 and distinct sizes from 2 on for the other axes; then 1 everywhere; then each size of
    the ladder for all other axes, or for some of them with 1 for the rest; at last batches of 2.
    """
    ones = dict.fromkeys(axes.batch, 1)
    count = len(axes.other)
    yield ones | dict(zip(axes.other, itertools.cycle(APART), strict=False))
    if count:
        yield ones | dict.fromkeys(axes.other, 1)
    subsets = _subsets(axes.other)
    for size in LADDER if count else ():
        for subset in subsets:
            yield ones | {key: size if key in subset else 1 for key in axes.other}
    if axes.batch:
        twos = dict.fromkeys(axes.batch, 2)
        yield twos | dict(zip(axes.other, itertools.cycle(APART[1:]), strict=False))


def _subsets(keys: Sequence[str]) -> list[frozenset[str]]:
    """Non-empty subsets, large ones first, at most `MAX_SUBSETS`."""
    subsets: list[frozenset[str]] = []
    for count in range(len(keys), 0, -1):
        for chosen in itertools.combinations(keys, count):
            if len(subsets) == MAX_SUBSETS:
                return subsets
            subsets.append(frozenset(chosen))
    return subsets


def open_shapes(
    inputs: Sequence[FlatInput], decided: Mapping[str, Shape], shapes: Mapping[str, Shape]
) -> dict[str, Shape]:
    """The shapes of inputs that could be of other sizes, because an axis besides the batch was left open.

    Args:
        inputs: The inputs of the model.
        decided: Shapes that the user decided.
        shapes: The shape that every input got.

    Raises:
        InvalidInputError: A decided shape does not fit the declared one.
    """
    axes = axes_of(inputs, decided, RANKS[0])
    unknown = {
        *axes.other,
        *(key for key, terms in axes.sums.items() if not set(axes.other).isdisjoint(terms)),
    }
    return {name: shapes[name] for name, shape in axes.shapes.items() if not unknown.isdisjoint(shape)}


def open_shapes_note(shapes: Mapping[str, Shape]) -> str:
    """What a user should know who gave no sizes.

    Example:
        >>> open_shapes_note({"x": (1, 3, 2, 2)})
        "input 'x' has free sizes and ran at [1, 3, 2, 2], perhaps far from real ones; --input-shape decides"
    """
    each = [f"input {quoted(name)} has free sizes and ran at {list(shape)}" for name, shape in shapes.items()]
    return f"{', '.join(each)}, perhaps far from real ones; --input-shape decides"


def declared_text(value: FlatInput) -> str:
    """The declared shape for messages, e.g. "[batch, 3, ?, ?]"."""
    if value.shape is None:
        return "no shape"
    return "[" + ", ".join("?" if axis is None else plain(str(axis)) for axis in value.shape) + "]"
