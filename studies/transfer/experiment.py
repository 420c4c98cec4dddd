"""Train networks on one task and then on another, beside fresh ones, and count E after every epoch."""

from collections.abc import Sequence

import polars as pl
import torch
from pathcounts.counting import dense_counts
from pathcounts.densenets import DenseNets, he_weights
from pathcounts.images import Images
from pathcounts.rules import RuleSetting, active_by_samples

from transfer.tasks import SETTINGS, Setting, tasks

MEAN = RuleSetting("mean", 0.05)
"""The paper's rule."""
N_PROBE = 250
N_JUDGED = 1000
ARMS = ("transferred", "fresh")
"""Networks of the second task: those that learned the first, with a new last layer; and new ones."""


def run_setting(name: str, seeds: Sequence[int]) -> pl.DataFrame:
    """One row per network and epoch of either task: seed, arm, task, epoch, accuracies, the counts of E."""
    torch.set_num_threads(1)  # products of this size gain nothing from more, and the order of sums stays
    setting = SETTINGS[name]
    first, second = tasks(name)
    weights, biases = he_weights(setting.sizes, seeds)
    nets = DenseNets(weights, biases, [torch.ones_like(w) for w in weights], n_variants=1)
    learned = _learn(nets, first, setting, seeds, arms=ARMS[:1], task=1)
    both = _learn(_second_start(nets, setting, seeds), second, setting, seeds, arms=ARMS, task=2)
    return pl.concat([*learned, *both]).select(pl.lit(name).alias("setting"), pl.all())


def _second_start(nets: DenseNets, setting: Setting, seeds: Sequence[int]) -> DenseNets:
    """Both arms of each seed; the last layer of the first arm is new."""
    heads, _ = he_weights(setting.sizes, [5000 + seed for seed in seeds])
    fresh, zeros = he_weights(setting.sizes, [10_000 + seed for seed in seeds])
    old = [*nets.weights[:-1], heads[-1]]
    kept = [*nets.biases[:-1], zeros[-1]]
    weights = [torch.stack(pair, dim=1).flatten(0, 1) for pair in zip(old, fresh, strict=True)]
    biases = [torch.stack(pair, dim=1).flatten(0, 1) for pair in zip(kept, zeros, strict=True)]
    return DenseNets(weights, biases, [torch.ones_like(w) for w in weights], n_variants=len(ARMS))


def _learn(
    nets: DenseNets, images: Images, setting: Setting, seeds: Sequence[int], *, arms: Sequence[str], task: int
) -> list[pl.DataFrame]:
    part = images.train.first(setting.n_train)
    draws = [torch.Generator().manual_seed(1_000_000 * task + seed) for seed in seeds]
    rows = [_measured(nets, images, seeds, arms=arms, task=task, epoch=0)]
    for epoch in range(1, setting.epochs + 1):
        orders = torch.stack([torch.randperm(len(part), generator=draw) for draw in draws])
        nets.train_epoch(part, orders, batch=setting.batch, rate=setting.rate)
        rows.append(_measured(nets, images, seeds, arms=arms, task=task, epoch=epoch))
    return rows


def _measured(
    nets: DenseNets, images: Images, seeds: Sequence[int], *, arms: Sequence[str], task: int, epoch: int
) -> pl.DataFrame:
    probe = images.validation.first(N_PROBE)
    active = [active_by_samples(MEAN, layer) for layer in nets.activations(probe.x)]
    counts = dense_counts(active, [(w != 0).float() for w in nets.weights])
    found = {}
    for name, part in (("train", images.train.first(N_JUDGED)), ("test", images.test.first(N_JUDGED))):
        right = (nets.activations(part.x)[-1].argmax(dim=-1) == part.y).double().mean(dim=1)
        found[f"{name}_accuracy"] = right.numpy()
    return pl.DataFrame(
        {
            "seed": [seed for seed in seeds for _ in arms],
            "arm": [*arms] * len(seeds),
            "task": task,
            "epoch": epoch,
            **found,
            **{name: getattr(counts, name).numpy() for name in ("active", "any", "printed")},
            "share_active": (counts.n_active / counts.n_units).numpy(),
        }
    )
