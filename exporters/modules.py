"""PyTorch modules and exported programs: through ONNX into the tracer, checked against the module itself."""

import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import EmergraphError, InvalidInputError, MissingExtraError, UsageError
from emergraph.exporters.export import ExportOptions, ExportSummary, Progress, export_onnx
from emergraph.exporters.onnxfile import OnnxFile, read_onnx
from emergraph.exporters.runtime.assembly import assemble
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.sources import as_source
from emergraph.graphstore.store import Store

if TYPE_CHECKING:
    import torch

Array = NDArray[np.generic]
RTOL, ATOL = 1e-3, 1e-4
"""How far outputs may be from the module's: relative, and absolute per unit of the largest one."""


def require_torch() -> Any:  # noqa: ANN401 - the module itself
    """Import torch, or say how to get it.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise MissingExtraError(
            'PyTorch is needed for this; install it with: pip install "emergraph[torch]"'
        ) from error


def export_module(
    module: "torch.nn.Module | torch.export.ExportedProgram",
    args: Sequence[Any],
    store: Store,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,  # noqa: ANN401 - as torch.export takes it
    onnx_path: str | Path | None = None,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Trace the units of a PyTorch module and write its graph into a store.

    The module is exported to ONNX as it is (nothing folded or renamed, so that parameters keep their names),
    the export is run on the same inputs as the module, and refused when their outputs differ. The module is
    exported in evaluation mode and left as it was.

    Args:
        module: A module, or a program from `torch.export.export`.
        args: Example inputs, positional.
        store: Open for writing.
        kwargs: Example inputs by name.
        dynamic_shapes: Which axes may vary, as for `torch.export.export`.
        onnx_path: Where to keep the ONNX file (traces of activations need it); nowhere by default.
        options: As for `export_onnx`; `inputs` and `input_shapes` are not used.
        progress: Called with (operations done, operations in all).

    Returns:
        What the export did; `sha256` is that of the ONNX file.

    Raises:
        InvalidInputError: torch cannot export the module, or the export computes something else.
        MissingExtraError: torch or onnxscript is not installed.

    Example:
        >>> import torch
        >>> from emergraph.graphstore.store import open_store
        >>> with open_store("net.duckdb", mode="create") as store:  # doctest: +SKIP
        ...     export_module(torch.nn.Linear(3, 2), (torch.zeros(1, 3),), store).graph
        0
    """
    torch = require_torch()
    options = options or ExportOptions()
    is_module = isinstance(module, torch.nn.Module)
    label = type(module).__name__ if is_module else type(module.graph_module).__name__
    with TemporaryDirectory(prefix="emergraph-") as folder:
        path = Path(folder, "model.onnx") if onnx_path is None else Path(onnx_path)
        named = dict(kwargs or {})
        with _evaluating(module):
            expected = _outputs_of(module, args, named)
            _save_onnx(module, tuple(args), named, dynamic_shapes, path, label)
        file = read_onnx(path, limits=options.read_limits)
        feeds = _feeds(file, args, named)
        _compare(file, feeds, expected, label, options.run_limits)
        chosen = replace(
            options,
            name=options.name or label,
            source=options.source or label,
            format="module" if is_module else "exported_program",
            inputs={name: feeds[name] for name in feeds},
            input_shapes={},
        )
        return export_onnx(path, store, options=chosen, progress=progress)


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:  # noqa: ANN401
    """Evaluation mode for a while; every submodule gets its own flag back, also after an error."""
    parts = list(module.modules()) if hasattr(module, "modules") and hasattr(module, "training") else []
    flags = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, flag in zip(parts, flags, strict=True):
            part.training = flag


def _leaves(values: Any) -> list[Array]:  # noqa: ANN401 - any nesting of tensors
    """All tensors in nested tuples, lists and dicts, as arrays."""
    torch = require_torch()
    flat = torch.utils._pytree.tree_leaves(values)  # noqa: SLF001 - the public alias is experimental
    return [_array(leaf) for leaf in flat if isinstance(leaf, torch.Tensor)]


def _array(tensor: "torch.Tensor") -> Array:
    plain = tensor.detach().cpu()
    if str(plain.dtype) == "torch.bfloat16":
        import ml_dtypes

        return np.asarray(plain.float().numpy().astype(ml_dtypes.bfloat16))
    return np.asarray(plain.numpy())


def _outputs_of(module: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Array]:  # noqa: ANN401
    torch = require_torch()
    runnable = module if isinstance(module, torch.nn.Module) else module.module()
    try:
        with torch.no_grad():
            return _leaves(runnable(*args, **kwargs))
    except Exception as error:
        raise InvalidInputError(
            f"the module does not run on the example inputs: {_first_line(error)}"
        ) from error


def _save_onnx(
    module: Any,  # noqa: ANN401
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dynamic_shapes: Any,  # noqa: ANN401
    path: Path,
    label: str,
) -> None:
    torch = require_torch()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                args,
                kwargs=kwargs or None,
                dynamo=True,
                optimize=False,
                verbose=False,
                dynamic_shapes=dynamic_shapes,
            )
            program.save(str(path))
    except ImportError as error:
        raise MissingExtraError(
            'exporting modules needs onnxscript; install it with: pip install "emergraph[torch]"'
        ) from error
    except Exception as error:
        raise InvalidInputError(
            f"torch cannot export {label} to ONNX: {_first_line(error)}; control flow that depends on values "
            f"has to go through torch.cond"
        ) from error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _feeds(file: OnnxFile, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Array]:
    """The example inputs by the names that the export gave them: positional ones first, in order."""
    defaults = {tensor.name for tensor in file.model.graph.initializer}
    names = [value.name for value in file.model.graph.input if value.name not in defaults]
    found: dict[str, Array] = {}
    rest = list(names)
    for key, value in kwargs.items():
        if key in rest and len(_leaves(value)) == 1:
            found[key] = _leaves(value)[0]
            rest.remove(key)
    remaining = _leaves([args, {key: value for key, value in kwargs.items() if key not in found}])
    if len(remaining) != len(rest):
        raise InvalidInputError(
            f"the export has the inputs {', '.join(names)}; {len(remaining) + len(found)} tensors were given"
        )
    found.update(zip(rest, remaining, strict=True))
    return {name: found[name] for name in names}


def _compare(
    file: OnnxFile, feeds: Mapping[str, Array], expected: Sequence[Array], label: str, limits: RunLimits
) -> None:
    """Refuse an export whose outputs differ from the module's."""
    flat = flatten(file.model)
    try:
        with ModelProcess(limits) as process:
            process.load(assemble(flat, flat.outputs, as_source(file)))
            results = process.run(feeds, list(flat.outputs))
    except InvalidInputError as error:
        raise InvalidInputError(
            f"torch exported {label} to an ONNX file that does not run: {error}; no graph was made"
        ) from error
    found = [results[name].values for name in flat.outputs]
    if len(found) != len(expected):
        raise InvalidInputError(
            f"torch exported {label} with {len(found)} outputs, the module has {len(expected)}"
        )
    for position, (theirs, ours) in enumerate(zip(found, expected, strict=True)):
        problem = _difference(theirs, ours)
        if problem:
            raise InvalidInputError(
                f"torch exported {label} to an ONNX file that computes something else: output {position} "
                f"{problem}; no graph was made"
            )


def _difference(theirs: Array | None, ours: Array) -> str | None:
    if theirs is None:
        return "is no tensor"
    if theirs.shape != ours.shape:
        return f"has shape {list(theirs.shape)}, expected {list(ours.shape)}"
    a, b = theirs.astype(np.float64), ours.astype(np.float64)
    scale = max(1.0, float(np.abs(b).max(initial=0.0, where=np.isfinite(b))))
    if np.allclose(a, b, rtol=RTOL, atol=ATOL * scale, equal_nan=True):
        return None
    with np.errstate(invalid="ignore"):
        return f"differs by up to {float(np.nanmax(np.abs(a - b))):.3g}"


def load_factory(spec: str) -> Any:  # noqa: ANN401 - whatever the factory makes
    """Call a factory named "package.module:callable", which the caller trusts: its code runs.

    Returns:
        What the factory returns: a module, or a tuple (module, example arguments).

    Raises:
        UsageError: There is no such module or callable.
        InvalidInputError: The factory fails.
    """
    target, _, attribute = spec.partition(":")
    if not target or not attribute:
        raise UsageError(f"{spec!r} names no factory; expected package.module:callable")
    try:
        found: Any = importlib.import_module(target)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"there is no {spec!r}: {_first_line(error)}") from error
    try:
        return found() if callable(found) else found
    except EmergraphError:
        raise
    except Exception as error:
        raise InvalidInputError(f"{spec} failed: {type(error).__name__}: {_first_line(error)}") from error
