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
from scipy.signal import lfilter

from emergraph.analysis.engines.options import Backend
from emergraph.analysis.engines.spread import Parallelism, cores, workers
from emergraph.analysis.landscape.autocorrelation import against, autocorrelation, correlation_length
from emergraph.analysis.landscape.curvature import Curved, curvature
from emergraph.analysis.landscape.directions import perturbation_scale
from emergraph.analysis.landscape.evaluator import Evaluator
from emergraph.analysis.landscape.extras import Extras
from emergraph.analysis.landscape.layers import perturbed_blocks
from emergraph.analysis.landscape.lines import line_to
from emergraph.analysis.landscape.onnxmodels import prepare_onnx
from emergraph.analysis.landscape.optima import optima_network
from emergraph.analysis.landscape.options import ModelOptions, SurveyOptions, fit_to_budget
from emergraph.analysis.landscape.prepared import Between, Checkpoint, PreparedModel
from emergraph.analysis.landscape.spectrum import extreme_eigenvalues
from emergraph.analysis.landscape.survey import run_survey
from emergraph.analysis.landscape.surveyresult import Survey
from emergraph.analysis.landscape.sweep import Progress, run_sweep
from emergraph.analysis.landscape.tasks import LineTask, Task
from emergraph.analysis.landscape.trajectories import trajectory_plane
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.errors import UsageError
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.sourcekinds import SourceKind, source_kind
from emergraph.exporters.weightfiles.reader import read_weights

# What walks would show on the quadratic bowl that the model's own curvature makes.
#
# Along a stationary walk of parameter a a bowl with eigenvalues `l_i` (in the walk's coordinates) has the
# losses `sum l_i z_i(t)^2`, with independent Gaussian z_i of correlation a. Many equal eigenvalues make
# that a Gaussian process with correlation a^2, for which M(0) = arccos(-(1 - a^2)/2)/pi; networks have few
# large ones, whose chi-squared losses change direction more often (M(0) .556 where many equal ones give
# .530). So the measured spectrum is simulated, with as many walks of the same length: what is small in
# number in the survey, or biased by a short walk, is so in its null.

Vector = NDArray[np.float64]

DRAWS = 200
"""Simulated surveys."""
RESOLVED = 10
"""Fewest eigenvalues of each end that are resolved."""
PROBES = 10
"""Products for the squares of the eigenvalues that are not resolved."""
BURN_IN = 200


@dataclass(frozen=True, kw_only=True)
class WalkSpectrum:
    """Curvature in the coordinates of the walk, theta = theta* + sigma N z."""

    eigenvalues: Vector
    """Those that were resolved: both ends of the spectrum of N H N."""
    rest: float
    """Root of the sum of squares of all others, which together look Gaussian."""


@dataclass(frozen=True, kw_only=True)
class BowlNull:
    """Means over simulated surveys of a bowl."""

    rho_1: float
    correlation_length: float
    h_0: float
    m_0: float


def walk_spectrum(product: Callable[[Vector], Vector], scale: Vector, *, k: int, seed: int) -> WalkSpectrum:
    """Measure the spectrum of N H N.

    Args:
        product: v -> H v.
        scale: (n,) N, see `directions.perturbation_scale`.
        k: Eigenvalues of each end, at least 1.
        seed: Of the probes.
    """

    def scaled(vector: Vector) -> Vector:
        return np.asarray(scale * product(scale * vector))

    n = len(scale)
    k = min(k, n)
    ends = extreme_eigenvalues(scaled, n, k=k, both_ends=2 * k <= n, seed=seed)
    found = np.array([*ends.largest, *ends.smallest])
    rng = np.random.default_rng(seed)
    probes = rng.integers(0, 2, size=(PROBES, n)) * 2.0 - 1.0
    squares = float(np.mean([np.sum(scaled(probe) ** 2) for probe in probes]))
    return WalkSpectrum(eigenvalues=found, rest=float(np.sqrt(max(squares - float(np.sum(found**2)), 0.0))))


def bowl_null(
    spectrum: WalkSpectrum, *, a: float, n_walks: int, length: int, seed: int = 0, draws: int = DRAWS
) -> BowlNull:
    """Simulate surveys of a bowl.

    Args:
        spectrum: Of the bowl.
        a: Correlation of successive positions of a walk.
        n_walks: Of a survey.
        length: Points of a walk, at least 3.
        seed: Of the walks.
        draws: Surveys.

    Example:
        >>> many = WalkSpectrum(eigenvalues=np.zeros(1), rest=1.0)
        >>> abs(bowl_null(many, a=0.9, n_walks=10, length=200).m_0 - 0.53) < 0.003
        True
    """
    rng = np.random.default_rng(seed)
    shape = (n_walks, length)
    rho, m_0, h_0 = [], [], []
    for _ in range(draws):
        walks = np.sqrt(2) * spectrum.rest * _walks(rng, shape, a * a)
        for eigenvalue in spectrum.eigenvalues:
            walks += eigenvalue * _walks(rng, shape, a) ** 2
        rho.append(float(autocorrelation(walks, max_lag=1)[1]))
        turns = np.diff(np.sign(np.diff(walks, axis=1)), axis=1)
        up, down = (turns > 0).mean(axis=1), (turns < 0).mean(axis=1)
        m_0.append(float((up + down).mean()))
        h_0.append(float((_part(up) + _part(down)).mean()))
    mean = float(np.nanmean(rho)) if np.isfinite(rho).any() else float("nan")
    return BowlNull(
        rho_1=mean,
        correlation_length=correlation_length(mean),
        h_0=float(np.mean(h_0)),
        m_0=float(np.mean(m_0)),
    )


def beside_its_bowl(survey: Survey, curved: Curved) -> Survey:
    """A survey whose walks stand beside the bowl of the model's own curvature.

    Args:
        survey: Of the model.
        curved: Gives Hessian products at its weights.
    """
    options = survey.options
    scale = perturbation_scale(curved.base, curved.layout, options.norm).astype(np.float64)
    k = max(options.eigenvalues, RESOLVED)
    spectrum = walk_spectrum(curved.hessian().product, scale, k=k, seed=options.seed)
    n_walks, length = survey.walk_losses.shape
    null = bowl_null(spectrum, a=options.a, n_walks=n_walks, length=length, seed=options.seed)
    information = survey.information
    return replace(
        survey,
        autocorrelation=against(survey.autocorrelation, rho_1=null.rho_1, length=null.correlation_length),
        information=replace(
            information, h_0=information.h_0.with_null(null.h_0), m_0=information.m_0.with_null(null.m_0)
        ),
    )


def _walks(rng: np.random.Generator, shape: tuple[int, int], a: float) -> Vector:
    steps = np.sqrt(1 - a * a) * rng.standard_normal((shape[0], shape[1] + BURN_IN))
    return np.asarray(lfilter([1.0], [1.0, -a], steps, axis=1)[:, BURN_IN:], dtype=np.float64)


def _part(share: Vector) -> Vector:
    """-p log_6 p; 0 for 0."""
    return np.asarray(-share * np.log(np.where(share > 0, share, 1.0)) / np.log(6))


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
