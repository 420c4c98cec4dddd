"""What to record: layers of a stored graph, and the tensors that hold their units' activations."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from emergraph.errors import InvalidInputError
from emergraph.safetext import escape_controls, shorten


@dataclass(frozen=True, kw_only=True)
class Target:
    """A layer whose activations are recorded."""

    layer: int
    name: str
    first_unit: int
    n_units: int
    tensor: str | None
    """Tensor of the model that holds the activations; None where none does (imports may name the layer)."""
    axes: tuple[int, ...]
    """Axes of that tensor which, raveled in C order, give the index of the unit within the layer."""


def targets_of(layers: pl.DataFrame) -> list[Target]:
    """The layers of a graph as targets, in order.

    Args:
        layers: The frame of `GraphReader.layers`.
    """
    columns = ("id", "name", "first_unit", "n_units", "activation_tensor", "activation_axes")
    return [
        Target(
            layer=int(layer),
            name=str(name),
            first_unit=int(first),
            n_units=int(count),
            tensor=tensor if axes is not None else None,
            axes=tuple(int(axis) for axis in axes or ()),
        )
        for layer, name, first, count, tensor, axes in layers.select(columns).iter_rows()
    ]


def check_units(target: Target, shape: Sequence[int], *, hint: str) -> None:
    """Check that a tensor of this shape holds one position per unit of the target.

    Raises:
        InvalidInputError: It does not; the message says what was expected and found, and ends with `hint`.
    """
    sizes = [shape[axis] if -len(shape) <= axis < len(shape) else 0 for axis in target.axes]
    count = 1
    for size in sizes:
        count *= size
    if count != target.n_units:
        raise InvalidInputError(
            f"layer {shown(target.name)} has {target.n_units} units, but its tensor "
            f"{shown(target.tensor or '')} has shape {list(shape)}, {count} positions along axes "
            f"{list(target.axes)}; {hint}"
        )


def closest(wanted: str, known: Iterable[str]) -> str:
    """The known names that look most like a wanted one, for an error message."""
    names = list(dict.fromkeys(known))
    found = difflib.get_close_matches(wanted, names, n=3, cutoff=0.4) or names[:3]
    return ", ".join(shown(name) for name in found) or "none"


def shown(name: str) -> str:
    """A name from a file, quoted, on one line and not too long."""
    return f"'{shorten(escape_controls(name), 80)}'"
