"""Chains: joined where order and sizes leave no choice, checked by path sums, refused everywhere else."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.errors import InvalidInputError
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.exporters.weightfiles.wiring import Wire, export_weights
from emergraph.graphstore.records import LayerKind, Role

torch = pytest.importorskip("torch")
nn = torch.nn


def forward_on_ones(model, shape):
    """The network with |W|, without biases and activations, on ones."""
    for parameter in model.parameters():
        parameter.data = parameter.data.abs().double()
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            module.bias.data.zero_()
    return float(model(torch.ones(shape, dtype=torch.float64)).sum().detach())


def test_chain_of_dense_layers(wiring, wired):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    sink, summary = wired(model, Wire.SEQUENTIAL)
    assert [layer.name for layer in sink.layers] == ["0:in", "0", "2", "4"]
    assert [layer.depth for layer in sink.layers] == [0, 1, 2, 3]
    assert [columns.role for columns in sink.units] == [Role.INPUT, Role.HIDDEN, Role.HIDDEN, Role.OUTPUT]
    assert [(join.source, join.target) for join in summary.joins] == [(None, "0"), ("0", "2"), ("2", "4")]
    assert summary.joins[1].reason == "4 outputs, 4 inputs"
    plain = nn.Sequential(model[0], model[2], model[4])
    np.testing.assert_allclose(wiring.paths(sink), forward_on_ones(plain, (1, 3)), rtol=1e-6)


def test_chain_of_convolutions_flattened(wiring, wired):
    """Unpadded convolutions of 7 x 7, then 18 inputs = 2 channels of 3 x 3 positions."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1, groups=4), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(18, 3)
    )
    sink, summary = wired(model, Wire.SEQUENTIAL)
    assert [join.reason for join in summary.joins[1:]] == [
        "4 channels = 4 groups of 1",
        "4 outputs, 4 inputs",
        "18 inputs = 2 channels x 9 positions, channels first (torch.flatten)",
    ]
    assert sink.tensors["4.weight"].data is not None
    np.testing.assert_allclose(wiring.paths(sink), forward_on_ones(model, (1, 1, 7, 7)), rtol=1e-6)


@pytest.mark.parametrize(
    ("channels", "outputs", "groups"), [(4, 4, 2), (6, 6, 3), (4, 8, 4), (4, 8, 2), (3, 3, 3)]
)
@pytest.mark.parametrize("size", [1, 3])
def test_grouped_convolutions_see_their_group_only(wired, channels, outputs, groups, size):
    layer = nn.Conv1d(channels, outputs, size, groups=groups)
    sink, summary = wired(nn.Sequential(nn.Linear(2, channels), layer), Wire.SEQUENTIAL)
    matrix = sink.dense("1", "0")
    signal = torch.eye(channels)[:, :, None].expand(channels, channels, size)
    with torch.no_grad():
        expected = (layer(signal) - layer(torch.zeros(1, channels, size)))[:, :, 0].numpy()
    np.testing.assert_allclose(matrix, expected, atol=1e-6)
    assert np.count_nonzero(matrix) == channels * outputs // groups
    assert f"{groups} groups" in summary.joins[1].reason


@pytest.mark.parametrize("variance", [0.5, -2.0])
def test_batch_norm_is_folded_onto_the_units_before_it(wiring, wired, variance):
    """A variance below 0 gives NaN, as in torch, and no warning."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model[1].running_mean.uniform_()
        model[1].running_var.uniform_(variance, variance + 1.5)
        model[1].weight.uniform_()
    sink, summary = wired(model, Wire.SEQUENTIAL)
    x = torch.randn(5, 4)
    columns = sink.columns("0")
    with torch.no_grad():
        np.testing.assert_allclose(
            wiring.array(x) * columns.scale + columns.shift, model[1](x).numpy(), rtol=1e-5, atol=1e-6
        )
    assert "epsilon" in summary.joins[1].reason


def test_two_normalisations_in_a_row(wiring, wired):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.Linear(3, 1)).eval()
    with torch.no_grad():
        for norm in (model[1], model[2]):
            norm.weight.uniform_()
            norm.bias.uniform_()
    sink, _ = wired(model, Wire.SEQUENTIAL)
    x = torch.randn(5, 3)
    columns = sink.columns("0")
    with torch.no_grad():
        expected = model[2](model[1](x)).numpy()
    np.testing.assert_allclose(
        wiring.array(x) * columns.scale + columns.shift, expected, rtol=1e-5, atol=1e-6
    )


def test_recurrent_layers_in_a_chain(wired):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 3)
            self.rnn = nn.LSTM(3, 4, num_layers=2)
            self.head = nn.Linear(4, 2)

    sink, summary = wired(Net(), Wire.SEQUENTIAL)
    assert [join.target for join in summary.joins] == ["embed", "rnn.l0", "rnn.l1", "head"]
    assert sink.layers[0].kind is LayerKind.EMBEDDING
    assert sink.layer("head").depth > sink.layer("rnn.l1").depth > sink.layer("rnn.l0").depth


def refusal(wired, state):
    with pytest.raises(InvalidInputError) as caught:
        wired(state, Wire.SEQUENTIAL)
    message = str(caught.value)
    assert message.startswith("m.pt: the layers cannot be wired as a chain: ")
    assert "export the model to ONNX" in message
    assert "\n" not in message
    return message


def linear(name, outputs, inputs):
    return {f"{name}.weight": torch.randn(outputs, inputs), f"{name}.bias": torch.randn(outputs)}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (linear("a", 4, 3) | linear("b", 2, 5), "b needs 5 inputs, a gives 4"),
        (linear("x.query", 4, 4) | linear("x.key", 4, 4) | linear("x.value", 4, 4), "branch by its name"),
        (linear("a", 4, 4) | linear("b.downsample.0", 4, 4), "branch by its name"),
        (
            {"wte.weight": torch.ones(9, 4), "wpe.weight": torch.ones(5, 4)} | linear("a", 4, 4),
            "2 embedding tables",
        ),
        (linear("a", 4, 3) | {"wte.weight": torch.ones(9, 4)}, "wte needs 1 inputs"),
        ({"n.weight": torch.ones(4), "n.bias": torch.ones(4)} | linear("a", 4, 4), "n cannot be the first"),
        (linear("a", 4, 3) | {"n.weight": torch.ones(5)} | linear("b", 2, 4), "n needs 5 inputs, a gives 4"),
        ({"c.weight": torch.ones(258, 1, 5), "d.weight": torch.ones(128, 129, 3)}, "d needs 129 inputs"),
        (nn.LSTM(3, 4, bidirectional=True).state_dict(), "second direction"),
        (nn.MultiheadAttention(6, 2).state_dict(), "branch by its name"),
    ],
)
def test_chains_that_are_none(wired, state, reason):
    assert reason in refusal(wired, state)


def test_tied_layers_are_no_chain(wired):
    weight = torch.randn(4, 4)
    assert "used twice" in refusal(wired, {"a.weight": weight, "b.weight": weight})


@pytest.fixture
def sorted_file(tmp_path):
    numpy_save = pytest.importorskip("safetensors.torch").save_file

    def write(state):
        numpy_save({name: value.contiguous() for name, value in state.items()}, tmp_path / "m.safetensors")
        return read_weights(tmp_path / "m.safetensors")

    return write


def test_a_file_sorted_by_name_is_read_by_number(wiring, sorted_file):
    """net.10 stands before net.2 in the file."""
    state = {}
    for index in range(12):
        state |= linear(f"net.{index}", 4, 4)
    weights = sorted_file(state)
    assert next(iter(weights.tensors)) != list(weights.tensors)[-1]
    summary = export_weights(weights, wiring.Recorder(), wire=Wire.SEQUENTIAL)
    assert [join.target for join in summary.joins] == [f"net.{index}" for index in range(12)]
    assert "by number" in summary.joins[1].reason


def test_a_file_sorted_by_name_with_one_order_that_fits(wiring, sorted_file):
    state = linear("a", 4, 3) | linear("b", 5, 4) | linear("c", 2, 5)
    summary = export_weights(sorted_file(state), wiring.Recorder(), wire=Wire.SEQUENTIAL)
    assert "the only order that fits" in summary.joins[1].reason


def test_a_file_sorted_by_name_with_several_orders_is_refused(wiring, sorted_file):
    state = linear("decoder", 4, 4) | linear("encoder", 4, 4) | linear("head", 2, 4)
    with pytest.raises(InvalidInputError, match="sorted by name"):
        export_weights(sorted_file(state), wiring.Recorder(), wire=Wire.SEQUENTIAL)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    sparsity=st.floats(0, 1),
    seed=st.integers(0, 2**16),
    bias=st.booleans(),
)
def test_any_chain_of_dense_layers(wiring, tmp_path_factory, sizes, sparsity, seed, bias):
    generator = torch.Generator().manual_seed(seed)
    state, expected = {}, np.ones((1, sizes[0]))
    for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        weight = torch.randn(outputs, inputs, generator=generator)
        weight[torch.rand(weight.shape, generator=generator) < sparsity] = 0
        if outputs * inputs == 1 and not bias:
            weight = torch.ones(1, 1)
        state[f"net.{index}.weight"] = weight
        if bias:
            state[f"net.{index}.bias"] = torch.randn(outputs, generator=generator)
        expected = expected @ np.abs(wiring.array(weight)).T
    if bias and any(
        state[f"net.{i}.weight"].shape == state[f"net.{i}.bias"].shape for i in range(len(sizes) - 1)
    ):
        return
    path = tmp_path_factory.mktemp("chain") / "m.pt"
    torch.save(state, path)
    sink = wiring.Recorder()
    summary = export_weights(read_weights(path), sink, wire=Wire.SEQUENTIAL)
    wiring.check_contract(sink)
    assert summary.n_edges == sum(
        int(torch.count_nonzero(v)) for k, v in state.items() if k.endswith("weight")
    )
    np.testing.assert_allclose(wiring.paths(sink), expected.sum(), rtol=1e-5, atol=1e-12)
    for name, value in state.items():
        assert sink.restored(name) == value.numpy().tobytes()
