"""A recorder as a callback of Lightning or of the Trainer of transformers, whichever is installed."""

import importlib
from collections.abc import Mapping
from numbers import Real
from typing import Any

from emergraph.errors import MissingExtraError
from emergraph.exporters.pytorch.recorder import Recorder


def lightning_callback(recorder: Recorder) -> Any:  # noqa: ANN401 - a class of a library that may be missing
    """Return a Lightning callback that records at the end of every training epoch.

    Metrics are what was logged (`trainer.callback_metrics`), the step is `trainer.current_epoch`.

    Args:
        recorder: Inside its `with` block while the trainer runs.

    Raises:
        MissingExtraError: Neither `lightning` nor `pytorch_lightning` is installed.

    Example:
        >>> with record(model, "run.duckdb", inputs=probe) as rec:  # doctest: +SKIP
        ...     Trainer(callbacks=[lightning_callback(rec)]).fit(model, data)
    """
    library = _first_of(("lightning.pytorch", "pytorch_lightning"), "lightning")

    class RecorderCallback(library.Callback):  # type: ignore[misc, name-defined]
        """Records a module at the end of every training epoch."""

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401, ARG002
            """Take a snapshot; one process of several does."""
            if getattr(trainer, "is_global_zero", True):
                recorder.step(int(trainer.current_epoch), **numbers(trainer.callback_metrics))

    return RecorderCallback()


def trainer_callback(recorder: Recorder) -> Any:  # noqa: ANN401 - a class of a library that may be missing
    """Return a callback for the `Trainer` of transformers that records at the end of every epoch.

    The step is `state.global_step`. Metrics are what was logged since the last snapshot; the Trainer logs and
    evaluates an epoch after its end, so what it logs at the same step is added to the snapshot afterwards.

    Args:
        recorder: Inside its `with` block while the trainer runs.

    Raises:
        MissingExtraError: transformers is not installed.

    Example:
        >>> with record(model, "run.duckdb", inputs=probe) as rec:  # doctest: +SKIP
        ...     Trainer(model, args, train_dataset=data, callbacks=[trainer_callback(rec)]).train()
    """
    library = _first_of(("transformers",), "transformers")

    class RecorderCallback(library.TrainerCallback):  # type: ignore[misc, name-defined]
        """Records a model at the end of every epoch."""

        _before = -1
        """Step of the snapshot before."""
        _now: int | None = None
        """Step whose snapshot still takes metrics; None for none."""

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
            """Take a snapshot; one process of several does."""
            if not getattr(state, "is_world_process_zero", True):
                return
            step = int(state.global_step)
            found: dict[str, float] = {}
            for entry in state.log_history:
                if entry.get("step", step) > self._before:
                    found |= numbers(entry)
            taken = recorder.step(step, **found)
            self._now = None if taken is None else step
            self._before = step if taken is not None else self._before

        def on_log(
            self,
            args: Any,  # noqa: ANN401, ARG002
            state: Any,  # noqa: ANN401
            control: Any,  # noqa: ANN401, ARG002
            logs: Mapping[str, Any] | None = None,
            **_: Any,  # noqa: ANN401
        ) -> None:
            """Add what is logged about the epoch that has just ended; not the summary of the training."""
            if logs and int(state.global_step) == self._now and "train_runtime" not in logs:
                recorder.add_metrics(**numbers(logs))

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
            """Take no more metrics: the model may be that of an earlier step from here on."""
            self._now = None

    return RecorderCallback()


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are one number each, also as tensors of one element."""
    found: dict[str, float] = {}
    for name, value in values.items():
        plain = value.item() if getattr(value, "numel", lambda: 0)() == 1 else value
        if isinstance(plain, Real) and name != "step":
            found[name] = float(plain)
    return found


def _first_of(names: tuple[str, ...], package: str) -> Any:  # noqa: ANN401
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingExtraError(f"{package} is not installed; install it with: pip install {package}")
