"""What to record: layers of a stored graph, and the tensors that hold their units' activations."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from emergraph.errors import InvalidInputError
from emergraph.exporters.runtime.concrete import ConcreteRun
from emergraph.exporters.runtime.quoting import quoted
from emergraph.graphstore.records import NEURON_LAYER_KINDS


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
    neurons: bool = True
    """Whether the units are neurons; structural units have no activity of their own, unless imported."""


def targets_of(layers: pl.DataFrame) -> list[Target]:
    """The layers of a graph as targets, in order.

    Args:
        layers: The frame of `GraphReader.layers`.
    """
    columns = ("id", "name", "kind", "first_unit", "n_units", "activation_tensor", "activation_axes")
    return [
        Target(
            layer=int(layer),
            name=str(name),
            first_unit=int(first),
            n_units=int(count),
            tensor=tensor if axes is not None else None,
            axes=tuple(int(axis) for axis in axes or ()),
            neurons=kind in NEURON_LAYER_KINDS,
        )
        for layer, name, kind, first, count, tensor, axes in layers.select(columns).iter_rows()
    ]


def by_tensor(targets: Iterable[Target]) -> dict[str, list[Target]]:
    """The targets of each tensor that holds activations; those without one are left out."""
    found: dict[str, list[Target]] = {}
    for target in targets:
        if target.tensor is not None:
            found.setdefault(target.tensor, []).append(target)
    return found


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
            f"layer {quoted(target.name)} has {target.n_units} units, but its tensor "
            f"{quoted(target.tensor or '')} has shape {list(shape)}, {count} positions along axes "
            f"{list(target.axes)}; {hint}"
        )


def recordable(targets: Sequence[Target], run: ConcreteRun) -> tuple[list[Target], dict[str, str]]:
    """Layers of neurons whose tensor a run gives, and by name why the others are left out.

    Raises:
        InvalidInputError: There are none, or a tensor has another number of units than its layer.
    """
    found: list[Target] = []
    left_out: dict[str, str] = {}
    for target in targets:
        value = run.values.get(target.tensor) if target.tensor is not None else None
        if not target.neurons:
            continue
        if target.tensor is None:
            left_out[target.name] = "no tensor of the model holds them"
        elif value is None or value.shape is None:
            left_out[target.name] = (
                f"tensor {quoted(target.tensor)} is not computed at the top level of the model"
            )
        elif value.kind != "tensor" or value.dtype is None:
            left_out[target.name] = f"tensor {quoted(target.tensor)} cannot be computed here"
        else:
            hint = "give samples of the size that the graph was exported with"
            check_units(target, value.shape, hint=hint)
            found.append(target)
    if not found:
        raise InvalidInputError("no layer of the graph has a tensor that holds its activations")
    return found, left_out
