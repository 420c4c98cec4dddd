"""torch's own ONNX exporter, kept quiet, its errors in one line."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emergraph.errors import InvalidInputError, MissingExtraError, chain_of
from emergraph.exporters.pytorch.tensors import require_torch
from emergraph.graphstore.text import first_line

_COLOURS = re.compile("\x1b\\[[0-9;]*m")


def save_onnx(
    module: Any,  # noqa: ANN401
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dynamic_shapes: Any,  # noqa: ANN401
    path: Path,
    label: str,
    *,
    outside: Collection[str] = (),
) -> None:
    """Export a module or program to an ONNX file as it is: nothing folded, renamed or left out.

    Args:
        module: The module or program.
        args: Example inputs, positional.
        kwargs: Example inputs by name.
        dynamic_shapes: As for `torch.onnx.export`.
        path: The file.
        label: Name of the module, for messages.
        outside: Parameters whose values stay out of the file: they are inputs of it, behind the others;
            those that nothing reads are left out.

    Raises:
        InvalidInputError: torch cannot export it.
        MissingExtraError: onnxscript is not installed.
    """
    torch = require_torch()
    try:
        with _silent():
            program = torch.onnx.export(
                module,
                args,
                kwargs=kwargs or None,
                dynamo=True,
                optimize=False,
                verbose=False,
                dynamic_shapes=dynamic_shapes,
            )
            _leave_outside(program.model.graph, outside)
            program.save(str(path))
    except ImportError as error:
        raise MissingExtraError(
            'exporting modules needs onnxscript; install it with: pip install "emergraph[torch]"'
        ) from error
    except Exception as error:
        raise InvalidInputError(
            f"torch cannot export {label} to ONNX: {_reason(error)}; control flow that depends on values "
            f"has to go through torch.cond, or record its activations with trace_module"
        ) from error


def _leave_outside(graph: Any, names: Collection[str]) -> None:  # noqa: ANN401 - of onnx_ir
    """Make inputs of initializers, without their values."""
    for name in [name for name in graph.initializers if name in names]:
        value = graph.initializers.pop(name)
        value.const_value = None
        if value.uses() or value.is_graph_output():
            graph.inputs.append(value)


@contextmanager
def _silent() -> Iterator[None]:
    """Silence the exporter: optional packages, its own future, failed attempts."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if _is_torchs(name)]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _is_torchs(name: str) -> bool:
    return name.partition(".")[0] in {"torch", "onnxscript", "onnx_ir"}


def _reason(error: BaseException) -> str:
    """What torch says at the bottom of its chain of errors, in one line."""
    *_, bottom = chain_of(error, context=False)
    return _COLOURS.sub("", first_line(bottom))
