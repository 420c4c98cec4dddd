"""Extremes, traces and densities of operators with known spectra; Hessians by double backward."""

import numpy as np
import pytest

from emergraph.analysis.landscape.spectrum import (
    extreme_eigenvalues,
    hutch_pp_trace,
    hutchinson_trace,
    spectral_density,
)
from emergraph.errors import MissingExtraError, UsageError
from emergraph.exporters.pytorch.tensors import require_torch

torch = pytest.importorskip("torch")

from emergraph.analysis.landscape.curvature import worst_case_ascent  # noqa: E402
from emergraph.analysis.landscape.engine_torch import HessianOperator, TorchEvaluator  # noqa: E402
from emergraph.analysis.landscape.losses import LossKind  # noqa: E402


def symmetric(n, seed=0, decay=0.9):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    spectrum = decay ** np.arange(n) * np.where(np.arange(n) % 4 == 3, -0.5, 1.0)
    return (q * spectrum) @ q.T, np.sort(spectrum)


@pytest.mark.parametrize("seed", range(3))
def test_both_ends_in_one_run(seed):
    a, spectrum = symmetric(200, seed)
    found = extreme_eigenvalues(lambda v: a @ v, 200, k=4, tolerance=1e-6)
    assert found.converged
    assert found.products < 200
    assert found.largest == pytest.approx(spectrum[::-1][:4], rel=1e-9)
    assert found.smallest == pytest.approx(spectrum[:4], rel=1e-9)


def test_residual_bounds_are_residuals():
    a, _ = symmetric(60)
    values, vectors = np.linalg.eigh(a)
    found = extreme_eigenvalues(lambda v: a @ v, 60, k=2, tolerance=1e-2, both_ends=False)
    assert max(found.residuals) <= 1e-2
    assert abs(found.largest[0] - values[-1]) <= found.residuals[0] * abs(found.largest[0])
    assert found.smallest == ()
    assert vectors.shape == (60, 60)


def test_largest_means_algebraically_not_by_magnitude():
    found = extreme_eigenvalues(lambda v: np.array([-9.0, 1.0, 2.0]) * v, 3, k=1)
    assert (found.largest[0], found.smallest[0]) == pytest.approx((2, -9))


def test_a_run_that_is_cut_short_says_so():
    a, _ = symmetric(300, decay=0.999)
    found = extreme_eigenvalues(lambda v: a @ v, 300, k=5, tolerance=1e-9, max_products=12)
    assert not found.converged
    assert found.products == 12


def test_an_exhausted_space_is_exact():
    found = extreme_eigenvalues(lambda v: 3.0 * v, 50, k=1)
    assert found.largest == pytest.approx((3.0,))
    assert found.products == 1
    assert found.converged


def test_hutchinson_is_exact_on_diagonals_and_covers_the_trace():
    a, spectrum = symmetric(80)
    assert hutchinson_trace(lambda v: spectrum * v, 80, probes=2).sd == pytest.approx(0, abs=1e-12)
    inside = 0
    for seed in range(60):
        found = hutchinson_trace(lambda v: a @ v, 80, probes=20, seed=seed)
        inside += found.low <= spectrum.sum() <= found.high
    assert inside >= 51


def test_hutchinson_variance_is_the_formula():
    a, _ = symmetric(40)
    found = hutchinson_trace(lambda v: a @ v, 40, probes=4000)
    assert found.sd**2 == pytest.approx(2 * (np.sum(a**2) - np.sum(np.diag(a) ** 2)), rel=0.1)


def test_hutch_pp_beats_hutchinson_with_many_products():
    a, spectrum = symmetric(200)
    plain, better = [], []
    for seed in range(20):
        plain.append(hutchinson_trace(lambda v: a @ v, 200, probes=60, seed=seed).mean - spectrum.sum())
        better.append(hutch_pp_trace(lambda v: a @ v, 200, products=60, seed=seed).mean - spectrum.sum())
    assert np.std(better) < np.std(plain) / 2
    assert abs(np.mean(better)) < 4 * np.std(better) / np.sqrt(20)
    with pytest.raises(UsageError, match="at least 6"):
        hutch_pp_trace(lambda v: v, 5, products=3)


def test_density_moments_are_those_of_the_spectrum():
    """Weights are squared first components, not squares of whole eigenvectors; the values are real."""
    a, spectrum = symmetric(100)
    found = spectral_density(lambda v: a @ v, 100, probes=40, steps=30)
    assert np.isrealobj(found.nodes)
    assert found.weights.sum(axis=1) == pytest.approx(np.ones(40))
    for power in (1, 2, 3):
        moment = (found.nodes**power * found.weights).sum(axis=1).mean()
        assert moment == pytest.approx(np.mean(spectrum**power), abs=0.02)
    assert abs(found.mean.mean - spectrum.mean()) < 3 * found.mean.sd / np.sqrt(40)
    assert np.isnan(found.mean.low)  # the interval is that of the trace
    grid = np.linspace(-2, 2, 801)
    assert found.on_grid(grid, width=0.05).sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-3)


def test_density_of_two_values_is_their_mass():
    values = np.repeat([-1.0, 3.0], [25, 75])
    found = spectral_density(lambda v: values * v, 100, probes=200, steps=10)
    assert found.negative_mass.mean == pytest.approx(0.25, abs=3 * found.negative_mass.sd / 200**0.5)
    assert np.isnan(found.negative_mass.low)


def linear_regression(n=30, features=4, outputs=2):
    torch.manual_seed(0)
    x, y = torch.randn(n, features), torch.randn(n, outputs)
    return torch.nn.Linear(features, outputs, bias=False), x, y


def test_hessian_of_a_quadratic():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(5, 5))
    a = a + a.T
    theta = torch.tensor(rng.normal(size=5), requires_grad=True)
    operator = HessianOperator(theta @ torch.tensor(a) @ theta / 2, [theta])
    assert operator.dense() == pytest.approx(a)
    assert operator.gradient == pytest.approx(a @ theta.detach().numpy())


def test_hessian_of_linear_regression():
    """(2/N) X'X on each output, divided by the number of outputs that the mean runs over."""
    net, x, y = linear_regression()
    found = TorchEvaluator(net, x, y, loss=LossKind.MSE).hessian().dense()
    expected = np.kron(np.eye(2), (2 / (30 * 2)) * (x.T @ x).numpy())
    assert found == pytest.approx(expected, abs=1e-5)


def test_hessian_of_softmax_regression():
    torch.manual_seed(1)
    x, labels = torch.randn(40, 3), torch.randint(0, 4, (40,))
    net = torch.nn.Linear(3, 4, bias=False)
    found = TorchEvaluator(net, x, labels).hessian().dense()
    p = torch.softmax(net(x), dim=1).detach().numpy()
    blocks = [np.kron(np.diag(q) - np.outer(q, q), np.outer(v, v)) for q, v in zip(p, x.numpy(), strict=True)]
    assert found == pytest.approx(np.mean(blocks, axis=0), abs=1e-6)


def mlp(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))


def test_label_free_kl_has_no_gradient_and_the_fisher_matrix_as_hessian():
    net, x = mlp(), torch.randn(25, 4)
    operator = TorchEvaluator(net, x).hessian()
    assert operator.gradient == pytest.approx(np.zeros(operator.n), abs=1e-7)
    hessian = operator.dense()
    assert np.linalg.eigvalsh(hessian).min() > -1e-6
    fisher = np.zeros_like(hessian)
    for row in x:
        logs = torch.log_softmax(net(row), dim=0)
        for c in range(3):
            g = torch.autograd.grad(logs[c], list(net.parameters()), retain_graph=True)
            flat = torch.cat([part.reshape(-1) for part in g]).numpy()
            fisher += float(logs[c].exp().detach()) * np.outer(flat, flat) / len(x)
    assert hessian == pytest.approx(fisher, abs=1e-5)


def test_products_equal_differences_of_gradients():
    net, x, labels = mlp(), torch.randn(20, 4), torch.randint(0, 3, (20,))
    evaluator = TorchEvaluator(net.double().float(), x, labels)
    operator = evaluator.hessian()
    v = np.random.default_rng(0).normal(size=operator.n)
    h = 1e-2
    ahead = evaluator.gradient((evaluator.base + h * v).astype(np.float32))
    behind = evaluator.gradient((evaluator.base - h * v).astype(np.float32))
    assert operator.product(v) == pytest.approx((ahead - behind) / (2 * h), abs=2e-3)
    assert operator.product(v) == pytest.approx(operator.dense() @ v, abs=1e-5)


def test_hessian_neither_moves_the_module_nor_leaves_gradients():
    net, x, labels = mlp().train(), torch.randn(20, 4), torch.randint(0, 3, (20,))
    before = [p.detach().clone() for p in net.parameters()]
    operator = TorchEvaluator(net, x, labels).hessian()
    extreme_eigenvalues(operator.product, operator.n, k=2)
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_top_eigenvalues_of_a_net_are_exact_to_the_tolerance():
    net, x, labels = mlp(), torch.randn(40, 4), torch.randint(0, 3, (40,))
    operator = TorchEvaluator(net, x, labels).hessian()
    exact = np.linalg.eigvalsh(operator.dense())
    found = extreme_eigenvalues(operator.product, operator.n, k=5)
    assert found.largest == pytest.approx(exact[::-1][:5], rel=1e-3)


def test_parameters_that_do_not_matter_have_zero_rows():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    operator = HessianOperator((used**3).sum(), [used, unused])
    assert operator.dense() == pytest.approx(np.diag([6.0, 6, 0, 0, 0]))
    assert operator.n == 5
    linear = HessianOperator(used.sum(), [used])
    assert linear.product(np.ones(2)).tolist() == [0, 0]


def test_wrong_hessians_are_refused():
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(UsageError, match="scalar"):
        HessianOperator(x, [x])
    with pytest.raises(UsageError, match="does not depend"):
        HessianOperator(torch.tensor(1.0), [x])
    with pytest.raises(UsageError, match=r"shape \(2,\)"):
        HessianOperator((x**2).sum(), [x]).product(np.ones(3))


def test_worst_case_of_a_net_is_bounded_by_the_top_eigenvalue():
    net, x, y = linear_regression()
    weights, *_ = np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)
    with torch.no_grad():
        net.weight.copy_(torch.from_numpy(weights.T))
    evaluator = TorchEvaluator(net, x, y, loss=LossKind.MSE)
    top = np.linalg.eigvalsh(evaluator.hessian().dense())[-1]
    found = worst_case_ascent(
        lambda t: evaluator.loss(t.astype(np.float32)),
        lambda t: evaluator.gradient(t.astype(np.float32)),
        evaluator.base.astype(float),
        np.ones(evaluator.n_params),
        rho=0.5,
        steps=50,
    )
    assert found.rise == pytest.approx(0.5**2 * top / 2, rel=1e-4)


def test_without_torch_the_answer_is_the_pip_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r'a Hessian needs PyTorch: pip install "emergraph\[torch\]"'):
        require_torch("a Hessian")
