"""Layers that the inputs of a module enter: along a line of weights their outputs lie on a line too.

A dense layer or a convolution is linear in its parameters: with weights w + s d and an input x that does not
depend on weights, its output is f(x; w) + s f(x; d). Two passes through such a layer therefore serve for all
steps of a line, and a step costs one addition. In a small net the first layer is a third of the work.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LINEAR = ("Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
"""torch's layers that are linear in their parameters, bias included; subclasses may compute anything."""
LARGEST = 4_000_000
"""Outputs of a layer, in numbers, up to which two copies are kept; beyond it reading them costs the gain."""
SHORTEST = 4
"""Steps from which two extra passes through the first layers pay."""

Output = Any


def run_and_watch(
    module: "torch.nn.Module", inputs: "Sequence[torch.Tensor]"
) -> tuple[Output, tuple[str, ...]]:
    """Run a module and note which linear layers the inputs enter as they are, or as views.

    Returns:
        The module's output and the names of the layers.
    """
    import torch

    own = _storages(inputs)
    found: dict[str, None] = {}
    with ExitStack() as hooks:
        for name, layer in module.named_modules():
            if _is_linear(layer):

                def note(_: "torch.nn.Module", arguments: tuple[object, ...], name: str = name) -> None:
                    x = arguments[0] if len(arguments) == 1 else None
                    if isinstance(x, torch.Tensor) and _storage(x) in own:
                        found[name] = None

                hooks.callback(layer.register_forward_pre_hook(note).remove)
        return module(*inputs), tuple(found)


@contextmanager
def on_a_line(
    module: "torch.nn.Module",
    names: Sequence[str],
    inputs: "Sequence[torch.Tensor]",
    ends: "Callable[[str], tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]]",
) -> Iterator[Callable[[float], None]]:
    """While inside, let the named layers add instead of multiply.

    Args:
        module: Its weights are to be set to start + s line by the caller.
        names: From `run_and_watch`.
        inputs: The tensors that the module will be called with.
        ends: Parameters of a layer, by their names in it, at the start and of the line.

    Yields:
        A function to call with every new step s.
    """
    layers = [_LayerOnALine(module.get_submodule(name), _storages(inputs), *ends(name)) for name in names]

    def move(step: float) -> None:
        for layer in layers:
            layer.step = step

    with ExitStack() as patches:
        for layer in layers:
            patches.enter_context(layer)
        yield move


class _LayerOnALine:
    """Stands in for the `forward` of one layer while its weights move along a line."""

    def __init__(
        self,
        layer: "torch.nn.Module",
        storages: frozenset[int],
        start: "Mapping[str, torch.Tensor]",
        line: "Mapping[str, torch.Tensor]",
    ) -> None:
        self.step = 0.0
        self._layer = layer
        self._ordinary: Callable[..., torch.Tensor] = layer.forward
        self._twin = copy.deepcopy(layer)
        self._storages = storages
        self._ends = (start, line)
        self._kept: dict[object, tuple[torch.Tensor, ...]] = {}

    def __enter__(self) -> None:
        vars(self._layer)["forward"] = self

    def __exit__(self, *_: object) -> None:
        del vars(self._layer)["forward"]

    def __call__(self, x: "torch.Tensor") -> "torch.Tensor":
        import torch

        if _storage(x) not in self._storages:
            return self._ordinary(x)
        view = (x.data_ptr(), x.shape, x.stride())
        if view not in self._kept:
            self._kept[view] = self._passes(x)
        kept = self._kept[view]
        return torch.add(kept[0], kept[1], alpha=self.step) if kept else self._ordinary(x)

    def _passes(self, x: "torch.Tensor") -> "tuple[torch.Tensor, ...]":
        """Outputs at the start and of the direction; nothing where they are too large to keep."""
        import torch

        start, line = self._ends
        first = torch.func.functional_call(self._twin, dict(start), (x,))
        if first.numel() > LARGEST:
            return ()
        return first, torch.func.functional_call(self._twin, dict(line), (x,))


def _is_linear(layer: "torch.nn.Module") -> bool:
    """A plain layer of torch without hooks or replaced methods, which could change what it computes."""
    kind = type(layer)
    return (
        kind.__name__ in LINEAR
        and kind.__module__.startswith("torch.nn.modules.")
        and "forward" not in vars(layer)
        and not (layer._forward_hooks or layer._forward_pre_hooks)  # noqa: SLF001 - no public way to ask
    )


def _storages(tensors: "Sequence[torch.Tensor]") -> frozenset[int]:
    return frozenset(_storage(x) for x in tensors)


def _storage(x: "torch.Tensor") -> int:
    return int(x.untyped_storage().data_ptr())
