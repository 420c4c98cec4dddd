"""Train the two small networks that `emergraph demo` uses, and write them beside their test images.

Both read the 8x8 grey images of handwritten digits that come with scikit-learn: 1797 images of the data set
"Optical Recognition of Handwritten Digits" of the UCI repository. The first 1297 images train, the last 500
test, and the last 300 of these travel with the demo.

* `digits_conv.onnx`: a convolution, a residual block with batch normalisation, a second convolution, and a
  linear classifier.
* `digits_dense.onnx`: 64-48-32-10 with ReLU, of which the 70 % smallest weights were set to zero after
  twenty epochs and kept at zero for the rest of the training.

Run it with `python examples/train_demo_models.py [FOLDER]`. It needs torch, onnxscript and scikit-learn and
takes about half a minute. The same versions and seed give the same weights on the same kind of machine.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.utils import prune

SEED = 7
TRAIN_IMAGES = 1297
BUNDLED_IMAGES = 300
DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / "cli" / "demo-data"


class ConvNet(nn.Module):
    """Two convolutions with a residual block between them, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.block = nn.Conv2d(12, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.wide = nn.Conv2d(12, 20, 3, padding=1)
        self.head = nn.Linear(20 * 2 * 2, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the scores (n, 10) of images (n, 1, 8, 8)."""
        x = torch.relu(self.stem(pixels))
        x = torch.relu(x + self.norm(self.block(x)))
        x = torch.relu(self.wide(torch.max_pool2d(x, 2)))
        scores: Tensor = self.head(torch.max_pool2d(x, 2).flatten(1))
        return scores


class DenseNet(nn.Module):
    """Three linear layers on the flattened image."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(64, 48)
        self.hidden2 = nn.Linear(48, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the scores (n, 10) of images (n, 1, 8, 8)."""
        x = torch.relu(self.hidden1(pixels.flatten(1)))
        scores: Tensor = self.head(torch.relu(self.hidden2(x)))
        return scores


def digits() -> tuple[Tensor, Tensor]:
    """Return all images (1797, 1, 8, 8) scaled to 0..1, and their labels (1797,)."""
    data = load_digits()
    pixels = torch.tensor(data.images / 16.0, dtype=torch.float32).unsqueeze(1)
    return pixels, torch.tensor(data.target, dtype=torch.int64)


def train(model: nn.Module, pixels: Tensor, labels: Tensor, *, epochs: int) -> None:
    """Minimise the cross-entropy with AdamW on shuffled batches of 64; the decay empties unused weights."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.5)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(pixels)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(pixels[batch]), labels[batch]).backward()
            optimizer.step()
    model.eval()


def prune_smallest(model: DenseNet, share: float) -> list[tuple[nn.Module, str]]:
    """Set the weights with the smallest magnitude to zero and keep them there while training."""
    parameters: list[tuple[nn.Module, str]] = [
        (layer, "weight") for layer in (model.hidden1, model.hidden2, model.head)
    ]
    prune.global_unstructured(parameters, pruning_method=prune.L1Unstructured, amount=share)
    return parameters


def accuracy(model: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    """Return the share of images whose highest score is at their label."""
    with torch.no_grad():
        return float((model(pixels).argmax(1) == labels).float().mean())


def write(model: nn.Module, path: Path) -> None:
    """Export to ONNX in one file, with a free batch axis."""
    torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        path,
        dynamo=True,
        optimize=False,
        external_data=False,
        verbose=False,
        input_names=["pixels"],
        output_names=["scores"],
        dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
    )
    exported = onnx.load(path)
    for node in exported.graph.node:  # stack traces hold the paths of this machine
        kept = [entry for entry in node.metadata_props if not entry.key.endswith("stack_trace")]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.save(exported, path)


def main(folder: Path = DEFAULT_FOLDER) -> None:
    """Train, export and bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    pixels, labels = digits()
    training = pixels[:TRAIN_IMAGES], labels[:TRAIN_IMAGES]
    test = pixels[TRAIN_IMAGES:], labels[TRAIN_IMAGES:]

    torch.manual_seed(SEED)
    conv = ConvNet()
    train(conv, *training, epochs=30)
    write(conv, folder / "digits_conv.onnx")
    print(f"digits_conv: test accuracy {accuracy(conv, *test):.3f}")

    torch.manual_seed(SEED)
    dense = DenseNet()
    train(dense, *training, epochs=20)
    pruned = prune_smallest(dense, 0.7)
    train(dense, *training, epochs=30)
    for layer, name in pruned:
        prune.remove(layer, name)
    write(dense, folder / "digits_dense.onnx")
    print(f"digits_dense: test accuracy {accuracy(dense, *test):.3f}")

    np.savez_compressed(folder / "digits.npz", pixels=pixels[-BUNDLED_IMAGES:].numpy())
    np.savez_compressed(folder / "labels.npz", labels=labels[-BUNDLED_IMAGES:].numpy().astype(np.int64))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
