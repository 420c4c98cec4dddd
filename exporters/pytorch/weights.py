"""Weights out of any supported file into a module, without torch.load."""

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import numpy as np

from emergraph.errors import InvalidInputError
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.pytorch.tensors import require_torch
from emergraph.exporters.weightfiles.weightfile import WeightFile
from emergraph.exporters.weightfiles.wiring_parameters import parameters
from emergraph.graphstore.text import first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

_SHOWN = 3


def decoded_tensors(weights: WeightFile) -> "dict[str, torch.Tensor]":
    """The tensors of a weight file, with weights in the place of what they are computed from.

    Raises:
        InvalidInputError: An element type that torch does not have, or weights whose encoding is not defined.
    """
    torch = require_torch()
    made = [parameter for parameter in parameters(weights).values() if parameter.encoding is not None]
    for parameter in made:
        if parameter.problem:
            name = f"{printable(weights.source)}: {printable(parameter.name)}"
            raise InvalidInputError(f"{name} is not understood: {parameter.problem}")
    taken = {part.tensor.name for parameter in made for part in parameter.parts}
    taken.update(parameter.tensor.name for parameter in made)
    found = torch_tensors(weights, without=taken)
    for parameter in made:
        found[parameter.name] = torch.from_numpy(np.array(parameter.floats()))
    return found


def torch_tensors(
    weights: WeightFile, *, without: AbstractSet[str] = frozenset()
) -> "dict[str, torch.Tensor]":
    """The tensors of a weight file; names of one storage share one tensor.

    Raises:
        InvalidInputError: An element type that torch does not have.
    """
    torch = require_torch()
    found: dict[str, Any] = {}
    for name, tensor in weights.tensors.items():
        if name in without:
            continue
        if tensor.alias_of in found:
            found[name] = found[tensor.alias_of]
            continue
        values = np.ascontiguousarray(tensor.array())
        dtype = getattr(torch, tensor.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise InvalidInputError(f"{printable(name)}: torch has no tensors of {tensor.dtype}")
        raw = torch.from_numpy(values.reshape(-1).view(np.uint8).copy())
        found[name] = raw.view(dtype).reshape(tensor.shape)
    return found


def load_weights(module: "torch.nn.Module", weights: WeightFile, *, unused: bool = False) -> tuple[str, ...]:
    """Put the weights of a file into a module.

    A first part that all names of the file share ("module.", "model.") and that the module lacks is left out;
    one that all names of the module share and the file lacks is added.

    Args:
        module: Gets the weights.
        weights: What `read_weights` gave.
        unused: Let the file hold tensors that the module does not have.

    Returns:
        Names of the file's tensors that the module does not have.

    Raises:
        InvalidInputError: The module has parameters that the file lacks, or shapes differ.
    """
    expected = module.state_dict()
    given = _renamed(torch_tensors(weights), expected)
    if given.keys() != expected.keys() or _integers_for_floats(given, expected):
        given = _renamed(decoded_tensors(weights), expected)
    if names := _integers_for_floats(given, expected):
        raise InvalidInputError(
            f"{printable(weights.source)}: {printable(names[0])} holds integers without a scale; "
            "expected floats"
        )
    for name in expected.keys() & given.keys():
        ours, theirs = list(expected[name].shape), list(given[name].shape)
        if ours != theirs:
            raise InvalidInputError(
                f"{printable(weights.source)}: {printable(name)} has shape {theirs}, expected {ours}"
            )
    try:
        missing, extra = module.load_state_dict(given, strict=False)
    except RuntimeError as error:
        raise InvalidInputError(
            f"{printable(weights.source)} does not fit the module: {first_line(error)}"
        ) from error
    missing = [name for name in missing if not _is_tied(name, expected, given)]
    if missing or (extra and not unused):
        raise InvalidInputError(
            f"{printable(weights.source)} does not fit the module: {_listed('lacks', missing)}"
            f"{' and ' if missing and extra else ''}{_listed('also holds', extra)}"
        )
    return tuple(extra)


def _integers_for_floats(
    given: "Mapping[str, torch.Tensor]", expected: "Mapping[str, torch.Tensor]"
) -> list[str]:
    """Weights that a library has packed, under the module's own names."""
    return [
        name
        for name in sorted(expected.keys() & given.keys())
        if expected[name].is_floating_point() and not given[name].is_floating_point()
    ]


def _renamed(
    tensors: "Mapping[str, torch.Tensor]", expected: "Mapping[str, torch.Tensor]"
) -> "dict[str, torch.Tensor]":
    if not expected.keys() & tensors.keys():
        firsts = {name.partition(".")[0] for name in tensors}
        if len(firsts) == 1:
            return {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
        firsts = {name.partition(".")[0] for name in expected}
        if len(firsts) == 1:
            prefix = firsts.pop()
            return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
    return dict(tensors)


def _is_tied(name: str, expected: "Mapping[str, torch.Tensor]", given: "Mapping[str, torch.Tensor]") -> bool:
    """Whether another name of the same storage was given: a tied head that the file leaves out."""
    place = expected[name].data_ptr()
    return any(other in given and expected[other].data_ptr() == place for other in expected)


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(printable(name) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"it {what} {shown}{more}"
