"""Finding the weights in what a checkpoint unpickles to: nested dicts, Lightning checkpoints, modules."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.weightfiles.limits import WeightLimits
from emergraph.exporters.weightfiles.numpyobjects import (
    Function,
    Named,
    NoData,
    NumpyArray,
    Opaque,
    SparseRef,
    StorageRef,
    TensorRef,
)
from emergraph.exporters.weightfiles.registry import refusal

Leaf = TensorRef | SparseRef | NoData | NumpyArray
Path = tuple[str, ...]

MAX_DEPTH = 64
MAX_METADATA = 1_000
MAX_TEXT = 1_000
_LEAVES = (TensorRef, SparseRef, NoData, NumpyArray)
_NOT_WEIGHTS = re.compile(
    r"(.*_)?(optimizers?|optim|(lr_?)?schedulers?)(_states?|_state_dicts?)?|.*rng_states?|random_state"
)
_WRAPPERS = re.compile(
    r"(model_?|net_?|ema_?|best_?)?(state_?dict|state|weights|params|model|module|net|network)(_ema)?"
)


@dataclass
class Collected:
    """What a walk through a checkpoint found."""

    leaves: dict[Path, Leaf] = field(default_factory=dict)
    """Tensors by the keys that lead to them, in file order."""
    left_out: dict[Path, list[Leaf]] = field(default_factory=dict)
    """Tensors of optimizer states and the like, by the keys that lead to the state."""
    metadata: dict[str, object] = field(default_factory=dict)
    opaque: dict[str, list[Path]] = field(default_factory=dict)
    """Where objects of classes from elsewhere stand, by class."""
    inside: bool = False
    """Whether weights stand inside such objects."""


@dataclass(frozen=True, slots=True)
class _Leave:
    """Marks the end of a container on the stack, so that a child referring back to it is not walked again."""

    container: int


def collect(root: object, limits: WeightLimits, visits: int) -> Collected:
    """Walk through an unpickled object and sort what it holds.

    Optimizer states (a dict with `state` and `param_groups`, or a key that says so) and random-number states
    are set apart. Of objects of classes from elsewhere the tensors in their state are taken: parameters,
    buffers and submodules of a module under the names that its state dict would have.

    Args:
        root: What `unpickle` gave.
        limits: Caps on tensors.
        visits: Objects to look at; as many as the pickle makes, and some more where it shares them.

    Raises:
        UnsafeInputError: the object is nested or shared so much that the walk would not end (PICKLE-BOMB).
        LimitError: more tensors than the limit (WEIGHTS-LIMIT).
    """
    found = Collected()
    stack: list[tuple[Path, object, Path | None, bool]] = [((), root, None, False)]
    open_containers: set[int] = set()
    while stack:
        path, value, state, inside = stack.pop()
        if isinstance(value, _Leave):
            open_containers.discard(value.container)
            continue
        visits -= 1
        if visits < 0 or len(path) > MAX_DEPTH:
            raise refusal("PICKLE-BOMB", "the pickle nests or shares objects without end")
        if isinstance(value, _LEAVES):
            _keep(found, path, value, state)
            found.inside = found.inside or (inside and path in found.leaves)
            if len(found.leaves) > limits.tensors:
                raise refusal("WEIGHTS-LIMIT", f"the file has more than {limits.tensors} tensors")
        elif not isinstance(value, (dict, list, tuple, Opaque)):
            _note(found, path, value)
        elif id(value) not in open_containers:
            if isinstance(value, Opaque):
                found.opaque.setdefault(type(value).type_name, []).append(path)
                inside = True
            if state is None and _is_state(path, value):
                state = path
            open_containers.add(id(value))
            stack.append(((), _Leave(id(value)), None, False))
            children = reversed(list(_children(value)))
            stack.extend(((*path, *key), child, state, inside) for key, child in children)
    return found


def strip_wrappers(leaves: dict[Path, Leaf]) -> tuple[Path, dict[Path, Leaf]]:
    """Take off the keys that wrap all weights (`state_dict`, `model`, ...); return them and the rest."""
    taken: Path = ()
    while leaves:
        first = {path[0] for path in leaves if len(path) > 1}
        if len(first) != 1 or any(len(path) < 2 for path in leaves):
            break
        (key,) = first
        if not _WRAPPERS.fullmatch(key):
            break
        taken = (*taken, key)
        leaves = {path[1:]: leaf for path, leaf in leaves.items()}
    return taken, leaves


def _is_state(path: Path, value: object) -> bool:
    named = 0 < len(path) <= 2 and _NOT_WEIGHTS.fullmatch(path[-1]) is not None
    return named or (isinstance(value, dict) and "param_groups" in value and "state" in value)


def _keep(found: Collected, path: Path, leaf: Leaf, state: Path | None) -> None:
    if state is None and path and _NOT_WEIGHTS.fullmatch(path[-1]):
        state = path
    if state is None:
        found.leaves[path] = leaf
    else:
        found.left_out.setdefault(state, []).append(leaf)


def _children(value: object) -> Iterator[tuple[Path, object]]:
    """Yield what a container holds, with the keys that lead there."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield (_key(key),), child
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield (str(index),), child
    elif isinstance(value, Opaque):
        yield from _module_children(value.state) if _is_module(value.state) else _opaque_children(value)


def _opaque_children(value: Opaque) -> Iterator[tuple[Path, object]]:
    for part in (value.state, value.arguments, value.elements):
        if isinstance(part, (dict, list, tuple)):
            yield from _children(part)
        elif isinstance(part, (*_LEAVES, Opaque)):
            yield ("state",), part
    for key, child in value.items:
        yield (_key(key),), child


def _is_module(state: object) -> bool:
    return (
        isinstance(state, dict)
        and isinstance(state.get("_parameters"), dict)
        and isinstance(state.get("_modules"), dict)
    )


def _module_children(state: object) -> Iterator[tuple[Path, object]]:
    if not isinstance(state, dict):
        return
    hidden = state.get("_non_persistent_buffers_set")
    hidden = hidden if isinstance(hidden, (set, list)) else ()
    for name in ("_parameters", "_buffers", "_modules"):
        group = state.get(name)
        for key, child in group.items() if isinstance(group, dict) else ():
            if child is not None and not (name == "_buffers" and key in hidden):
                yield (_key(key),), child


def _key(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, (int, float)) or key is None:
        return str(key)
    return type(key).__name__


def _note(found: Collected, path: Path, value: object) -> None:
    """Keep a plain value as metadata, within bounds."""
    if isinstance(value, (StorageRef, Function)) or len(found.metadata) >= MAX_METADATA or not path:
        return
    if isinstance(value, Named):
        value = value.name
    if isinstance(value, str):
        value = value[:MAX_TEXT]
    if isinstance(value, int) and value.bit_length() > 256:
        return
    if value is None or isinstance(value, (str, int, float, bool)):
        found.metadata[printable(".".join(path), 200)] = value
