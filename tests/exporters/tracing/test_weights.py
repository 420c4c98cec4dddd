"""Which numbers become edges, and which parameter tensor they are traced back to."""

import numpy as np
import pytest
from edgesink import EdgeSink
from nets import Net
from tracedmodel import trace_model

from emergraph.exporters.tracing.weights import kernel_matrix
from emergraph.graphstore.records import EdgeKind


def weights_of(sink: EdgeSink) -> np.ndarray:
    return np.concatenate([b.weight for b in sink.of_kind(EdgeKind.WEIGHT)])


def test_kernels_with_a_signalling_nan_are_summed_without_a_word():
    values = np.ones((1, 1, 2), np.float32)
    values.view(np.uint32)[0, 0, 0] = 0x7F800001  # numpy warns of such a NaN where it is cast
    matrix = kernel_matrix(values, taps=1)
    assert np.isnan(matrix.weights).all()
    assert matrix.kernels.n_params == 2


def test_a_weight_used_twice_is_one_tensor_and_two_blocks():
    net = Net()
    shared = net.param(4, 4, name="shared")
    h = net.op("Tanh", net.op("MatMul", net.input(1, 4), shared))
    net.output(net.op("MatMul", h, shared))
    traced = trace_model(net.model())
    first, second = traced.sink.of_kind(EdgeKind.WEIGHT)
    assert (first.block.tensor, second.block.tensor) == ("shared", "shared")
    assert (first.block.shared_with, second.block.shared_with) == (None, first.block.id)
    assert traced.summary.n_parameters == 16
    assert list(traced.sink.tensors) == ["shared"]


def test_tied_embedding_and_head_share_their_tensor():
    net = Net()
    table = net.param(7, 3, name="table")
    h = net.op("Gather", table, net.input(1, 4, dtype=np.int64))
    net.output(net.op("MatMul", h, net.op("Transpose", table, perm=[1, 0])))
    sink = trace_model(net.model()).sink
    assert [b.block.tensor for b in sink.of_kind(EdgeKind.WEIGHT)] == ["table", "table"]
    assert sink.blocks[1].block.shared_with == sink.blocks[0].block.id
    assert sink.blocks[1].src.size == 21


@pytest.mark.parametrize(
    "chain", [(), ("Identity",), ("Transpose",), ("Identity", "Transpose", "Identity", "Transpose")]
)
@pytest.mark.parametrize("constant", [False, True])
def test_weights_through_chains_restore_their_tensor(chain, constant):
    net = Net()
    flips = chain.count("Transpose") % 2
    values = net.random(5, 4, zeros=0.4) if flips else net.random(4, 5, zeros=0.4)
    if constant:
        from onnx import numpy_helper

        w = net.op("Constant", value=numpy_helper.from_array(values))
    else:
        w = net.value(values)
    root = w
    for op in chain:
        w = net.op(op, w)
    net.output(net.op("MatMul", net.input(1, 4), w))
    sink = trace_model(net.model()).sink
    tensor = sink.tensors[root]
    assert sink.blocks[0].block.tensor == root
    assert tensor.block == 0
    assert tensor.block_transposed == bool(flips)
    assert sink.blocks[0].src.size == np.count_nonzero(values)
    assert tensor.n_zeros == values.size - np.count_nonzero(values)


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_restores_its_weight_either_way_round(transposed):
    net = Net()
    shape = (3, 4) if transposed else (4, 3)
    net.output(net.op("Gemm", net.input(2, 4), net.param(*shape, name="w"), net.param(3), transB=transposed))
    tensor = trace_model(net.model()).sink.tensors["w"]
    assert (tensor.block, tensor.block_transposed) == (0, bool(transposed))


def test_a_scaled_gemm_keeps_its_raw_weight():
    net = Net()
    net.output(net.op("Gemm", net.input(2, 4), net.value(np.eye(4, 3), name="w"), alpha=0.5))
    sink = trace_model(net.model()).sink
    assert sink.tensors["w"].data is not None
    assert (weights_of(sink) == 0.5).all()


@pytest.mark.parametrize(
    ("equation", "shape", "weight"),
    [
        ("bij,ij->b", (2, 3, 4), (3, 4)),
        ("bij,jn->bn", (2, 3, 4), (4, 5)),
        ("bi,jn->bijn", (2, 3), (4, 5)),
        ("bi,ij->b", (2, 3), (3, 4)),
    ],
)
def test_contractions_that_are_no_matrix_keep_their_raw_weight(equation, shape, weight):
    net = Net()
    net.output(net.op("Einsum", net.input(*shape), net.param(*weight, name="w"), equation=equation))
    assert trace_model(net.model()).sink.tensors["w"].data is not None


def test_exact_zeros_are_no_edges():
    net = Net()
    values = np.asarray([[1.0, 0.0, -2.0], [0.0, 0.0, 3.0]], np.float32)
    net.output(net.op("MatMul", net.input(1, 2), net.value(values)))
    assert sorted(weights_of(trace_model(net.model()).sink)) == [-2.0, 1.0, 3.0]


def test_negative_zero_is_no_edge_and_still_restored():
    net = Net()
    values = np.asarray([[1.0, -0.0], [0.0, 2.0]], np.float32)
    net.output(net.op("MatMul", net.input(1, 2), net.value(values, name="w")))
    sink = trace_model(net.model()).sink
    assert sink.count(EdgeKind.WEIGHT) == 2
    assert sink.tensors["w"].data == values.tobytes()


def test_nan_and_infinite_weights_are_edges():
    net = Net()
    values = np.asarray([[np.nan, 0.0], [np.inf, 2.0]], np.float32)
    net.output(net.op("MatMul", net.input(1, 2), net.value(values, name="w")))
    traced = trace_model(net.model())
    found = weights_of(traced.sink)
    assert found.size == 3
    assert np.isnan(found).sum() == 1
    assert np.isinf(found).sum() == 1
    assert traced.sink.tensors["w"].n_nonfinite == 2


def test_a_kernel_whose_taps_cancel_is_an_edge():
    net = Net()
    kernel = np.asarray([1.0, -2.0, 1.0], np.float32).reshape(1, 1, 3)
    net.output(net.op("Conv", net.input(1, 1, 8), net.value(kernel)))
    block = trace_model(net.model()).sink.blocks[0]
    assert block.weight.tolist() == [0.0]
    assert block.l1.tolist() == [4.0]
    assert block.l2.tolist() == [np.sqrt(6.0)]
    assert block.max_abs.tolist() == [2.0]
    assert block.n_params.tolist() == [3]


def test_kernels_count_their_non_zero_taps():
    net = Net(seed=3)
    kernel = net.random(3, 2, 3, 3, zeros=0.7)
    kernel[1, 0] = 0.0
    net.output(net.op("Conv", net.input(1, 2, 5, 5), net.value(kernel)))
    block = trace_model(net.model()).sink.blocks[0]
    counts = np.count_nonzero(kernel, axis=(2, 3))
    assert block.src.size == np.count_nonzero(counts)
    assert block.n_params.sum() == np.count_nonzero(kernel)
    wide = kernel.astype(np.float64)
    for s, d, w, l1 in zip(block.src, block.dst, block.weight, block.l1, strict=True):
        np.testing.assert_allclose([w, l1], [wide[d - 2, s].sum(), np.abs(wide[d - 2, s]).sum()], rtol=1e-12)


def test_a_one_tap_convolution_of_a_matrix_keeps_one_edge_per_parameter():
    net = Net()
    net.output(net.op("Conv", net.input(1, 4, 2, 2), net.param(3, 4, 1, 1, zeros=0.3, name="w")))
    block = trace_model(net.model()).sink.blocks[0]
    assert not block.has_kernels


def test_a_channel_with_gamma_zero_feeds_nothing():
    net = Net(seed=4)
    h = net.op("Conv", net.input(1, 2, 2, 2), net.param(3, 2, 1, 1), name="maker")
    stats = [net.value([1.0, 0.0, 2.0]), net.param(3), net.param(3), net.value([1.0, 1.0, 1.0])]
    h = net.op("Relu", net.op("BatchNormalization", h, *stats))
    net.output(net.op("Conv", h, net.param(2, 3, 1, 1), name="reader"))
    sink = trace_model(net.model()).sink
    first = sink.layer("maker").first_unit
    assert set(sink.into("reader")[0].src.tolist()) == {first, first + 2}
    scale = sink.columns_of(sink.layer("maker")).scale
    assert scale is not None
    assert scale[1] == 0.0


def test_a_product_with_a_zero_mask_is_pruned():
    net = Net()
    h = net.op("Mul", net.dense(net.input(1, 3), 4), net.value([1.0, 0.0, 0.0, 1.0]))
    net.output(net.op("MatMul", h, net.param(4, 2), name="reader"))
    sink = trace_model(net.model()).sink
    assert sink.into("reader")[0].src.size == 4


def test_a_batched_constant_is_one_block_per_batch_index():
    net = Net(seed=5)
    x = net.op("Expand", net.op("Unsqueeze", net.input(2, 4), net.ints(0)), net.ints(3, 2, 4))
    net.output(net.op("MatMul", x, net.param(3, 4, 5, name="experts"), name="experts"))
    sink = trace_model(net.model()).sink
    assert sink.layer("experts").n_units == 15
    assert [b.src.size for b in sink.into("experts")] == [20, 20, 20]
    assert [b.block.note for b in sink.blocks] == ["use 0, batch 0", "use 1, batch 1", "use 2, batch 2"]
    assert {b.block.tensor for b in sink.blocks} == {"experts"}


def test_a_batched_constant_against_one_activation_is_one_block():
    net = Net(seed=5)
    x = net.op("Unsqueeze", net.input(2, 4), net.ints(0))
    net.output(net.op("MatMul", x, net.param(3, 4, 5), name="experts"))
    sink = trace_model(net.model()).sink
    assert sink.layer("experts").n_units == 15
    assert [b.src.size for b in sink.into("experts")] == [60]


def test_a_constant_on_the_left_mixes_tokens():
    net = Net(seed=6)
    h = net.op("MatMul", net.input(1, 3, 2), net.param(2, 2), name="features")
    net.output(net.op("MatMul", net.param(5, 3, name="mixer"), h, name="mixed"))
    sink = trace_model(net.model()).sink
    assert sink.layer("mixed").n_units == 2 * 5
    assert [b.src.size for b in sink.into("mixed")] == [5, 5]
    assert all((b.n_params == 3).all() for b in sink.into("mixed"))
    assert [b.block.note for b in sink.into("mixed")] == [f"axis=token, use {k}, batch 0" for k in range(2)]
    assert sink.into("features")[0].block.note is None


def test_weights_of_64_bits_keep_their_raw_values():
    net = Net()
    w = net.value(np.full((3, 2), 1 / 3), name="w", dtype=np.float64)
    net.output(net.op("MatMul", net.op("Cast", net.input(1, 3), to=11), w))
    tensor = trace_model(net.model()).sink.tensors["w"]
    assert tensor.dtype == "float64"
    assert tensor.data is not None


def test_layers_count_their_parameters_and_zeros():
    net = Net(seed=7)
    w = net.random(4, 3)
    w[0, :2] = 0.0
    net.output(net.op("Gemm", net.input(1, 4), net.value(w), net.value([0.0, 1.0, 2.0]), name="dense"))
    layer = trace_model(net.model()).sink.layer("dense")
    assert (layer.n_params, layer.n_zeros, layer.dtype) == (15, 3, "float32")
