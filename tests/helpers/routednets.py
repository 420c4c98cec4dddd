"""Small modules whose routes or places depend on the data: experts, scans, deformable attention."""

import torch
from torch import nn
from torch.nn import functional


class ScatteredExperts(nn.Module):
    """The two best experts of each token; the others weigh zero. Expert weights are stacked."""

    def __init__(self, width=4, experts=3, hidden=5, top=2):
        super().__init__()
        self.top = top
        self.embed, self.router = nn.Linear(3, width), nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, width, hidden))
        self.down = nn.Parameter(torch.randn(experts, hidden, width))
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        x = self.embed(x)
        score, chosen = self.router(x).softmax(-1).topk(self.top, -1)
        gate = torch.zeros(*x.shape[:-1], len(self.up)).scatter(-1, chosen, score)
        h = functional.relu(torch.einsum("btd,edh->bteh", x, self.up))
        made = torch.einsum("bteh,ehd->bted", h, self.down)
        return self.head(x + (made * gate[..., None]).sum(2))


class GatheredExperts(ScatteredExperts):
    """The weights of the chosen experts are looked up, token by token, and multiplied as a batch."""

    def forward(self, x):
        x = self.embed(x)
        score, chosen = self.router(x).softmax(-1).topk(self.top, -1)
        up, down = self.up[chosen], self.down[chosen]
        h = functional.relu(torch.einsum("btd,btkdh->btkh", x, up))
        return self.head(x + (torch.einsum("btkh,btkhd->btkd", h, down) * score[..., None]).sum(2))


class LoopedExperts(nn.Module):
    """One module for each expert, its tokens masked."""

    def __init__(self, width=4, experts=3):
        super().__init__()
        self.embed, self.router = nn.Linear(3, width), nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 5), nn.ReLU(), nn.Linear(5, width)) for _ in range(experts)
        )
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        x = self.embed(x)
        score, chosen = self.router(x).softmax(-1).topk(2, -1)
        total = torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            weight = torch.where(chosen == k, score, 0.0).sum(-1, keepdim=True)
            total = total + expert(x) * weight
        return self.head(x + total)


class SelectiveScan(nn.Module):
    """A state-space layer whose step, input and output matrices depend on the token; steps written out."""

    def __init__(self, width=4, state=3, cumulative=False):
        super().__init__()
        self.cumulative, self.state = cumulative, state
        self.inner, self.gate = nn.Linear(3, width), nn.Linear(3, width)
        self.step, self.mix = nn.Linear(width, width), nn.Linear(width, 2 * state, bias=False)
        self.log_a, self.skip = nn.Parameter(torch.rand(width, state)), nn.Parameter(torch.ones(width))
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        u, z = functional.silu(self.inner(x)), self.gate(x)
        delta = functional.softplus(self.step(u))
        b, c = self.mix(u).split(self.state, -1)
        decay = delta[..., None] * -self.log_a.exp()
        enters = (delta * u)[..., None] * b[:, :, None]
        if self.cumulative:
            total = decay.cumsum(1)
            states = (enters * (-total).exp()).cumsum(1) * total.exp()
        else:
            h, made = torch.zeros_like(enters[:, 0]), []
            for t in range(x.shape[1]):
                h = h * decay[:, t].exp() + enters[:, t]
                made.append(h)
            states = torch.stack(made, 1)
        y = torch.einsum("btds,bts->btd", states, c) + u * self.skip
        return self.head(y * functional.silu(z))


class DeformableAttention(nn.Module):
    """Each query looks at two points of an image of values, where offsets of its own say."""

    def __init__(self, width=4, heads=2, points=2):
        super().__init__()
        self.heads, self.points = heads, points
        self.value, self.query = nn.Conv2d(3, width, 1), nn.Linear(3, width)
        self.offsets, self.weights = nn.Linear(width, heads * points * 2), nn.Linear(width, heads * points)
        self.out = nn.Linear(width, 2)

    def forward(self, image, queries):
        n, q = queries.shape[:2]
        value, query = self.value(image), self.query(queries)
        value = value.view(n * self.heads, -1, *value.shape[2:])
        grid = self.offsets(query).tanh().view(n, q, self.heads, self.points, 2).transpose(1, 2).flatten(0, 1)
        seen = functional.grid_sample(value, grid, align_corners=False)
        weight = (
            self.weights(query).view(n, q, self.heads, self.points).softmax(-1).transpose(1, 2).flatten(0, 1)
        )
        mixed = (seen * weight[:, None]).sum(-1)
        return self.out(mixed.view(n, -1, q).transpose(1, 2))


class BoxDecoder(nn.Module):
    """Distances as the mean of a distribution over bins, by a convolution of size 1 with fixed weights."""

    def __init__(self, bins=4):
        super().__init__()
        self.bins = bins
        self.stem, self.boxes = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 4 * bins, 1)
        self.decode = nn.Conv2d(bins, 1, 1, bias=False)
        self.decode.weight.data[:] = torch.arange(float(bins)).view(1, bins, 1, 1)

    def forward(self, x):
        y = self.boxes(functional.silu(self.stem(x))).flatten(2)
        spread = y.view(len(y), 4, self.bins, -1).transpose(1, 2).softmax(1)
        return self.decode(spread).view(len(y), 4, -1)
