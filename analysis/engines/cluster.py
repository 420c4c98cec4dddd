"""Clusters behind the switch: connect to one, or start one on this machine."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from emergraph.analysis.engines.options import Backend, EngineOptions
from emergraph.analysis.engines.spread import Parallelism, WorkerDiedError, cores, held
from emergraph.errors import LimitError, MissingExtraError, UsageError


@contextmanager
def connected(options: EngineOptions, *, processes: bool = False) -> Iterator[None]:
    """Hold the cluster that options name, if they name one, while the body runs; as for `cluster`."""
    if not options.backend.is_cluster:
        yield
        return
    with cluster(options.backend, address=options.cluster, n_jobs=options.jobs, processes=processes):
        yield


@contextmanager
def tasks_on(
    options: EngineOptions,
) -> Iterator[Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterator[Any]] | None]:
    """Hold the workers that options name, for many rounds of small calls; None for `local`.

    What is held calls a function with each of the arguments, and gives what it returns in their order.

    Raises:
        LimitError: Out of what is held, where a worker has died.
        MissingExtraError: The engine is not installed.
        UsageError: Nothing answers at the address.
    """
    if options.backend is Backend.LOCAL:
        yield None
        return
    plan = Parallelism(backend=options.backend, n_jobs=options.n_workers)
    with connected(options, processes=True), held(plan) as mapped:

        def said(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
            try:
                yield from mapped(function, calls)
            except WorkerDiedError as error:
                raise LimitError(
                    "a worker died in the middle of a task: out of memory? Take fewer --jobs, and run again"
                ) from error

        yield said


@contextmanager
def cluster(
    backend: Backend, *, address: str | None = None, n_jobs: int = -1, processes: bool = False
) -> Iterator[None]:
    """Hold a connection to a cluster while the body runs tasks with this backend.

    Args:
        backend: dask or ray.
        address: Of the scheduler, such as tcp://host:8786; None starts workers on this machine.
        n_jobs: Workers on this machine; -1 for one per core.
        processes: Whether dask's workers on this machine are processes: for work that holds the
            interpreter's lock. Threads of this process get what they work on without copies.

    Raises:
        MissingExtraError: The engine is not installed.
        UsageError: Nothing answers at the address, or the backend is not a cluster.
    """
    if not backend.is_cluster:
        raise UsageError(f"backend {backend}: expected dask or ray for a cluster")
    workers = n_jobs if n_jobs > 0 else cores()
    with _dask(address, workers, processes) if backend is Backend.DASK else _ray(address, workers):
        yield


@contextmanager
def _dask(address: str | None, workers: int, processes: bool) -> Iterator[None]:
    try:
        import distributed
    except ImportError:
        raise MissingExtraError('the dask backend needs pip install "emergraph[dask]"') from None
    try:
        options: dict[str, Any] = {
            "n_workers": workers,
            "threads_per_worker": 1,
            "processes": processes,
            "dashboard_address": None,
        }
        connect: Any = distributed.Client
        client = connect(address, timeout=10) if address is not None else connect(**options)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no dask scheduler answers at {address}: {error}; expected host:port of one"
        ) from error
    with client:
        yield


@contextmanager
def _ray(address: str | None, workers: int) -> Iterator[None]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise MissingExtraError("the ray backend needs pip install ray") from None
    try:
        ray.init(
            address=address,
            num_cpus=None if address else workers,
            log_to_driver=False,
            logging_level="ERROR",
            include_dashboard=False,
        )
    except ConnectionError as error:
        raise UsageError(f"no ray cluster answers at {address}: {error}; expected its address") from error
    register_ray()
    try:
        yield
    finally:
        ray.shutdown()
