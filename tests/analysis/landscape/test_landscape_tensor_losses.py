"""Losses of a module's output beside torch's own, for few and many classes."""

import pickle

import numpy as np
import pytest

from emergraph.analysis.landscape.losses import LossKind

torch = pytest.importorskip("torch")

from emergraph.analysis.landscape.tensor_losses import FEW_CLASSES, tensor_loss  # noqa: E402 - needs torch

F = torch.nn.functional


@pytest.mark.parametrize("classes", [2, FEW_CLASSES - 1, FEW_CLASSES, 200])
@pytest.mark.parametrize("positions", [(7,), (3, 5), (2, 3, 4)])
def test_equal_torchs_own(classes, positions):
    torch.manual_seed(0)
    output, base = torch.randn(*positions, classes), torch.randn(*positions, classes)
    labels = torch.randint(0, classes, positions)
    flat = output.flatten(0, -2)
    entropy = tensor_loss(LossKind.AUTO, base, labels)(output)
    assert float(entropy) == pytest.approx(float(F.cross_entropy(flat, labels.flatten())), rel=1e-6)
    divergence = tensor_loss(LossKind.AUTO, base)(output)
    logs = [F.log_softmax(x.flatten(0, -2), dim=-1) for x in (output, base)]
    expected = F.kl_div(*logs, log_target=True, reduction="batchmean")
    assert float(divergence) == pytest.approx(float(expected), rel=1e-5)
    assert float(tensor_loss(LossKind.MSE, base)(output)) == float(F.mse_loss(output, base))


@pytest.mark.parametrize("classes", [3, 100])
@pytest.mark.parametrize("loss", [LossKind.KL, LossKind.MSE])
def test_exactly_zero_at_the_base_outputs(classes, loss):
    base = 30 * torch.randn(9, classes)
    assert float(tensor_loss(loss, base)(base.clone())) == 0.0


@pytest.mark.parametrize("classes", [3, 100])
def test_gradients_equal_torchs_own(classes):
    torch.manual_seed(0)
    output = torch.randn(6, classes, requires_grad=True)
    labels = torch.randint(0, classes, (6,))
    ours = torch.autograd.grad(tensor_loss(LossKind.AUTO, output.detach(), labels)(output), output)[0]
    theirs = torch.autograd.grad(F.cross_entropy(output, labels), output)[0]
    assert ours.numpy() == pytest.approx(theirs.numpy(), abs=1e-7)


def test_one_position_without_an_axis():
    output = torch.tensor([0.0, np.log(3.0)])
    assert float(tensor_loss(LossKind.CROSS_ENTROPY, output, torch.tensor(1))(output)) == pytest.approx(
        -np.log(0.75)
    )


def test_travel():
    output = torch.randn(5, 3)
    loss = tensor_loss(LossKind.KL, torch.zeros(5, 3))
    assert float(pickle.loads(pickle.dumps(loss))(output)) == float(loss(output))


@pytest.mark.parametrize("classes", [3, 60])
def test_probabilities_get_no_second_softmax(classes):
    generator = torch.Generator().manual_seed(3)
    base, moved = torch.randn(2, 6, classes, generator=generator)
    labels = torch.randint(0, classes, (6,), generator=generator)
    for targets in (None, labels):
        of_scores = tensor_loss(LossKind.AUTO, base, targets)(moved)
        of_shares = tensor_loss(LossKind.AUTO, base.softmax(dim=1), targets)(moved.softmax(dim=1))
        assert float(of_shares) == pytest.approx(float(of_scores), rel=1e-5)
