"""Graph networks as modules: messages along edges that are an input, summed into the nodes they point at."""

import torch
from torch import nn
from torch.nn import functional

NODES, EDGES = 6, 14


class Convolution(nn.Module):
    """Kipf and Welling: sums over neighbours, over the roots of both degrees; self-loops by addition."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 4, bias=False), nn.Linear(4, 3)

    def aggregate(self, x, edges):
        source, target = edges[0], edges[1]
        degree = torch.ones(len(x)).index_add(0, target, torch.ones(edges.shape[1]))
        norm = degree.rsqrt()[source] * degree.rsqrt()[target]
        return x.index_add(0, target, norm[:, None] * x[source])

    def forward(self, x, edges):
        return self.aggregate(self.second(functional.relu(self.aggregate(self.first(x), edges))), edges)


class Sage(nn.Module):
    """Means of neighbours beside the node itself, by sums over an index of the messages' shape."""

    def __init__(self, reduce="mean"):
        super().__init__()
        self.reduce = reduce
        self.own, self.other, self.head = nn.Linear(5, 4), nn.Linear(5, 4, bias=False), nn.Linear(4, 3)

    def forward(self, x, edges):
        messages, index = x[edges[0]], edges[1][:, None].expand(-1, x.shape[1])
        mean = torch.zeros_like(x).scatter_reduce(0, index, messages, self.reduce, include_self=False)
        return self.head(functional.relu(self.own(x) + self.other(mean)))


class Isomorphism(nn.Module):
    """A multilayer perceptron of (1 + e) x + the sum of neighbours; a sum over each graph of the batch."""

    def __init__(self):
        super().__init__()
        self.eps = nn.Parameter(torch.tensor([0.3]))
        self.mlp, self.head = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 4)), nn.Linear(4, 3)

    def forward(self, x, edges, batch):
        index = edges[1][:, None].expand(-1, x.shape[1])
        summed = torch.zeros_like(x).scatter_add(0, index, x[edges[0]])
        y = self.mlp((1 + self.eps) * x + summed)
        return self.head(torch.zeros(2, 4).index_add(0, batch, y))


class Attention(nn.Module):
    """Velickovic and others: messages weighted by a softmax over the edges that point at a node."""

    def __init__(self, heads=2, size=4):
        super().__init__()
        self.heads, self.size = heads, size
        self.project, self.out = nn.Linear(5, heads * size, bias=False), nn.Linear(heads * size, 3)
        self.left, self.right = nn.Parameter(torch.randn(heads, size)), nn.Parameter(torch.randn(heads, size))

    def forward(self, x, edges):
        z = self.project(x).view(len(x), self.heads, self.size)
        source, target = edges[0], edges[1]
        score = (z * self.left).sum(-1)[source] + (z * self.right).sum(-1)[target]
        score = functional.leaky_relu(score, 0.2)
        index = target[:, None].expand(-1, self.heads)
        top = torch.full((len(x), self.heads), -1e9).scatter_reduce(0, index, score, "amax")
        e = (score - top[target]).exp()
        total = torch.zeros(len(x), self.heads).index_add(0, target, e)
        summed = torch.zeros(len(x), self.heads, self.size).index_add(0, target, e[..., None] * z[source])
        return self.out(functional.elu((summed / (total[..., None] + 1e-6)).flatten(1)))


class EdgeConvolution(nn.Module):
    """Wang and others: the largest of a perceptron of node and difference, by edge; x is gathered first."""

    def __init__(self):
        super().__init__()
        self.mlp, self.head = nn.Sequential(nn.Linear(10, 4), nn.ReLU()), nn.Linear(4, 3)

    def forward(self, x, edges):
        mine, other = x[edges[1]], x[edges[0]]
        messages = self.mlp(torch.cat([mine, other - mine], 1))
        index = edges[1][:, None].expand(-1, messages.shape[1])
        top = torch.zeros(len(x), 4).scatter_reduce(0, index, messages, "amax", include_self=False)
        return self.head(top)


class FixedEdges(nn.Module):
    """The same sums over a graph that is part of the model."""

    def __init__(self):
        super().__init__()
        self.conv = Convolution()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("edges", torch.randint(0, NODES, (2, EDGES), generator=generator))

    def forward(self, x):
        return self.conv(x, self.edges)


def edges_of(seed=0):
    return torch.randint(0, NODES, (2, EDGES), generator=torch.Generator().manual_seed(seed))
