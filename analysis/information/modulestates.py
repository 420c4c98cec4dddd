"""Hidden states of a PyTorch module, taken by forward hooks on its blocks."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from emergraph.analysis.information.options import Micro
from emergraph.analysis.information.sequences import Sequences
from emergraph.analysis.information.states import Array, BlockStates, Progress, collect_states
from emergraph.choices import unknown
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.pytorch.tensors import array_of, evaluating, require_torch
from emergraph.graphstore.text import first_line

if TYPE_CHECKING:
    import torch


def module_states(
    module: "torch.nn.Module",
    sequences: Sequences,
    *,
    blocks: Sequence[str] | None = None,
    micro: Micro = Micro.ALONE,
    batch: int = 64,
    progress: Progress | None = None,
) -> BlockStates:
    """Run a module over sequences and keep what goes into its first block and comes out of each.

    Args:
        module: Takes ids (n, length), or numbers (n, length, features), as its only argument. It runs in
            evaluation mode without gradients and is left as it was.
        sequences: What to run.
        blocks: Names of submodules, in order; by default the longest list of submodules of one class.
        micro: Which micro states to keep.
        batch: Most sequences per run.
        progress: Called with (sequences run, sequences in all).

    Raises:
        InvalidInputError: No blocks are found, they do not run one after the other, or the module fails.
        UsageError: There is no submodule of a name.
    """
    torch = require_torch()
    names = list(blocks) if blocks else _longest_list(module)
    parts = dict(module.named_modules())
    for name in names:
        if name not in parts:
            raise UsageError(unknown("submodule", name, parts))
    caught: dict[int, Array] = {}

    def before(_part: Any, args: Any, kwargs: Any) -> None:  # noqa: ANN401 - as torch calls it
        caught[0] = _state(args[0] if args else next(iter(kwargs.values())))

    def after(place: int) -> Any:  # noqa: ANN401
        def take(_part: Any, _args: Any, output: Any) -> None:  # noqa: ANN401
            caught[place] = _state(output)

        return take

    def run(values: Array) -> list[Array]:
        caught.clear()
        dtype = torch.long if values.ndim == 2 else torch.float32
        try:
            module(torch.as_tensor(np.ascontiguousarray(values), dtype=dtype))
        except Exception as error:
            raise InvalidInputError(
                f"the module does not run on the sequences: {first_line(error)}"
            ) from error
        if len(caught) != len(names) + 1:
            raise InvalidInputError("some of the blocks did not run: name those that do, in their order")
        return [caught[place] for place in range(len(names) + 1)]

    with ExitStack() as stack:
        handles = [parts[names[0]].register_forward_pre_hook(before, with_kwargs=True)]
        handles += [parts[name].register_forward_hook(after(i + 1)) for i, name in enumerate(names)]
        for handle in handles:
            stack.callback(handle.remove)
        stack.enter_context(evaluating(module))
        stack.enter_context(torch.no_grad())
        return collect_states(run, sequences, names, micro, batch=batch, progress=progress)


def _longest_list(module: "torch.nn.Module") -> list[str]:
    torch = require_torch()
    lists = [
        [f"{name}.{key}".lstrip(".") for key, _ in part.named_children()]
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.ModuleList | torch.nn.Sequential)
        and len({type(child) for child in part.children()}) == 1
    ]
    if not lists:
        raise InvalidInputError(
            f"{type(module).__name__} has no list of submodules of one class; name its blocks"
        )
    return max(lists, key=len)


def _state(value: Any) -> Array:  # noqa: ANN401
    """A hidden state (n, length, width) out of what a block takes or gives."""
    tensor = value[0] if isinstance(value, tuple | list) else value
    if not hasattr(tensor, "ndim") or tensor.ndim != 3:
        raise InvalidInputError(
            "a block's state is not a tensor (samples, positions, width); name other blocks"
        )
    return np.asarray(array_of(tensor.float()))
