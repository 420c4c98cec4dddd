"""Information emergence of whatever a user has: an ONNX file, a folder, a factory, recorded states."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from emergraph.analysis.information.emergence import InformationResult, information_emergence
from emergraph.analysis.information.modulestates import module_states
from emergraph.analysis.information.onnxstates import StateOptions, onnx_states
from emergraph.analysis.information.options import EstimatorOptions
from emergraph.analysis.information.recordedstates import recorded_states
from emergraph.analysis.information.sequences import Sequences
from emergraph.analysis.information.states import BlockStates, Progress
from emergraph.errors import UsageError
from emergraph.exporters.onnxfile import read_onnx
from emergraph.exporters.runtime.offline import call_offline
from emergraph.exporters.sources import SourceKind, note_files, source_kind
from emergraph.graphstore.store import StoreFile, open_store

RECORDED = frozenset({".npz", ".safetensors"})


@dataclass(frozen=True, kw_only=True)
class ModelInformation:
    """Information emergence of a model, and what model it was."""

    result: InformationResult
    source: str
    """File name, or the name of the factory."""
    sha256: str | None
    seconds: float


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
