"""Null models: what E would be if activity or weights were where they are by chance."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.activity.scores import Activity
from emergraph.analysis.emergence.cases import count_cases
from emergraph.analysis.emergence.exact import small
from emergraph.analysis.emergence.options import ACTIVITY_NULLS, MOVING_NULLS, NullKind
from emergraph.analysis.emergence.result import Magnitude
from emergraph.analysis.emergence.rewiring import WeightNull, randomised_graph
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.paths.options import EmergenceOptions, Interior
from emergraph.analysis.paths.scaled import Scaled, concatenate
from emergraph.analysis.paths.states import UnitClasses, classify
from emergraph.analysis.statistics.permutation import SIGNIFICANT, least_p
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.errors import UsageError
from emergraph.options import member
from emergraph.steps import steps

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class WeightDraw:
    """One draw of a weight null, for a caller that runs the model with it."""

    kind: NullKind
    graph: UnitGraph
    """The randomised graph. Its edges have a column `origin`: the place of the original edge in the original
    block whose parameters (kernels included) the edge now has. For weight_noise, the original graph."""
    noise: float | None
    """For weight_noise: standard deviation of the noise, relative to the root mean square of each tensor."""
    seed: int
    draw: int


MeasureActivity = Callable[[WeightDraw], Activity]
"""Runs the model with the drawn weights on the inputs of the trace and returns the activity by the same
rule."""


@dataclass(frozen=True, kw_only=True)
class NullComparison:
    """Observed E against draws of a null model, for one interior."""

    interior: Interior
    observed: Magnitude
    mean: Magnitude
    """Mean of the draws."""
    sd: float | None
    """Standard deviation of the draws (divisor n - 1), in the unit of `scale`."""
    z: float | None
    """(observed - mean) / sd in the unit of `scale`; None when degenerate."""
    scale: str
    """"count", or "log10" where counts are beyond float64."""
    p_greater: float
    """(1 + draws >= observed) / (1 + draws)."""
    p_less: float
    """(1 + draws <= observed) / (1 + draws)."""
    p_two_sided: float
    """min(1, 2 min(p_greater, p_less))."""
    degenerate: bool
    """All draws are equal: the null has no variance, and a z-score no meaning."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("sd", "z", "scale", "p_greater", "p_less", "p_two_sided", "degenerate")
        }
        return {
            "interior": self.interior.value,
            "observed": self.observed.to_dict(),
            "mean": self.mean.to_dict(),
            **plain,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class NullResult(ShownInNotebooks):
    """A null model's draws and comparisons."""

    kind: NullKind
    comparisons: tuple[NullComparison, ...]
    """One per interior."""
    draws: pl.DataFrame
    """One row per draw: draw, log10_<interior> for each interior (null for 0)."""
    n_draws: int
    seed: int
    activity: str
    """"shuffled", "measured again" or "held fixed"."""
    noise: float | None
    kept_blocks: tuple[str, ...] = ()
    """Names of the blocks whose weights stayed where they are."""

    @property
    def least_p(self) -> float:
        """The smallest two-sided p value that so many draws can give."""
        return least_p(self.n_draws, two_sided=True)

    def comparison(self, interior: Interior | str) -> NullComparison:
        """The comparison of one interior."""
        for comparison in self.comparisons:
            if comparison.interior == interior:
                return comparison
        raise UsageError(f"Interior '{interior}' was not counted: ask for it with interiors=(...)")

    @property
    def note(self) -> str | None:
        """What to know about the p values: nothing, or that they cannot reject."""
        if self.least_p <= SIGNIFICANT:
            return None
        return f"{self.kind.value}: {self.n_draws} draws cannot give a p below {self.least_p:.2g}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the single draws."""
        return {
            "kind": self.kind.value,
            "n_draws": self.n_draws,
            "seed": self.seed,
            "activity": self.activity,
            "noise": self.noise,
            "kept_blocks": list(self.kept_blocks),
            "comparisons": {c.interior.value: c.to_dict() for c in self.comparisons},
        }


def null_model(  # noqa: PLR0913 - the options of one call, all by keyword
    graph: UnitGraph,
    activity: Activity,
    kind: NullKind | str,
    *,
    options: EmergenceOptions | None = None,
    n_draws: int = 100,
    seed: int = 0,
    measure_activity: MeasureActivity | None = None,
    noise: float | None = None,
    keep: Collection[int] = (),
) -> NullResult:
    """Compare E with its distribution under a null model.

    Args:
        graph: The graph.
        activity: The observed activity, not per sample.
        kind: What is drawn at random.
        options: Conventions.
        n_draws: Draws, at least 2. Activity nulls share passes over the edges; weight nulls take one each.
        seed: Seed of the draws.
        measure_activity: For weight nulls: measures the activity of each draw by running the model. Without
            it the activity is held fixed, which the result says; weight_noise needs it.
        noise: For weight_noise: size relative to each tensor's root mean square, above 0.
        keep: For shuffled and rewired weights: ids of blocks that stay as they are.

    Raises:
        UsageError: Options that do not go together.
    """
    options = options or EmergenceOptions()
    kind = null_kind(kind)
    _check(activity, kind, n_draws=n_draws, measured=measure_activity is not None, noise=noise)

    def count(graph: UnitGraph, active: Callable[[slice], Bools], n: int, known: Bools) -> Scaled:
        return count_cases(graph, active, n, known=known, options=options)

    observed = count(graph, _one(activity), 1, activity.known)
    if kind in ACTIVITY_NULLS:
        classes = classify(graph, activity.known, options)
        shuffle = _Shuffle(
            graph, activity, classes, within_layers=kind is NullKind.ACTIVITY_IN_LAYERS, seed=seed
        )
        drawn = count(graph, shuffle, n_draws, activity.known)
        how = "shuffled"
    else:
        parts = []
        for draw in steps(range(n_draws), "null models"):
            weights = _weight_draw(graph, kind, noise=noise, seed=seed, draw=draw, keep=keep)
            measured = activity if measure_activity is None else measure_activity(weights)
            parts.append(count(weights.graph, _one(measured), 1, measured.known))
        drawn = concatenate(parts, axis=1)
        how = "held fixed" if measure_activity is None else "measured again"
    return NullResult(
        kind=kind,
        comparisons=tuple(
            compare(interior, observed[index, 0:1], drawn[index])
            for index, interior in enumerate(options.interiors)
        ),
        draws=_draw_frame(drawn, options),
        n_draws=n_draws,
        seed=seed,
        activity=how,
        noise=noise,
        kept_blocks=_kept_names(graph, keep) if kind in MOVING_NULLS else (),
    )


def _check(activity: Activity, kind: NullKind, *, n_draws: int, measured: bool, noise: float | None) -> None:
    if activity.active.ndim != 1:
        raise UsageError("Null models need one activity per unit: choose another rule than per_sample")
    if n_draws < 2:
        raise UsageError(f"A null model needs at least 2 draws, got {n_draws}")
    if kind is NullKind.WEIGHT_NOISE:
        if not measured:
            raise UsageError(
                "Weight noise leaves the graph as it is: the activity has to be measured again (--model)"
            )
        if noise is None or not noise > 0:
            raise UsageError(f"Weight noise needs a size above 0, got {noise}")
    elif noise is not None:
        raise UsageError(f"Null model '{kind}' has no noise size")


def _kept_names(graph: UnitGraph, keep: Collection[int]) -> tuple[str, ...]:
    return tuple(block.name or str(block.id) for block in graph.blocks if block.id in keep)


def _one(activity: Activity) -> Callable[[slice], Bools]:
    return lambda _: activity.active[:, None]


def null_kind(kind: NullKind | str) -> NullKind:
    """The null model with this name.

    Raises:
        UsageError: There is none.
    """
    return member(NullKind, kind, "null model")


def _weight_draw(
    graph: UnitGraph, kind: NullKind, *, noise: float | None, seed: int, draw: int, keep: Collection[int]
) -> WeightDraw:
    drawn = graph
    if kind is not NullKind.WEIGHT_NOISE:
        drawn = randomised_graph(graph, WeightNull(kind.value), seed=seed, draw=draw, keep=keep)
    return WeightDraw(kind=kind, graph=drawn, noise=noise, seed=seed, draw=draw)


class _Shuffle:
    """Activities of a range of draws; a draw is the same in whatever range it is asked for."""

    def __init__(
        self, graph: UnitGraph, activity: Activity, classes: UnitClasses, *, within_layers: bool, seed: int
    ) -> None:
        counts = ~classes.transparent & ~classes.unmeasured
        if within_layers:
            groups = [np.flatnonzero(counts[layer.units]) + layer.first_unit for layer in graph.layers]
        else:
            groups = [np.flatnonzero(counts)]
        self.groups, self.active, self.seed = groups, activity.active, seed

    def __call__(self, draws: slice) -> Bools:
        columns = []
        for draw in range(draws.start, draws.stop):
            rng = np.random.default_rng([self.seed, draw])
            shuffled = self.active.copy()
            for units in self.groups:
                shuffled[units] = rng.permutation(shuffled[units])
            columns.append(shuffled)
        return np.stack(columns, axis=1)


LARGEST_COUNT = 1e150
"""Counts from here on have no variance in float64, and are compared by their logarithms."""


def compare(interior: Interior, observed: Scaled, drawn: Scaled) -> NullComparison:
    """Place an observed count among draws.

    Args:
        interior: What was counted.
        observed: (1,).
        drawn: (n_draws,), at least 2.
    """
    n = len(drawn.value)
    values, value, scale = _on_one_scale(observed, drawn)
    # Integers below 2**53 are equal to the last bit; above, rounding may part equal counts.
    slack = 0.0 if small(drawn) and small(observed) else 1e-12 * max(abs(value), 1.0)
    greater = (1 + int(np.count_nonzero(values >= value - slack))) / (1 + n)
    less = (1 + int(np.count_nonzero(values <= value + slack))) / (1 + n)
    degenerate = bool(values.max() - values.min() <= slack) if np.isfinite(values).all() else False
    degenerate = degenerate or bool(np.all(values == values[0]))
    sd = float(np.std(values, ddof=1)) if np.isfinite(values).all() else None
    z = (value - float(np.mean(values))) / sd if sd and not degenerate and math.isfinite(value) else None
    total = drawn.sum(axis=0)
    return NullComparison(
        interior=interior,
        observed=Magnitude.of(observed[0]),
        mean=Magnitude.of(total).over(n),
        sd=0.0 if degenerate else sd,
        z=z,
        scale=scale,
        p_greater=greater,
        p_less=less,
        p_two_sided=min(1.0, 2 * min(greater, less)),
        degenerate=degenerate,
    )


def _on_one_scale(observed: Scaled, drawn: Scaled) -> tuple[Floats, float, str]:
    """Draws and observation as counts, or as logarithms where the square of some count is beyond float64."""
    counts, count = drawn.floats(), float(observed.floats()[0])
    if max(float(counts.max()), count) < LARGEST_COUNT:
        return counts, count, "count"
    return drawn.log10(), float(observed.log10()[0]), "log10"


def _draw_frame(drawn: Scaled, options: EmergenceOptions) -> pl.DataFrame:
    frame = pl.DataFrame({"draw": np.arange(drawn.value.shape[1])})
    for index, interior in enumerate(options.interiors):
        logs = pl.Series(drawn[index].log10(), dtype=pl.Float64)
        frame = frame.with_columns(pl.Series(f"log10_{interior}", logs.set(logs.is_infinite(), None)))
    return frame
