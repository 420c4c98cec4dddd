"""The whole survey of a model's landscape: one sweep, then every statistic with its interval and null.

What is measured: slices along random directions, planes, stationary walks, distances, clouds, and single
tensors, all on one fixed evaluation set. Everything follows from the seed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.engines.spread import Parallelism
from emergraph.analysis.landscape.autocorrelation import analyse_walks
from emergraph.analysis.landscape.directions import perturbation_scale, random_directions
from emergraph.analysis.landscape.evaluator import Evaluator
from emergraph.analysis.landscape.extrema import count_extrema, noise_floor
from emergraph.analysis.landscape.fdc import fitness_distance, uniform_radii
from emergraph.analysis.landscape.hypercube import MAX_GROUPS, hypercube_lon, summarise_hypercube
from emergraph.analysis.landscape.information_content import summarise_information
from emergraph.analysis.landscape.layers import layer_ruggedness, layer_tasks, mean_rises
from emergraph.analysis.landscape.layout import Layout, group_ids
from emergraph.analysis.landscape.lon import summarise_lon
from emergraph.analysis.landscape.merge_tree import merge_tree, summarise
from emergraph.analysis.landscape.neutrality import neutrality
from emergraph.analysis.landscape.options import Norm, SurveyOptions
from emergraph.analysis.landscape.slices import (
    axis_positions,
    plane_convexity,
    summarise_slices,
)
from emergraph.analysis.landscape.surveyresult import Balls, Masks, Plane, Survey
from emergraph.analysis.landscape.sweep import Progress, run_sweep
from emergraph.analysis.landscape.tasks import (
    BallTask,
    LineTask,
    PointsTask,
    SliceTask,
    Task,
    WalkTask,
    mask_tasks,
    plane_tasks,
)
from emergraph.analysis.landscape.walks import WalkPlan
from emergraph.analysis.statistics.estimate import Estimate
from emergraph.analysis.statistics.intervals import Support, student
from emergraph.errors import InvalidInputError, UsageError

# Groups of parameters whose removal is tried in all combinations: tensors, runs of tensors, or filters.

Groups = dict[str, NDArray[np.int64]]


def layer_groups(layout: Layout, *, m: int = 10) -> Groups:
    """Split the weight tensors into at most m runs of neighbours with about as many parameters each.

    Args:
        layout: Of the flat buffer; biases and normalisation vectors are left alone.
        m: Most groups, 1 .. 14.

    Returns:
        Indices by group name, in the order of the layout; every group holds whole tensors.

    Raises:
        UsageError: m is out of range.

    Example:
        >>> list(layer_groups(Layout.of_shapes([(2, 3), (2,), (4, 2)], ["a", "b", "c"]), m=14))
        ['a', 'c']
    """
    if not 1 <= m <= MAX_GROUPS:
        raise UsageError(f"groups: expected 1 to {MAX_GROUPS}, found {m}")
    blocks = [block for block in layout.blocks if not block.is_vector]
    ends = np.cumsum([block.size for block in blocks])
    n = min(m, len(blocks))
    targets = ends[-1] * np.arange(1, n) / n
    cuts = [0]
    for i, target in enumerate(targets):
        nearest = int(np.argmin(np.abs(ends - target))) + 1
        # Every group keeps at least one tensor, also those still to come.
        cuts.append(min(max(nearest, cuts[-1] + 1), len(blocks) - (n - 1 - i)))
    cuts.append(len(blocks))
    groups: Groups = {}
    for first, stop in pairwise(cuts):
        members = blocks[first:stop]
        name = members[0].name if len(members) == 1 else f"{members[0].name} .. {members[-1].name}"
        groups[name] = np.concatenate([np.arange(b.offset, b.offset + b.size) for b in members])
    return groups


def weight_groups(layout: Layout, *, m: int = 10) -> Groups:
    """Split all weights into m groups: runs of tensors, or of filters where there are fewer tensors than m.

    Args:
        layout: Of the flat buffer.
        m: Groups, 1 .. 14; fewer only where the model has fewer filters.

    Returns:
        Indices by group name.

    Example:
        >>> list(weight_groups(Layout.of_shapes([(4, 3), (2, 4)], ["a", "c"]), m=4))
        ['a[0]', 'a[1]', 'c[0]', 'c[1]']
    """
    blocks = [block for block in layout.blocks if not block.is_vector]
    if m <= len(blocks):
        return layer_groups(layout, m=m)
    filters = group_ids(layout, Norm.FILTER)
    most = {block.name: int(np.ptp(filters[block.span])) + 1 for block in blocks}
    shares = {block.name: 1 for block in blocks}
    for _ in range(m - len(blocks)):
        # The next cut goes where the groups are largest.
        open_ = [block for block in blocks if shares[block.name] < most[block.name]]
        if not open_:
            break
        largest = max(open_, key=lambda block: block.size / shares[block.name])
        shares[largest.name] += 1
    groups: Groups = {}
    for block in blocks:
        count = shares[block.name]
        if count == 1:
            groups[block.name] = np.arange(block.offset, block.offset + block.size)
        else:
            groups |= filter_groups(layout, block.name, m=count)
    return groups


def filter_groups(layout: Layout, tensor: str, *, m: int = 14) -> Groups:
    """Split the filters of one tensor into at most m runs of neighbours (for heads: m heads of equal size).

    Raises:
        UsageError: No such tensor, or m is out of range.

    Example:
        >>> groups = filter_groups(Layout.of_shapes([(4, 3)], ["a"]), "a", m=2)
        >>> [g.tolist() for g in groups.values()]
        [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    """
    if not 1 <= m <= MAX_GROUPS:
        raise UsageError(f"groups: expected 1 to {MAX_GROUPS}, found {m}")
    block = next((block for block in layout.blocks if block.name == tensor), None)
    if block is None:
        raise UsageError(
            f"tensor {tensor!r}: not one of the {len(layout.blocks)} perturbed tensors of the model"
        )
    filters = group_ids(layout, Norm.FILTER)[block.span]
    filters = filters - filters.min()
    count = int(filters.max()) + 1
    part = filters * min(m, count) // count
    return {
        f"{tensor}[{i}]": block.offset + np.flatnonzero(part == i).astype(np.int64)
        for i in range(min(m, count))
    }


Array = NDArray[np.float64]

PLANE_DRAWS = 1_000_000
"""Index of the first direction of planes within a seed; slices count from 0."""


@dataclass(frozen=True)
class _Plan:
    """The tasks of a survey by what they are for, and how to find their results again."""

    parts: dict[str, list[Task]]
    cosines: list[float]
    radii: Array
    groups: dict[str, NDArray[np.int64]]

    @property
    def tasks(self) -> list[Task]:
        return [task for part in self.parts.values() for task in part]

    def split(self, results: list[Array]) -> dict[str, list[Array]]:
        """Give the results back by part."""
        found, at = {}, 0
        for name, part in self.parts.items():
            found[name] = results[at : at + len(part)]
            at += len(part)
        return found


def run_survey(
    evaluator: Evaluator,
    options: SurveyOptions | None = None,
    *,
    parallelism: Parallelism | None = None,
    checkpoint: Path | None = None,
    rate: float | None = None,
    progress: Callable[[Progress], None] | None = None,
    notes: tuple[str, ...] = (),
) -> Survey:
    """Measure the ruggedness of a landscape.

    Args:
        evaluator: Gives the losses.
        options: What to measure.
        parallelism: How to spread the evaluations.
        checkpoint: File that lets an interrupted survey go on.
        rate: Evaluations per second from a probe, for the first estimate of the time.
        progress: Called after every piece.
        notes: What a reader should know, kept with the result.

    Returns:
        All statistics with their intervals and nulls, and the losses behind them.
    """
    chosen = options or SurveyOptions()
    plan = _plan(evaluator, chosen)
    results = run_sweep(
        evaluator, plan.tasks, parallelism=parallelism, checkpoint=checkpoint, rate=rate, progress=progress
    )
    return _analyse(evaluator, chosen, plan, plan.split(results), notes)


def _plan(evaluator: Evaluator, options: SurveyOptions) -> _Plan:
    base, layout, seed = evaluator.base, evaluator.layout, options.seed
    scale = perturbation_scale(base, layout, options.norm).astype(np.float32)
    steps = axis_positions(options.radius, options.slice_points)
    radii = uniform_radii(options.directions, options.distances, radius=options.radius, seed=seed)
    axis = axis_positions(options.radius, options.plane_points)
    cosines, planes = [], list[Task]()
    for i in range(options.planes):
        pair = random_directions(
            base, layout, n=2, seed=seed, norm=options.norm, orthogonal=True, first=PLANE_DRAWS + 2 * i
        )
        cosines.append(float(pair.cosines[0, 1]))
        planes += plane_tasks(pair.vectors[0].astype(np.float32), pair.vectors[1].astype(np.float32), axis)
    walk = WalkPlan(
        n_walks=options.walks, length=options.walk_length, a=options.a, sigma=options.sigma, seed=seed
    )
    groups = _groups(evaluator, options)
    parts: dict[str, list[Task]] = {
        # The same point three times: what differs is evaluation noise.
        "repeats": [LineTask(base, np.array([-1e-2] * 3))],
        "slices": [SliceTask(steps, options.norm, seed, i) for i in range(options.directions)],
        "distances": [SliceTask(radii[i], options.norm, seed, i) for i in range(options.directions)],
        "planes": planes,
        "walks": [WalkTask(walk, i, scale) for i in range(options.walks)],
        "cloud": [PointsTask(scale, options.sigma, seed, i) for i in range(options.pairs)],
        **{
            name: [
                BallTask(rho, name == "adaptive_balls", options.norm, seed, i) for i in range(options.balls)
            ]
            for name, rho in (("balls", options.rho), ("adaptive_balls", options.adaptive_rho))
        },
        **layer_tasks(layout, options),
        "masks": list(mask_tasks(tuple(groups.values()))) if groups else [],
    }
    return _Plan(parts, cosines, radii, groups)


def _groups(evaluator: Evaluator, options: SurveyOptions) -> dict[str, NDArray[np.int64]]:
    """The groups of weights that masks remove."""
    if not options.masks:
        return {}
    if options.mask_tensor is not None:
        return filter_groups(evaluator.layout, options.mask_tensor, m=options.masks)
    return weight_groups(evaluator.layout, m=options.masks)


def _analyse(
    evaluator: Evaluator,
    options: SurveyOptions,
    plan: _Plan,
    found: dict[str, list[Array]],
    notes: tuple[str, ...],
) -> Survey:
    seed, level = options.seed, options.level
    slices, walks = np.array(found["slices"]), np.array(found["walks"])
    base = float(slices[0, options.slice_points // 2])
    everything = np.concatenate([part.ravel() for parts in found.values() for part in parts])
    repeats = found["repeats"][0][np.isfinite(found["repeats"][0])]
    if not np.isfinite(base):
        raise InvalidInputError(
            f"the loss at the model's own weights is {base}; expected a finite number; if --resume was given,"
            " delete that file to start anew"
        )
    noise_variance = float(np.var(repeats)) if repeats.size else 0.0
    floor = noise_floor(everything, repeats if repeats.size else None)
    said = list(notes)
    broken = int(np.sum(~np.isfinite(everything)))
    if broken:
        said.append(f"{broken} of {everything.size} losses are not finite and left out")
    kept_walks = walks[np.all(np.isfinite(walks), axis=1)]
    if len(kept_walks) < len(walks):
        said.append(f"{len(walks) - len(kept_walks)} of {len(walks)} walks met losses that are not finite")
    # A constant walk stands for "undefined" in every statistic of walks.
    usable = kept_walks if len(kept_walks) else np.zeros((1, walks.shape[1]))
    planes = _planes(found["planes"], plan.cosines, options, floor)
    cloud = np.array(found["cloud"])
    return Survey(
        loss_name=evaluator.loss_name,
        base_loss=base,
        noise_floor=floor,
        n_params=int(np.count_nonzero(perturbation_scale(evaluator.base, evaluator.layout, options.norm))),
        options=options,
        positions=axis_positions(options.radius, options.slice_points),
        slice_losses=slices,
        slices=summarise_slices(
            slices, axis_positions(options.radius, options.slice_points), floor=floor, seed=seed, level=level
        ),
        walk_losses=walks,
        autocorrelation=analyse_walks(
            usable, a=options.a, noise_variance=noise_variance, seed=seed, level=level
        ),
        information=summarise_information(usable, seed=seed, level=level),
        neutrality=neutrality(usable, eps=floor, seed=seed, level=level),
        distance_correlation=fitness_distance(
            np.array(found["distances"]), plan.radii, seed=seed, level=level
        ),
        average_sharpness=student(mean_rises(cloud, base), seed=seed, level=level),
        planes=planes,
        plane_estimates=_over_planes(planes, seed, level),
        balls=_balls(options, found, base),
        layers=layer_ruggedness(
            evaluator.layout, options, found, base_loss=base, noise_variance=noise_variance
        ),
        masks=_masks(plan, found["masks"], floor),
        notes=tuple(said),
    )


def _planes(
    rows: list[Array], cosines: list[float], options: SurveyOptions, floor: float
) -> tuple[Plane, ...]:
    planes, n = [], options.plane_points
    for i, cosine in enumerate(cosines):
        losses = np.array(rows[i * n : (i + 1) * n])
        tree = merge_tree(losses, floor=floor)
        planes.append(
            Plane(
                losses=losses,
                cosine=cosine,
                convexity=plane_convexity(losses, floor=floor),
                extrema=count_extrema(losses),
                tree=tree,
                persistence=summarise(tree),
            )
        )
    return tuple(planes)


def _over_planes(planes: tuple[Plane, ...], seed: int, level: float) -> dict[str, Estimate]:
    if not planes:
        return {}
    values: dict[str, list[float]] = {
        "n_minima": [plane.persistence.n_minima for plane in planes],
        "saddles": [plane.extrema.saddles for plane in planes],
        "smad_normalised": [plane.persistence.smad_normalised for plane in planes],
        "total_persistence": [plane.persistence.total_persistence for plane in planes],
        "max_persistence": [plane.persistence.max_persistence for plane in planes],
        "convex_share": [plane.convexity.convex_share for plane in planes],
    }
    # A bowl has one minimum, no saddle, no persistence, and is convex.
    nulls = {"n_minima": 1.0, "convex_share": 1.0}
    shares = {"smad_normalised", "convex_share"}
    return {
        name: student(
            column,
            support=Support.SHARE if name in shares else Support.POSITIVE,
            seed=seed,
            null=nulls.get(name, 0.0),
            level=level,
        )
        for name, column in values.items()
    }


def _balls(options: SurveyOptions, found: dict[str, list[Array]], base: float) -> Balls | None:
    if not options.balls:
        return None
    rises = {name: np.array(found[name]) - base for name in ("balls", "adaptive_balls")}
    means = {
        name: student(mean_rises(np.array(found[name]), base), seed=options.seed, level=options.level)
        for name in rises
    }
    return Balls(
        plain=means["balls"],
        adaptive=means["adaptive_balls"],
        plain_highest=_highest(rises["balls"]),
        adaptive_highest=_highest(rises["adaptive_balls"]),
    )


def _highest(rises: Array) -> float:
    finite = rises[np.isfinite(rises)]
    return float(finite.max()) if finite.size else float("nan")


def _masks(plan: _Plan, parts: list[Array], floor: float) -> Masks | None:
    if not parts:
        return None
    losses = np.concatenate(parts)
    return Masks(
        groups=tuple(plan.groups),
        losses=losses,
        summary=summarise_hypercube(losses, eps=floor),
        lon=summarise_lon(hypercube_lon(losses), precision=floor),
    )
