"""Run a function on many arguments: here, in threads or processes of this machine, or on a cluster.

All of it is joblib's: its threads and worker processes (loky), and its backends for dask and ray, which run
on the cluster that `cluster` has connected to.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
    if plan.backend in (Backend.SERIAL, Backend.LOCAL, Backend.RAY):
        with held(plan) as mapped:
            yield from mapped(function, calls)
        return
    jobs = (joblib.delayed(function)(*call) for call in calls)
    try:
        with Scratch() as scratch, _configured(plan, scratch.path):
            pool = joblib.Parallel(return_as="generator_unordered", pre_dispatch="2*n_jobs")
            yield from pool(jobs)
    except TerminatedWorkerError as error:
        raise WorkerDiedError(str(error)) from error


@contextmanager
def held(plan: Parallelism) -> Iterator[Callable[[Callable[..., T], Iterable[tuple[Any, ...]]], Iterator[T]]]:
    """Hold workers for several rounds of calls; as for `spread`, but results come in the order of the calls.

    A few calls per worker are made together: Ray's backend hands nothing out before all that it was given is
    done, and starts its workers again for each pool.

    Raises:
        WorkerDiedError: A worker process died; the round is to be made again, with other workers.
        MissingExtraError: The backend is not installed, or not connected.
    """
    if plan.backend in (Backend.SERIAL, Backend.LOCAL):
        yield itertools.starmap
        return
    size = 4 * workers(plan)
    with Scratch() as scratch, _configured(plan, scratch.path), joblib.Parallel() as pool:

        def mapped(function: Callable[..., T], calls: Iterable[tuple[Any, ...]]) -> Iterator[T]:
            jobs = (joblib.delayed(function)(*call) for call in calls)
            try:
                while batch := list(itertools.islice(jobs, size)):
                    yield from pool(batch)
            except TerminatedWorkerError as error:
                raise WorkerDiedError(str(error)) from error

        yield mapped


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
