"""How much a path count depends on its conventions, on one small untrained network.

Prints the numbers that docs/emergence.md shows: activity rules and interiors, function-preserving rescaling,
pruning with the formula for dense nets beside the count on the real graph, the threshold sweep, null models.

    python examples/convention_sensitivity.py
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.activity.rules import activity, activity_scores
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.emergence.closedforms import layered_form
from emergraph.analysis.emergence.intervals import bootstrap_emergence
from emergraph.analysis.emergence.nulls import null_model
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.emergence.thresholds import threshold_sweep
from emergraph.analysis.layerednets import dense_net, layered_net

SIZES = (100, 64, 32, 10)
THRESHOLD = 0.05
WEIGHT_SEED = 1
INPUT_SEED = 2
DRAW_SEED = 3
N_SAMPLES = 256
PRUNED = 0.7

Matrices = list[NDArray[np.float64]]


def he_weights() -> Matrices:
    """Normal weights (n_in, n_out) with variance 2 / n_in (He initialisation)."""
    rng = np.random.default_rng(WEIGHT_SEED)
    return [rng.standard_normal((n_in, n_out)) * np.sqrt(2 / n_in) for n_in, n_out in pairwise(SIZES)]


def run(weights: Matrices) -> UnitTrace:
    """Activations of all units of the ReLU network on the same inputs: grey pixels, many mostly dark."""
    rng = np.random.default_rng(INPUT_SEED)
    lit = rng.random(SIZES[0]) ** 2
    values = rng.random((N_SAMPLES, SIZES[0])) * (rng.random((N_SAMPLES, SIZES[0])) < lit)
    layers = [values]
    for matrix in weights:
        values = values @ matrix
        if matrix is not weights[-1]:
            values = np.maximum(values, 0)
        layers.append(values)
    return UnitTrace.from_samples(np.concatenate(layers, axis=1))


def prune(weights: Matrices, share: float) -> Matrices:
    """The weights with the given share of smallest magnitude set to zero, over all matrices."""
    magnitudes = np.sort(np.concatenate([np.abs(matrix).ravel() for matrix in weights]))
    limit = magnitudes[round(share * len(magnitudes)) - 1]
    return [np.where(np.abs(matrix) > limit, matrix, 0.0) for matrix in weights]


def rules(weights: Matrices) -> Iterator[str]:
    """One network, one threshold, six readings of "active"."""
    graph, trace = layered_net(weights), run(weights)
    yield f"Activity rules at threshold {THRESHOLD} (contribution: 1)"
    yield f"{'rule':<14}{'active units':>13}{'E active':>10}{'E any':>10}"
    for rule in ("mean", "mean_abs", "any", "majority", "contribution"):
        result = path_count_emergence(
            graph, activity(rule, graph, trace=trace, threshold=None if rule == "contribution" else THRESHOLD)
        )
        yield f"{rule:<14}{result.n_active:>13}{result.active.exact:>10}{result.any.exact:>10}"
    each = bootstrap_emergence(graph, trace, "per_sample", threshold=THRESHOLD, seed=DRAW_SEED)
    n_active = f"{each.samples['n_active'].mean():.1f}" if each.samples is not None else ""
    active, anyway = each.range("active"), each.range("any")
    yield f"{'per_sample':<14}{n_active:>13}{active.observed.value:>10.0f}{anyway.observed.value:>10.0f}"
    yield (
        f"per_sample, median over {each.n_samples} samples with its 95 % interval: "
        f"active {active.median.value:.0f} ({active.low.value:.0f} to {active.high.value:.0f}), "
        f"any {anyway.median.value:.0f} ({anyway.low.value:.0f} to {anyway.high.value:.0f})"
    )


def rescaling(weights: Matrices) -> Iterator[str]:
    """The same function, other weights."""
    reference = run(weights).samples
    yield "Function-preserving rescaling W1 * c, W2 / c"
    columns = (("mean: E active", 16), ("E any", 8), ("contribution: E active", 24), ("E any", 8))
    yield f"{'c':<8}{'largest change':>15}" + "".join(name.rjust(width) for name, width in columns)
    for c in (0.01, 0.1, 1.0, 10.0):
        scaled = [weights[0] * c, weights[1] / c, weights[2]]
        graph, trace = layered_net(scaled), run(scaled)
        outputs = slice(-SIZES[-1], None)
        change = float(np.abs(trace.samples[:, outputs] - reference[:, outputs]).max())
        mean = path_count_emergence(graph, activity("mean", graph, trace=trace, threshold=THRESHOLD))
        share = path_count_emergence(graph, activity("contribution", graph, trace=trace))
        small = "below 1e-12" if change < 1e-12 else f"{change:.1e}"
        yield (
            f"{c:<8}{small:>15}{mean.active.exact:>16}{mean.any.exact:>8}"
            f"{share.active.exact:>24}{share.any.exact:>8}"
        )


def pruning(weights: Matrices) -> Iterator[str]:
    """The formula for dense nets counts paths that a pruned net does not have."""
    pruned = prune(weights, PRUNED)
    graph, trace = layered_net(pruned), run(pruned)
    now = activity("mean", graph, trace=trace, threshold=THRESHOLD)
    counts = [int(now.active[layer.units].sum()) for layer in graph.layers]
    result = path_count_emergence(graph, now)
    yield f"After pruning {PRUNED:.0%} of the weights by magnitude (rule mean, active units {counts})"
    yield f"{'':<30}{'E active':>12}{'E any':>12}"
    formulas = [layered_form(SIZES, counts, interior=interior) for interior in ("active", "any")]
    yield f"{'formula for dense nets':<30}{formulas[0]:>12}{formulas[1]:>12}"
    yield f"{'count on the pruned graph':<30}{result.active.exact:>12}{result.any.exact:>12}"
    for name in ("per_param", "per_dense_param", "per_density"):
        values = [getattr(result.count(interior), name).value for interior in ("active", "any")]
        yield f"{name + ', pruned graph':<30}{values[0]:>12.2f}{values[1]:>12.2f}"


def sweep(weights: Matrices) -> Iterator[str]:
    """E over thresholds, and where it comes from."""
    graph = layered_net(weights)
    result = threshold_sweep(graph, activity_scores("mean", graph, trace=run(weights)), "all")
    yield f"Every threshold (rule mean, {result.frame.height} distinct values)"
    yield f"{'interior':<10}{'maximum':>9}{'at t':>8}{'half maximum from':>19}{'to':>8}{'area':>12}"
    for summary in result.summaries:
        yield (
            f"{summary.interior:<10}{summary.maximum.value:>9.0f}{summary.threshold_at_maximum:>8.3f}"
            f"{summary.half_low:>19.3f}{summary.half_high:>8.3f}{summary.area.value:>12.1f}"
        )


def nulls(weights: Matrices) -> Iterator[str]:
    """What shuffling says, and where it can say nothing."""
    yield "Null models (rule mean, 200 draws)"
    yield f"{'graph':<8}{'null':<20}{'E any':>8}{'draws: mean':>13}{'sd':>10}{'z':>7}{'p':>7}"
    for name, matrices in (("dense", weights), ("pruned", prune(weights, PRUNED))):
        graph = layered_net(matrices)
        now = activity("mean", graph, trace=run(matrices), threshold=THRESHOLD)
        for kind in ("activity_in_layers", "activity_over_net"):
            null = null_model(graph, now, kind, n_draws=200, seed=DRAW_SEED).comparison("any")
            z = "degenerate" if null.z is None else f"{null.z:>7.2f}{null.p_two_sided:>7.3f}"
            sd = null.sd or 0.0
            yield f"{name:<8}{kind:<20}{null.observed.value:>8.0f}{null.mean.value:>13.1f}{sd:>10.1f}{z:>14}"


def report() -> str:
    """Everything that the page shows."""
    weights = he_weights()
    dense = dense_net(SIZES)
    head = f"MLP {'-'.join(map(str, SIZES))}, {dense.n_edges} weights, {N_SAMPLES} inputs"
    parts = [[head]] + [list(part(weights)) for part in (rules, rescaling, pruning, sweep, nulls)]
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


if __name__ == "__main__":
    print(report(), end="")
