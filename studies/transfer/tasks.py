"""Pairs of tasks: half of the classes and then the other half, or one data set and then another."""

from collections.abc import Mapping
from dataclasses import dataclass

from pathcounts.images import Images, Part, digits, mnist
from torch.nn import functional as F  # noqa: N812 - its usual name

FIRST_HALF, SECOND_HALF = range(5), range(5, 10)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Two tasks, one after the other, and the networks that learn them."""

    sizes: tuple[int, ...]
    n_train: int
    """Images of the source that are learned from, the first ones."""
    batch: int
    rate: float
    epochs: int
    """Of each task."""


SETTINGS: Mapping[str, Setting] = {
    "digits halves": Setting(sizes=(64, 32, 16, 5), n_train=1197, batch=9, rate=0.02, epochs=10),
    "MNIST halves": Setting(sizes=(784, 32, 16, 5), n_train=4000, batch=50, rate=0.05, epochs=10),
    "digits, then MNIST": Setting(sizes=(64, 32, 16, 10), n_train=4000, batch=50, rate=0.05, epochs=10),
}


def tasks(name: str) -> tuple[Images, Images]:
    """The first and the second task of a setting."""
    if name == "digits halves":
        return _of_classes(digits(), FIRST_HALF), _of_classes(digits(), SECOND_HALF)
    if name == "MNIST halves":
        return _of_classes(mnist(), FIRST_HALF), _of_classes(mnist(), SECOND_HALF)
    whole = mnist()
    small = Images("MNIST 8x8", *(pooled(part, 8) for part in (whole.train, whole.validation, whole.test)))
    return digits(), small


def pooled(part: Part, side: int) -> Part:
    """Images of 28 x 28 with a margin of 2, each pixel the mean of a square: side x side."""
    framed = F.pad(part.x.reshape(-1, 1, 28, 28), (2, 2, 2, 2))
    return Part(F.avg_pool2d(framed, 32 // side).flatten(1), part.y)


def _of_classes(images: Images, classes: range) -> Images:
    """The images of some classes, which are numbered from 0."""

    def chosen(part: Part) -> Part:
        keep = (part.y >= classes.start) & (part.y < classes.stop)
        return Part(part.x[keep], part.y[keep] - classes.start)

    parts = (images.train, images.validation, images.test)
    return Images(f"{images.name}, {classes.start} to {classes.stop - 1}", *map(chosen, parts))
