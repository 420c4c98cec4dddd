"""Small recurrent, state-space and other sequence models."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Tagger(nn.Module):
    """Embedding, a recurrent layer of torch, and a class per step."""

    def __init__(self, kind: str, **options: object) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 6)
        self.rnn = getattr(nn, kind)(6, 5, batch_first=True, **options)
        self.head = nn.Linear(10 if options.get("bidirectional") else 5, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(ids))[0])


class WrittenOut(nn.Module):
    """A recurrent cell of torch, step by step."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cell = getattr(nn, kind)(4, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class AttendingTranslator(nn.Module):
    """Bahdanau's: a GRU reads, a GRU cell writes and attends to what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(30, 6), nn.Embedding(30, 6)
        self.reader = nn.GRU(6, 5, batch_first=True, bidirectional=True)
        self.keys, self.query, self.score = nn.Linear(10, 5), nn.Linear(5, 5), nn.Linear(5, 1)
        self.writer = nn.GRUCell(16, 5)
        self.head = nn.Linear(5, 7)

    def forward(self, ids: Tensor, before: Tensor) -> Tensor:
        read = self.reader(self.source(ids))[0]
        state, written = read.new_zeros(ids.shape[0], 5), []
        for word in self.target(before).unbind(1):
            scores = self.score(torch.tanh(self.keys(read) + self.query(state)[:, None]))
            context = (scores.softmax(1) * read).sum(1)
            state = self.writer(torch.cat([word, context], -1), state)
            written.append(self.head(state))
        return torch.stack(written, 1)


class SelectiveScan(nn.Module):
    """Mamba's block with its scan written out."""

    def __init__(self, width: int = 6, states: int = 3) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.conv = nn.Conv1d(width, width, 3, padding=2, groups=width)
        self.select = nn.Linear(width, 2 * states + width)
        self.log_decay = nn.Parameter(torch.rand(width, states))
        self.skip = nn.Parameter(torch.rand(width))
        self.states = states

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.into(x).chunk(2, -1)
        u = functional.silu(self.conv(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        b, c, step = self.select(u).split([self.states, self.states, u.shape[-1]], -1)
        step = functional.softplus(step)
        state, seen = u.new_zeros(*u[:, 0].shape, self.states), []
        for t in range(x.shape[1]):
            decay = torch.exp(-step[:, t, :, None] * self.log_decay.exp())
            state = decay * state + (step[:, t] * u[:, t])[..., None] * b[:, t, None, :]
            seen.append((state * c[:, t, None, :]).sum(-1) + self.skip * u[:, t])
        return self.out(torch.stack(seen, 1) * functional.silu(gate))


class DiagonalStateSpace(nn.Module):
    """S4D as a recurrence with a fixed diagonal."""

    def __init__(self, width: int = 5, states: int = 4) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.rand(width, states))
        self.b, self.c = nn.Parameter(torch.randn(width, states)), nn.Parameter(torch.randn(width, states))
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        a, state, seen = torch.exp(-self.decay), 0.0, []
        for step in x.unbind(1):
            state = a * state + self.b * step[..., None]
            seen.append((state * self.c).sum(-1))
        return self.mix(functional.gelu(torch.stack(seen, 1)))


class LongConvolution(nn.Module):
    """Hyena's operator: a gate, a causal convolution as long as the sequence, a gate."""

    def __init__(self, width: int = 5, length: int = 8) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.filters = nn.Parameter(torch.randn(width, 1, length) / math.sqrt(length))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.into(x).transpose(1, 2).chunk(3, 1)
        length = x.shape[1]
        padded = functional.pad(k * v, (length - 1, 0))
        mixed = functional.conv1d(padded, self.filters, groups=self.filters.shape[0])
        return self.out((q * mixed).transpose(1, 2))


class LinearAttention(nn.Module):
    """Katharopoulos's: a feature map in the place of the softmax."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k = functional.elu(q) + 1, functional.elu(k) + 1
        context = k.transpose(1, 2) @ v
        norm = q @ k.sum(1)[..., None]
        return self.out((q @ context) / norm)


class Retention(nn.Module):
    """RetNet's parallel form: no softmax, a fixed decay per distance."""

    def __init__(self, width: int = 8, length: int = 6) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.gate, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.norm = nn.GroupNorm(2, width)
        distance = torch.arange(length)[:, None] - torch.arange(length)[None]
        self.register_buffer("decay", torch.where(distance >= 0, 0.9 ** distance.clamp(min=0).float(), 0.0))

    def forward(self, x: Tensor) -> Tensor:
        mixed = ((self.q(x) @ self.k(x).transpose(1, 2)) * self.decay) @ self.v(x)
        mixed = self.norm(mixed.flatten(0, 1)).view_as(mixed)
        return self.out(functional.silu(self.gate(x)) * mixed)


class TemporalConvolution(nn.Module):
    """Causal dilated convolutions with skips."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.into = nn.Conv1d(3, width, 1)
        self.blocks = nn.ModuleList(nn.Conv1d(width, width, 3, dilation=2**k) for k in range(3))
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x)
        for k, block in enumerate(self.blocks):
            h = h + torch.relu(block(functional.pad(h, (2 * 2**k, 0))))
        return self.head(h[..., -1])


class WaveNet(nn.Module):
    """Gated dilated convolutions whose skips are summed."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.into = nn.Conv1d(1, width, 1)
        self.gated = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=2**k) for k in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(3))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(width, 6, 1), nn.ReLU(), nn.Conv1d(6, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        h, total = self.into(x), 0.0
        for k, (gated, skip) in enumerate(zip(self.gated, self.skips, strict=True)):
            a, b = gated(functional.pad(h, (2**k, 0))).chunk(2, 1)
            told = skip(torch.tanh(a) * torch.sigmoid(b))
            total, h = total + told, h + told
        return self.head(total)


class TextConvolution(nn.Module):
    """Kim's: kernels of several widths over words, the greatest of each."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 6)
        self.kernels = nn.ModuleList(nn.Conv1d(6, 4, width) for width in (2, 3, 4))
        self.head = nn.Linear(12, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids).transpose(1, 2)
        return self.head(torch.cat([torch.relu(kernel(x)).amax(2) for kernel in self.kernels], 1))


class ConvolutionalRecurrent(nn.Module):
    """CRNN: columns of a feature map read by an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1)
        )
        self.rnn = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 7)

    def forward(self, x: Tensor) -> Tensor:
        columns = torch.relu(self.conv(x)).mean(2).transpose(1, 2)
        return self.head(self.rnn(columns)[0]).log_softmax(-1)


class ConvolutionalLstm(nn.Module):
    """Gates that are convolutions, over three frames."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.gates = nn.Conv2d(1 + width, 4 * width, 3, padding=1)
        self.head = nn.Conv2d(width, 1, 1)
        self.width = width

    def forward(self, frames: Tensor) -> Tensor:
        h = c = frames.new_zeros(frames.shape[0], self.width, *frames.shape[-2:])
        for frame in frames.unbind(1):
            i, f, o, g = self.gates(torch.cat([frame, h], 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h)
