"""Losses of model outputs, with labels or against the base model's own outputs.

A stranger's file comes without labels. The label-free losses compare the outputs of perturbed weights with
those of the base weights on the same inputs: KL(base || perturbed), whose Hessian at the base weights is
the Fisher matrix, or the mean squared difference. Both are 0 at the base weights, which are a global
minimum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.labels import ClassLabels, are_probabilities, class_labels
from emergraph.analysis.landscape.options import LossKind
from emergraph.errors import UsageError

Array = NDArray[np.float64]
Outputs = Sequence[NDArray[np.generic]]
LossFunction = Callable[[Outputs], float]

TINY = 1e-30
"""Smallest probability that enters a logarithm."""


class OutputKind(StrEnum):
    """What the numbers of an output tensor are."""

    PROBABILITIES = "probabilities"
    """Non-negative, sum to 1 along the last axis of more than one entry."""
    BERNOULLI = "bernoulli"
    """Each the result of a sigmoid: a probability on its own."""
    SCORES = "scores"
    """Anything else: logits, coordinates, features."""


@dataclass(frozen=True)
class Loss:
    """A loss that is ready to be applied to outputs."""

    name: str
    """For reports; says what was compared with what."""
    function: LossFunction

    def __call__(self, outputs: Outputs) -> float:
        """Loss of the outputs of one run."""
        return self.function(outputs)


def output_kind(values: NDArray[np.generic], *, sigmoid: bool = False) -> OutputKind:
    """Tell probabilities from scores by the values of the base model's output.

    Args:
        values: The output.
        sigmoid: The output is known to come out of a sigmoid; numbers between 0 and 1 alone do not show it.

    Example:
        >>> output_kind(np.array([[0.25, 0.75]])), output_kind(np.array([[0.9], [0.2]]))
        (<OutputKind.PROBABILITIES: 'probabilities'>, <OutputKind.SCORES: 'scores'>)
    """
    x = np.asarray(values, dtype=np.float64)
    if are_probabilities(x):
        return OutputKind.PROBABILITIES
    if x.size == 0 or not np.all((x >= 0) & (x <= 1 + 1e-4)):
        return OutputKind.SCORES
    return OutputKind.BERNOULLI if sigmoid else OutputKind.SCORES


def log_probabilities(values: NDArray[np.generic], kind: OutputKind) -> Array:
    """Return log p along the last axis: of probabilities as they are, of scores through a log-softmax."""
    x = np.asarray(values, dtype=np.float64)
    if kind is OutputKind.PROBABILITIES:
        return np.asarray(np.log(np.maximum(x, TINY)))
    if kind is OutputKind.BERNOULLI:
        both = np.stack([x, 1 - x], axis=-1)
        return np.asarray(np.log(np.maximum(both, TINY)))
    shifted = x - x.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _comparable(outputs: Outputs, base: Outputs) -> list[int]:
    """Positions of the outputs that are compared: the floating-point ones."""
    chosen = [i for i, array in enumerate(base) if np.asarray(array).dtype.kind == "f" and np.size(array)]
    if not chosen:
        raise UsageError("loss: the model has no floating-point output; pick another output")
    for i in chosen:
        if np.shape(outputs[i]) != np.shape(base[i]):
            raise UsageError(
                f"loss: output {i} has shape {np.shape(outputs[i])}, expected {np.shape(base[i])}"
            )
    return chosen


def kl_to_base(base: Outputs, kinds: Sequence[OutputKind]) -> Loss:
    """KL(base || perturbed) = sum p0 (log p0 - log p), mean over samples and positions, summed over outputs.

    Args:
        base: Outputs of the base weights; probabilities are used as they are, scores through a softmax over
            the last axis.
        kinds: What each output is.

    Returns:
        The loss; exactly 0 at the base weights.

    Raises:
        UsageError: An output of scores has a single class.
    """
    chosen = _comparable(base, base)
    for i in chosen:
        if kinds[i] is OutputKind.SCORES and (np.ndim(base[i]) == 0 or np.shape(base[i])[-1] < 2):
            raise UsageError(f"loss kl: output {i} has shape {np.shape(base[i])}, no classes; use mse")
    logs = {i: log_probabilities(base[i], kinds[i]) for i in chosen}
    weights = {i: np.exp(logs[i]) for i in chosen}

    def loss(outputs: Outputs) -> float:
        _comparable(outputs, base)
        total = 0.0
        for i in chosen:
            gap = logs[i] - log_probabilities(outputs[i], kinds[i])
            total += float(np.sum(weights[i] * gap) / (gap.size / gap.shape[-1]))
        return total

    said = " and ".join(sorted({str(kinds[i]) for i in chosen}))
    return Loss(f"kl to the base model's outputs ({said})", loss)


def mse_to(target: Outputs, *, name: str = "mse to the base model's outputs") -> Loss:
    """Mean squared difference, mean over the floating-point outputs.

    Example:
        >>> mse_to([np.zeros(2)])([np.array([1.0, 3.0])])
        5.0
    """
    chosen = _comparable(target, target)
    wanted = {i: np.asarray(target[i], dtype=np.float64) for i in chosen}

    def loss(outputs: Outputs) -> float:
        _comparable(outputs, target)
        parts = [np.mean((np.asarray(outputs[i], dtype=np.float64) - wanted[i]) ** 2) for i in chosen]
        return float(np.mean(parts))

    return Loss(name, loss)


def cross_entropy(labels: NDArray[np.generic], kind: OutputKind, *, ignored: int | None = None) -> Loss:
    """Mean of -log p[label] over the first output, classes on its last axis.

    Args:
        labels: One class per leading position of the output.
        kind: What the model's output is, see `output_kind` (of the base model's output).
        ignored: Label that stands for no class.

    Returns:
        The loss, in nats. It refuses labels outside of the classes (see `class_labels`).

    Example:
        >>> round(cross_entropy(np.array([0]), OutputKind.SCORES)([np.zeros((1, 2))]), 4)
        0.6931
    """
    given = np.asarray(labels)
    checked: dict[int, ClassLabels] = {}

    def loss(outputs: Outputs) -> float:
        logs = log_probabilities(outputs[0], kind)
        if logs.ndim == 0 or logs.shape[:-1] != given.shape:
            raise UsageError(f"labels: expected shape {logs.shape[:-1]} for this output, found {given.shape}")
        n_classes = logs.shape[-1]
        if n_classes not in checked:
            checked[n_classes] = class_labels(given, n_classes, ignored=ignored)
        wanted = checked[n_classes]
        found = np.take_along_axis(logs, wanted.indices[..., None], axis=-1)[..., 0]
        return float(-np.mean(found[wanted.counted]))

    return Loss("cross-entropy to the labels", loss)


def make_loss(
    loss: LossKind,
    outputs: Outputs,
    *,
    sigmoid: Sequence[bool] = (),
    targets: NDArray[np.generic] | None = None,
    ignored: int | None = None,
    function: LossFunction | None = None,
) -> Loss:
    """Prepare a loss from the base model's outputs and, where it needs them, targets.

    Args:
        loss: Which.
        outputs: Of the base weights on the evaluation set.
        sigmoid: Which outputs are known to come out of a sigmoid; none by default.
        targets: Labels for cross-entropy, values for MSE.
        ignored: Label that stands for no class; for cross-entropy.
        function: The user's function.

    Returns:
        The loss; its name says what was compared.

    Raises:
        UsageError: Targets or function are missing, or given where they would be ignored.
    """
    if (function is not None) != (loss == LossKind.FUNCTION):
        raise UsageError(f"loss {loss}: a function is expected with 'function' and with no other kind")
    if targets is not None and loss not in (LossKind.MSE, LossKind.CROSS_ENTROPY):
        raise UsageError(
            f"loss {loss} compares with the base model; drop the targets or use cross_entropy or mse"
        )
    if loss == LossKind.FUNCTION and function is not None:
        return Loss("user's function", function)
    if loss == LossKind.CROSS_ENTROPY:
        if targets is None:
            raise UsageError("loss cross_entropy needs labels; give them, or use kl or mse without labels")
        return cross_entropy(targets, output_kind(outputs[0]), ignored=ignored)
    if loss == LossKind.MSE:
        return mse_to(outputs) if targets is None else mse_to([targets], name="mse to the targets")
    known = sigmoid or [False] * len(outputs)
    kinds = [output_kind(array, sigmoid=flag) for array, flag in zip(outputs, known, strict=True)]
    if loss == LossKind.AUTO and OutputKind.SCORES in [kinds[i] for i in _comparable(outputs, outputs)]:
        return mse_to(outputs)
    return kl_to_base(outputs, kinds)
