"""Run a function on many arguments: here, in threads or processes of this machine, or on a cluster.

All of it is joblib's: its threads and worker processes (loky), and its backends for dask and ray, which run
on the cluster that `cluster` has connected to.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from emergraph.analysis.engines.options import Backend
from emergraph.analysis.statistics.estimate import plain
from emergraph.errors import MissingExtraError
from emergraph.leftovers import Scratch

T = TypeVar("T")


class WorkerDiedError(RuntimeError):
    """A worker process ended in the middle of a task, and with it all that were running."""


@dataclass(frozen=True, kw_only=True)
class Parallelism:
    """How tasks are spread."""

    backend: Backend = Backend.SERIAL
    n_jobs: int = 1
    """Workers; -1 for one per core."""
    threads: int = 0
    """Threads inside a task; 0 lets the engine decide when serial, and is 1 otherwise."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a plain dictionary."""
        return plain(self)


def spread(function: Callable[..., T], calls: Iterable[tuple[Any, ...]], plan: Parallelism) -> Iterator[T]:
    """Call a function with each of the arguments; yield what it returns, in the order in which calls end.

    Args:
        function: Of a module; with its arguments and its results it can be pickled, but for threads.
        calls: Arguments of each call; taken as they are needed.
        plan: Where to run.

    Raises:
        WorkerDiedError: A worker process died; the calls that had not been yielded are to be made again.
        MissingExtraError: The backend is not installed, or not connected.
    """
    if plan.backend in (Backend.SERIAL, Backend.LOCAL):
        yield from itertools.starmap(function, calls)
        return
    jobs = (joblib.delayed(function)(*call) for call in calls)
    try:
        with Scratch() as scratch, _configured(plan, scratch.path):
            if plan.backend is Backend.RAY:
                yield from _in_batches(jobs, 4 * workers(plan))
                return
            pool = joblib.Parallel(return_as="generator_unordered", pre_dispatch="2*n_jobs")
            yield from pool(jobs)
    except TerminatedWorkerError as error:
        raise WorkerDiedError(str(error)) from error


def _in_batches(jobs: Iterator[Any], size: int) -> Iterator[Any]:
    """Results batch by batch: Ray's backend hands nothing out before all that it was given is done."""
    with joblib.Parallel() as pool:
        while batch := list(itertools.islice(jobs, size)):
            yield from pool(batch)


def _configured(plan: Parallelism, temporary: Path | None = None) -> Any:  # noqa: ANN401 - no annotations
    """The joblib configuration of a plan."""
    try:
        # joblib would share arrays through /dev/shm, beside the folder that a user has set for such files
        return joblib.parallel_config(backend=str(plan.backend), n_jobs=plan.n_jobs, temp_folder=temporary)
    except (ValueError, ImportError) as error:
        if plan.backend is Backend.DASK:
            raise MissingExtraError(
                'the dask backend needs a connected distributed.Client: pip install "emergraph[dask]"'
            ) from error
        raise MissingExtraError(
            f"backend {plan.backend}: {error}; for ray: pip install ray, then ray.util.joblib.register_ray()"
        ) from error


def workers(plan: Parallelism) -> int:
    """Workers that a plan has at its disposal; for a cluster, those that it has now.

    Raises:
        MissingExtraError: The backend is not installed.
    """
    if plan.backend in (Backend.SERIAL, Backend.LOCAL):
        return 1
    with _configured(plan):
        return int(joblib.effective_n_jobs(plan.n_jobs))


@lru_cache(maxsize=1)
def cores() -> int:
    """Cores that this process may use."""
    return int(joblib.cpu_count(only_physical_cores=False))
