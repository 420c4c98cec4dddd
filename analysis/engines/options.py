"""The one switch for where tasks run."""

from enum import StrEnum
from typing import ClassVar

from emergraph.errors import UsageError
from emergraph.options import Options, option


class Backend(StrEnum):
    """Where tasks run."""

    LOCAL = "local"
    """On this machine, in the way that suits the work."""
    SERIAL = "serial"
    """In this thread; the engine may use several threads inside an operation."""
    THREADING = "threading"
    """Python threads: engines release the interpreter lock while they compute."""
    PROCESSES = "loky"
    """Worker processes of joblib; a model that crashes takes a worker, not this process."""
    DASK = "dask"
    """The connected `distributed.Client`."""
    RAY = "ray"
    """A Ray cluster registered with joblib (`ray.util.joblib.register_ray`)."""

    @property
    def is_cluster(self) -> bool:
        """Whether it may be one of several machines."""
        return self in (Backend.DASK, Backend.RAY)


class EngineOptions(Options):
    """Where tasks run."""

    HEADING: ClassVar = "Where it runs"

    backend: Backend = option(
        default=Backend.LOCAL,
        help="local (what suits the work), serial, threading, loky, dask or ray.",
    )
    cluster: str | None = option(
        default=None,
        help="Cluster of --backend dask or ray.",
        metavar="ADDRESS",
        default_text="one on this machine",
    )
    jobs: int = option(default=-1, help="Workers for --backend; -1 is one per core.")

    @property
    def n_workers(self) -> int:
        """Workers to ask for: where none are named, all of a cluster, or one per core of this machine."""
        if self.jobs > 0 or self.backend.is_cluster:
            return self.jobs
        from emergraph.analysis.engines.spread import cores

        return cores()

    def check(self) -> None:
        """Refuse a cluster that nothing runs on.

        Raises:
            UsageError: There is one.
        """
        if self.cluster is not None and not self.backend.is_cluster:
            raise UsageError("--cluster goes with --backend dask or ray")
