"""Losses of an ONNX model at any weights, through onnxruntime; needs no torch.

The promoted weights are views of one flat buffer that onnxruntime reads in place, so a new weight vector
costs one copy into the buffer and no session is ever rebuilt.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.landscape.evaluator import Weights, read_only
from emergraph.analysis.landscape.layout import Layout
from emergraph.analysis.landscape.losses import LossFunction, make_loss
from emergraph.analysis.landscape.options import LossKind
from emergraph.analysis.landscape.reweight import ReweightableModel
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.runtime.engine import onnxruntime
from emergraph.exporters.runtime.widening import as_run
from emergraph.graphstore.text import first_line

Array = NDArray[np.generic]
Feeds = Mapping[str, Array]
T = TypeVar("T")


class OrtEvaluator:
    """Losses of an ONNX model over its weights.

    Args:
        model: From `reweight.reweightable`.
        batches: One or more sets of inputs by the file's input names; the evaluation set, fixed for good.
        loss: What to measure; by default against the base model's own outputs.
        targets: Labels or values for one batch.
        ignored: Label that stands for no class.
        function: The user's function of the outputs, for `LossKind.FUNCTION`.
        threads: Of onnxruntime, per evaluation; 0 for one per core.
        optimise: Let onnxruntime fuse operations.

    Raises:
        InvalidInputError: onnxruntime refuses the model or the inputs, or the base loss is not finite.
        UsageError: Inputs and model do not fit, or targets and loss do not.
    """

    def __init__(
        self,
        model: ReweightableModel,
        batches: Sequence[Feeds],
        *,
        loss: LossKind = LossKind.AUTO,
        targets: Array | None = None,
        ignored: int | None = None,
        function: LossFunction | None = None,
        threads: int = 0,
        optimise: bool = True,
    ) -> None:
        if not batches or (targets is not None and len(batches) != 1):
            raise UsageError(
                f"evaluation set: expected one batch with targets or some without, found {len(batches)}"
            )
        self._model = model
        self._batches = [self._named(batch) for batch in batches]
        self._loss, self._targets, self._ignored, self._function = loss, targets, ignored, function
        self._threads = threads
        self._optimise = optimise
        self._base = read_only(model.base, model.layout)
        self._open()

    def _named(self, batch: Feeds) -> dict[str, Array]:
        slots = self._model.input_slots
        if set(batch) != set(slots):
            raise UsageError(f"inputs: expected {sorted(slots)}, found {sorted(batch)}")
        run = {name: as_run(array, self._model.replaced) for name, array in batch.items()}
        return {slots[name]: np.ascontiguousarray(array) for name, array in run.items()}

    def _open(self) -> None:
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if not self._optimise:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = _attempt(
            "loading", ort.InferenceSession, self._model.model, options, providers=["CPUExecutionProvider"]
        )
        self._buffer = self._base.copy()
        views = [self._buffer[b.span].reshape(b.shape) for b in self.layout.blocks]
        weights = {
            slot: ort.OrtValue.ortvalue_from_numpy(view)
            for slot, view in zip(self._model.weight_slots, views, strict=True)
        }
        self._feeds = [
            {**weights, **{slot: ort.OrtValue.ortvalue_from_numpy(array) for slot, array in batch.items()}}
            for batch in self._batches
        ]
        base = [self._outputs(feeds) for feeds in self._feeds]
        self._losses = [
            make_loss(
                self._loss,
                outputs,
                sigmoid=self._model.sigmoid,
                targets=self._targets,
                ignored=self._ignored,
                function=self._function,
            )
            for outputs in base
        ]
        start = self._evaluate()
        if not np.isfinite(start):
            raise InvalidInputError(
                f"the loss at the model's own weights is {start}; expected a finite number"
            )

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in another process needs; it opens a session of its own."""
        live = ("_session", "_buffer", "_feeds", "_losses")
        return {name: value for name, value in vars(self).items() if name not in live}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open a session for a copy."""
        vars(self).update(state)
        self._base.flags.writeable = False
        self._open()

    def with_threads(self, threads: int) -> "OrtEvaluator":
        """Return a copy with a session of its own and another number of threads."""
        copy = object.__new__(OrtEvaluator)
        copy.__setstate__({**self.__getstate__(), "_threads": threads})
        return copy

    @property
    def layout(self) -> Layout:
        """Where each promoted tensor lies in the vector."""
        return self._model.layout

    @property
    def base(self) -> Weights:
        """(n_params,) the file's own weights, read-only."""
        return self._base

    @property
    def n_params(self) -> int:
        """Length of the vector."""
        return self._base.size

    @property
    def loss_name(self) -> str:
        """What is compared with what."""
        return self._losses[0].name

    @property
    def notes(self) -> tuple[str, ...]:
        """What was rewritten in the model, for reports."""
        return self._model.notes

    def outputs(self, theta: Weights) -> list[list[Array]]:
        """Outputs at a weight vector, one list per batch."""
        np.copyto(self._buffer, theta)
        return [self._outputs(feeds) for feeds in self._feeds]

    def loss(self, theta: Weights) -> float:
        """Loss at a weight vector, mean over batches; NaN or infinite where the model overflows."""
        if theta.shape != self._buffer.shape:
            raise UsageError(f"weights: expected shape {self._buffer.shape}, found {theta.shape}")
        np.copyto(self._buffer, theta)
        return self._evaluate()

    def losses_along(
        self, start: Weights, direction: Weights, steps: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Losses at `start + s direction`, each computed from `start` straight into the buffer."""
        values = np.empty(len(steps))
        for i, step in enumerate(steps):
            np.multiply(direction, np.float32(step), out=self._buffer)
            self._buffer += start
            values[i] = self._evaluate()
        return values

    def _evaluate(self) -> float:
        parts = [loss(self._outputs(feeds)) for loss, feeds in zip(self._losses, self._feeds, strict=True)]
        return float(np.mean(parts))

    def _outputs(self, feeds: Mapping[str, Any]) -> list[Array]:
        found = _attempt("running", self._session.run_with_ort_values, list(self._model.output_slots), feeds)
        return [value.numpy() for value in found]


def _attempt(doing: str, call: Callable[..., T], *args: object, **options: object) -> T:
    """Call onnxruntime; its many kinds of exception become one."""
    try:
        return call(*args, **options)
    except Exception as error:
        told = first_line(error)[:300]
        raise InvalidInputError(f"{doing} the model with its weights as inputs failed: {told}") from error
