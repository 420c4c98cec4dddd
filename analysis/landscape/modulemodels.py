"""A PyTorch module made ready for a survey: from a factory that the user trusts, on given or drawn inputs."""

import copy
import inspect
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emergraph.analysis.landscape.engine_torch import TorchEvaluator, VmapEvaluator
from emergraph.analysis.landscape.evaluator import Weights
from emergraph.analysis.landscape.optima import WithOutputs
from emergraph.analysis.landscape.options import SurveyOptions
from emergraph.analysis.landscape.prepared import Between, Checkpoint, PreparedModel
from emergraph.choices import unknown
from emergraph.errors import UsageError
from emergraph.exporters.pytorch.tensors import require_torch

if TYPE_CHECKING:
    import torch

    from emergraph.analysis.landscape.options import ModelOptions

VMAP_PARAMS = 20_000
"""Parameters up to which evaluating many weight vectors at once may win."""


def prepare_module(
    spec: str, asked: SurveyOptions, chosen: "ModelOptions", samples: int | None
) -> PreparedModel:
    """Call a factory, load weights into its module, and choose the evaluation set.

    Args:
        spec: "package.module:factory"; its code runs. It returns a module, or (module, arguments).
        asked: What will be measured.
        chosen: Weights, inputs, shapes of inputs to draw, targets, loss.
        samples: Inputs to draw along the first axis of the given shapes.

    Raises:
        MissingExtraError: torch is not installed.
        UsageError: The factory makes something else, or there are no inputs.
    """
    torch = require_torch("a landscape of a PyTorch module")
    from emergraph.exporters.pytorch.factory import load_module

    module, example = load_module(spec)
    if chosen.outputs is not None:
        raise UsageError("--model-output goes with an ONNX file; a module's output is compared as it is")
    sha256 = None
    if chosen.weights is not None:
        sha256 = _load(module, chosen.weights, chosen.root)
    inputs, seed = _inputs(module, example, asked, chosen, samples)
    targets = None if chosen.targets is None else torch.from_numpy(np.array(chosen.targets))
    evaluator = TorchEvaluator(module, inputs, targets, loss=chosen.loss, ignored=chosen.ignore_label)
    start = time.perf_counter()
    evaluator.loss(evaluator.base)
    first = next((part for part in inputs if part.ndim), None)
    return PreparedModel(
        source=spec,
        sha256=sha256,
        samples=1 if first is None else len(first),
        probes_seed=seed,
        evaluator=evaluator,
        seconds=time.perf_counter() - start,
        between=lambda: _between(module, evaluator, chosen.root),
        curved=evaluator,
        alternatives=_alternatives(module, inputs, targets, chosen, evaluator),
    )


def _alternatives(
    module: "torch.nn.Module",
    inputs: "tuple[torch.Tensor, ...]",
    targets: "torch.Tensor | None",
    chosen: "ModelOptions",
    evaluator: TorchEvaluator,
) -> tuple[tuple[str, WithOutputs], ...]:
    """Many weight vectors at once, for small nets whose operations torch can batch over their weights."""
    if evaluator.n_params > VMAP_PARAMS:
        return ()
    batched = VmapEvaluator(module, inputs, targets, loss=chosen.loss, ignored=chosen.ignore_label)
    steps = np.linspace(-1e-2, 1e-2, 3)
    try:
        found = batched.losses_along(evaluator.base, evaluator.base, steps)
    except (RuntimeError, ValueError, NotImplementedError):  # an operation that vmap does not know
        return ()
    known = evaluator.losses_along(evaluator.base, evaluator.base, steps)
    return (("vmap", batched),) if np.allclose(found, known, rtol=1e-4, atol=1e-6) else ()


def _load(module: "torch.nn.Module", path: Path, root: Path | None) -> str:
    """Put the weights of a file into a module without running anything; return the file's checksum."""
    from emergraph.exporters.pytorch.weights import load_weights
    from emergraph.exporters.weightfiles.reader import read_weights

    weights = read_weights(path, root=root)
    load_weights(module, weights)
    return weights.sha256


def _inputs(
    module: "torch.nn.Module",
    example: tuple[Any, ...] | None,
    asked: SurveyOptions,
    chosen: "ModelOptions",
    samples: int | None,
) -> "tuple[tuple[torch.Tensor, ...], int | None]":
    """Positional inputs, and the seed of drawn ones."""
    import torch

    arrays = {name: torch.from_numpy(np.array(array)) for name, array in chosen.inputs.items()}
    random = torch.Generator().manual_seed(asked.seed)
    for name, shape in chosen.input_shapes.items():
        full = shape if samples is None else (samples, *shape[1:])
        arrays.setdefault(name, torch.randn(full, generator=random))
    drawn = asked.seed if chosen.input_shapes else None
    if not arrays:
        if example is None:
            names = ", ".join(_arguments(module))
            raise UsageError(
                f"a module needs inputs: give --inputs FILE.npz or --input-shape NAME=1,3,64,64 for "
                f"{names or 'each argument'}, or let the factory return (module, arguments)"
            )
        return example, None
    wanted = _arguments(module)
    if len(arrays) == 1 and len(wanted) == 1:
        return tuple(arrays.values()), drawn
    if extra := [name for name in arrays if name not in wanted]:
        raise UsageError(unknown("argument of the module", extra[0], wanted))
    order = [name for name in wanted if name in arrays]
    if order != wanted[: len(order)]:
        raise UsageError(
            f"inputs: expected the first arguments of {', '.join(wanted)}, found {', '.join(order)}"
        )
    return tuple(arrays[name] for name in order), drawn


def _arguments(module: "torch.nn.Module") -> list[str]:
    return list(inspect.signature(module.forward).parameters)


def _between(module: "torch.nn.Module", evaluator: TorchEvaluator, root: Path | None) -> Between:
    """Lines and runs: running statistics of batch norm are estimated anew at every point."""
    notes: tuple[str, ...] = ()
    if evaluator.has_batch_norm:
        evaluator = evaluator.recomputing()
        notes = (
            "batch norm: running statistics recomputed from the inputs at every point of lines and runs",
        )

    def read(path: Path) -> Checkpoint:
        other = copy.deepcopy(module)
        _load(other, path, root)
        return Checkpoint(name=path.name, weights=_flat(other))

    return Between(evaluator=evaluator, read=read, notes=notes)


def _flat(module: "torch.nn.Module") -> Weights:
    parts = [parameter.detach().float().reshape(-1).numpy() for parameter in module.parameters()]
    return np.concatenate(parts)
