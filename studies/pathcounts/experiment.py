"""Train a group of networks and measure every one of them after every epoch."""

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from parts import CPU, seconds_of
from torch.nn import functional as F  # noqa: N812 - its usual name

from pathcounts.convnets import ConvNets, he_kernels
from pathcounts.counting import Counts, channel_masks, dense_counts, position_counts
from pathcounts.densenets import DenseNets, he_weights
from pathcounts.images import Images, digits, mnist
from pathcounts.masks import global_masks
from pathcounts.plans import LEVELS, Plan
from pathcounts.rules import (
    POOLING_RULES,
    SETTINGS,
    RuleSetting,
    active_by_samples,
    contribution_scores,
    relative_change,
)

JUDGED_IN_TRAINING = 5000
"""Images of the training set that its accuracy is taken on, at most."""

Tensors = list[torch.Tensor]
Nets = DenseNets | ConvNets
Say = Callable[[str], None]


def run_plan(plan: Plan, folder: Path, cache: Path, say: Say, *, parts: int | None = None) -> int:
    """Train and measure a group, and write two tables; nothing is done where they are there already.

    Seeds are trained a few at a time. What is done is kept in the cache, so that a stopped run goes on.

    Args:
        plan: The group.
        folder: Where `<name>-metrics.parquet` and `<name>-emergence.parquet` go.
        cache: Where the parts go, and `<name>-<first seed>.npz` with the trained weights and masks.
        say: Called with a line on what goes on.
        parts: Most parts to train now; None: all. The tables are written when none is missing.

    Returns:
        How many parts were trained.
    """
    if finished(plan, folder):
        say(f"{plan.name}: done before")
        return 0
    torch.set_num_threads(1)  # products of this size gain nothing from more, and the order of sums stays
    images = mnist() if plan.data == "mnist" else digits()
    done: list[dict[str, pl.DataFrame]] = []
    trained, spent = 0, 0.0
    firsts = range(0, plan.n_seeds, plan.seeds_at_once)
    for first in firsts:
        seeds = list(range(first, min(first + plan.seeds_at_once, plan.n_seeds)))
        part = replace(plan, name=f"{plan.name}-{first}")
        with _claimed(cache / f"{part.name}.lock") as ours:
            if ours and not finished(part, cache) and trained != parts:
                trained += 1
                started = time.process_time()
                recorder = Recorder(part, images, seeds)
                nets = _train(part, seeds, images, recorder, say)
                _write(part, recorder.frames(), cache, seconds=time.process_time() - started)
                _write_nets(nets, cache / f"{part.name}.npz")
        if finished(part, cache):
            done.append({name: pl.read_parquet(path) for name, path in _paths(part, cache).items()})
            spent += seconds_of(list(_paths(part, cache).values())[:1])
    if len(done) == len(firsts):
        frames = {name: pl.concat([part[name] for part in done]) for name in TABLES}
        _write(plan, frames, folder, seconds=spent)
    return trained


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether no other process trains this part; the claim ends with the process at the latest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


TABLES = ("metrics", "emergence")


def _paths(plan: Plan, folder: Path) -> dict[str, Path]:
    return {name: folder / f"{plan.name}-{name}.parquet" for name in TABLES}


def finished(plan: Plan, folder: Path) -> bool:
    """Whether both tables are there and come from this very plan."""
    return all(path.exists() and stored_plan(path) == plan for path in _paths(plan, folder).values())


def stored_plan(path: Path) -> Plan:
    """The plan that a table comes from; what was not there to choose then has its default."""
    values = json.loads(pl.read_parquet_metadata(path)["plan"])
    return Plan(**values | {"sizes": tuple(values["sizes"])})


def _write(plan: Plan, frames: Mapping[str, pl.DataFrame], folder: Path, *, seconds: float) -> None:
    about = {"plan": json.dumps(plan.to_dict()), CPU: json.dumps(seconds)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in _paths(plan, folder).items():
        unfinished = path.with_suffix(".tmp")
        frames[name].write_parquet(unfinished, compression="zstd", metadata=about)
        unfinished.replace(path)


def _write_nets(nets: Nets, path: Path) -> None:
    arrays = {
        f"{kind}{layer}": values.numpy()
        for kind in ("weights", "masks", "biases")
        for layer, values in enumerate(getattr(nets, kind))
    }
    np.savez_compressed(path, **arrays)


def _train(plan: Plan, seeds: list[int], images: Images, recorder: "Recorder", say: Say) -> Nets:
    part = images.train if plan.n_train is None else images.train.first(plan.n_train)
    draws = [torch.Generator().manual_seed(1_000_000 + seed) for seed in seeds]
    nets = _start(plan, seeds)
    names = list(plan.initialisations) if plan.arms else ["0"]
    recorder.record(nets, names, epoch=0, before=None, loss=None)
    for epoch in range(1, plan.epochs + 1):
        before = nets.weights
        orders = torch.stack([torch.randperm(len(part), generator=draw) for draw in draws])
        loss = nets.train_epoch(part, orders, batch=plan.batch, rate=plan.rate)
        recorder.record(nets, names, epoch=epoch, before=before, loss=loss)
        say(f"{plan.name}: epoch {epoch}, mean test accuracy {recorder.last_accuracy:.4f}")
        if epoch == plan.baseline_epochs and not plan.arms:
            before = _repeated(nets.weights)
            nets = _pruned(nets)
            names = [f"{level:g}" for level in LEVELS]
            recorder.record(nets, names, epoch=epoch, before=before, loss=None, skip=("0",))
    return nets


def _start(plan: Plan, seeds: list[int]) -> Nets:
    if plan.kind == "conv":
        weights, biases = he_kernels(seeds)
        return ConvNets(weights, biases, [torch.ones_like(w) for w in weights], n_variants=1)
    weights, biases = he_weights(plan.sizes, seeds)
    if not plan.arms:
        return DenseNets(weights, biases, [torch.ones_like(w) for w in weights], n_variants=1)
    layers = []
    for layer, he in enumerate(weights):
        of_arm = [_initialised(scheme, layer, he) for scheme in plan.initialisations.values()]
        layers.append(torch.stack(of_arm, dim=1).flatten(0, 1))
    n_arms = len(plan.initialisations)
    biases = [b.repeat_interleave(n_arms, dim=0) for b in biases]
    return DenseNets(layers, biases, [torch.ones_like(w) for w in layers], n_variants=n_arms)


def _initialised(scheme: tuple[float, float, float] | str, layer: int, he: torch.Tensor) -> torch.Tensor:
    """(seeds, n_in, n_out) weights of a layer, from He's normal draw of them."""
    if not isinstance(scheme, str):
        return he * scheme[layer]
    size = (2 / he.shape[1]) ** 0.5
    standard = he / size
    if scheme == "orthogonal":
        left, _, right = torch.linalg.svd(standard, full_matrices=False)
        return 2**0.5 * left @ right
    kind, _, width = scheme.partition(" ")
    if kind == "normal":
        return float(width) * standard
    uniform = 2 * torch.special.ndtr(standard) - 1  # the same draw, made uniform in [-1, 1]
    return uniform * (3**0.5 * size if scheme == "he uniform" else float(width))


def _repeated(layers: Tensors) -> Tensors:
    return [layer.repeat_interleave(len(LEVELS), dim=0) for layer in layers]


def _pruned(nets: Nets) -> Nets:
    """Copies of each network with the smallest weights removed, one per level."""
    weights = nets.weights
    by_level = [global_masks(weights, level) for level in LEVELS]
    masks = [torch.stack(layer, dim=1).flatten(0, 1) for layer in zip(*by_level, strict=True)]
    kind = type(nets)
    return kind(_repeated(weights), _repeated(nets.biases), masks, n_variants=len(LEVELS))


class Recorder:
    """Collects what is measured of all networks, epoch by epoch."""

    def __init__(self, plan: Plan, images: Images, seeds: Sequence[int]) -> None:
        self._plan, self._images, self._seeds = plan, images, np.asarray(seeds)
        self._probe = images.validation.first(plan.probe)
        self._metrics: list[pl.DataFrame] = []
        self._counts: list[pl.DataFrame] = []
        self.last_accuracy = 0.0

    def frames(self) -> dict[str, pl.DataFrame]:
        """Both tables: metrics of networks, and counts per rule."""
        return {"metrics": pl.concat(self._metrics), "emergence": pl.concat(self._counts)}

    def record(
        self,
        nets: Nets,
        names: list[str],
        *,
        epoch: int,
        before: Tensors | None,
        loss: torch.Tensor | None,
        skip: tuple[str, ...] = (),
    ) -> None:
        """Measure all networks as they are.

        Args:
            nets: The networks.
            names: Of their variants.
            epoch: Passes over the images so far.
            before: Weights at the measurement before, for weight_change.
            loss: Mean training loss of each network in the epoch.
            skip: Variants that were measured at this epoch already.
        """
        index = pl.DataFrame(
            {
                "seed": np.repeat(self._seeds, nets.n_variants),
                "variant": names * nets.n_seeds,
                "epoch": np.full(nets.n_networks, epoch),
            }
        )
        keep = ~index["variant"].is_in(skip)
        metrics = index.with_columns(
            *(pl.Series(name, values) for name, values in self._measured(nets, loss).items())
        )
        self._metrics.append(metrics.filter(keep))
        self.last_accuracy = float(metrics["test_accuracy"].mean())  # type: ignore[arg-type]
        if self._plan.many and epoch not in (0, self._plan.epochs):
            return
        for form, setting, counts in self._counted(nets, before):
            frame = index.with_columns(
                pl.lit(form).alias("form"),
                pl.lit(setting.rule).alias("rule"),
                pl.lit(setting.threshold).alias("threshold"),
                pl.Series("active", _each(counts.active, nets.n_networks)),
                pl.Series("any", _each(counts.any, nets.n_networks)),
                pl.Series("printed", _each(counts.printed, nets.n_networks)),
                pl.Series("share_active", _each(counts.n_active / counts.n_units, nets.n_networks)),
            )
            self._counts.append(frame.filter(keep))

    def _measured(self, nets: Nets, loss: torch.Tensor | None) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for name, whole in (
            ("validation", self._images.validation),
            ("test", self._images.test),
            ("train", self._images.train.first(self._plan.n_train or JUDGED_IN_TRAINING)),
        ):
            n_most = JUDGED_IN_TRAINING if name == "train" else len(whole)
            part = whole.first(self._plan.n_judged or n_most)
            losses, right = torch.zeros(nets.n_networks), torch.zeros(nets.n_networks)
            for x, y in zip(part.x.split(1000), part.y.split(1000), strict=True):
                logits = nets.activations(x)[-1]
                targets = y.repeat(nets.n_networks)
                each = F.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
                losses += each.reshape(nets.n_networks, -1).sum(dim=1)
                right += (logits.argmax(dim=-1) == y).sum(dim=1)
            found[f"{name}_loss"] = (losses / len(part)).double().numpy()
            found[f"{name}_accuracy"] = (right / len(part)).double().numpy()
        nan = torch.full((nets.n_networks,), torch.nan)
        # that of the epoch while it learns, beside the accuracy after it
        found["train_loss"] = (nan if loss is None else loss).double().numpy()
        weights, masks = nets.weights, nets.masks
        n_all = sum(w[0].numel() for w in weights)
        found["weight_sparsity"] = 1 - sum(m.flatten(1).sum(dim=1) for m in masks).double().numpy() / n_all
        found["weight_l2"] = sum((w.double() ** 2).flatten(1).sum(dim=1) for w in weights).sqrt().numpy()
        return found

    def _counted(self, nets: Nets, before: Tensors | None) -> list[tuple[str, RuleSetting, Counts]]:
        activations = nets.activations(self._probe.x)
        if isinstance(nets, DenseNets):
            edges = [(w != 0).float() for w in nets.weights]
            return [
                ("units", setting, dense_counts(active, edges))
                for setting, active in dense_activity(activations, nets.weights, before)
            ]
        found = []
        edges = [(w != 0).float() for w in nets.weights]
        pooled = [a if a.ndim == 3 else a.mean(dim=(3, 4)) for a in activations]
        for setting in SETTINGS:
            if setting.rule in POOLING_RULES or setting.rule == "per_sample":
                by_channel = [active_by_samples(setting, a) for a in pooled]
                found.append(("channels", setting, dense_counts(by_channel, channel_masks(edges))))
                by_position = [active_by_samples(setting, a) for a in activations]
                found.append(("positions", setting, position_counts(by_position, edges)))
            elif setting.rule == "weight_change" and before is not None:
                change = relative_change(*([_incoming(w) for w in ws] for ws in (before, nets.weights)))
                by_channel = [None, *((c > setting.threshold)[:, None] for c in change)]
                found.append(("channels", setting, dense_counts(by_channel, channel_masks(edges))))
            elif setting.rule == "contribution":
                sizes = [a.double().abs().mean(dim=1) for a in pooled]
                scores = contribution_scores(sizes, _channel_norms(nets.weights))
                by_channel = [(s > setting.threshold)[:, None] for s in scores]
                found.append(("channels", setting, dense_counts(by_channel, channel_masks(edges))))
        return found


def _each(values: torch.Tensor, n: int) -> np.ndarray:
    return values.double().expand(n).numpy()


def dense_activity(
    activations: Tensors, weights: Tensors, before: Tensors | None
) -> list[tuple[RuleSetting, list[torch.Tensor | None]]]:
    found: list[tuple[RuleSetting, list[torch.Tensor | None]]] = []
    for setting in SETTINGS:
        if setting.rule == "contribution":
            sizes = [a.double().abs().mean(dim=1) for a in activations]
            scores = contribution_scores(sizes, weights)
            found.append((setting, [(s > setting.threshold)[:, None] for s in scores]))
        elif setting.rule == "weight_change":
            if before is not None:
                change = relative_change(before, weights)
                found.append((setting, [None, *((c > setting.threshold)[:, None] for c in change)]))
        else:
            found.append((setting, [active_by_samples(setting, a) for a in activations]))
    return found


def _incoming(weights: torch.Tensor) -> torch.Tensor:
    """(networks, fan-in, units) of a kernel or of a matrix."""
    return weights if weights.ndim == 3 else weights.flatten(2).transpose(1, 2)


def _channel_norms(weights: Tensors) -> Tensors:
    """Sums of absolute weights between channels, (networks, n_in, n_out) per layer."""
    *kernels, dense = weights
    r, _, n_out = dense.shape
    by_channel = dense.abs().reshape(r, kernels[-1].shape[1], -1, n_out).sum(dim=2)
    return [k.abs().sum(dim=(3, 4)).transpose(1, 2) for k in kernels] + [by_channel]
