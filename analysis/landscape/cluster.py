"""Cluster engines behind the sweep's switch: connect to one, or start one on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from emergraph.analysis.landscape.options import Backend
from emergraph.analysis.landscape.sweep import cores
from emergraph.errors import MissingExtraError, UsageError


@contextmanager
def cluster(backend: Backend, *, address: str | None = None, n_jobs: int = -1) -> Iterator[None]:
    """Hold a connection to a cluster while the body runs sweeps with this backend.

    Args:
        backend: dask or ray.
        address: Of the scheduler, such as tcp://host:8786; None starts workers on this machine.
        n_jobs: Workers on this machine; -1 for one per core.

    Raises:
        MissingExtraError: The engine is not installed.
        UsageError: Nothing answers at the address, or the backend is not a cluster.
    """
    if backend not in (Backend.DASK, Backend.RAY):
        raise UsageError(f"backend {backend}: expected dask or ray for a cluster")
    workers = n_jobs if n_jobs > 0 else cores()
    with _dask(address, workers) if backend is Backend.DASK else _ray(address, workers):
        yield


@contextmanager
def _dask(address: str | None, workers: int) -> Iterator[None]:
    try:
        import distributed
    except ImportError:
        raise MissingExtraError('the dask backend needs pip install "emergraph[dask]"') from None
    try:
        # Threads of one process: engines release the interpreter lock, and nothing is sent about.
        options: dict[str, Any] = {
            "n_workers": workers,
            "threads_per_worker": 1,
            "processes": False,
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
