"""Losses of a PyTorch module's output, prepared once so that an evaluation does no work twice."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from emergraph.analysis.labels import are_probabilities, class_labels
from emergraph.analysis.landscape.options import LossKind
from emergraph.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

IGNORED = -100
"""Label that torch's cross-entropy leaves out."""
FEW_CLASSES = 48
"""torch's log-softmax along a last axis shorter than this leaves most of the processor idle."""


@dataclass(frozen=True)
class TensorLoss:
    """A loss that is ready to be applied to a module's output."""

    name: str
    """For reports; says what was compared with what."""
    function: "Callable[[Any], torch.Tensor]"

    def __call__(self, output: Any) -> "torch.Tensor":  # noqa: ANN401 - whatever the module returns
        """Loss of one output: a scalar tensor with its graph."""
        return self.function(output)


def tensor_loss(
    loss: LossKind,
    output: object,
    targets: "torch.Tensor | None" = None,
    function: "Callable[[torch.Tensor], torch.Tensor] | None" = None,
    *,
    ignored: int | None = None,
) -> TensorLoss:
    """Decide what `auto` means and prepare the loss: cross-entropy, MSE, KL(base || output), or the user's.

    Classes lie on the output's last axis; probabilities get no second softmax. Cross-entropy and KL are means
    over all other positions, in nats.

    Args:
        loss: Which.
        output: Of the base weights, without a graph.
        targets: Labels or values; None compares with `output`.
        function: Maps an output to a scalar tensor, for `LossKind.FUNCTION`.
        ignored: Label that stands for no class, for cross-entropy.

    Raises:
        UsageError: Loss, targets and function do not fit together.

    Example:
        >>> import torch
        >>> loss = tensor_loss(LossKind.AUTO, torch.zeros(5, 2), torch.tensor([0, 1, 1, 0, 1]))
        >>> loss.name, round(float(loss(torch.zeros(5, 2))), 4)
        ('cross_entropy to the targets', 0.6931)
    """
    import torch

    if (function is not None) != (loss == LossKind.FUNCTION):
        raise UsageError(f"loss {loss}: a function is expected with 'function' and with no other kind")
    if function is not None:
        return TensorLoss("user's function", function)
    if not isinstance(output, torch.Tensor):
        raise UsageError(
            f"loss {loss}: the module returns {type(output).__name__}, expected a tensor; use function"
        )
    several = output.ndim > 1 and output.shape[-1] > 1
    if loss == LossKind.AUTO:
        if targets is not None:
            loss = LossKind.MSE if targets.dtype.is_floating_point else LossKind.CROSS_ENTROPY
        else:
            loss = LossKind.KL if several else LossKind.MSE
    if loss == LossKind.CROSS_ENTROPY:
        if targets is None:
            raise UsageError(f"loss {loss} needs targets; kl and mse do without")
        labels = _labels(targets.flatten(), output, ignored)
        ready = partial(
            _cross_entropy, labels=labels[None] if _transposed(output) else labels, normal=_is_normal(output)
        )
        return TensorLoss(f"{loss} to the targets", ready)
    if loss == LossKind.MSE:
        compared = "the base model's outputs" if targets is None else "the targets"
        return TensorLoss(
            f"{loss} to {compared}", partial(_mse, values=output if targets is None else targets)
        )
    if targets is not None:
        raise UsageError(f"loss {loss} takes no targets: it compares with the base model; use cross_entropy")
    normal = _is_normal(output)
    logs = _log_probabilities(output, normal=normal)
    ready = partial(_kl, logs=logs, weights=logs.exp(), normal=normal)
    return TensorLoss(f"{loss} to the base model's outputs", ready)


def _is_normal(output: "torch.Tensor") -> bool:
    """Whether the module ends in a softmax: its outputs are probabilities and get no second one."""
    return are_probabilities(output.detach().cpu().numpy())


def _labels(targets: "torch.Tensor", output: "torch.Tensor", ignored: int | None) -> "torch.Tensor":
    """Labels as torch wants them; what is ignored carries torch's own value."""
    import torch

    n_classes = output.shape[-1] if output.ndim else 1
    if targets.numel() * n_classes != output.numel():
        raise UsageError(
            f"labels: expected {output.numel() // max(1, n_classes)}, one per row of the output, "
            f"found {targets.numel()}"
        )
    found = class_labels(targets.cpu().numpy(), n_classes, ignored=ignored)
    ready = torch.from_numpy(np.where(found.counted, found.classes, IGNORED))
    return ready.to(targets.device)


def _cross_entropy(output: "torch.Tensor", *, labels: "torch.Tensor", normal: bool) -> "torch.Tensor":
    import torch

    if normal:
        logs = _log_probabilities(output, normal=True)
        return torch.nn.functional.nll_loss(logs, labels, ignore_index=IGNORED)
    return torch.nn.functional.cross_entropy(_classes_second(output), labels, ignore_index=IGNORED)


def _mse(output: "torch.Tensor", *, values: "torch.Tensor") -> "torch.Tensor":
    import torch

    return torch.nn.functional.mse_loss(output, values)


def _kl(
    output: "torch.Tensor", *, logs: "torch.Tensor", weights: "torch.Tensor", normal: bool
) -> "torch.Tensor":
    return (weights * (logs - _log_probabilities(output, normal=normal))).sum(dim=1).mean()


def _log_probabilities(output: "torch.Tensor", *, normal: bool) -> "torch.Tensor":
    import torch

    if normal:
        return _classes_second(output).clamp_min(torch.finfo(output.dtype).tiny).log()
    return torch.nn.functional.log_softmax(_classes_second(output), dim=1)


def _classes_second(output: "torch.Tensor") -> "torch.Tensor":
    """Scores as (positions, classes), or (1, classes, positions) with few classes: several times as fast."""
    flat = output.flatten(0, -2) if output.ndim > 1 else output[None]
    return flat.t().contiguous()[None] if _transposed(output) else flat


def _transposed(output: "torch.Tensor") -> bool:
    return output.shape[-1] < FEW_CLASSES
