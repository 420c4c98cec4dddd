"""Find the fastest way to evaluate a model by trying for a moment, and say how long a sweep will take."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from emergraph.analysis.landscape.evaluator import Evaluator
from emergraph.analysis.landscape.options import Backend
from emergraph.analysis.landscape.sweep import Parallelism, cores, run_sweep, workers
from emergraph.analysis.landscape.tasks import LineTask, Task


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
