"""Joining the modules of a weight file into a chain, where order and shapes leave no choice.

A weight file does not say how its layers are connected. A plain chain can be told from the order of the file
and the sizes of its layers; anything else (branches, residual streams, attention) cannot, and is refused
rather than guessed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from emergraph.errors import EmergraphError, InvalidInputError
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.wiring_blocks import input_size
from emergraph.exporters.weightfiles.wiring_modules import Module, ModuleKind

_BRANCH = re.compile(
    r"(.*[._])?(query|key|value|[qkv]_?proj|to_[qkv]|attn|attention|self_attn|in_proj|qkv|downsample|shortcut|skip|"
    r"residual|gate_proj|up_proj|experts?)([._].*)?",
    re.IGNORECASE,
)
_CONTRACTING = frozenset(
    {ModuleKind.DENSE, ModuleKind.CONV, ModuleKind.EMBEDDING, ModuleKind.LSTM, ModuleKind.GRU, ModuleKind.RNN}
)
_MAX_SEARCHED = 12


@dataclass(frozen=True, kw_only=True)
class Join:
    """How one module of the chain reads the one before it."""

    source: str | None
    """The module before; None for the first one."""
    target: str
    reason: str
    groups: int = 1
    """Groups of channels of a convolution."""
    repeat: int = 1
    """Positions of each channel, where a convolution is flattened into a dense layer."""

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {"source": self.source, "target": self.target, "reason": self.reason}


def chain(
    modules: Sequence[Module], source: str, *, sorted_by_name: bool = False
) -> list[tuple[Module, Join]]:
    """Return the modules in the order of the chain, each with its join to what comes before.

    Args:
        modules: All modules of the file, in file order.
        source: Name of the file, for messages.
        sorted_by_name: Whether writers of the file's format sort the tensors, so that their order may say
            nothing.

    Raises:
        InvalidInputError: the shapes do not fit, or more than one wiring does.
    """
    usable = [module for module in modules if module.kind is not ModuleKind.OTHER]
    _refuse_branches(usable, source)
    ordered, how = _order(usable, source) if sorted_by_name else (usable, "")
    result: list[tuple[Module, Join]] = []
    previous: Module | None = None
    for module in ordered:
        join = _join(previous, module)
        if join is None:
            raise _unfit(previous, module, source)
        if how and module.kind in _CONTRACTING and previous is not None:
            join = replace(join, reason=f"{join.reason}; {how}")
        result.append((module, join))
        if module.kind in _CONTRACTING:
            previous = module
    return result


def output_size(module: Module) -> int:
    """Return how many units a module gives."""
    if module.kind in {ModuleKind.LSTM, ModuleKind.GRU, ModuleKind.RNN}:
        return module.parts["weight_hh"].shape[1]
    shape = module.weight.shape
    if module.kind is ModuleKind.CONV:
        return shape[-1] if module.inputs_first else shape[1] if module.transposed else shape[0]
    return shape[1] if module.inputs_first or module.kind is ModuleKind.EMBEDDING else shape[0]


def _join(previous: Module | None, module: Module) -> Join | None:
    """How a module can read the one before it; None where the sizes do not fit."""
    found: tuple[str, int, int] | None
    if module.kind is ModuleKind.NORM:
        size = next(iter(module.parts.values())).n_elements
        fits = previous is not None and output_size(previous) == size
        found = (f"one factor for each of its {size} outputs", 1, 1) if fits else None
    elif previous is None:
        found = f"the first layer; its {input_size(module)} inputs are the graph's", 1, 1
    else:
        found = _link(previous, module)
    if found is None:
        return None
    source = None if previous is None else previous.name
    return Join(source=source, target=module.name, reason=found[0], groups=found[1], repeat=found[2])


def _link(previous: Module, module: Module) -> tuple[str, int, int] | None:
    """Reason, groups and positions of a join between two layers; None where the sizes do not fit.

    A convolution whose weight has fewer inputs than there are channels is taken as grouped only where its
    outputs are a multiple of the channels, as in depthwise and ResNeXt layers: a layer behind something that
    the file does not show, such as the magnitude of a complex spectrum, would fit otherwise.
    """
    given, needed = output_size(previous), input_size(module)
    if module.kind is ModuleKind.EMBEDDING:
        return None
    if needed == given:
        if module.depthwise:
            return f"{given} channels, each with kernels of its own", given, 1
        return f"{given} outputs, {needed} inputs", 1, 1
    plain = not module.transposed and not module.inputs_first and not module.depthwise
    if module.kind is ModuleKind.CONV and plain and given % needed == 0 and output_size(module) % given == 0:
        return f"{given} channels = {given // needed} groups of {needed}", given // needed, 1
    if module.kind is ModuleKind.DENSE and previous.kind is ModuleKind.CONV and needed % given == 0:
        positions = needed // given
        reason = f"{needed} inputs = {given} channels x {positions} positions, channels first (torch.flatten)"
        return reason, 1, positions
    return None


def _refuse_branches(modules: Sequence[Module], source: str) -> None:
    tables = [module.name for module in modules if module.kind is ModuleKind.EMBEDDING]
    if len(tables) > 1:
        raise _ambiguous(f"it has {len(tables)} embedding tables, which do not form a chain", source)
    for module in modules:
        if module.packed > 1 or _BRANCH.fullmatch(module.name):
            raise _ambiguous(
                f"{printable(module.name)} is a branch by its name, not a link of a chain", source
            )
        tied = [part.name for part in module.parts.values() if part.tensor.alias_of]
        if tied:
            raise _ambiguous(f"{printable(tied[0])} is used twice (tied weights)", source)
        if module.name.endswith("_reverse"):
            raise _ambiguous(f"{printable(module.name)} is a second direction beside the first", source)


def _order(modules: list[Module], source: str) -> tuple[list[Module], str]:
    """Return the modules in the order of the chain, and what that rests on where it is not the file's."""
    links = [module for module in modules if module.kind in _CONTRACTING]
    names = [module.name for module in links]
    if names != sorted(names) or len(names) < 3:
        return modules, ""
    natural = sorted(modules, key=lambda module: _natural(module.name))
    if len({re.sub(r"\d+", "#", name) for name in names}) == 1:
        same = [module.name for module in natural] == [module.name for module in modules]
        return natural, "" if same else "by number, since the file is sorted by name"
    orders = _fitting_orders(links)
    if len(orders) == 1 and [module.name for module in orders[0]] == names:
        return modules, "the only order that fits"
    message = "the file is sorted by name, so its order says nothing, and the sizes allow more than one chain"
    raise _ambiguous(message, source)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _fitting_orders(links: list[Module]) -> list[list[Module]]:
    """All chains through all modules, at most two; none where there are too many modules to look."""
    if len(links) > _MAX_SEARCHED:
        return []
    found: list[list[Module]] = []

    def extend(path: list[Module], left: list[Module]) -> None:
        if not left:
            found.append(list(path))
        for index, module in enumerate(left):
            if len(found) > 1:
                return
            if _join(path[-1] if path else None, module) is not None:
                extend([*path, module], left[:index] + left[index + 1 :])

    extend([], links)
    return found


def _unfit(previous: Module | None, module: Module, source: str) -> EmergraphError:
    target = printable(module.name)
    if previous is None:
        found = f"{target} cannot be the first layer of a chain"
    else:
        given = f"{printable(previous.name)} gives {output_size(previous)}"
        needed = next(iter(module.parts.values())).n_elements
        needed = needed if module.kind is ModuleKind.NORM else input_size(module)
        found = f"{target} needs {needed} inputs, {given}"
    return _ambiguous(found, source)


def _ambiguous(why: str, source: str) -> EmergraphError:
    return InvalidInputError(
        f"{printable(source)}: the layers cannot be wired as a chain: {why}; "
        "leave them unwired, name the model's class, or export the model to ONNX"
    )
