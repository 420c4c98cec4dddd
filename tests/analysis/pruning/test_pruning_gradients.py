"""SNIP, Taylor and gates: the known answers, and twins by gates in the network itself."""

import numpy as np
import pytest

import emergraph
from emergraph.analysis.edgesets.edgetable import read_edge_table
from emergraph.analysis.layerednets import layered_net
from emergraph.analysis.pruning.gradients import ModuleData, gradient_products, gradient_scores
from emergraph.analysis.pruning.items import prunable_items
from emergraph.analysis.pruning.options import Criterion, PruningOptions
from emergraph.errors import InvalidInputError, UsageError

torch = pytest.importorskip("torch")
W1, W2 = np.array([[1.0, -2.0], [3.0, 0.0]]), np.array([[2.0, -1.0]])


class Small(torch.nn.Module):
    """A convolution, a flattening and two dense layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(1, 4, 3)
        self.fc1 = torch.nn.Linear(4 * 2 * 2, 6)
        self.fc2 = torch.nn.Linear(6, 3)
        self.gates = torch.nn.Parameter(torch.ones(6))

    def forward(self, image):
        h = torch.relu(self.conv(image)).flatten(1)
        return self.fc2(torch.relu(self.fc1(h) * self.gates))


def make():
    return Small(), (torch.zeros(1, 1, 4, 4),)


DATA = {
    "inputs": {"image": np.random.default_rng(0).normal(size=(8, 1, 4, 4)).astype(np.float32)},
    "labels": np.arange(8) % 3,
}


def test_known_answers_of_snip_and_taylor():
    x = torch.tensor([3.0, 1.0])
    first, second = (torch.tensor(w, dtype=torch.float32, requires_grad=True) for w in (W1, W2))
    y = second @ torch.relu(first @ x)
    ((y**2).sum() / 2).backward()
    products = {name: (w.grad * w).detach().double().numpy() for name, w in (("w0", first), ("w1", second))}
    graph = layered_net([W1.T, W2.T])
    items = prunable_items(read_edge_table(graph), "edge")
    named = {block.block.id: f"w{k}" for k, block in enumerate(items.blocks)}
    object.__setattr__(items, "blocks", tuple(_named(block, named) for block in items.blocks))
    values = {"w0": W1, "w1": W2}
    snip = gradient_scores(Criterion.SNIP, items, products, values.__getitem__)
    taylor = gradient_scores(Criterion.TAYLOR, items, products, values.__getitem__)
    expected = [0.2, 0.13333, 0.3, 0.066667, 0.3]
    assert sorted(snip / 210) == pytest.approx(sorted(expected), abs=1e-4)
    assert sorted(taylor) == pytest.approx(sorted([1764, 784, 3969, 196, 3969]))


def _named(block, named):
    from dataclasses import replace

    return replace(block, block=replace(block.block, tensor=named[block.block.id]))


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    module, arguments = make()
    return emergraph.export(module, tmp_path_factory.mktemp("net") / "net.duckdb", args=arguments)


def removed_units(result, level=0):
    removal, _ = result.mask(level)
    return set(np.flatnonzero(removal.units == 0).tolist())


def test_gates_are_the_derivatives_by_gates_in_the_network(graph):
    module, _ = make()
    output = module(torch.from_numpy(DATA["inputs"]["image"]))
    loss = torch.nn.functional.cross_entropy(output, torch.from_numpy(DATA["labels"]))
    (expected,) = torch.autograd.grad(loss, [module.gates])
    products = gradient_products(ModuleData(module=Small(), **DATA))
    own = np.abs(products["fc1.weight"].sum(axis=1) + products["fc1.bias"])
    np.testing.assert_allclose(own, expected.abs().numpy(), rtol=1e-4)
    result = graph.prune(
        PruningOptions(criterion="gate", levels=(0.5,), scope="layer"),
        files=ModuleData(module=Small(), **DATA),
        save=False,
    )
    first = graph.layers.filter(kind="dense")["first_unit"][0]
    lost = set((first + np.argsort(own)[:3]).tolist())
    assert removed_units(result) & set(range(first, first + 6)) == lost


@pytest.mark.parametrize("criterion", ["snip", "taylor"])
def test_parameters_go_in_the_order_of_their_products(graph, criterion):
    result = graph.prune(
        PruningOptions(criterion=criterion, levels=(0.4,)),
        files=ModuleData(module=Small(), **DATA),
        save=False,
    )
    removal, _ = result.mask(0)
    products = gradient_products(ModuleData(module=Small(), **DATA))
    everything = np.concatenate([np.abs(products[f"{n}.weight"]).ravel() for n in ("conv", "fc1", "fc2")])
    assert removal.items.n == everything.size
    assert result.frame["removed_items"][0] == round(0.4 * everything.size)
    scored = gradient_scores(
        Criterion.SNIP,
        removal.items,
        products,
        lambda name: dict(Small().named_parameters())[name].detach().numpy(),
    )
    assert np.sort(scored) == pytest.approx(np.sort(everything))
    assert scored[removal.gone == 0].max() <= scored[removal.gone > 0].min()


def test_what_is_missing_is_said(graph):
    with pytest.raises(UsageError, match="only a PyTorch module"):
        graph.prune(PruningOptions(criterion="snip", levels=(0.5,)), save=False)
    with pytest.raises(UsageError, match="--labels"):
        gradient_products(ModuleData(module=Small(), inputs=DATA["inputs"]))
    with pytest.raises(InvalidInputError, match="cannot be computed"):
        gradient_products(ModuleData(module=Small(), inputs=DATA["inputs"], labels=np.zeros(3, int)))
    other = torch.nn.Linear(16, 3)
    data = ModuleData(module=torch.nn.Sequential(torch.nn.Flatten(), other), **DATA)
    with pytest.raises(UsageError, match="no tensor of the graph"):
        graph.prune(PruningOptions(criterion="snip", levels=(0.5,)), files=data, save=False)
    with pytest.raises(UsageError, match="does not score"):
        graph.prune(PruningOptions(criterion="gate", unit="edge", levels=(0.5,)), save=False)
