"""A small VGG on MNIST whose classifier's three matrices are scaled at the start, as in arXiv 2409.01568."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import polars as pl
import torch
from pathcounts.counting import Counts, dense_counts
from pathcounts.images import Images, Part, mnist
from pathcounts.rules import active_by_samples
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from transfer.experiment import MEAN, N_JUDGED, N_PROBE
from transfer.tasks import pooled

SCALINGS: Mapping[str, tuple[float, float, float]] = {
    "good": (0.5, 1.0, 2.0),
    "plain": (1.0, 1.0, 1.0),
    "low": (2.0, 1.0, 0.5),
}
"""Factors of the classifier's matrices W1, W2, W3, by the paper's names for them."""
CHANNELS, HIDDEN = (16, 16, 32, 32), 64
N_TRAIN, EPOCHS, BATCH, RATE, MOMENTUM = 1000, 3, 50, 0.02, 0.9
SIDE = 16


class SmallVgg(nn.Module):
    """Two blocks of two 3 x 3 convolutions with max pooling, then three dense layers; 54,000 parameters."""

    def __init__(self, generator: torch.Generator, scaling: Sequence[float]) -> None:
        super().__init__()
        c = CHANNELS
        self.convolutions = nn.ModuleList(
            nn.Conv2d(n_in, n_out, 3, padding=1) for n_in, n_out in zip((1, *c[:-1]), c, strict=True)
        )
        widths = (c[-1] * (SIDE // 4) ** 2, HIDDEN, HIDDEN, 10)
        self.classifier = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        for layer in (*self.convolutions, *self.classifier):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            for layer, factor in zip(self.classifier, scaling, strict=True):
                layer.weight.mul_(factor)

    def activations(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(n, features) into the classifier, its two hidden layers after the ReLU, and the logits."""
        h = x.reshape(-1, 1, SIDE, SIDE)
        for k, convolution in enumerate(self.convolutions):
            h = F.relu(convolution(h))
            h = F.max_pool2d(h, 2) if k % 2 else h
        found = [h.flatten(1)]
        for k, layer in enumerate(self.classifier):
            h = layer(found[-1])
            found.append(F.relu(h) if k < len(self.classifier) - 1 else h)
        return found


def run_seed(seed: int) -> pl.DataFrame:
    """One row per scaling and epoch: accuracies, and E of the classifier, features to classes."""
    torch.set_num_threads(1)
    whole = mnist()
    parts = [
        pooled(part.first(n), SIDE)
        for part, n in ((whole.train, N_TRAIN), (whole.validation, N_PROBE), (whole.test, N_JUDGED))
    ]
    images = Images("MNIST 16x16", *parts)
    rows = []
    for name, scaling in SCALINGS.items():
        model = SmallVgg(torch.Generator().manual_seed(seed), scaling)
        optimiser = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
        draw = torch.Generator().manual_seed(1_000_000 + seed)
        rows.append(_measured(model, images) | {"scaling": name, "seed": seed, "epoch": 0})
        for epoch in range(1, EPOCHS + 1):
            for batch in torch.randperm(N_TRAIN, generator=draw).split(BATCH):
                optimiser.zero_grad()
                F.cross_entropy(
                    model.activations(images.train.x[batch])[-1], images.train.y[batch]
                ).backward()
                optimiser.step()
            rows.append(_measured(model, images) | {"scaling": name, "seed": seed, "epoch": epoch})
    return pl.DataFrame(rows)


def counted(model: SmallVgg, probe: Part) -> Counts:
    """E of the classifier by the mean over the probe."""
    layers = [layer[None] for layer in model.activations(probe.x)]
    masks = [(layer.weight.T != 0).float()[None] for layer in model.classifier]
    return dense_counts([active_by_samples(MEAN, layer) for layer in layers], masks)


@torch.no_grad()
def _measured(model: SmallVgg, images: Images) -> dict[str, object]:
    counts = counted(model, images.validation)
    row: dict[str, object] = {name: float(getattr(counts, name)) for name in ("active", "any", "printed")}
    row["share_active"] = float(counts.n_active) / counts.n_units
    for name, part in (("train", images.train.first(N_JUDGED)), ("test", images.test)):
        right = [
            (model.activations(x)[-1].argmax(dim=1) == y).double().sum()
            for x, y in zip(part.x.split(500), part.y.split(500), strict=True)
        ]
        row[f"{name}_accuracy"] = float(sum(right)) / len(part)
    return row
