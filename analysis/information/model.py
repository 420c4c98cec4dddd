"""Information emergence of whatever a user has: an ONNX file, a folder, a factory, recorded states."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.information.emergence import InformationResult, information_emergence
from emergraph.analysis.information.onnxstates import StateOptions, onnx_states
from emergraph.analysis.information.options import EstimatorOptions, Micro
from emergraph.analysis.information.sequences import Sequences
from emergraph.analysis.information.states import Array, BlockStates, Progress, collect_states, token_numbers
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.choices import unknown
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.pytorch.tensors import array_of, evaluating, require_torch
from emergraph.exporters.runtime.inputfile import read_input_file
from emergraph.exporters.runtime.offline import call_offline
from emergraph.exporters.sourcekinds import SourceKind, note_files, source_kind
from emergraph.graphstore.store import StoreFile, open_store
from emergraph.graphstore.text import first_line

if TYPE_CHECKING:
    import torch


# Hidden states that were recorded elsewhere.

_NAME = re.compile(r"(state|alone)_(\d+)")


def recorded_states(path: str | Path, *, micro: Micro = Micro.ALONE) -> BlockStates:
    """Read hidden states from an .npz or .safetensors file.

    The file holds `state_0`, `state_1`, ... (n, length, width): the states before the first block and after
    each, and `sequences` (n, length): the ids that went in. For tokens fed alone also `tokens` (m,), distinct
    ids, and `alone_0`, `alone_1`, ... (m, width): the states of each by itself.

    Args:
        path: The file.
        micro: Micro level; `alone` needs the arrays above.

    Raises:
        InvalidInputError: Arrays are missing or do not fit.

    Example:
        >>> recorded_states("hidden.npz", micro=Micro.FIRST).blocks  # doctest: +SKIP
        ('block_1', 'block_2')
    """
    file = read_input_file(path)
    arrays = dict(file.arrays)
    states, alone = (_numbered(arrays, kind) for kind in ("state", "alone"))
    ids = arrays.get("sequences")
    shown = Path(path).name
    if len(states) < 2 or ids is None or ids.ndim != 2:
        raise InvalidInputError(
            f"{shown}: expected sequences (n, length) and state_0, state_1, ... (n, length, width), "
            f"found {', '.join(sorted(arrays)) or 'none'}"
        )
    for array in states:
        if array.ndim != 3 or array.shape[:2] != ids.shape:
            raise InvalidInputError(
                f"{shown}: states of shape {list(array.shape)}; expected "
                f"[{ids.shape[0]}, {ids.shape[1]}, width]"
            )
    kept, inputs = _micro(shown, states, alone, ids, arrays.get("tokens"), micro)
    return BlockStates(
        blocks=tuple(f"block_{number}" for number in range(1, len(states))),
        last=tuple(array[:, -1] for array in states),
        inputs=inputs,
        micro={micro: kept},
        description=f"{len(ids)} recorded sequences of {ids.shape[1]} in {file.source}",
    )


def _numbered(arrays: dict[str, Array], kind: str) -> list[Array]:
    found = {
        int(m[2]): array for name, array in arrays.items() if (m := _NAME.fullmatch(name)) and m[1] == kind
    }
    return [found[number] for number in sorted(found)]


def _micro(
    shown: str, states: list[Array], alone: list[Array], ids: Array, tokens: Array | None, micro: Micro
) -> tuple[tuple[Array, ...], NDArray[np.int64]]:
    """The micro states per boundary, and which token each token of a sequence is."""
    if micro != Micro.ALONE:
        places = slice(0, 1) if micro == Micro.FIRST else slice(None)
        return tuple(array[:, places] for array in states), token_numbers(ids.reshape(-1)).reshape(ids.shape)
    fits = tokens is not None and tokens.ndim == 1 and len(alone) == len(states)
    if tokens is None or not fits or any(a.ndim != 2 or len(a) != len(tokens) for a in alone):
        raise InvalidInputError(
            f"{shown}: for tokens fed alone expected tokens (m,) and alone_0, alone_1, ... (m, width), one "
            "per state; or use another micro level: first or positions"
        )
    order = np.argsort(tokens)
    place = np.searchsorted(tokens[order], ids)
    if place.max(initial=0) >= len(tokens) or not (tokens[order][place] == ids).all():
        raise InvalidInputError(f"{shown}: sequences holds ids that tokens does not")
    return tuple(array[order] for array in alone), place.astype(np.int64)


# Hidden states of a PyTorch module, taken by forward hooks on its blocks.


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


RECORDED = frozenset({".npz", ".safetensors"})


@dataclass(frozen=True, kw_only=True)
class ModelInformation(ShownInNotebooks):
    """Information emergence of a model, and what model it was."""

    result: InformationResult
    source: str
    """File name, or the name of the factory."""
    sha256: str | None
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {"model": self.source, "sha256": self.sha256, **self.result.to_dict()}


@dataclass(frozen=True, kw_only=True)
class InformationOptions:
    """What decides a run besides the model and the sequences."""

    run: StateOptions = field(default_factory=StateOptions)
    """`tensors` are tensors of an ONNX model; of a module they are its blocks, without the state before."""
    estimator: EstimatorOptions = field(default_factory=EstimatorOptions)


def measure_model(
    model: str | Path,
    sequences: Sequences | None,
    *,
    store: str | Path | None = None,
    options: InformationOptions | None = None,
    progress: Progress | None = None,
) -> ModelInformation:
    """Run a model over sequences and estimate the information emergence of its blocks.

    Args:
        model: An ONNX file; a folder in Hugging Face's layout; "package.module:factory"; or a file of
            recorded states (see `recorded_states`).
        sequences: What to run; None for recorded states, which have theirs.
        store: A store that may hold the model's graph.
        options: Blocks, micro level, estimator.
        progress: Called with (sequences run, sequences in all).

    Raises:
        UsageError: Sequences are missing, or given for recorded states.
        InvalidInputError: The model has no chain of blocks, or refuses the sequences.
    """
    options = options or InformationOptions()
    begin = perf_counter()
    path, micro = Path(model), options.run.micro
    sha256 = None
    if path.suffix.lower() in RECORDED and path.is_file():
        if sequences is not None:
            raise UsageError(
                f"{path.name} holds recorded states and their sequences; leave other sequences out"
            )
        states = recorded_states(path, micro=micro)
    elif sequences is None:
        raise UsageError("no sequences: give --sequences FILE, --text FILE or --entities N")
    elif source_kind(model) == SourceKind.ONNX:
        sha256 = read_onnx(path, root=options.run.root).sha256
        with _opened(store) as opened:
            states = onnx_states(path, sequences, store=opened, options=options.run, progress=progress)
    else:
        states = _of_module(model, sequences, options.run, progress)
    result = information_emergence(states, micro=micro, options=options.estimator)
    return ModelInformation(
        result=result,
        source=str(model) if sha256 is None and not path.exists() else path.name,
        sha256=sha256,
        seconds=perf_counter() - begin,
    )


@contextlib.contextmanager
def _opened(store: str | Path | None) -> Iterator[StoreFile | None]:
    if store is None or not Path(store).exists():
        yield None
        return
    with open_store(store) as opened:
        yield opened


def _of_module(
    model: str | Path, sequences: Sequences, run: StateOptions, progress: Progress | None
) -> BlockStates:
    kind = source_kind(model)
    if kind == SourceKind.FOLDER:
        note_files(Path(model), root=run.root)
        return call_offline(_of_folder, Path(model), sequences, run, limits=run.limits, progress=progress)
    if kind != SourceKind.FACTORY:
        raise UsageError(
            f"{Path(model).name} holds weights without an architecture; name a factory, "
            "package.module:callable"
        )
    from emergraph.exporters.pytorch.factory import load_module

    return _states(load_module(str(model))[0], sequences, run, progress)


def _of_folder(
    folder: Path, sequences: Sequences, run: StateOptions, *, progress: Progress | None = None
) -> BlockStates:
    """Run in a child process: libraries fetch what a folder names."""
    from emergraph.exporters.pytorch.huggingface import load_folder
    from emergraph.exporters.weightfiles.reader import read_weights

    return _states(
        load_folder(folder, read_weights(folder, root=run.root), root=run.root)[0], sequences, run, progress
    )


def _states(
    module: Any,  # noqa: ANN401 - a torch.nn.Module
    sequences: Sequences,
    run: StateOptions,
    progress: Progress | None,
) -> BlockStates:
    return module_states(
        module, sequences, blocks=run.tensors, micro=run.micro, batch=run.batch, progress=progress
    )
