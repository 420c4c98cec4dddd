"""Losses of a PyTorch module at any weights: parameters are views of one flat buffer.

The module is copied once; the copy's parameters are views of a flat buffer, so a new weight vector costs
one vectorised write and no parameter is ever stepped in place. Along a line the first layers add instead of
multiplying (`entrance`). For very small nets `torch.func.vmap` evaluates many weight vectors at once; it
loses on large matrix products and convolutions, so `fastest` measures both.
"""

import copy
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.landscape.evaluator import Weights
from emergraph.analysis.landscape.layout import Layout, ParameterBlock
from emergraph.analysis.landscape.linear_inputs import SHORTEST, on_a_line, run_and_watch
from emergraph.analysis.landscape.options import LossKind
from emergraph.analysis.landscape.tensor_losses import tensor_loss
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.pytorch.tensors import require_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import torch


# Products of a Hessian with vectors by double backward through a cached graph.


class HessianOperator:
    """The Hessian of a scalar with respect to a list of parameters, in their flat concatenation.

    Args:
        loss: Scalar tensor with its graph. Build it in eval mode: batch norm in train mode couples the
            samples.
        parameters: Leaf tensors that require gradients.

    Raises:
        MissingExtraError: torch is not installed.
        UsageError: The loss is not a scalar, or depends on none of the parameters.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> HessianOperator((x[0] ** 2 * x[1]).sum(), [x]).product(np.array([1.0, 0.0])).tolist()
        [4.0, 2.0]
    """

    def __init__(self, loss: "torch.Tensor", parameters: "Sequence[torch.Tensor]") -> None:
        torch = require_torch("a Hessian")
        if loss.ndim != 0:
            raise UsageError(f"Hessian: expected a scalar loss, found shape {tuple(loss.shape)}")
        if not loss.requires_grad:
            raise UsageError("Hessian: the loss does not depend on the parameters")
        self._parameters = list(parameters)
        gradients = torch.autograd.grad(loss, self._parameters, create_graph=True, allow_unused=True)
        self._gradients = [
            torch.zeros_like(p) if g is None else g for p, g in zip(self._parameters, gradients, strict=True)
        ]
        # A gradient that is constant in the weights has no graph; it adds nothing to a product.
        self._curved = [i for i, g in enumerate(self._gradients) if g.requires_grad]
        self._sizes = [p.numel() for p in self._parameters]

    @property
    def n(self) -> int:
        """Number of parameters."""
        return sum(self._sizes)

    @property
    def gradient(self) -> NDArray[np.float64]:
        """(n,) gradient of the loss."""
        return self._flat([g.detach() for g in self._gradients])

    def product(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return H v, (n,).

        Args:
            vector: (n,); products are computed in the precision of the parameters.

        Raises:
            UsageError: Wrong length.
        """
        import torch

        if vector.shape != (self.n,):
            raise UsageError(f"Hessian: expected a vector of shape ({self.n},), found {vector.shape}")
        if not self._curved:
            return np.zeros(self.n)
        whole = torch.from_numpy(np.asarray(vector)).to(self._parameters[0].dtype)
        parts = torch.split(whole, self._sizes)
        shaped = [part.view_as(p) for part, p in zip(parts, self._parameters, strict=True)]
        products = torch.autograd.grad(
            [self._gradients[i] for i in self._curved],
            self._parameters,
            grad_outputs=[shaped[i] for i in self._curved],
            retain_graph=True,
            allow_unused=True,
        )
        return self._flat(
            [torch.zeros_like(p) if h is None else h for p, h in zip(self._parameters, products, strict=True)]
        )

    def dense(self) -> NDArray[np.float64]:
        """Return the whole matrix, (n, n): for a few hundred parameters."""
        return np.array([self.product(unit) for unit in np.eye(self.n)])

    @staticmethod
    def _flat(parts: "Sequence[torch.Tensor]") -> NDArray[np.float64]:
        import torch

        return np.asarray(torch.cat([part.reshape(-1) for part in parts]).double().numpy())


_NORMS = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm")


def module_layout(module: "torch.nn.Module") -> Layout:
    """Lay out a module's parameters (tied ones once) in the order of `named_parameters`.

    Filters lie along axis 0, for transposed convolutions along axis 1; parameters with one axis and those of
    normalisation layers are vectors.
    """
    owners = {
        f"{prefix}.{name}" if prefix else name: part
        for prefix, part in module.named_modules()
        for name, _ in part.named_parameters(recurse=False)
    }
    blocks, offset = [], 0
    for name, parameter in module.named_parameters():
        kind = type(owners[name]).__name__ if name in owners else ""
        block = ParameterBlock(
            name=name,
            shape=tuple(parameter.shape),
            offset=offset,
            unit_axes=(1,)
            if "ConvTranspose" in kind and parameter.ndim > 1
            else (0,)
            if parameter.ndim
            else (),
            is_vector=parameter.ndim <= 1 or any(norm in kind for norm in _NORMS),
            layer=name.rpartition(".")[0],
        )
        blocks.append(block)
        offset += prod(parameter.shape)
    return Layout(tuple(blocks))


class TorchEvaluator:
    """Losses of a module over its parameters, on CPU.

    The module is put in eval mode (dropout off, batch norm with its running statistics) in the evaluator's
    own copy; the module given is never touched.

    Args:
        module: The model.
        inputs: One batch: a tensor, or a tuple of positional arguments. The evaluation set, fixed for good.
        targets: Labels or values; None for the label-free losses.
        loss: `kl` and `mse` compare with the module's own outputs when there are no targets. `auto` is
            cross-entropy with integer targets, MSE with others, and `kl` without targets where the output has
            several classes on its last axis, else `mse`.
        ignored: Label that stands for no class.
        function: Maps the module's output to a scalar tensor, for `LossKind.FUNCTION`.
        recompute_batch_norm: Estimate the running statistics anew from the inputs at every weight vector.
        threads: torch threads while evaluating; 0 leaves the setting alone.

    Raises:
        MissingExtraError: torch is not installed.
        InvalidInputError: The base loss is not finite.
        UsageError: Targets and loss do not fit, or the module has no parameters.
    """

    def __init__(
        self,
        module: "torch.nn.Module",
        inputs: "torch.Tensor | tuple[torch.Tensor, ...]",
        targets: "torch.Tensor | None" = None,
        *,
        loss: LossKind = LossKind.AUTO,
        ignored: int | None = None,
        function: "Callable[[torch.Tensor], torch.Tensor] | None" = None,
        recompute_batch_norm: bool = False,
        threads: int = 0,
    ) -> None:
        torch = require_torch("a landscape of a PyTorch module")
        self._layout = module_layout(module)
        if not self._layout.blocks:
            raise UsageError("landscape: the module has no parameters")
        self._module = copy.deepcopy(module).eval().requires_grad_(requires_grad=False)
        arguments = inputs if isinstance(inputs, tuple) else (inputs,)
        self._inputs = tuple(x.detach().clone() for x in arguments)
        targets = None if targets is None else targets.detach().clone()
        self._threads = threads
        self._recompute = recompute_batch_norm
        parts = [p.detach().reshape(-1).to(torch.float32) for p in self._module.parameters()]
        self._base = np.array(torch.cat(parts).numpy())
        self._base.flags.writeable = False
        self._bind()
        given = tuple(x.clone() for x in self._inputs)
        with torch.no_grad():
            reference, self._entrances = run_and_watch(self._module, given)
        self._overwrites = not all(map(torch.equal, given, self._inputs))
        self._loss_of = tensor_loss(loss, reference, targets, function, ignored=ignored)
        self.loss_name = self._loss_of.name
        start = self.loss(self._base)
        if not np.isfinite(start):
            raise InvalidInputError(
                f"the loss at the module's own weights is {start}; expected a finite number"
            )

    def _bind(self) -> None:
        """Make the parameters of the copy views of one flat buffer."""
        import torch

        self._flat = torch.from_numpy(self._base.copy())
        for block, parameter in zip(self._layout.blocks, self._module.parameters(), strict=True):
            view = self._flat[block.span].view(block.shape)
            if parameter.dtype != torch.float32:
                raise UsageError(
                    f"parameter {block.name!r} is {parameter.dtype}; expected float32: module.float()"
                )
            parameter.data = view

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in another process needs; views are made anew there."""
        return {name: value for name, value in vars(self).items() if name != "_flat"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Bind the copy's parameters to a buffer of its own."""
        vars(self).update(state)
        self._base.flags.writeable = False
        self._bind()

    def with_threads(self, threads: int) -> "TorchEvaluator":
        """Return an independent copy with another number of threads."""
        twin = copy.deepcopy(self)
        twin._threads = threads  # noqa: SLF001 - its own class
        return twin

    @property
    def layout(self) -> Layout:
        """Where each parameter lies in the vector."""
        return self._layout

    @property
    def base(self) -> Weights:
        """(n_params,) the module's own weights, read-only."""
        return self._base

    @property
    def n_params(self) -> int:
        """Length of the vector."""
        return self._base.size

    def loss(self, theta: Weights) -> float:
        """Loss at a weight vector (n_params,)."""
        import torch

        if theta.shape != self._base.shape:
            raise UsageError(f"weights: expected shape {self._base.shape}, found {theta.shape}")
        with torch.inference_mode():
            self._flat.copy_(_tensor(theta))
            return self._evaluate()

    def losses_along(
        self, start: Weights, direction: Weights, steps: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Losses at `start + s direction`, each computed from `start` straight into the buffer."""
        import torch

        origin, line = _tensor(start), _tensor(direction)
        values = np.empty(len(steps))
        with torch.inference_mode(), self._adding(origin, line, len(steps)) as move:
            for i, step in enumerate(steps.tolist()):
                torch.add(origin, line, alpha=step, out=self._flat)
                move(step)
                values[i] = self._evaluate()
        return values

    def _adding(
        self, origin: "torch.Tensor", line: "torch.Tensor", steps: int
    ) -> "AbstractContextManager[Callable[[float], None]]":
        """Let the first layers add along a line; not where batch norm is to see every pass."""
        names = self._entrances if steps >= SHORTEST and not self._recompute else ()

        def ends(name: str) -> "tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]":
            spans = dict(zip(map(id, self._module.parameters()), self._layout.blocks, strict=True))
            own = self._module.get_submodule(name).named_parameters(recurse=False)
            blocks = {part: spans[id(parameter)] for part, parameter in own}
            start, move = (
                {part: values[block.span].view(block.shape) for part, block in blocks.items()}
                for values in (origin, line)
            )
            return start, move

        return on_a_line(self._module, names, self._inputs, ends)

    def outputs(self, theta: Weights) -> list[list[NDArray[np.generic]]]:
        """Outputs at a weight vector: one batch with one array per output tensor."""
        import torch

        with torch.inference_mode():
            self._flat.copy_(_tensor(theta))
            found = self._module(*self._arguments())
        parts = found if isinstance(found, tuple | list) else (found,)
        return [[part.numpy().copy() for part in parts if isinstance(part, torch.Tensor)]]

    @property
    def has_batch_norm(self) -> bool:
        """Whether the module holds running statistics that interpolated weights would not fit."""
        return any("BatchNorm" in type(part).__name__ for part in self._module.modules())

    def recomputing(self) -> "TorchEvaluator":
        """Return an independent copy that estimates running statistics anew at every weight vector."""
        twin = copy.deepcopy(self)
        twin._recompute = True  # noqa: SLF001 - its own class
        return twin

    def gradient(self, theta: Weights) -> NDArray[np.float64]:
        """Gradient of the loss at a weight vector, (n_params,)."""
        return self.hessian(theta).gradient

    def hessian(self, theta: Weights | None = None) -> HessianOperator:
        """Hessian of the loss at a weight vector (the base weights by default), as an operator.

        The operator has weights of its own: later evaluations do not move it.
        """
        import torch

        values = torch.from_numpy(np.array(self._base if theta is None else theta, dtype=np.float32))
        leaves = [values[b.span].view(b.shape).clone().requires_grad_() for b in self._layout.blocks]
        named = dict(zip((b.name for b in self._layout.blocks), leaves, strict=True))
        with torch.enable_grad():
            output = torch.func.functional_call(self._module, named, self._arguments())
            return HessianOperator(self._loss_of(output), leaves)

    def _evaluate(self) -> float:
        import torch

        if self._threads and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        if self._recompute:
            refresh_batch_norm(self._module, self._arguments())
        return float(self._loss_of(self._module(*self._arguments())))

    def _arguments(self) -> "tuple[torch.Tensor, ...]":
        """The inputs, as copies where the module writes into what it is given."""
        return tuple(x.clone() for x in self._inputs) if self._overwrites else self._inputs


def _tensor(values: Weights) -> "torch.Tensor":
    """A float32 tensor of an array; torch cannot share read-only arrays, such as the base weights."""
    import torch

    array = np.asarray(values, dtype=np.float32)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def refresh_batch_norm(module: "torch.nn.Module", inputs: "Sequence[torch.Tensor]") -> int:
    """Recompute the running statistics of all batch norms from one pass over the inputs, as cumulative means.

    Interpolated weights see activations that the stored statistics do not describe; without this, barriers
    between networks with batch norm are mostly an artefact (arXiv 1803.05407, section 3.2).

    Returns:
        How many batch norms there are.
    """
    from torch import nn

    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    norms = [part for part in module.modules() if isinstance(part, kinds) and part.track_running_stats]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        if norms:
            module(*inputs)
    finally:
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.eval()
    return len(norms)


class VmapEvaluator(TorchEvaluator):
    """The same losses with many weight vectors per pass: faster for nets of a few thousand parameters."""

    chunk = 64
    """Weight vectors per pass."""

    def losses_along(
        self, start: Weights, direction: Weights, steps: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Losses at `start + s direction`."""
        import torch

        if self._recompute:
            return super().losses_along(start, direction, steps)
        origin, line = _tensor(start), _tensor(direction)
        names = [block.name for block in self._layout.blocks]

        def one(theta: "torch.Tensor") -> "torch.Tensor":
            views = [theta[block.span].view(block.shape) for block in self._layout.blocks]
            output = torch.func.functional_call(
                self._module, dict(zip(names, views, strict=True)), self._arguments()
            )
            return self._loss_of(output)

        many = torch.vmap(one, randomness="error")
        parts = []
        with torch.no_grad():
            for at in range(0, len(steps), self.chunk):
                scale = torch.tensor(steps[at : at + self.chunk], dtype=torch.float32)[:, None]
                parts.append(many(origin + scale * line).numpy().astype(np.float64))
        return np.concatenate(parts) if parts else np.empty(0)
