"""What `emergraph landscape` evaluates on and where, from its options."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from emergraph.analysis.landscape.options import (
    Backend,
    LossKind,
    ModelOptions,
    ParallelOptions,
    TargetOptions,
)
from emergraph.choices import unknown
from emergraph.cli.limits import Limits
from emergraph.cli.links import Links
from emergraph.errors import UsageError
from emergraph.exporters.runtime.inputwords import InputOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def evaluation(
    how: ModelOptions,
    inputs: InputOptions,
    target: TargetOptions,
    parallel: ParallelOptions,
    *,
    limits: Limits,
    links: Links,
) -> ModelOptions:
    """The options of an evaluation with what files hold.

    Raises:
        UsageError: The target is not among the inputs.
        InvalidInputError: The file of inputs cannot be read.
    """
    from emergraph.analysis.landscape.sweep import Parallelism
    from emergraph.exporters.runtime.limits import RunLimits

    arrays = inputs.arrays()
    backend = parallel.backend
    labelled = how.loss is LossKind.AUTO and target.target is not None
    return replace(
        how,
        inputs={name: array for name, array in arrays.items() if name != target.target},
        input_shapes=inputs.shapes(),
        samples=how.samples if inputs.inputs is None else None,
        targets=_target(target.target, arrays),
        loss=LossKind.CROSS_ENTROPY if labelled else how.loss,
        root=links.root,
        limits=RunLimits(wall_seconds=limits.seconds, memory_bytes=limits.memory_bytes),
        parallelism=None if backend is None else Parallelism(backend=backend, n_jobs=parallel.jobs),
        source=inputs.kept() | target.kept(),
    )


@contextmanager
def connected(parallel: ParallelOptions) -> Iterator[None]:
    """Keep the cluster of --backend, if it is one, while the body runs.

    Raises:
        UsageError: Nothing answers there.
        MissingExtraError: The backend is not installed.
    """
    from emergraph.analysis.landscape.cluster import cluster

    if parallel.backend not in (Backend.DASK, Backend.RAY):
        yield
        return
    with cluster(parallel.backend, address=parallel.cluster, n_jobs=parallel.jobs):
        yield


def _target(name: str | None, arrays: "dict[str, NDArray[np.generic]]") -> "NDArray[np.generic] | None":
    if name is None:
        return None
    if name not in arrays:
        raise UsageError(unknown("--target", name, sorted(arrays)))
    return arrays[name]
