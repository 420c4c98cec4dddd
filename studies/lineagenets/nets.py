"""Six small architectures, and how they are trained."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

WIDTH = 32
"""Units of most layers."""
DATA = Path(__file__).resolve().parents[2] / "cli" / "demo-data"


class Dense(nn.Sequential):
    """Two hidden layers."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH),
            nn.ReLU(), nn.Linear(WIDTH, 10),
        )  # fmt: skip


class Residual(nn.Module):
    """x + f(x) of two convolutions with batch norms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        inner = torch.relu(self.norm1(self.first(x)))
        return torch.relu(x + self.norm2(self.second(inner)))


class ConvNet(nn.Module):
    """A stem, residual blocks, a mean over positions and a classifier."""

    def __init__(self, channels: int = 24, blocks: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.blocks = nn.Sequential(*(Residual(channels) for _ in range(blocks)))
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        found = self.blocks(torch.relu(self.norm(self.stem(x.reshape(-1, 1, 8, 8)))))
        return self.head(found.mean(dim=(2, 3)))


class Recurrent(nn.Module):
    """Rows of an image, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(8, WIDTH, batch_first=True)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        states, _ = self.cells(x.reshape(-1, 8, 8))
        return self.head(torch.relu(self.hidden(states[:, -1])))


class Attention(nn.Module):
    """Heads of self-attention."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        n, steps, width = x.shape
        size = width // self.heads
        q, k, v = (
            one(x).reshape(n, steps, self.heads, size).transpose(1, 2)
            for one in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(2, 3) / size**0.5
        if self.causal:
            scores = scores + torch.full((steps, steps), -1e4).triu(1)
        context = torch.softmax(scores, dim=-1) @ v
        return self.out(context.transpose(1, 2).reshape(n, steps, width))


class Block(nn.Module):
    """Attention and a feed-forward net on a residual stream."""

    def __init__(self, width: int, *, causal: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, 4, causal=causal)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(torch.relu(self.up(self.norm2(x))))


class Encoder(nn.Module):
    """A transformer encoder over the rows of an image."""

    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.rows = nn.Linear(8, WIDTH)
        self.places = nn.Parameter(0.1 * torch.randn(8, WIDTH))
        self.blocks = nn.Sequential(*(Block(WIDTH, causal=False) for _ in range(blocks)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        found = self.blocks(self.rows(x.reshape(-1, 8, 8)) + self.places)
        return self.head(self.norm(found).mean(dim=1))


class Decoder(nn.Module):
    """A transformer decoder that says which symbol comes next."""

    def __init__(self, blocks: int = 2, symbols: int = 24, steps: int = 12) -> None:
        super().__init__()
        self.symbols = nn.Embedding(symbols, WIDTH)
        self.places = nn.Parameter(0.1 * torch.randn(steps, WIDTH))
        self.blocks = nn.Sequential(*(Block(WIDTH, causal=True) for _ in range(blocks)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, symbols)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        found = self.blocks(self.symbols(x) + self.places)
        return self.head(self.norm(found))


class Unet(nn.Module):
    """An image is made smaller, larger again, and joined with what it was."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, channels, 3, padding=1)
        self.down = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.join = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.leave = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        first = torch.relu(self.enter(x.reshape(-1, 1, 8, 8)))
        low = torch.relu(self.middle(torch.relu(self.down(first))))
        joined = torch.relu(self.join(torch.cat([torch.relu(self.up(low)), first], dim=1)))
        return self.leave(joined)


@dataclass(frozen=True)
class Architecture:
    """How nets of one kind are made and trained."""

    name: str
    make: Callable[[], nn.Module]
    task: str
    """digits, noise or language."""
    steps: int
    rate: float = 3e-3


ARCHITECTURES = (
    Architecture("mlp", Dense, "digits", 200),
    Architecture("cnn", ConvNet, "digits", 80),
    Architecture("lstm", Recurrent, "digits", 150),
    Architecture("encoder", Encoder, "digits", 120),
    Architecture("decoder", Decoder, "language", 120),
    Architecture("unet", Unet, "noise", 150),
)


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """The 300 images of the demo and their labels."""
    pixels, labels = (
        np.load(DATA / file)[name] for file, name in (("digits.npz", "pixels"), ("labels.npz", "labels"))
    )
    return pixels.reshape(-1, 64).astype(np.float32), labels.astype(np.int64)


def batch(
    task: str, size: int, rng: np.random.Generator, *, half: int | None = None
) -> tuple[Tensor, Tensor]:
    """Draw inputs and targets; of a half of the data only, where one is named."""
    if task == "language":
        symbols = rng.integers(24, size=(size, 13))
        for step in range(2, 13):  # a rule, followed nine times out of ten
            ruled = (symbols[:, step - 1] * 5 + symbols[:, step - 2] + (half or 0)) % 24
            symbols[:, step] = np.where(rng.random(size) < 0.9, ruled, symbols[:, step])
        return torch.from_numpy(symbols[:, :-1]), torch.from_numpy(symbols[:, 1:])
    array, answers = _digits()
    rows = np.arange(len(array)) if half is None else np.arange(half, len(array), 2)
    chosen = rng.choice(rows, size)
    clean = torch.from_numpy(array[chosen])
    if task == "noise":
        noisy = clean + torch.from_numpy(0.3 * rng.standard_normal(clean.shape).astype(np.float32))
        return noisy, clean.reshape(-1, 1, 8, 8)
    return clean, torch.from_numpy(answers[chosen])


def train(
    net: nn.Module, kind: Architecture, *, seed: int, steps: int, rate: float, half: int | None = None
) -> nn.Module:
    """Train a net in place; return it, ready to be run."""
    rng = np.random.default_rng(seed)
    net.train()
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    for _ in range(steps):
        inputs, targets = batch(kind.task, 64, rng, half=half)
        found = net(inputs)
        if kind.task == "noise":
            loss = nn.functional.mse_loss(found, targets)
        else:
            loss = nn.functional.cross_entropy(found.reshape(-1, found.shape[-1]), targets.reshape(-1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


def trained(kind: Architecture, seed: int) -> nn.Module:
    """Return a net from its own initialisation, on batches of its own."""
    torch.manual_seed(seed)
    return train(kind.make(), kind, seed=seed, steps=kind.steps, rate=kind.rate)


def save(net: nn.Module, kind: Architecture, path: Path) -> None:
    """Write a net as ONNX, with the names of its parameters and nothing folded."""
    state = {name: values.detach().numpy() for name, values in net.state_dict().items()}
    key = (kind.name, tuple((name, values.shape) for name, values in state.items()))
    if key not in _WRITTEN:
        _WRITTEN[key] = _exported(net, kind, folded=False)
    model = onnx.ModelProto()
    model.CopyFrom(_WRITTEN[key])
    for tensor in model.graph.initializer:
        if tensor.name in state:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(np.ascontiguousarray(state[tensor.name]), tensor.name)
            )
    onnx.save(model, path)


def save_otherwise(net: nn.Module, kind: Architecture, path: Path) -> None:
    """Write a net as ONNX of an older version, with norms folded and weights renamed."""
    onnx.save(_exported(net, kind, folded=True), path)


def _exported(net: nn.Module, kind: Architecture, *, folded: bool) -> onnx.ModelProto:
    inputs, _ = batch(kind.task, 1, np.random.default_rng(0))
    into = io.BytesIO()
    torch.onnx.export(
        net, (inputs,), into, dynamo=False, opset_version=14 if folded else 17, do_constant_folding=folded,
        training=torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE,
    )  # fmt: skip
    return onnx.load_model_from_string(into.getvalue())


_WRITTEN: dict[tuple[str, tuple[tuple[str, tuple[int, ...]], ...]], onnx.ModelProto] = {}
"""One file of each architecture, into which weights are put."""
