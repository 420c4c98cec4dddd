"""An ONNX file made ready for a survey: run small, weights promoted, opened where a crash does no harm."""

import time
from collections.abc import Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle
import numpy as np
from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import BrokenProcessPool
from numpy.typing import NDArray

from emergraph.analysis.landscape.engine_ort import OrtEvaluator
from emergraph.analysis.landscape.options import LossKind, Norm, SurveyOptions
from emergraph.analysis.landscape.prepared import Between, Checkpoint, PreparedModel
from emergraph.analysis.landscape.reweight import ReweightableModel, reweightable
from emergraph.errors import InvalidInputError, LimitError, UsageError
from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.runtime.assembly import ModelSource
from emergraph.exporters.runtime.concrete import ConcreteRun, concrete_run
from emergraph.exporters.runtime.feeds import input_hints
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.sizes import open_shapes, open_shapes_note
from emergraph.exporters.runtime.sources import as_source

if TYPE_CHECKING:
    from emergraph.analysis.landscape.options import ModelOptions


Array = NDArray[np.generic]

# Synthetic inputs for a model that comes without data.


@dataclass(frozen=True)
class ProbeSet:
    """Inputs to evaluate a model on, and the run that showed that it takes them."""

    run: ConcreteRun
    batches: tuple[dict[str, Array], ...]
    """One batch of n samples, or n batches where the model takes one sample at a time."""
    n: int
    """Samples, counted along the first axis of the inputs."""
    seed: int | None
    """None for given inputs."""


def given_inputs(
    file: OnnxFile | ModelSource, inputs: Mapping[str, Array], *, limits: RunLimits | None = None
) -> ProbeSet:
    """Use a user's inputs as one batch; missing inputs are synthetic."""
    run = concrete_run(file, inputs=inputs, limits=limits)
    first = next(iter(inputs.values()), None)
    n = int(first.shape[0]) if first is not None and first.ndim else 1
    return ProbeSet(run, (dict(run.inputs),), n, None)


def probe_inputs(
    file: OnnxFile | ModelSource,
    *,
    n: int = 32,
    seed: int = 0,
    inputs: Mapping[str, Array] | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    limits: RunLimits | None = None,
) -> ProbeSet:
    """Draw n samples that a model accepts, in one batch where its first axes are dynamic.

    Args:
        file: The model.
        n: Samples.
        seed: Of the draws.
        inputs: Values that are fixed, for example of an input that selects a branch.
        input_shapes: Shapes that are fixed; their first axis is not enlarged.
        limits: Of the child process that tries the inputs out.

    Returns:
        The inputs.

    Raises:
        InvalidInputError: The model refuses everything that was tried.
        UsageError: n is not positive.
    """
    if n < 1:
        raise UsageError(f"samples: expected at least 1, found {n}")
    fixed, given = dict(inputs or {}), dict(input_shapes or {})
    source = as_source(file)
    small = concrete_run(file, inputs=fixed, input_shapes=given, limits=limits, seed=seed)
    batched = {
        value.name: (n, *small.inputs[value.name].shape[1:])
        for value in small.flat.inputs
        if value.name not in (*fixed, *given) and value.shape and not isinstance(value.shape[0], int)
    }
    first = dict(list(batched.items())[:1])
    for shapes in (batched, first) if len(batched) > 1 else (batched,):
        if not shapes or n == 1:
            break
        try:
            run = concrete_run(file, inputs=fixed, input_shapes={**given, **shapes}, limits=limits, seed=seed)
        except InvalidInputError:
            continue
        return ProbeSet(run, (_drawn(run, source, fixed, seed, 0),), n, seed)
    leading = next((array.shape[0] for array in small.inputs.values() if array.ndim > 1), 1)
    count = -(-n // max(leading, 1))
    batches = tuple(_drawn(small, source, fixed, seed, i) for i in range(count))
    return ProbeSet(small, batches, count * max(leading, 1), seed)


def _drawn(
    run: ConcreteRun, source: ModelSource, fixed: Mapping[str, Array], seed: int, index: int
) -> dict[str, Array]:
    """The run's inputs with fresh floats and table indices."""
    hints = input_hints(run.flat, source)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    drawn: dict[str, Array] = {}
    for name, array in run.inputs.items():
        constant = name in fixed or array.size < 2 or np.ptp(array.astype(np.float64)) == 0
        if constant:
            drawn[name] = array
        elif array.dtype.kind == "f":
            drawn[name] = rng.standard_normal(array.shape).astype(array.dtype)
        elif array.dtype.kind in "iu" and name in hints.rows:
            drawn[name] = rng.integers(0, hints.rows[name], size=array.shape).astype(array.dtype)
        elif array.dtype.kind in "iu":
            drawn[name] = rng.integers(array.min(), array.max() + 1, size=array.shape).astype(array.dtype)
        else:
            drawn[name] = array
    return drawn


def prepare_onnx(
    file: OnnxFile, asked: SurveyOptions, chosen: "ModelOptions", samples: int | None
) -> PreparedModel:
    """Make the evaluation set, promote the weights, and open the model in a process of its own first.

    Args:
        file: The model.
        asked: What will be measured.
        chosen: On which inputs, with which loss.
        samples: Inputs to make up; None takes the given ones as the whole set.

    Raises:
        InvalidInputError: The model has no weights to perturb, or crashes onnxruntime.
        UsageError: Inputs, targets, outputs and loss do not fit the model.
    """
    source = as_source(file)
    probes = _probes(source, asked, chosen, samples)
    model = reweightable(
        probes.run,
        source,
        vectors=asked.norm in (Norm.ELEMENT, Norm.NONE),
        embeddings=chosen.embeddings,
        outputs=chosen.outputs,
    )
    rehearse(model, probes.batches[0], seconds=chosen.limits.wall_seconds)
    evaluator = OrtEvaluator(
        model, probes.batches, loss=chosen.loss, targets=chosen.targets, ignored=chosen.ignore_label
    )
    start = time.perf_counter()
    evaluator.loss(evaluator.base)
    return PreparedModel(
        source=file.name,
        sha256=file.sha256,
        samples=probes.n,
        probes_seed=probes.seed,
        evaluator=evaluator,
        seconds=time.perf_counter() - start,
        between=lambda: _between(source, probes, chosen),
        notes=(*model.notes, *_size_notes(probes, chosen)),
    )


def _probes(
    source: ModelSource, asked: SurveyOptions, chosen: "ModelOptions", samples: int | None
) -> ProbeSet:
    if samples is not None:
        return probe_inputs(
            source,
            n=samples,
            seed=asked.seed,
            inputs=chosen.inputs,
            input_shapes=chosen.input_shapes,
            limits=chosen.limits,
        )
    if not chosen.inputs:
        raise UsageError("evaluation set: neither inputs nor samples given; give one of them")
    return given_inputs(source, chosen.inputs, limits=chosen.limits)


def _size_notes(probes: ProbeSet, chosen: "ModelOptions") -> list[str]:
    """What a user should know about synthetic inputs whose sizes were not decided."""
    if probes.seed is None:
        return []
    decided = {**chosen.input_shapes, **{name: array.shape for name, array in chosen.inputs.items()}}
    shapes = {name: array.shape for name, array in probes.run.inputs.items()}
    free = open_shapes(probes.run.flat.inputs, decided, shapes)
    return [open_shapes_note(free)] if free else []


def _between(source: ModelSource, probes: ProbeSet, chosen: "ModelOptions") -> Between:
    """An evaluator over everything that training changes, and a reader of other checkpoints."""
    own = reweightable(probes.run, source, vectors=True, embeddings=True, outputs=chosen.outputs)
    evaluator = OrtEvaluator(
        own, probes.batches, loss=chosen.loss, targets=chosen.targets, ignored=chosen.ignore_label
    )

    def read(path: Path) -> Checkpoint:
        file = read_onnx(path, root=chosen.root)
        theirs = as_source(file)
        run = concrete_run(theirs, inputs=dict(probes.run.inputs), limits=chosen.limits)
        other = reweightable(run, theirs, vectors=True, embeddings=True, outputs=chosen.outputs)
        _check_layouts(own, other, file.name)
        rehearse(other, probes.batches[0], seconds=chosen.limits.wall_seconds)
        _check_end(evaluator, OrtEvaluator(other, probes.batches, loss=LossKind.MSE), file.name)
        return Checkpoint(name=file.name, weights=other.base)

    return Between(evaluator=evaluator, read=read)


def _check_layouts(own: ReweightableModel, other: ReweightableModel, name: str) -> None:
    ours, theirs = ([(b.name, b.shape) for b in m.layout.blocks] for m in (own, other))
    if [shape for _, shape in ours] != [shape for _, shape in theirs]:
        apart = next((a for a, b in zip(ours, theirs, strict=False) if a[1] != b[1]), (ours or theirs)[-1])
        raise UsageError(
            f"{name}: its weights do not have the shapes of the model's ({len(theirs)} tensors, expected "
            f"{len(ours)}; they differ at {apart[0]}); expected another checkpoint of the same architecture"
        )


def _check_end(evaluator: OrtEvaluator, other: OrtEvaluator, name: str) -> None:
    """Refuse a far end that moving the weights does not reach.

    Raises:
        UsageError: The other file differs in more than its weights.
    """
    ours, theirs = evaluator.outputs(other.base), other.outputs(other.base)
    for mine, yours in zip(ours, theirs, strict=True):
        for a, b in zip(mine, yours, strict=True):
            if a.dtype.kind == "f" and not np.allclose(a, b, rtol=1e-3, atol=1e-3 * float(np.abs(b).max())):
                raise UsageError(
                    f"{name}: differs from the model in more than weights, biases and normalisation; "
                    "expected another checkpoint of the same architecture"
                )


def rehearse(model: ReweightableModel, batch: Mapping[str, Array], *, seconds: float) -> None:
    """Open and run the model once in a process of its own: what crashes there would have crashed here.

    Args:
        model: The model with its weights as inputs.
        batch: Inputs by the file's names.
        seconds: Most time that it may take.

    Raises:
        InvalidInputError: onnxruntime refuses the model or crashes.
        LimitError: It took too long.
    """
    executor = ProcessPoolExecutor(max_workers=1)
    try:
        executor.submit(_rehearsed, cloudpickle.dumps((model, dict(batch)))).result(timeout=seconds)
    except FutureTimeoutError as error:
        raise LimitError(
            f"trying the model with its weights as inputs took longer than {seconds:g} s; raise the limit"
        ) from error
    except BrokenProcessPool as error:
        raise InvalidInputError(
            "onnxruntime crashed or ran out of memory with the weights as inputs; nothing was changed"
        ) from error
    finally:
        executor.shutdown(wait=True, kill_workers=True)


def _rehearsed(payload: bytes) -> float:
    model, batch = cloudpickle.loads(payload)
    evaluator = OrtEvaluator(model, [batch], loss=LossKind.MSE)
    return evaluator.loss(evaluator.base)
