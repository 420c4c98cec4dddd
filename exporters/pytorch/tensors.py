"""torch itself, if it is installed, and what its tensors and modules are as arrays."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError, MissingExtraError
from emergraph.graphstore.text import first_line

if TYPE_CHECKING:
    import torch

Array = NDArray[np.generic]


def require_torch(what: str = "this") -> Any:  # noqa: ANN401 - the module itself
    """Import torch, or say how to get it.

    Args:
        what: What needs it, as the subject of the message.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise MissingExtraError(f'{what} needs PyTorch: pip install "emergraph[torch]"') from error


@contextmanager
def evaluating(module: Any) -> Iterator[None]:  # noqa: ANN401
    """Evaluation mode for a while; every submodule gets its own flag back, also after an error."""
    parts = list(module.modules()) if hasattr(module, "modules") and hasattr(module, "training") else []
    flags = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, flag in zip(parts, flags, strict=True):
            part.training = flag


def on_device_of(module: "torch.nn.Module", values: Any) -> Any:  # noqa: ANN401 - any nesting of tensors
    """All tensors in nested tuples, lists and dicts on the module's device; as they are if it has several."""
    devices = {parameter.device for parameter in module.parameters()}
    if len(devices) != 1:
        return values
    torch = require_torch()
    (device,) = devices
    return torch.utils._pytree.tree_map(  # noqa: SLF001 - the public alias is experimental
        lambda leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf, values
    )


def leaves(values: Any) -> list[Array]:  # noqa: ANN401 - any nesting of tensors
    """All tensors in nested tuples, lists and dicts, as arrays."""
    torch = require_torch()
    flat = torch.utils._pytree.tree_leaves(values)  # noqa: SLF001 - the public alias is experimental
    return [array_of(leaf) for leaf in flat if isinstance(leaf, torch.Tensor)]


def array_of(tensor: "torch.Tensor") -> Array:
    """A tensor as an array; bfloat16 as the type of ml_dtypes."""
    plain = tensor.detach().cpu()
    if str(plain.dtype) == "torch.bfloat16":
        import ml_dtypes

        return np.asarray(plain.float().numpy().astype(ml_dtypes.bfloat16))
    return np.asarray(plain.numpy())


def outputs_of(module: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Array]:  # noqa: ANN401
    """All output tensors of a module or program, without gradients.

    Raises:
        InvalidInputError: It does not run on these inputs.
    """
    torch = require_torch()
    runnable = module if isinstance(module, torch.nn.Module) else module.module()
    try:
        with torch.no_grad():
            return leaves(runnable(*args, **kwargs))
    except Exception as error:
        raise InvalidInputError(
            f"the module does not run on the example inputs: {first_line(error)}"
        ) from error
