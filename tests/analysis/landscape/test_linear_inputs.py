"""First layers that add along a line: equal to multiplying, and only where the input is fixed."""

import copy
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergraph.analysis.landscape.losses import LossKind

torch = pytest.importorskip("torch")

from emergraph.analysis.landscape import linear_inputs  # noqa: E402 - needs torch
from emergraph.analysis.landscape.engine_torch import TorchEvaluator  # noqa: E402 - needs torch

nn = torch.nn
STEPS = np.linspace(-1.5, 1.5, 7)


class Siamese(nn.Module):
    """One layer for two inputs, and for something that depends on weights."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(6, 6)

    def forward(self, x, y):
        """Outputs for both and for a hidden layer."""
        return self.shared(x) * self.shared(y) + self.shared(torch.relu(self.shared(x.flip(0))))


class Overwriting(nn.Module):
    """Writes into its input."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        """Output for the input, which is one larger afterwards."""
        return self.layer(x.add_(1.0))


class Tied(nn.Module):
    """An autoencoder whose decoder is the encoder's transpose."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(6, 4)
        self.decoder = nn.Linear(4, 6, bias=False)
        self.decoder.weight = nn.Parameter(self.encoder.weight.detach().T.clone())
        self.again = nn.Linear(6, 4, bias=False)
        self.again.weight = self.encoder.weight

    def forward(self, x):
        """Input, encoded, decoded, encoded, beside the input encoded by the tied layer."""
        return self.again(self.decoder(torch.relu(self.encoder(x)))) + self.again(x)


def normed(layer):
    return nn.utils.parametrizations.weight_norm(layer)


def hooked(layer):
    layer.register_forward_hook(lambda *parts: parts[2] ** 2)
    return layer


NETS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)), ["0"]),
    "no bias": (lambda: nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 3)), ["0"]),
    "flattened": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.GELU()), ["1"]),
    "changed first": (lambda: nn.Sequential(nn.Softmax(-1), nn.Linear(6, 8)), []),
    "conv1d": (
        lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 4, 2), nn.ReLU(), nn.Flatten()),
        ["1"],
    ),
    "conv2d": (lambda: nn.Sequential(nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.Flatten()), ["1"]),
    "transposed": (
        lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.ConvTranspose1d(2, 4, 2), nn.Flatten()),
        ["1"],
    ),
    "weight norm": (lambda: nn.Sequential(normed(nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 2)), []),
    "hook": (lambda: nn.Sequential(hooked(nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 2)), []),
    "tied": (Tied, ["encoder", "again"]),
    "overwriting": (Overwriting, ["layer"]),
}


def naive(net, theta, inputs, loss):
    """A fresh copy per point, filled by the library's own function, on fresh inputs."""
    twin = copy.deepcopy(net).eval()
    nn.utils.vector_to_parameters(torch.from_numpy(theta), twin.parameters())
    with torch.no_grad():
        return float(loss(twin(*(x.clone() for x in inputs))))


def squares(output):
    return (output**2).mean()


def line_of(net, inputs):
    found = TorchEvaluator(net, inputs, loss=LossKind.FUNCTION, function=squares)
    direction = np.random.default_rng(1).normal(size=found.n_params).astype(np.float32)
    along = found.losses_along(found.base, direction, STEPS)
    expected = [naive(net, found.base + np.float32(s) * direction, inputs, squares) for s in STEPS]
    return found, direction, along, expected


@pytest.mark.parametrize("name", NETS)
def test_equals_a_fresh_copy_per_point(name):
    make, layers = NETS[name]
    torch.manual_seed(0)
    net, x = make(), torch.randn(20, 6)
    _, entered = linear_inputs.run_and_watch(copy.deepcopy(net), (x.clone(),))
    assert list(entered) == layers
    found, direction, along, expected = line_of(net, (x,))
    assert along == pytest.approx(expected, rel=1e-5)
    assert found.losses_along(found.base, direction, STEPS).tolist() == along.tolist()
    assert along[3] == found.loss(found.base)


def test_a_layer_with_several_inputs_keeps_each_apart():
    torch.manual_seed(0)
    inputs = (torch.randn(20, 6), torch.randn(20, 6))
    found, _, along, expected = line_of(Siamese(), inputs)
    assert along == pytest.approx(expected, rel=1e-5)
    assert found.loss(found.base) == pytest.approx(expected[3], rel=1e-6)


def test_views_of_one_input_are_kept_apart():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x):
            return self.layer(x[:, :3]) - 2 * self.layer(x[:, 3:]) + self.layer(x.view(-1, 3)[:20])

    torch.manual_seed(0)
    _, _, along, expected = line_of(Halves(), (torch.randn(20, 6),))
    assert along == pytest.approx(expected, rel=1e-5)


@given(
    st.integers(0, 2**31),
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
    st.booleans(),
    st.floats(1e-4, 30),
)
def test_any_mlp_on_any_line(seed, widths, bias, scale):
    torch.manual_seed(seed)
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b, bias=bias), nn.Tanh())]
    net, x = nn.Sequential(*layers), torch.randn(11, widths[0])
    found = TorchEvaluator(net, x, loss=LossKind.FUNCTION, function=squares)
    direction = scale * np.random.default_rng(seed).normal(size=found.n_params).astype(np.float32)
    expected = [naive(net, found.base + np.float32(s) * direction, (x,), squares) for s in STEPS]
    assert found.losses_along(found.base, direction, STEPS) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_products_of_the_first_layer_are_made_twice_for_a_whole_line(monkeypatch):
    calls = []
    real = torch.nn.functional.linear

    def counting(x, weight, bias=None):
        calls.append(tuple(weight.shape))
        return real(x, weight, bias)

    net = NETS["mlp"][0]()
    found = TorchEvaluator(net, torch.randn(20, 6), loss=LossKind.FUNCTION, function=squares)
    monkeypatch.setattr(torch.nn.functional, "linear", counting)
    found.losses_along(found.base, found.base, np.linspace(0, 1, 40))
    assert calls.count((8, 6)) == 2
    assert calls.count((3, 8)) == 40
    calls.clear()
    found.losses_along(found.base, found.base, np.array([1.0, -1.0]))
    assert calls.count((8, 6)) == 2


def test_large_outputs_are_not_kept(monkeypatch):
    monkeypatch.setattr(linear_inputs, "LARGEST", 20 * 8 - 1)
    torch.manual_seed(0)
    _, _, along, expected = line_of(NETS["mlp"][0](), (torch.randn(20, 6),))
    assert along == pytest.approx(expected, rel=1e-5)


def test_layers_multiply_again_after_an_exception():
    def breaking(output):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(output)
        return squares(output)

    seen = []
    torch.manual_seed(0)
    net, x = NETS["mlp"][0](), torch.randn(20, 6)
    found = TorchEvaluator(net, x, loss=LossKind.FUNCTION, function=breaking)
    with pytest.raises(KeyboardInterrupt):
        found.losses_along(found.base, found.base, STEPS)
    seen.clear()
    theta = found.base * np.float32(3)
    assert found.loss(theta) == pytest.approx(naive(net, theta, (x,), squares), rel=1e-6)


def test_inputs_stay_what_they_were():
    torch.manual_seed(0)
    x = torch.randn(20, 6)
    kept = x.clone()
    found = TorchEvaluator(Overwriting(), x, loss=LossKind.MSE)
    assert [found.loss(found.base) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert torch.equal(x, kept)
    assert found.hessian().n == found.n_params


def test_statistics_of_batch_norm_see_every_step():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5, eps=1e-9))
    found = TorchEvaluator(net, torch.randn(50, 6), loss=LossKind.MSE, recompute_batch_norm=True)
    direction = np.concatenate([found.base[:30], np.zeros(10, np.float32)])
    base = found.loss(found.base)
    assert found.losses_along(found.base, direction, np.array([0.0, 1, 2, 3, 4])) == pytest.approx(
        np.full(5, base), rel=1e-4
    )
