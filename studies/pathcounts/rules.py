"""Which units are active, by every rule of the toolkit, for many networks at once.

The same rules as `emergraph.analysis.emergence`, batched over networks; a test compares the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class RuleSetting:
    """A rule and its threshold."""

    rule: str
    threshold: float

    @property
    def label(self) -> str:
        """As the tables name it."""
        return f"{self.rule} {self.threshold:g}"


SETTINGS = (
    RuleSetting("mean", 0.05),
    RuleSetting("mean_abs", 0.05),
    RuleSetting("any", 0.05),
    RuleSetting("majority", 0.05),
    RuleSetting("per_sample", 0.05),
    RuleSetting("contribution", 1.0),
    RuleSetting("weight_change", 0.05),
    RuleSetting("mean", 0.01),
    RuleSetting("mean", 0.2),
)
"""The paper's threshold with every reading of its rule, our two rules, and two more thresholds."""

POOLING_RULES = frozenset({"mean", "mean_abs", "any", "majority"})


def active_by_samples(setting: RuleSetting, activations: torch.Tensor) -> torch.Tensor:
    """Whether units are active: (networks, 1, ...), for per_sample (networks, n, ...).

    Args:
        setting: mean, mean_abs, any, majority or per_sample.
        activations: (networks, n, ...) of one layer.
    """
    t = setting.threshold
    match setting.rule:
        case "mean":
            return activations.double().mean(dim=1, keepdim=True) > t
        case "mean_abs":
            return activations.double().abs().mean(dim=1, keepdim=True) > t
        case "any":
            return activations.amax(dim=1, keepdim=True) > t
        case "majority":
            return (activations > t).sum(dim=1, keepdim=True) * 2 > activations.shape[1]
        case "per_sample":
            return activations > t
    raise ValueError(setting.rule)


def contribution_scores(sizes: Tensors, weights: Tensors) -> Tensors:
    """Largest share of a unit in any target's input, relative to the average contributor (dense layers).

    `C(i) = max over j of fan_in(j) |a_i w_ij| / sum_k |a_k w_kj|`; outputs `|a_i| / mean |a|`. Rounded to 12
    decimals, so that a target's only contributor has exactly 1.

    Args:
        sizes: Mean absolute activations per layer, (networks or 1, units), inputs and outputs included.
        weights: Per layer (networks, n_in, n_out).
    """
    scores = []
    for size, w in zip(sizes, weights, strict=False):
        arriving = size[:, :, None] * w.double().abs()
        total = arriving.sum(dim=1, keepdim=True)
        fan_in = (w != 0).sum(dim=1, keepdim=True)
        share = torch.where(total > 0, fan_in / total, torch.zeros_like(total))
        scores.append((arriving * share).amax(dim=2).mul(1e12).round().div(1e12))
    last = sizes[-1]
    mean = last.mean(dim=1, keepdim=True)
    scores.append(torch.where(mean > 0, last / mean, torch.zeros_like(last)).mul(1e12).round().div(1e12))
    return scores


def relative_change(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> Tensors:
    """L2 change of each unit's incoming weights over their norm before; inf where they grew from nothing.

    Args:
        before: Per layer (networks, fan-in, units).
        after: The same, later.
    """
    found = []
    for was, now in zip(before, after, strict=True):
        change = (now.double() - was.double()).norm(dim=1)
        norm = was.double().norm(dim=1)
        found.append(torch.where(change == 0, torch.zeros_like(change), change / norm))
    return found
