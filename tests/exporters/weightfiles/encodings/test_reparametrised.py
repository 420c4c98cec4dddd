"""Weights that torch computes from other parameters, against the module in evaluation mode."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def layers():
    torch.manual_seed(0)
    return {
        "dense": nn.Linear(5, 4),
        "square": nn.Linear(4, 4),
        "conv": nn.Conv2d(3, 4, 3),
        "transposed": nn.ConvTranspose1d(3, 4, 3),
        "square_transposed": nn.ConvTranspose1d(4, 4, 3),
    }


def weight_of(layer, x):
    """The weight that the module uses in evaluation mode."""
    layer.eval()
    with torch.no_grad():
        layer(x)
        return layer.weight.double().numpy()


def sample(name):
    return {
        "dense": torch.randn(2, 5),
        "square": torch.randn(2, 4),
        "conv": torch.randn(2, 3, 5, 5),
        "transposed": torch.randn(2, 3, 6),
        "square_transposed": torch.randn(2, 4, 6),
    }[name]


def edges(sink, layer):
    """Sum over the kernel, or the matrix: (inputs, outputs)."""
    return sink.dense(layer, f"{layer}:in")


def summed(name, weight):
    """What `edges` should be."""
    values = weight.reshape(*weight.shape[:2], -1).sum(axis=2)
    return values if "transposed" in name else values.T


def check(name, layer, wired, n_params=None):
    expected = summed(name, weight_of(layer, sample(name)))
    label = "deconv" if "transposed" in name else "layer"
    sink, summary = wired(nn.ModuleDict({label: layer}))
    np.testing.assert_allclose(edges(sink, label), expected, rtol=1e-5, atol=1e-6)
    assert summary.coverage == 1.0
    assert not summary.opaque
    wanted = sum(parameter.numel() for parameter in layer.parameters()) if n_params is None else n_params
    assert summary.n_parameters == sink.layer(label).n_params == wanted
    return sink, summary


@pytest.mark.parametrize("name", layers())
@pytest.mark.parametrize("style", [nn.utils.weight_norm, parametrizations.weight_norm])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm(name, style, dim, wired):
    layer = style(layers()[name], dim=dim)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(1.5)
    check(name, layer, wired)


@pytest.mark.parametrize("name", layers())
@pytest.mark.parametrize("style", [nn.utils.spectral_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("steps", [0, 30])
def test_spectral_norm(name, style, steps, wired):
    if name == "square_transposed" and style is nn.utils.spectral_norm and not steps:
        pytest.skip("vectors that were never iterated do not tell which of two axes of one size they are for")
    layer = style(layers()[name])
    for _ in range(steps):
        layer(sample(name))
    sink, _ = check(name, layer, wired)
    roles = sorted(tensor.role for tensor in sink.tensors.values())
    assert roles == ["bias", "buffer", "buffer", "weight"]


@pytest.mark.parametrize("name", layers())
@pytest.mark.parametrize("amount", [1, 5])
def test_masks(name, amount, wired):
    layer = layers()[name]
    prune.l1_unstructured(layer, "weight", amount=amount)
    sink, _ = check(name, layer, wired)
    label = "deconv" if "transposed" in name else "layer"
    assert sink.layer(label).n_zeros == amount
    assert sink.tensors[f"{label}.weight_orig"].n_zeros == amount
    assert sink.tensors[f"{label}.weight_mask"].role == "buffer"


def test_masked_biases_and_the_edges_that_are_left(wired):
    layer = nn.Linear(8, 6)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    prune.l1_unstructured(layer, "bias", amount=2)
    sink, summary = wired(nn.ModuleDict({"layer": layer}))
    assert summary.n_edges == 24
    assert sink.layer("layer").n_zeros == 24 + 2
    np.testing.assert_allclose(sink.columns("layer").bias, layer.bias.detach().numpy(), rtol=1e-6)


def test_a_recurrent_layer_with_weight_norm(wired):
    torch.manual_seed(1)
    layer = nn.utils.weight_norm(nn.LSTM(3, 2), "weight_hh_l0")
    with torch.no_grad():
        layer.weight_hh_l0_g.mul_(2)
        layer(torch.randn(4, 3))
    sink, summary = wired(nn.ModuleDict({"rnn": layer}))
    expected = layer.weight_hh_l0.detach().double().numpy().T
    from emergraph.graphstore.records import EdgeKind

    found = sink.dense("rnn.l0:gates", "rnn.l0", EdgeKind.RECURRENT)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert summary.coverage == 1.0


class Doubled(nn.Module):
    def forward(self, values):
        return 2 * values


@pytest.mark.parametrize("use", [parametrizations.orthogonal, "doubled", "chain"])
def test_functions_that_the_file_does_not_hold_are_named(use, wired):
    layer = nn.Linear(4, 4)
    if use == "doubled":
        parametrize.register_parametrization(layer, "weight", Doubled())
    elif use == "chain":
        parametrize.register_parametrization(layer, "weight", Doubled())
        parametrizations.spectral_norm(layer)
    else:
        use(layer)
    sink, summary = wired(nn.ModuleDict({"layer": layer, "head": nn.Linear(4, 2)}))
    ((name, reason),) = [(op.name, op.reason) for op in summary.opaque]
    assert (name, "which function torch computes it with" in reason) == ("layer", True)
    assert [layer.name for layer in sink.layers] == ["head:in", "head"]
    assert summary.n_parameters_understood == 4 * 2 + 2


def test_spectral_norm_of_old_versions_is_named(wired):
    state = {
        "layer.weight_orig": torch.ones(2, 3),
        "layer.weight_u": torch.ones(2),
        "b.weight": torch.ones(2, 2),
    }
    _, summary = wired(state)
    assert ["keeps one vector" in (op.reason or "") for op in summary.opaque] == [True]


def test_names_that_only_look_like_it(wired):
    """A mask of another shape, and a value and a gate that are no weight norm, stay as they are."""
    state = {
        "a.weight_orig": torch.ones(2, 3),
        "a.weight_mask": torch.ones(3),
        "gate_g": torch.ones(3),
        "gate_v": torch.ones(3, 3),
        "b.weight": torch.ones(2, 2),
    }
    sink, _ = wired(state)
    assert [layer.name for layer in sink.layers] == ["b:in", "b"]


def test_unlike_both_orders_of_names(wired):
    """The file's order of names does not matter."""
    layer = nn.Linear(4, 3)
    prune.l1_unstructured(layer, "weight", amount=5)
    state = dict(reversed(list(nn.ModuleDict({"a": layer}).state_dict().items())))
    sink, summary = wired(state)
    assert (summary.n_edges, sink.layer("a").n_zeros) == (7, 5)
