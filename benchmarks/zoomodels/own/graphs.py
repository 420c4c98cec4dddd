"""Small networks on graphs and sets."""

import torch
from torch import Tensor, nn
from torch.nn import functional

EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2, 5], [1, 2, 3, 4, 5, 3, 5, 0]])
N_NODES = 6


def adjacency() -> Tensor:
    """The edges as a matrix with loops, rows of sum 1."""
    found = torch.eye(N_NODES)
    found[EDGES[1], EDGES[0]] = 1.0
    return found / found.sum(1, keepdim=True)


class GraphConvolution(nn.Module):
    """Kipf and Welling's: neighbours averaged by a matrix that is given or fixed."""

    def __init__(self, *, fixed: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 3)
        if fixed:
            self.register_buffer("adjacency", adjacency())

    def forward(self, x: Tensor, adjacency: Tensor | None = None) -> Tensor:
        a = self.adjacency if adjacency is None else adjacency
        return self.second(a @ torch.relu(self.first(a @ x)))


class GraphSage(nn.Module):
    """Neighbours summed by `index_add`."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.theirs, self.head = nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        gathered = torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])
        return self.head(torch.relu(self.own(x) + self.theirs(gathered)))


class GraphIsomorphism(nn.Module):
    """Sums of neighbours by `scatter_add`, then an MLP, then the sum over all nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6))
        self.epsilon = nn.Parameter(torch.tensor([0.3]))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        where = edges[1][:, None].expand(-1, x.shape[1])
        gathered = torch.zeros_like(x).scatter_add(0, where, x[edges[0]])
        return self.head(self.mlp((1 + self.epsilon) * x + gathered).sum(0))


class GraphAttention(nn.Module):
    """Velickovic's: neighbours weighted by a masked softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(5, 8, bias=False)
        self.source, self.target = nn.Linear(8, 1, bias=False), nn.Linear(8, 1, bias=False)
        self.head = nn.Linear(8, 3)
        self.register_buffer("mask", adjacency() > 0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x)
        scores = functional.leaky_relu(self.target(h) + self.source(h).T, 0.2)
        weights = scores.masked_fill(~self.mask, float("-inf")).softmax(-1)
        return self.head(functional.elu(weights @ h))


class MessagePassing(nn.Module):
    """Messages from both ends and the edge, summed, and a GRU cell that updates the nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.message = nn.Linear(5 + 5 + 2, 6)
        self.update = nn.GRUCell(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor, edges: Tensor, features: Tensor) -> Tensor:
        for _ in range(2):
            told = torch.tanh(self.message(torch.cat([x[edges[0]], x[edges[1]], features], -1)))
            x = self.update(torch.zeros(x.shape[0], 6).index_add(0, edges[1], told), x)
        return self.head(x)


class EquivariantGraph(nn.Module):
    """Messages from distances, which move the coordinates as well."""

    def __init__(self) -> None:
        super().__init__()
        self.message = nn.Sequential(nn.Linear(11, 8), nn.SiLU(), nn.Linear(8, 6), nn.SiLU())
        self.move = nn.Linear(6, 1)
        self.update = nn.Sequential(nn.Linear(11, 8), nn.SiLU(), nn.Linear(8, 5))

    def forward(self, x: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        n = x.shape[0]
        away = place[:, None] - place[None]
        distance = (away**2).sum(-1, keepdim=True)
        pairs = torch.cat([x[:, None].expand(n, n, 5), x[None].expand(n, n, 5), distance], -1)
        told = self.message(pairs)
        return x + self.update(torch.cat([x, told.sum(1)], -1)), place + (away * self.move(told)).mean(1)


class DeepSets(nn.Module):
    """A sum over the members of a set between two MLPs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8))
        self.outer = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x).sum(1))


class PointNet(nn.Module):
    """Points turned by a small network, lifted, and the greatest of each feature."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Sequential(nn.Conv1d(3, 8, 1), nn.ReLU())
        self.matrix = nn.Linear(8, 9)
        self.lift = nn.Sequential(nn.Conv1d(3, 12, 1), nn.BatchNorm1d(12), nn.ReLU(), nn.Conv1d(12, 16, 1))
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        turned = self.matrix(self.turn(x).amax(2)).view(-1, 3, 3) @ x
        return self.head(self.lift(turned).amax(2))


class SetTransformer(nn.Module):
    """Attention within the set, then from learned seeds to it."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(4, 8)
        self.within = nn.MultiheadAttention(8, 2, batch_first=True)
        self.seeds = nn.Parameter(torch.randn(1, 3, 8))
        self.pool = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x)
        h = h + self.within(h, h, h, need_weights=False)[0]
        return self.head(self.pool(self.seeds.expand(x.shape[0], -1, -1), h, h, need_weights=False)[0])
