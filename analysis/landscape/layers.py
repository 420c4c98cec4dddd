"""Ruggedness of single weight tensors: what happens when one is perturbed and all others stay."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.landscape.autocorrelation import analyse_walks
from emergraph.analysis.landscape.layout import Layout, ParameterBlock
from emergraph.analysis.landscape.options import Norm, SurveyOptions
from emergraph.analysis.landscape.tasks import SliceTask, Task, TensorWalkTask
from emergraph.analysis.landscape.walks import WalkPlan
from emergraph.analysis.statistics.estimate import Estimate
from emergraph.analysis.statistics.intervals import student

Array = NDArray[np.float64]

LAYER_DRAWS = 2_000_000
"""Index of the first direction of single tensors within a seed."""


@dataclass(frozen=True, kw_only=True)
class LayerRuggedness:
    """How the loss responds to one weight tensor."""

    tensor: str
    layer: str | None
    """Operation or module that uses it."""
    n_params: int
    rise: Estimate | None
    """(L(+r d) + L(-r d))/2 - L(0) over directions that perturb this tensor alone; None when not measured."""
    rho_1: Estimate | None
    """Autocorrelation at lag 1 of walks that perturb this tensor alone; null: a^2."""
    excess: Estimate | None
    """1 - correlation length / that of a bowl along these walks; null: 0."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as nested plain dictionaries."""
        measured = {name: getattr(self, name) for name in ("rise", "rho_1", "excess")}
        about = {"tensor": self.tensor, "layer": self.layer, "n_params": self.n_params}
        return about | {name: None if e is None else e.to_dict() for name, e in measured.items()}


def perturbed_blocks(layout: Layout, norm: Norm) -> list[ParameterBlock]:
    """Return the tensors that a normalisation perturbs: all, or all but biases and normalisation vectors."""
    return [block for block in layout.blocks if not block.is_vector or norm in (Norm.ELEMENT, Norm.NONE)]


def layer_tasks(layout: Layout, options: SurveyOptions) -> dict[str, list[Task]]:
    """Return the tasks "layer_ends" and "layer_walks", tensor by tensor."""
    ends = np.array([-options.radius, options.radius])
    blocks = perturbed_blocks(layout, options.norm)
    plan = WalkPlan(
        n_walks=max(options.layer_walks, 1),
        length=options.layer_walk_length,
        a=options.a,
        sigma=options.sigma,
        seed=options.seed,
    )
    return {
        "layer_ends": [
            SliceTask(ends, options.norm, options.seed, LAYER_DRAWS + i, block.name)
            for block in blocks
            for i in range(options.layer_directions)
        ],
        "layer_walks": [
            TensorWalkTask(plan, LAYER_DRAWS + i, options.norm, block.name)
            for block in blocks
            for i in range(options.layer_walks)
        ],
    }


def mean_rises(losses: NDArray[np.float64], base_loss: float) -> NDArray[np.float64]:
    """Mean loss of each row above a finite base; NaN where a row holds infinities of both signs."""
    with np.errstate(invalid="ignore"):
        return np.asarray(losses.mean(axis=1) - base_loss)


def layer_ruggedness(
    layout: Layout,
    options: SurveyOptions,
    found: dict[str, list[Array]],
    *,
    base_loss: float,
    noise_variance: float = 0.0,
) -> tuple[LayerRuggedness, ...]:
    """Sum up the results of `layer_tasks`.

    Args:
        layout: Of the flat buffer.
        options: The survey's.
        found: Results of both kinds of tasks, in their order.
        base_loss: Loss at the model's own weights.
        noise_variance: Of repeated evaluations of one point.

    Returns:
        One entry per perturbed tensor; empty when nothing was measured.
    """
    n, walks = options.layer_directions, options.layer_walks
    if not n and not walks:
        return ()
    results = []
    for i, block in enumerate(perturbed_blocks(layout, options.norm)):
        ends = np.array(found["layer_ends"][i * n : (i + 1) * n])
        along = np.array(found["layer_walks"][i * walks : (i + 1) * walks])
        usable = along[np.all(np.isfinite(along), axis=1)] if walks else along
        correlation = (
            analyse_walks(
                usable, a=options.a, noise_variance=noise_variance, seed=options.seed, level=options.level
            )
            if len(usable)
            else None
        )
        results.append(
            LayerRuggedness(
                tensor=block.name,
                layer=block.layer,
                n_params=block.size,
                rise=student(mean_rises(ends, base_loss), seed=options.seed, level=options.level)
                if n
                else None,
                rho_1=correlation.rho_1 if correlation is not None else None,
                excess=correlation.excess_ruggedness if correlation is not None else None,
            )
        )
    return tuple(results)
