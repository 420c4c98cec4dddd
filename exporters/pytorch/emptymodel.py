"""Modules of transformers whose parameters take no memory until something reads them.

Each large parameter lies in a file of its own that has a size and no content, mapped into memory: the system
gives zeros, and keeps none of them. So a module of any size can be built and traced on the CPU, its buffers
(rotary frequencies, scales of embeddings, masks) are computed like those of any module, and a parameter can
be filled by writing to it.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

from emergraph.exporters.pytorch.tensors import require_torch

_SMALL = 1 << 14
"""Elements up to which a parameter is kept in memory."""


def empty_model(make: Callable[[], Any]) -> Any:  # noqa: ANN401 - a module
    """Build a module whose large parameters hold nothing.

    Args:
        make: Builds it.

    Returns:
        The module in evaluation mode. Parameters are zero or what their class begins with, buffers as ever.
    """
    with _parameters_in_files():
        module = make()
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    return module.eval()


@contextmanager
def _parameters_in_files() -> Iterator[None]:
    torch = require_torch()
    from torch.nn.modules.module import register_module_parameter_registration_hook
    from torch.overrides import TorchFunctionMode
    from transformers.initialization import no_init_weights

    there: set[int] = set()

    def outside(shape: tuple[int, ...], dtype: Any) -> Any:  # noqa: ANN401
        tensor = _in_file(torch, shape, dtype)
        there.add(tensor.data_ptr())
        return tensor

    class Outside(TorchFunctionMode):  # type: ignore[misc, unused-ignore]
        """Let `torch.empty`, of which layers make their parameters, give a tensor in a file."""

        def __torch_function__(
            self,
            func: Any,  # noqa: ANN401
            types: Any,  # noqa: ANN401
            args: Any = (),  # noqa: ANN401
            kwargs: Any = None,  # noqa: ANN401
        ) -> Any:  # noqa: ANN401
            given = kwargs or {}
            if func is torch.empty:
                sizes = given.get("size", args)
                shape = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else tuple(sizes)
                if prod(shape) > _SMALL and str(given.get("device") or "cpu") == "cpu":
                    return outside(shape, given.get("dtype") or torch.get_default_dtype())
            return func(*args, **given)

    def move(_module: Any, _name: str, parameter: Any) -> Any:  # noqa: ANN401
        """Keep nothing of a parameter that was made in another way."""
        if parameter is None or parameter.numel() <= _SMALL or parameter.data_ptr() in there:
            return None
        return torch.nn.Parameter(outside(tuple(parameter.shape), parameter.dtype), parameter.requires_grad)

    hook = register_module_parameter_registration_hook(move)
    try:
        with Outside(), no_init_weights():
            yield
    finally:
        hook.remove()


def _in_file(torch: Any, shape: tuple[int, ...], dtype: Any) -> Any:  # noqa: ANN401
    count = prod(shape)
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(count * dtype.itemsize)
        # the mapping outlives the file's name
        return torch.from_file(file.name, shared=True, size=count, dtype=dtype).view(shape)
