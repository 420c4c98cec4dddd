"""Small networks of many architectures, as PyTorch modules with example inputs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Net:
    """A module in training mode, as its author would hand it over, and arguments for it."""

    module: nn.Module
    args: tuple[object, ...]


class ResidualBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(y)))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1 = nn.Conv2d(1, 4, 3, padding=1)
        self.down2 = nn.Conv2d(4, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.out = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x):
        skip = torch.relu(self.down1(x))
        low = torch.relu(self.down2(functional.max_pool2d(skip, 2)))
        return self.out(torch.cat([skip, torch.relu(self.up(low))], dim=1))


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = kind(3, 4, batch_first=True, **options)
        self.head = nn.Linear(4 * (2 if options.get("bidirectional") else 1), 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Projected(nn.Module):
    """An LSTM that torch's exporter drops a weight of."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 5, proj_size=2, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


class GptBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.ln2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.ln1(x)).chunk(3, dim=-1)
        q, k, v = (t.view(batch, length, self.heads, width // self.heads).transpose(1, 2) for t in (q, k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.fc2(functional.gelu(self.fc1(self.ln2(x))))


class Gpt(nn.Module):
    """A decoder whose head is its embedding."""

    def __init__(self, *, tied=True):
        super().__init__()
        self.wte = nn.Embedding(11, 8)
        self.wpe = nn.Embedding(6, 8)
        self.blocks = nn.ModuleList([GptBlock(8, 2), GptBlock(8, 2)])
        self.ln = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)
        if tied:
            self.head.weight = self.wte.weight

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln(x))


class GatedMlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(4, 6, bias=False)
        self.up = nn.Linear(4, 6, bias=False)
        self.down = nn.Linear(6, 4, bias=False)

    def forward(self, x):
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Mixture(nn.Module):
    """Two of three experts per token, chosen while it runs."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(4, 3, bias=False)
        self.experts = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        weights, chosen = torch.topk(torch.softmax(self.router(x), dim=-1), 2)
        stacked = torch.stack([expert(x) for expert in self.experts], dim=1)
        picked = torch.gather(stacked, 1, chosen.unsqueeze(-1).expand(-1, -1, stacked.shape[-1]))
        return self.head((picked * weights.unsqueeze(-1)).sum(dim=1))


class Nested(nn.Module):
    """Takes a dict and a tuple, and gives a dict."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(2, 4)

    def forward(self, named, pair):
        y = torch.relu(self.first(named["a"]) + self.second(pair[0]))
        return {"sum": y, "scaled": y * pair[1]}


class Branching(nn.Module):
    """Has an `if` that depends on the data."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        y = self.fc(x)
        return torch.relu(y) if y.sum() > 0 else -y


def _mlp():
    return Net(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)), (torch.randn(2, 5),))


def _residual():
    stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    net = nn.Sequential(stem, ResidualBlock(4), ResidualBlock(4), head)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return Net(net, (torch.randn(1, 2, 6, 6),))


def _depthwise():
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU6(),
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
        nn.Conv2d(8, 3, 1),
    )
    return Net(net, (torch.randn(1, 2, 5, 5),))


def _encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
    return Net(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), (torch.randn(1, 5, 8),))


_NETS: dict[str, Callable[[], Net]] = {
    "mlp": _mlp,
    "residual": _residual,
    "depthwise": _depthwise,
    "unet": lambda: Net(UNet(), (torch.randn(1, 1, 8, 8),)),
    "gru": lambda: Net(Recurrent(nn.GRU, bidirectional=True), (torch.randn(2, 5, 3),)),
    "lstm": lambda: Net(Recurrent(nn.LSTM, num_layers=2), (torch.randn(2, 5, 3),)),
    "encoder": _encoder,
    "gpt": lambda: Net(Gpt(), (torch.tensor([[1, 2, 3, 4, 5]]),)),
    "gated": lambda: Net(GatedMlp(), (torch.randn(2, 4),)),
    "mixture": lambda: Net(Mixture(), (torch.randn(2, 4),)),
    "nested": lambda: Net(
        Nested(), ({"a": torch.randn(2, 3)}, (torch.randn(2, 2), torch.tensor([2.0, 3.0, 4.0, 5.0])))
    ),
}

ARCHITECTURES = tuple(_NETS)


def make_net(name: str, seed: int = 0) -> Net:
    """One of `ARCHITECTURES`, with random parameters."""
    torch.manual_seed(seed)
    return _NETS[name]()
