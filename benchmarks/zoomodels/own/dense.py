"""Small dense, tabular, generative and operator networks."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Kan(nn.Module):
    """Two Kolmogorov-Arnold layers: each edge a sum of radial bumps, and a SiLU beside it."""

    def __init__(self, widths: tuple[int, ...] = (4, 5, 3), bumps: int = 5) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(-2, 2, bumps))
        pairs = list(itertools.pairwise(widths))
        self.base = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)
        self.spline = nn.ParameterList(
            nn.Parameter(torch.randn(b, a, bumps) / math.sqrt(a)) for a, b in pairs
        )

    def forward(self, x: Tensor) -> Tensor:
        for base, spline in zip(self.base, self.spline, strict=True):
            bumps = torch.exp(-((x[..., None] - self.centres) ** 2))
            x = base(functional.silu(x)) + torch.einsum("bik,oik->bo", bumps, spline)
        return x


class HyperNetwork(nn.Module):
    """A network that makes the weights of another from a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 5 * 4 + 5))
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        made = self.make(condition)
        weight, bias = made[:, :20].view(-1, 5, 4), made[:, 20:]
        return self.head(torch.relu(torch.bmm(weight, x[..., None]).squeeze(-1) + bias))


class FourierOperator(nn.Module):
    """A neural operator: the lowest frequencies multiplied by learned complex matrices, and a bypass."""

    def __init__(self, width: int = 4, modes: int = 3) -> None:
        super().__init__()
        self.lift, self.drop = nn.Linear(1, width), nn.Linear(width, 1)
        self.real = nn.Parameter(torch.randn(width, width, modes) / width)
        self.imaginary = nn.Parameter(torch.randn(width, width, modes) / width)
        self.bypass = nn.Conv1d(width, width, 1)
        self.modes = modes

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x).transpose(1, 2)
        length = h.shape[-1]
        angle = 2 * math.pi * torch.arange(length)[:, None] * torch.arange(self.modes)[None] / length
        cos, sin = torch.cos(angle), torch.sin(angle)
        re, im = h @ cos, -(h @ sin)
        out_re = torch.einsum("bik,iok->bok", re, self.real) - torch.einsum(
            "bik,iok->bok", im, self.imaginary
        )
        out_im = torch.einsum("bik,iok->bok", re, self.imaginary) + torch.einsum(
            "bik,iok->bok", im, self.real
        )
        back = (out_re @ cos.T - out_im @ sin.T) / length
        return self.drop(functional.gelu(back + self.bypass(h)).transpose(1, 2))


class DeepOperator(nn.Module):
    """A branch for the function, a trunk for the place, and their product."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 6))
        self.trunk = nn.Sequential(nn.Linear(2, 10), nn.Tanh(), nn.Linear(10, 6))

    def forward(self, function: Tensor, places: Tensor) -> Tensor:
        return self.branch(function) @ self.trunk(places).T


class Siren(nn.Module):
    """Sines of places."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 12), nn.Linear(12, 12)])
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.sin(3.0 * layer(x))
        return self.head(x)


class RadianceField(nn.Module):
    """NeRF: sines and cosines of places, a skip, density and colour."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(18, 12), nn.Linear(30, 12)
        self.density, self.feature, self.colour = nn.Linear(12, 1), nn.Linear(12, 8), nn.Linear(11, 3)

    def forward(self, place: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        waves = torch.cat([f(2.0**k * place) for k in range(3) for f in (torch.sin, torch.cos)], -1)
        h = torch.relu(self.second(torch.cat([torch.relu(self.first(waves)), waves], -1)))
        colour = torch.sigmoid(self.colour(torch.cat([self.feature(h), direction], -1)))
        return functional.softplus(self.density(h)), colour


class Highway(nn.Module):
    """Layers that gate themselves."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.change = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for change, gate in zip(self.change, self.gates, strict=True):
            g = torch.sigmoid(gate(x))
            x = g * torch.relu(change(x)) + (1 - g) * x
        return x


class MixtureOfExperts(nn.Module):
    """All experts run; a softmax weighs them."""

    def __init__(self, experts: int = 3) -> None:
        super().__init__()
        self.gate = nn.Linear(5, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        told = torch.stack([expert(x) for expert in self.experts], -1)
        return (told * self.gate(x).softmax(-1)[:, None]).sum(-1)


class FactorizationMachine(nn.Module):
    """DeepFM: embeddings of fields, their pairwise products, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.linear = nn.Embedding(40, 4), nn.Embedding(40, 1)
        self.mlp = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, fields: Tensor) -> Tensor:
        found = self.embed(fields)
        pairs = 0.5 * (found.sum(1) ** 2 - (found**2).sum(1)).sum(1, keepdim=True)
        return self.linear(fields).sum(1) + pairs + self.mlp(found.flatten(1))


class Recommender(nn.Module):
    """DLRM: dense features and embeddings, all pairwise products, an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4))
        self.tables = nn.ModuleList(nn.Embedding(20, 4) for _ in range(3))
        self.top = nn.Sequential(nn.Linear(4 + 6, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, dense: Tensor, fields: Tensor) -> Tensor:
        bottom = self.bottom(dense)
        found = torch.stack([bottom, *(t(fields[:, k]) for k, t in enumerate(self.tables))], 1)
        products = (found @ found.transpose(1, 2)).flatten(1)[:, [1, 2, 3, 6, 7, 11]]
        return self.top(torch.cat([bottom, products], 1))


class CrossNetwork(nn.Module):
    """Deep and Cross: products with the input beside an MLP."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.deep = nn.Sequential(nn.Linear(width, 8), nn.ReLU())
        self.head = nn.Linear(width + 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for cross in self.cross:
            h = x * cross(h) + h
        return self.head(torch.cat([h, self.deep(x)], -1))


class VariationalAutoencoder(nn.Module):
    """A mean, a spread, noise that is given, and a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.mean, self.spread = nn.Linear(8, 10), nn.Linear(10, 3), nn.Linear(10, 3)
        self.decode = nn.Sequential(nn.Linear(3, 10), nn.ReLU(), nn.Linear(10, 8), nn.Sigmoid())

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        h = torch.relu(self.encode(x))
        return self.decode(self.mean(h) + noise * torch.exp(0.5 * self.spread(h)))


class CouplingFlow(nn.Module):
    """RealNVP: halves that scale and shift each other."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        half = width // 2
        self.scales = nn.ModuleList(
            nn.Sequential(nn.Linear(half, 8), nn.Tanh(), nn.Linear(8, half)) for _ in range(2)
        )
        self.shifts = nn.ModuleList(
            nn.Sequential(nn.Linear(half, 8), nn.ReLU(), nn.Linear(8, half)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        for scale, shift in zip(self.scales, self.shifts, strict=True):
            a, b = b * torch.exp(torch.tanh(scale(a))) + shift(a), a
        return torch.cat([a, b], -1)


class DuelingQ(nn.Module):
    """A value and an advantage per action."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 10), nn.ReLU())
        self.value, self.advantage = nn.Linear(10, 1), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        advantage = self.advantage(h)
        return self.value(h) + advantage - advantage.mean(1, keepdim=True)


class Hopfield(nn.Module):
    """Continuous Hopfield: a state that attends to stored patterns, three times."""

    def __init__(self) -> None:
        super().__init__()
        self.patterns = nn.Parameter(torch.randn(7, 5))
        self.into, self.out = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = self.into(x)
        for _ in range(3):
            state = (state @ self.patterns.T).softmax(-1) @ self.patterns
        return self.out(state)


class NeuralOde(nn.Module):
    """Four Runge-Kutta steps of one network."""

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.field = nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, width))

    def forward(self, x: Tensor) -> Tensor:
        h = 0.25
        for _ in range(2):
            a = self.field(x)
            b = self.field(x + h / 2 * a)
            c = self.field(x + h / 2 * b)
            x = x + h / 6 * (a + 2 * b + 2 * c + self.field(x + h * c))
        return x


class Siamese(nn.Module):
    """One tower for two inputs, and the distance."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
        self.head = nn.Linear(4, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head((self.tower(a) - self.tower(b)).abs())


class Perceptron(nn.Module):
    """An MLP with one of torch's activations."""

    def __init__(self, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 10), activation(), nn.Linear(10, 8), activation(), nn.Linear(8, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
