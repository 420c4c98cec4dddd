"""Emergence and ruggedness of one trained net."""

from dataclasses import replace

import numpy as np
import torch

from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.landscape.curvature import curvature
from emergraph.analysis.landscape.engine_torch import TorchEvaluator
from emergraph.analysis.landscape.extras import Extras
from emergraph.analysis.landscape.optima import optima_network
from emergraph.analysis.landscape.options import Norm, SurveyOptions
from emergraph.analysis.landscape.survey import run_survey
from emergraph.analysis.layerednets import layered_net
from ruggedness.nets import Digits, Group, activations

THRESHOLD = 0.05
"""A unit is active when its mean activation over the evaluation set is above this (arXiv 2409.01568)."""

NORMS = (Norm.FILTER, Norm.ELEMENT)

MEASURED = (
    *("range", "rise", "convexity", "curvature", "asymmetry"),
    *("excess_ruggedness", "h_max", "h_0", "m_0", "eps_s", "neutral_share"),
    *("fdc_pearson", "average_sharpness", "adaptive_ball_rise"),
    *("plane_n_minima", "plane_total_persistence", "plane_convex_share"),
)
"""Statistics of random directions, once per norm."""

AT_THE_POINT = (
    *("hessian_largest_1", "hessian_smallest_1", "hessian_trace", "hessian_negative_mass"),
    *("worst_case_highest", "adaptive_worst_case_highest", "gradient_norm"),
    *("mask_n_strict_minima", "mask_rho_1", "mask_additive_share", "mask_epistasis_reciprocal_sign"),
    *("lon_n_optima", "lon_n_funnels", "lon_deviation"),
)
"""Statistics that no norm enters."""


def emergence_of(group: Group, net: int, x: torch.Tensor) -> dict[str, float]:
    """E of one net, both interiors, its relative variants, and what could explain them.

    The outputs are the logits, as in every study and as networks are exported.
    """
    weights, biases = [w[net : net + 1] for w in group.weights], [b[net : net + 1] for b in group.biases]
    layers = activations(weights, biases, x)
    means = torch.cat([x.mean(dim=0), *(layer[0].mean(dim=0) for layer in layers)]).numpy()
    active = means > THRESHOLD
    graph = layered_net(group.matrices(net))
    found = path_count_emergence(graph, active)
    kept = float(np.mean(np.concatenate([m.ravel() for m in group.matrices(net)]) != 0))
    row = {"sparsity": 1 - kept, "active_share": float(active.mean()), "n_weights": float(graph.n_params)}
    for interior, count in (("active", found.active), ("any", found.any)):
        value = float(count.exact or 0)
        row[f"E_{interior}"] = value
        row[f"E_{interior}_per_density"] = value / kept
        row[f"E_{interior}_per_param"] = value / max(graph.n_nonzero, 1)
    return row


def options(norm: Norm, *, quick: bool) -> SurveyOptions:
    """Sizes of a survey: ten directions, planes and walks at least, but in a quick run."""
    full = SurveyOptions(
        norm=norm,
        slice_points=15,
        plane_points=11,
        walk_length=60,
        distances=10,
        balls=10,
        layer_directions=0,
        layer_walks=0,
        optima=2,
        eigenvalues=3,
        masks=10 if norm is Norm.FILTER else 0,
    )
    small = {"directions": 3, "planes": 1, "plane_points": 5, "walks": 3, "walk_length": 15, "masks": 2}
    return replace(full, **small, optima=1, balls=2, pairs=2) if quick else full  # type: ignore[arg-type]


def ruggedness_of(
    module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, *, quick: bool
) -> dict[str, float]:
    """Every ruggedness statistic of one net on the evaluation set; NaN where it does not exist."""
    evaluator = TorchEvaluator(module, x, y)
    row: dict[str, float] = {"base_loss": evaluator.loss(evaluator.base)}
    for norm in NORMS:
        chosen = options(norm, quick=quick)
        survey = run_survey(evaluator, chosen)
        estimates = survey.estimates()
        row |= {f"{norm}_{name}": estimates[name].mean for name in MEASURED}
        if norm is Norm.FILTER:
            extras = Extras(
                curvature=curvature(evaluator, chosen, probes=6 if quick else 10, restarts=1 if quick else 3),
                optima=optima_network(
                    evaluator,
                    chosen,
                    floor=survey.noise_floor,
                    gradient=evaluator,
                    patience=3,
                    max_steps=5 if quick else 60,
                ),
            )
            single = estimates | extras.estimates()
            row |= {name: single[name].mean if name in single else float("nan") for name in AT_THE_POINT}
    return row


PLANNED = ("rise", "excess_ruggedness", "plane_n_minima")


def measure_planned(group: Group, net: int, data: Digits, *, n: int) -> dict[str, object]:
    """One row, as `measure`, with the statistics that the plan tests on new seeds, and no others."""
    x, y = data.evaluation_set(n)
    evaluator = TorchEvaluator(group.module(net), x, y)
    estimates = run_survey(evaluator, replace(options(Norm.FILTER, quick=False), masks=0)).estimates()
    found = {f"filter_{name}": estimates[name].mean for name in PLANNED}
    found["base_loss"] = evaluator.loss(evaluator.base)
    return _about(group, net, data) | emergence_of(group, net, x) | found


def measure(group: Group, net: int, data: Digits, *, n: int, quick: bool) -> dict[str, object]:
    """One row: what the net is, its emergence, its ruggedness."""
    x, y = data.evaluation_set(n)
    found = emergence_of(group, net, x) | ruggedness_of(group.module(net), x, y, quick=quick)
    return _about(group, net, data) | found


def _about(group: Group, net: int, data: Digits) -> dict[str, object]:
    with torch.no_grad():
        accuracy = float((group.module(net)(data.test_x).argmax(dim=1) == data.test_y).float().mean())
    sizes = "-".join(map(str, group.sizes))
    return {"sizes": sizes, "seed": group.seeds[net], "level": group.levels[net], "accuracy": accuracy}
