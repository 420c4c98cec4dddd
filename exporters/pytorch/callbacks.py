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

    Metrics are those of the last log entry, the step is `state.global_step`.

    Args:
        recorder: Inside its `with` block while the trainer runs.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    library = _first_of(("transformers",), "transformers")

    class RecorderCallback(library.TrainerCallback):  # type: ignore[misc, name-defined]
        """Records a model at the end of every epoch."""

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002
            """Take a snapshot; one process of several does."""
            if getattr(state, "is_world_process_zero", True):
                logged = state.log_history[-1] if state.log_history else {}
                recorder.step(int(state.global_step), **numbers(logged))

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
