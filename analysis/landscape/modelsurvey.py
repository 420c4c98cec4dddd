"""From a model file to a survey of its landscape: read, run once, promote, choose the fastest way, survey.

Nothing is believed about the file: it is read with bounds, run small in a child process under limits, and the
model with its weights as inputs is opened in a process of its own before this one does.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from pathlib import Path

import cloudpickle
import numpy as np
from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import BrokenProcessPool
from numpy.typing import NDArray

from emergraph.analysis.landscape.engine_ort import OrtEvaluator
from emergraph.analysis.landscape.layout import Norm
from emergraph.analysis.landscape.losses import LossKind
from emergraph.analysis.landscape.options import SurveyOptions, fit_to_budget
from emergraph.analysis.landscape.probes import ProbeSet, given_inputs, probe_inputs
from emergraph.analysis.landscape.reweight import ReweightableModel, reweightable
from emergraph.analysis.landscape.speed import Choice, Variant, fastest, variants
from emergraph.analysis.landscape.survey import run_survey
from emergraph.analysis.landscape.surveyresult import Survey
from emergraph.analysis.landscape.sweep import Parallelism, Progress
from emergraph.errors import InvalidInputError, LimitError, UsageError
from emergraph.exporters.onnxfile import read_onnx
from emergraph.exporters.runtime.assembly import ModelSource
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.sources import as_source

Array = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a model file is evaluated; `SurveyOptions` say what is measured."""

    inputs: Mapping[str, Array] = field(default_factory=dict)
    """The evaluation set, or with `samples` inputs that are fixed; empty: probe inputs are made up."""
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of inputs that are made up."""
    samples: int | None = 16
    """Probe inputs to make up for what is not given; None takes the given inputs as the whole set."""
    targets: Array | None = None
    """Labels or values for the given inputs."""
    loss: LossKind = LossKind.AUTO
    outputs: tuple[str, ...] | None = None
    """Outputs to compare; all but carried states by default."""
    embeddings: bool = False
    """Also perturb embedding tables."""
    limits: RunLimits = field(default_factory=RunLimits)
    """Of the child process that tries the model out."""
    budget: float | None = 60.0
    """Seconds that the survey is cut down to; None never cuts."""
    parallelism: Parallelism | None = None
    """How to spread the evaluations; None tries the ways out."""


@dataclass(frozen=True, kw_only=True)
class ModelSurvey:
    """A survey of a model file and how it was made."""

    source: str
    """File name without folders."""
    sha256: str
    samples: int
    """In the evaluation set."""
    probes_seed: int | None
    """Seed of made-up inputs; None for given ones."""
    rates: dict[str, float]
    """Evaluations per second of the ways that were tried."""
    variant: str
    """The way that was used."""
    expected_seconds: float
    """Estimate before the survey began."""
    seconds: float
    """That the survey took, setting up not counted."""
    survey: Survey

    def to_dict(self) -> dict[str, object]:
        """Return everything but the sampled losses as nested plain dictionaries."""
        about = {name: value for name, value in vars(self).items() if name != "survey"}
        return about | self.survey.to_dict()


def survey_model(
    path: str | Path,
    options: SurveyOptions | None = None,
    how: ModelOptions | None = None,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> ModelSurvey:
    """Survey the loss landscape of an ONNX file around its own weights.

    Args:
        path: The file.
        options: What to measure.
        how: On which inputs, with which loss, and in what time.
        checkpoint: File that lets an interrupted survey go on.
        progress: Called at the start with an estimate and after every piece.

    Returns:
        The survey with its provenance.

    Raises:
        InvalidInputError: The file is no model, has no weights to perturb, or crashes onnxruntime.
        LimitError: A limit was hit.
        UsageError: Inputs, targets, outputs and loss do not fit the model.

    Example:
        >>> survey_model("model.onnx").survey.estimates()["excess_ruggedness"].mean  # doctest: +SKIP
    """
    asked, chosen = options or SurveyOptions(), how or ModelOptions()
    file = read_onnx(path)
    source = as_source(file)
    prepared = _prepare(source, asked, chosen, chosen.samples)
    notes = list(prepared.model.notes)
    affordable = _affordable_samples(prepared, asked, chosen)
    if affordable is not None:
        notes.append(f"samples cut from {prepared.probes.n} to {affordable} to stay near {chosen.budget:g} s")
        prepared = _prepare(source, asked, chosen, affordable)
    evaluator, model = prepared.evaluator, prepared.model
    choice = _choice(evaluator, chosen.parallelism)
    n_tensors = sum(asked.norm in (Norm.ELEMENT, Norm.NONE) or not b.is_vector for b in model.layout.blocks)
    fitted = asked
    if chosen.budget is not None:
        fitted, cut = fit_to_budget(asked, n_tensors=n_tensors, rate=choice.rate, seconds=chosen.budget)
        notes += cut
    start = time.perf_counter()
    survey = run_survey(
        evaluator,
        fitted,
        parallelism=choice.variant.parallelism,
        checkpoint=checkpoint,
        rate=choice.rate,
        progress=progress,
        notes=tuple(notes),
    )
    return ModelSurvey(
        source=file.name,
        sha256=file.sha256,
        samples=prepared.probes.n,
        probes_seed=prepared.probes.seed,
        rates=choice.rates,
        variant=choice.variant.name,
        expected_seconds=fitted.cost(n_tensors) / choice.rate,
        seconds=time.perf_counter() - start,
        survey=survey,
    )


@dataclass(frozen=True)
class _Prepared:
    """A model that is ready to be evaluated."""

    probes: ProbeSet
    model: ReweightableModel
    evaluator: OrtEvaluator
    seconds: float
    """That one evaluation took."""


def _prepare(
    source: ModelSource, asked: SurveyOptions, chosen: ModelOptions, samples: int | None
) -> _Prepared:
    """Make the evaluation set, promote the weights, and open the model where a crash does no harm first."""
    if samples is None:
        if not chosen.inputs:
            raise UsageError("evaluation set: no inputs given and none to be made up; give inputs or samples")
        probes = given_inputs(source, chosen.inputs, limits=chosen.limits)
    else:
        probes = probe_inputs(
            source,
            n=samples,
            seed=asked.seed,
            inputs=chosen.inputs,
            input_shapes=chosen.input_shapes,
            limits=chosen.limits,
        )
    model = reweightable(
        probes.run,
        source,
        vectors=asked.norm in (Norm.ELEMENT, Norm.NONE),
        embeddings=chosen.embeddings,
        outputs=chosen.outputs,
    )
    rehearse(model, probes.batches[0], seconds=chosen.limits.wall_seconds)
    evaluator = OrtEvaluator(model, probes.batches, loss=chosen.loss, targets=chosen.targets)
    start = time.perf_counter()
    evaluator.loss(evaluator.base)
    return _Prepared(probes, model, evaluator, time.perf_counter() - start)


def _affordable_samples(prepared: _Prepared, asked: SurveyOptions, chosen: ModelOptions) -> int | None:
    """How many made-up samples the budget allows for the smallest survey; None where all are affordable."""
    if chosen.budget is None or prepared.probes.seed is None:
        return None
    smallest, _ = fit_to_budget(asked, n_tensors=0, rate=0.0, seconds=chosen.budget)
    share = chosen.budget / (smallest.cost(0) * prepared.seconds)
    fewer = max(2, int(prepared.probes.n * share))
    return fewer if share < 1 and fewer < prepared.probes.n else None


def _choice(evaluator: OrtEvaluator, parallelism: Parallelism | None) -> Choice:
    if parallelism is None:
        return fastest(variants(evaluator))
    way = Variant(f"{parallelism.backend}, {parallelism.n_jobs} jobs", evaluator, parallelism)
    return fastest([way], seconds=1.0)


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
