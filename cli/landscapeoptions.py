"""The options of `emergraph landscape`: what to evaluate on, what to measure, in what time."""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.inputs import ModelInputs
from emergraph.cli.limits import Limits
from emergraph.cli.links import Links
from emergraph.errors import UsageError
from emergraph.optionforms import parse_seconds
from emergraph.options import FileRole, member

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from emergraph.analysis.landscape.modelsurvey import ModelOptions


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the losses are computed on, and how fast."""

    samples: Annotated[
        int, typer.Option(min=1, help="Probe inputs to make up where --inputs gives no evaluation set.")
    ] = 16
    loss: Annotated[
        str,
        typer.Option(help="auto, kl or mse to the model's own outputs; with --target cross_entropy or mse."),
    ] = "auto"
    target: Annotated[
        str | None, typer.Option(metavar="NAME", help="Array of --inputs that holds labels or values.")
    ] = None
    ignore_label: Annotated[
        int | None,
        typer.Option(metavar="N", help="Label of --target that stands for no class, such as 255 or -100."),
    ] = None
    model_output: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Output to compare; may be repeated.  [default: all but states]"),
    ] = None
    embeddings: Annotated[bool, typer.Option("--embeddings", help="Move embedding tables, too.")] = False
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Weights for the module of a factory; read without running anything."
        ),
        FileRole.MODEL,
    ] = None
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Another checkpoint: is there a barrier on the line to it?"),
        FileRole.MODEL,
    ] = None
    run: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Checkpoint of a training run, in order; repeat, 3 at least."),
        FileRole.MODEL,
    ] = None
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="Cut the survey down to about this long; 0 never cuts.")
    ] = "60s"
    backend: Annotated[
        str | None,
        typer.Option(help="serial, threading, loky, dask or ray.  [default: the fastest of a short trial]"),
    ] = None
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Cluster of --backend dask or ray.  [default: one on this machine]"
        ),
    ] = None
    jobs: Annotated[int, typer.Option(help="Workers for --backend; -1 is one per core.")] = -1
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep results in FILE while it runs, and go on from them."),
        FileRole.WRITES,
    ] = None

    def options(self, inputs: ModelInputs, limits: Limits, links: Links) -> "ModelOptions":
        """The library's options.

        Raises:
            UsageError: A word is unknown, or the target is not among the inputs.
        """
        from emergraph.analysis.landscape.losses import LossKind
        from emergraph.analysis.landscape.modelsurvey import ModelOptions
        from emergraph.analysis.landscape.sweep import Backend, Parallelism
        from emergraph.exporters.runtime.limits import RunLimits

        if self.run is not None and len(self.run) < 3:
            raise UsageError(f"--run: expected at least 3 checkpoints, found {len(self.run)}")
        arrays = inputs.arrays()
        parallelism = None
        if self.backend is not None:
            backend = member(Backend, self.backend, "backend")
            parallelism = Parallelism(backend=backend, n_jobs=self.jobs)
        return ModelOptions(
            inputs={name: array for name, array in arrays.items() if name != self.target},
            input_shapes=inputs.shapes(),
            samples=self.samples if inputs.inputs is None else None,
            targets=self._target(arrays),
            ignore_label=self.ignore_label,
            loss=member(LossKind, self._loss(), "loss"),
            outputs=tuple(self.model_output) if self.model_output else None,
            embeddings=self.embeddings,
            weights=self.weights,
            to=self.to,
            trajectory=tuple(self.run or ()),
            root=links.root,
            limits=RunLimits(wall_seconds=limits.seconds, memory_bytes=limits.memory_bytes),
            budget=None if self.budget == "0" else parse_seconds(self.budget),
            parallelism=parallelism,
        )

    @contextmanager
    def connected(self) -> "Iterator[None]":
        """Keep the cluster of --backend, if it is one, while the body runs.

        Raises:
            UsageError: --cluster without such a backend, or nothing answers there.
            MissingExtraError: The backend is not installed.
        """
        from emergraph.analysis.landscape.cluster import cluster
        from emergraph.analysis.landscape.sweep import Backend

        if self.backend not in (Backend.DASK, Backend.RAY):
            if self.cluster is not None:
                raise UsageError("--cluster goes with --backend dask or ray")
            yield
            return
        with cluster(Backend(self.backend), address=self.cluster, n_jobs=self.jobs):
            yield

    def _loss(self) -> str:
        return "cross_entropy" if self.loss == "auto" and self.target is not None else self.loss

    def _target(self, arrays: "dict[str, NDArray[np.generic]]") -> "NDArray[np.generic] | None":
        if self.target is None:
            return None
        if self.target not in arrays:
            there = ", ".join(sorted(arrays)) or "nothing"
            raise UsageError(f"--target {self.target}: no such array in --inputs; there is {there}")
        return arrays[self.target]
