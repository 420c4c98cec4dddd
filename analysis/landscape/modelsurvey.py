"""From a model file to a survey of its landscape: read, run once, promote, choose the fastest way, survey.

Nothing is believed about the file: it is read with bounds, run small in a child process under limits, and the
model with its weights as inputs is opened in a process of its own before this one does.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.landscape.bowlnull import beside_its_bowl
from emergraph.analysis.landscape.curvature import curvature
from emergraph.analysis.landscape.evaluator import Evaluator
from emergraph.analysis.landscape.extras import Extras
from emergraph.analysis.landscape.layers import perturbed_blocks
from emergraph.analysis.landscape.lines import line_to
from emergraph.analysis.landscape.onnxmodels import prepare_onnx
from emergraph.analysis.landscape.optima import optima_network
from emergraph.analysis.landscape.options import Backend, ModelOptions, SurveyOptions, fit_to_budget
from emergraph.analysis.landscape.prepared import Between, Checkpoint, PreparedModel
from emergraph.analysis.landscape.survey import run_survey
from emergraph.analysis.landscape.surveyresult import Survey
from emergraph.analysis.landscape.sweep import Parallelism, Progress, cores, run_sweep, workers
from emergraph.analysis.landscape.tasks import LineTask, Task
from emergraph.analysis.landscape.trajectories import trajectory_plane
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.errors import UsageError
from emergraph.exporters.onnxfile import read_onnx
from emergraph.exporters.sources import SourceKind, source_kind
from emergraph.exporters.weightfiles import read_weights

# Find the fastest way to evaluate a model by trying for a moment, and say how long a sweep will take.


@dataclass(frozen=True)
class Variant:
    """One way to run a sweep."""

    name: str
    evaluator: Evaluator
    parallelism: Parallelism


@dataclass(frozen=True)
class Choice:
    """The fastest of several ways, with what was measured."""

    variant: Variant
    rates: dict[str, float]
    """Evaluations per second by name of the variant."""

    @property
    def rate(self) -> float:
        """Evaluations per second of the chosen variant."""
        return self.rates[self.variant.name]

    def seconds(self, tasks: Sequence[Task]) -> float:
        """Time that the tasks will take."""
        return sum(task.cost for task in tasks) / self.rate


def variants(evaluator: Evaluator) -> list[Variant]:
    """Return the ways that are worth trying: one after another, and one worker thread per core."""
    ways = [Variant("serial", evaluator, Parallelism())]
    if cores() > 1:
        ways.append(
            Variant(
                f"{cores()} threads",
                evaluator,
                Parallelism(backend=Backend.THREADING, n_jobs=cores(), threads=1),
            )
        )
    return ways


def measure(variant: Variant, *, seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return evaluations per second of a variant at small random perturbations.

    The number of evaluations grows until they take long enough to be timed. Starting processes or reaching a
    cluster is not counted: it happens once in a sweep, and can take longer than the whole trial.
    """
    evaluator, plan = variant.evaluator, variant.parallelism
    direction = 1e-3 * np.random.default_rng(0).standard_normal(evaluator.n_params, dtype=np.float32)
    direction *= np.abs(evaluator.base)
    n_workers = workers(plan)

    def timed(per_task: int) -> float:
        task = LineTask(direction, np.linspace(-1, 1, per_task))
        start = clock()
        run_sweep(evaluator, [task] * n_workers, parallelism=plan)
        return clock() - start

    aside, opening = 0, 0.0
    if plan.backend not in (Backend.SERIAL, Backend.THREADING):
        timed(1)
        aside, opening = 1, timed(1)
    per_task = 1 + aside
    while True:
        taken = timed(per_task) - opening
        # One evaluation per worker would mostly time how long it takes to open the workers.
        if taken >= seconds and (per_task > 1 or plan.backend is Backend.SERIAL):
            return (per_task - aside) * n_workers / taken
        per_task *= 2 if taken > seconds / 8 else 4


def fastest(ways: Sequence[Variant], *, seconds: float = 2.0) -> Choice:
    """Try every way for a share of the time and return the fastest.

    Args:
        ways: From `variants`, or a user's own; all must give the same losses.
        seconds: Aimed at in total; slow models take at least one evaluation per way.

    Returns:
        The choice with all rates.
    """
    share = seconds / (2 * len(ways))
    rates = {way.name: measure(way, seconds=share) for way in ways}
    return Choice(max(ways, key=lambda way: rates[way.name]), rates)


Array = NDArray[np.generic]

TRIAL_SECONDS = 2.0
"""How long the ways to evaluate a model are tried; a way that was asked for is tried half as long."""


@dataclass(frozen=True, kw_only=True)
class ModelSurvey(ShownInNotebooks):
    """A survey of a model file and how it was made."""

    source: str
    """File name without folders."""
    sha256: str | None
    """Of the file; None for a module without a weight file."""
    samples: int
    """In the evaluation set."""
    probes_seed: int | None
    """Seed of synthetic inputs; None for given ones."""
    rates: dict[str, float]
    """Evaluations per second of the ways that were tried."""
    variant: str
    """The way that was used."""
    expected_seconds: float
    """Estimate before the survey began."""
    seconds: float
    """That the survey took, setting up not counted."""
    survey: Survey
    how: ModelOptions
    """On what it was made."""

    def to_dict(self) -> dict[str, object]:
        """Return everything but the sampled losses as nested plain dictionaries."""
        about = {name: value for name, value in vars(self).items() if name not in ("survey", "how")}
        return about | self.survey.to_dict()


def survey_model(
    path: str | Path,
    options: SurveyOptions | None = None,
    how: ModelOptions | None = None,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> ModelSurvey:
    """Survey the loss landscape of a model around its own weights.

    Args:
        path: An ONNX file, or "package.module:factory" of a PyTorch module (needs torch).
        options: What to measure.
        how: On which inputs, with which loss, and in what time.
        checkpoint: File that lets an interrupted survey go on.
        progress: Called at the start with an estimate and after every piece.

    Returns:
        The survey with its provenance.

    Raises:
        InvalidInputError: The file is not a model, has no weights to perturb, or crashes onnxruntime.
        LimitError: A limit was hit.
        UsageError: Inputs, targets, outputs and loss do not fit the model.

    Example:
        >>> survey_model("model.onnx").survey.estimates()["excess_ruggedness"].mean  # doctest: +SKIP
    """
    asked, chosen = options or SurveyOptions(), how or ModelOptions()
    prepare = _preparer(path, asked, chosen)
    prepared = prepare(chosen.samples)
    notes = list(prepared.notes)
    affordable = _affordable_samples(prepared, asked, chosen)
    if affordable is not None:
        notes.append(
            f"samples reduced from {prepared.samples} to {affordable} to stay near {chosen.budget:g} s"
        )
        prepared = prepare(affordable)
    others = _read_others(prepared, chosen)
    evaluator = prepared.evaluator
    choice = _choice(prepared, chosen.parallelism)
    n_tensors = len(perturbed_blocks(evaluator.layout, asked.norm))
    fitted = asked
    if chosen.budget is not None:
        fitted, cut = fit_to_budget(asked, n_tensors=n_tensors, rate=choice.rate, seconds=chosen.budget)
        notes += cut
    start = time.perf_counter()
    survey = run_survey(
        choice.variant.evaluator,
        fitted,
        parallelism=choice.variant.parallelism,
        checkpoint=checkpoint,
        rate=choice.rate,
        progress=progress,
        notes=tuple(notes),
    )
    survey = _with_extras(survey, prepared, fitted, others)
    return ModelSurvey(
        source=prepared.source,
        sha256=prepared.sha256,
        samples=prepared.samples,
        probes_seed=prepared.probes_seed,
        rates=choice.rates,
        variant=choice.variant.name,
        expected_seconds=fitted.cost(n_tensors) / choice.rate,
        seconds=time.perf_counter() - start,
        survey=survey,
        how=chosen,
    )


def _preparer(
    path: str | Path, asked: SurveyOptions, chosen: ModelOptions
) -> Callable[[int | None], PreparedModel]:
    """What makes the model ready for a number of samples, by the kind of the model."""
    kind = source_kind(path)
    if kind is SourceKind.FACTORY:
        from emergraph.analysis.landscape.modulemodels import prepare_module

        for other in _other_files(chosen):
            read_weights(other, root=chosen.root)
        return lambda samples: prepare_module(str(path), asked, chosen, samples)
    if kind is not SourceKind.ONNX:
        raise UsageError(
            f"{path}: weights alone cannot be run; expected an ONNX file, or package.module:factory with "
            "--weights"
        )
    if chosen.weights is not None:
        raise UsageError("--weights goes with a factory: emergraph landscape package.module:factory")
    if asked.eigenvalues:
        raise UsageError(
            "Hessians need gradients: expected package.module:factory of a PyTorch module, found an ONNX file"
        )
    for other in _other_files(chosen):
        read_onnx(other, root=chosen.root)
    file = read_onnx(path, root=chosen.root)
    return lambda samples: prepare_onnx(file, asked, chosen, samples)


def _other_files(chosen: ModelOptions) -> list[Path]:
    """The other checkpoints: each is opened before any work, so that a wrong one is refused at once."""
    return [*([] if chosen.to is None else [chosen.to]), *chosen.trajectory]


@dataclass(frozen=True)
class _Others:
    """Other checkpoints of the model, read before anything is measured."""

    between: Between
    to: Checkpoint | None
    run: tuple[Checkpoint, ...]


def _read_others(prepared: PreparedModel, chosen: ModelOptions) -> _Others | None:
    if chosen.to is None and not chosen.trajectory:
        return None
    between = prepared.between()
    to = None if chosen.to is None else between.read(chosen.to)
    return _Others(between, to, tuple(between.read(file) for file in chosen.trajectory))


def _with_extras(
    survey: Survey, prepared: PreparedModel, options: SurveyOptions, others: _Others | None
) -> Survey:
    """Measure what was asked for beside random directions."""
    line = trajectory = optima = curved = None
    notes = list(survey.notes)
    if others is not None:
        evaluator = others.between.evaluator
        notes += others.between.notes
        if others.to is not None:
            line = line_to(evaluator, others.to.weights, name=others.to.name)
        if others.run:
            points, names = [p.weights for p in others.run], [p.name for p in others.run]
            trajectory = trajectory_plane(evaluator, points, names, n=options.plane_points)
    if options.optima:
        optima = optima_network(
            prepared.evaluator, options, floor=survey.noise_floor, gradient=prepared.curved
        )
    if options.eigenvalues and prepared.curved is not None:
        curved = curvature(prepared.curved, options)
        survey = beside_its_bowl(survey, prepared.curved)
    extras = Extras(line=line, trajectory=trajectory, optima=optima, curvature=curved)
    return replace(survey, extras=extras, notes=tuple(notes))


def _affordable_samples(prepared: PreparedModel, asked: SurveyOptions, chosen: ModelOptions) -> int | None:
    """How many synthetic samples the budget allows for the smallest survey; None where all are affordable."""
    if chosen.budget is None or prepared.probes_seed is None:
        return None
    smallest, _ = fit_to_budget(asked, n_tensors=0, rate=0.0, seconds=chosen.budget)
    share = chosen.budget / (smallest.cost(0) * prepared.seconds)
    fewer = max(2, int(prepared.samples * share))
    return fewer if share < 1 and fewer < prepared.samples else None


def _choice(prepared: PreparedModel, parallelism: Parallelism | None) -> Choice:
    """The fastest way out of those that there are, or the one that was asked for with its rate."""
    if parallelism is None:
        others = [Variant(name, engine, Parallelism()) for name, engine in prepared.alternatives]
        return fastest([*variants(prepared.evaluator), *others], seconds=TRIAL_SECONDS)
    name = str(parallelism.backend)
    if parallelism.backend is not Backend.SERIAL:
        name += f", {parallelism.n_jobs} jobs" if parallelism.n_jobs > 0 else ", a job per core"
    way = Variant(name, prepared.evaluator, parallelism)
    return fastest([way], seconds=TRIAL_SECONDS / 2)
