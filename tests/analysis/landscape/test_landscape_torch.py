"""The torch engine: flat views, vmap, batch norm, invariances."""

import copy
import pickle

import numpy as np
import pytest

from emergraph.analysis.landscape.directions import random_directions
from emergraph.analysis.landscape.lines import line_barrier, sample_line
from emergraph.analysis.landscape.losses import LossKind
from emergraph.analysis.landscape.options import Norm
from emergraph.errors import InvalidInputError, UsageError

torch = pytest.importorskip("torch")

from emergraph.analysis.landscape.engine_torch import (  # noqa: E402 - needs torch
    TorchEvaluator,
    VmapEvaluator,
    module_layout,
    refresh_batch_norm,
)


def mlp(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


def data(seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(30, 4, generator=g), torch.randint(0, 3, (30,), generator=g)


def naive_loss(net, theta, x, labels):
    """A fresh copy per point, filled by the library's own function."""
    twin = copy.deepcopy(net).eval()
    torch.nn.utils.vector_to_parameters(torch.from_numpy(theta), twin.parameters())
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(twin(x), labels))


@pytest.mark.parametrize("engine", [TorchEvaluator, VmapEvaluator])
def test_equals_a_fresh_copy_per_point(engine):
    net, (x, labels) = mlp(), data()
    found = engine(net, x, labels)
    direction = np.random.default_rng(0).normal(size=found.n_params).astype(np.float32)
    steps = np.linspace(-0.5, 0.5, 7)
    expected = [naive_loss(net, found.base + np.float32(s) * direction, x, labels) for s in steps]
    assert found.losses_along(found.base, direction, steps) == pytest.approx(expected, rel=1e-5)
    assert found.loss(found.base + np.float32(0.1)) == pytest.approx(
        naive_loss(net, found.base + np.float32(0.1), x, labels), rel=1e-6
    )


def test_loss_at_zero_equals_the_base_loss_bit_for_bit():
    net, (x, labels) = mlp(), data()
    found = TorchEvaluator(net, x, labels)
    direction = np.ones(found.n_params, np.float32)
    along = found.losses_along(found.base, direction, np.array([0.3, 0.0, -0.3]))
    assert along[1] == found.loss(found.base)
    with torch.no_grad():
        assert along[1] == pytest.approx(float(torch.nn.functional.cross_entropy(net(x), labels)), rel=1e-6)


def test_the_users_module_is_untouched_also_after_an_exception():
    net, (x, labels) = mlp().train(), data()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    calls = []

    def breaking(output):
        calls.append(output)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return output.sum() * 0

    found = TorchEvaluator(net, x, loss=LossKind.FUNCTION, function=breaking)
    base = found.base.tobytes()
    with pytest.raises(KeyboardInterrupt):
        found.losses_along(found.base, found.base, np.ones(3))
    assert found.base.tobytes() == base
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert TorchEvaluator(net, x, labels).loss(found.base) == pytest.approx(
        naive_loss(net, found.base.copy(), x, labels)
    )


def test_tied_parameters_are_one_block_and_moved_once():
    net = mlp()
    net[0] = torch.nn.Linear(4, 4)
    net[2] = torch.nn.Linear(4, 4)
    net[2].weight = net[0].weight
    assert [b.name for b in module_layout(net).blocks] == ["0.weight", "0.bias", "2.bias"]
    x, _ = data()
    found = TorchEvaluator(net, x)
    assert found.n_params == 24
    assert found.loss(found.base) == 0.0
    assert found.loss(found.base + np.float32(1)) > 0


def test_layout_of_filters_and_vectors():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.ConvTranspose2d(3, 5, 2)
    )
    blocks = module_layout(net).blocks
    assert [b.unit_axes for b in blocks] == [(0,), (0,), (0,), (0,), (1,), (0,)]
    assert [b.is_vector for b in blocks] == [False, True, True, True, False, True]


def test_copies_travel_and_agree():
    net, (x, labels) = mlp(), data()
    found = TorchEvaluator(net, x, labels)
    theta = found.base + np.float32(0.05)
    assert pickle.loads(pickle.dumps(found)).loss(theta) == found.loss(theta)
    twin = found.with_threads(1)
    twin.loss(theta)
    assert found.loss(found.base) == twin.loss(found.base)


def test_dropout_is_off_and_batch_norm_uses_its_running_statistics():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.5))
    x = 3 * torch.randn(50, 4) + 2
    found = TorchEvaluator(net, x, loss=LossKind.MSE)
    assert found.loss(found.base) == 0.0
    found.loss(found.base * np.float32(2))
    assert torch.equal(net[1].running_mean, torch.zeros(6))


def test_recomputed_batch_norm_statistics_are_those_of_the_inputs():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6)).eval()
    x = 3 * torch.randn(500, 4) + 2
    with torch.no_grad():
        assert refresh_batch_norm(net, (x,)) == 1
        hidden = net[0](x)
    assert net[1].running_mean.numpy() == pytest.approx(hidden.mean(dim=0).numpy(), abs=1e-5)
    assert net[1].running_var.numpy() == pytest.approx(hidden.var(dim=0).numpy(), rel=1e-4)
    assert net[1].momentum == 0.1
    assert not net[1].training


def test_recomputing_removes_an_artefact_of_scale():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6, bias=False), torch.nn.BatchNorm1d(6, eps=1e-12)).eval()
    x = torch.randn(300, 4)
    with torch.no_grad():
        refresh_batch_norm(net, (x,))
    doubled = np.ones(36, np.float32)
    doubled[:24] = 2
    stale = TorchEvaluator(net, x, loss=LossKind.MSE)
    fresh = TorchEvaluator(net, x, loss=LossKind.MSE, recompute_batch_norm=True)
    assert stale.loss(stale.base * doubled) > 0.5
    assert fresh.loss(fresh.base * doubled) == pytest.approx(0, abs=1e-9)


def rescaled(net, *, per_neuron):
    """The same ReLU function: hidden inputs times c, outputs divided by c."""
    twin = copy.deepcopy(net)
    torch.manual_seed(7)
    c = torch.exp(torch.randn(8)) if per_neuron else torch.full((8,), 5.0)
    with torch.no_grad():
        twin[0].weight.mul_(c[:, None])
        twin[0].bias.mul_(c)
        twin[2].weight.div_(c)
    return twin


@pytest.mark.parametrize(
    ("norm", "per_neuron", "invariant"),
    [
        (Norm.NONE, False, False),
        (Norm.LAYER, False, True),
        (Norm.FILTER, False, True),
        (Norm.ELEMENT, False, True),
        (Norm.LAYER, True, False),
        (Norm.FILTER, True, False),
        (Norm.ELEMENT, True, True),
    ],
)
def test_scale_invariance_is_what_the_normalisation_promises(norm, per_neuron, invariant):
    x, labels = data()
    net = mlp()
    rises = []
    for version in (net, rescaled(net, per_neuron=per_neuron)):
        found = TorchEvaluator(version, x, labels)
        d = random_directions(found.base, found.layout, n=3, seed=0, norm=norm, orthogonal=True).vectors
        rises.append([found.loss((found.base + 0.5 * v).astype(np.float32)) for v in d])
    assert (rises[0] == pytest.approx(rises[1], rel=1e-4)) is invariant


def test_only_the_trace_in_the_metric_of_the_weights_is_invariant():
    """The trace of the Hessian changes with the scale of neurons, tr(N H N) with N = |w| does not."""
    x, labels = data()
    plain, scaled = [], []
    for version in (mlp(), rescaled(mlp(), per_neuron=True)):
        found = TorchEvaluator(version, x, labels)
        diagonal = np.diag(found.hessian().dense())
        plain.append(diagonal.sum())
        scaled.append(float(diagonal @ found.base.astype(float) ** 2))
    assert scaled[0] == pytest.approx(scaled[1], rel=1e-4)
    assert abs(plain[0] - plain[1]) > 0.5 * abs(plain[0])


def test_permuted_networks_have_a_barrier():
    net, (x, labels) = mlp(3), data()
    order = torch.tensor([3, 1, 0, 2, 7, 4, 6, 5])
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin[0].weight.copy_(net[0].weight[order])
        twin[0].bias.copy_(net[0].bias[order])
        twin[2].weight.copy_(net[2].weight[:, order])
    found = TorchEvaluator(net, x, loss=LossKind.MSE)
    other = TorchEvaluator(twin, x).base.astype(float)
    barrier = line_barrier(
        *sample_line(lambda t: found.loss(t.astype(np.float32)), found.base.astype(float), other)
    )
    assert barrier.ends == pytest.approx((0, 0), abs=1e-9)
    assert barrier.barrier > 1e-3
    assert labels.shape == (30,)


def test_losses_by_name():
    net, (x, labels) = mlp(), data()
    assert TorchEvaluator(net, x).loss_name == "kl to the base model's outputs"
    assert TorchEvaluator(net, x, labels).loss_name == "cross_entropy to the targets"
    assert TorchEvaluator(net, x, torch.zeros(30, 3)).loss_name == "mse to the targets"
    with pytest.raises(UsageError, match="needs"):
        TorchEvaluator(net, x, loss=LossKind.CROSS_ENTROPY)
    with pytest.raises(UsageError, match="takes no"):
        TorchEvaluator(net, x, labels, loss=LossKind.KL)
    with pytest.raises(UsageError, match="function"):
        TorchEvaluator(net, x, loss=LossKind.FUNCTION)


def test_broken_modules_are_refused():
    x, _ = data()
    with pytest.raises(UsageError, match="no parameters"):
        TorchEvaluator(torch.nn.ReLU(), x)
    with pytest.raises(UsageError, match=r"expected float32: module.float\(\)"):
        TorchEvaluator(mlp().double(), x.double())
    broken = mlp()
    with torch.no_grad():
        broken[0].weight.fill_(float("nan"))
    with pytest.raises(InvalidInputError, match="loss at the module's own weights"):
        TorchEvaluator(broken, x)


def test_negative_losses_are_losses_like_others():
    """Another tool takes losses <= 0 for "not computed yet"."""
    net, (x, _) = mlp(), data()
    found = TorchEvaluator(net, x, loss=LossKind.FUNCTION, function=lambda y: -(y**2).mean())
    assert found.losses_along(found.base, found.base, np.array([0.0, 1.0])).max() < 0
