"""An input's units are what its first contraction contracts as features or channels."""

from typing import Any

import numpy as np
import pytest
from nets import Net
from tracedmodel import Traced, trace_model

from emergraph.graphstore.records import EdgeKind, LayerKind, Role


def input_layer(net: Net, output: str, name: str) -> tuple[Any, Traced]:
    net.output(output)
    traced = trace_model(net.model())
    return next((la for la in traced.sink.layers if la.name == name), None), traced


def test_an_image_into_a_convolution_is_its_channels():
    net = Net()
    layer, traced = input_layer(
        net, net.op("Conv", net.input(2, 3, 5, 4, name="x"), net.param(2, 3, 2, 2)), "x"
    )
    assert layer.n_units == 3
    assert (layer.activation_tensor, layer.activation_axes) == ("x", (1,))
    assert traced.sink.columns_of(layer).role is Role.INPUT


def test_an_image_flattened_into_a_dense_layer_is_its_pixels():
    net = Net()
    flat = net.op("Flatten", net.input(2, 3, 5, 4, name="x"))
    layer, _ = input_layer(net, net.op("MatMul", flat, net.param(60, 2)), "x")
    assert layer.n_units == 60
    assert layer.activation_axes == (1, 2, 3)


def test_an_image_in_nhwc_order_is_its_channels():
    net = Net()
    turned = net.op("Transpose", net.input(2, 5, 4, 3, name="x"), perm=[0, 3, 1, 2])
    layer, _ = input_layer(net, net.op("Conv", turned, net.param(2, 3, 2, 2)), "x")
    assert layer.n_units == 3
    assert layer.activation_axes == (3,)


def test_audio_unsqueezed_into_a_one_channel_convolution_is_one_unit():
    net = Net()
    audio = net.op("Unsqueeze", net.input(1, 576, name="x"), net.ints(1))
    layer, traced = input_layer(net, net.op("Conv", audio, net.param(4, 1, 16), strides=[8]), "x")
    assert layer.n_units == 1
    assert traced.sink.count(EdgeKind.WEIGHT) == 4


def test_audio_cut_into_frames_for_a_dense_layer_is_a_frame():
    net = Net()
    frames = net.op("Reshape", net.input(1, 64, name="x"), net.ints(4, 16))
    layer, _ = input_layer(net, net.op("MatMul", frames, net.param(16, 5)), "x")
    assert layer.n_units == 16


def test_tokens_are_their_features():
    net = Net()
    layer, _ = input_layer(net, net.op("MatMul", net.input(2, 7, 6, name="x"), net.param(6, 3)), "x")
    assert layer.n_units == 6
    assert layer.activation_axes == (2,)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_a_sequence_into_a_recurrent_layer_is_its_features(op):
    net = Net()
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    x = net.input(5, 2, 6, name="x")
    y = net.ops(op, 1, x, net.param(1, gates * 3, 6), net.param(1, gates * 3, 3), hidden_size=3)[0]
    assert input_layer(net, y, "x")[0].n_units == 6


def test_initial_states_of_both_directions_are_units_of_their_own():
    net = Net()
    state = net.input(2, 1, 3, name="h0")
    inputs = [net.input(4, 1, 2, name="x"), net.param(2, 9, 2), net.param(2, 9, 3), "", "", state]
    net.output(net.ops("GRU", 1, *inputs, hidden_size=3, direction="bidirectional")[0])
    traced = trace_model(net.model())
    assert traced.sink.layer("h0").n_units == 6
    carried = [
        b
        for b in traced.sink.of_kind(EdgeKind.RECURRENT)
        if b.src.min() >= traced.sink.layer("h0").first_unit
    ]
    assert any(b.src.size for b in carried)


def test_token_ids_are_control_and_every_table_is_one_source():
    net = Net()
    ids = net.input(1, 4, name="ids", dtype=np.int64)
    a, b = (net.op("Gather", net.param(5, 3, name=n), ids, name=f"look_{n}") for n in ("words", "types"))
    layer, traced = input_layer(net, net.op("MatMul", net.op("Add", a, b), net.param(3, 2)), "ids")
    assert layer is None
    sources = [la for la in traced.sink.layers if la.kind is LayerKind.EMBEDDING]
    assert [la.n_units for la in sources] == [1, 1]
    assert all(traced.sink.columns_of(la).role is Role.INPUT for la in sources)
    words = next(b for b in traced.sink.blocks if b.block.tensor == "words")
    assert words.src.size == 3
    assert (words.n_params == 5).all()


def test_an_input_read_by_several_convolutions_has_the_same_channels_for_all():
    net = Net()
    x = net.input(1, 4, 6, 6, name="x")
    first = net.op("Conv", net.op("Gather", x, net.ints(1, 1), axis=1), net.param(2, 2, 1, 1))
    second = net.op("Conv", x, net.param(2, 4, 1, 1))
    layer, _ = input_layer(net, net.op("Add", first, second), "x")
    assert layer.n_units == 4


def test_channels_that_nothing_reads_are_still_channels():
    net = Net()
    x = net.input(1, 4, 6, 6, name="x")
    picked = net.op(
        "Gather", net.op("Slice", x, net.ints(1), net.ints(5), net.ints(2)), net.ints(2, 0), axis=1
    )
    layer, _ = input_layer(net, net.op("Conv", picked, net.param(2, 2, 1, 1)), "x")
    assert layer.n_units == 4


def test_a_padded_and_shuffled_image_keeps_its_channels():
    net = Net()
    padded = net.op("Pad", net.input(1, 2, 4, 4, name="x"), net.ints(0, 0, 1, 1, 0, 0, 1, 1))
    deep = net.op("SpaceToDepth", padded, blocksize=2)
    layer, traced = input_layer(net, net.op("Conv", deep, net.param(3, 8, 1, 1, name="w")), "x")
    assert layer.n_units == 2 * 4
    assert traced.sink.count(EdgeKind.WEIGHT) == 24


def test_a_mean_over_positions_before_a_dense_layer_is_the_features():
    net = Net()
    pooled = net.op("ReduceMean", net.input(1, 5, 3, name="x"), axes=[1], keepdims=0)
    layer, traced = input_layer(net, net.op("MatMul", pooled, net.param(3, 2)), "x")
    assert layer.n_units == 3
    assert traced.sink.count(EdgeKind.IDENTITY) == 0


def test_a_normalised_input_keeps_its_features():
    net = Net()
    x = net.input(1, 5, 3, name="x")
    centred = net.op("Sub", x, net.op("ReduceMean", x, axes=[-1]))
    layer, traced = input_layer(net, net.op("MatMul", centred, net.param(3, 2)), "x")
    assert layer.n_units == 3
    assert traced.sink.count(EdgeKind.NORM)


@pytest.mark.parametrize("cast", [False, True])
def test_a_mask_on_scores_is_one_unit(cast):
    net = Net(seed=3)
    x = net.input(1, 4, 6, name="x")
    mask = net.input(1, 1, 1, 4, name="mask")
    q, k, v = (
        net.op("Transpose", net.op("Reshape", net.dense(x, 6), net.ints(1, 4, 2, 3)), perm=[0, 2, 1, 3])
        for _ in range(3)
    )
    scores = net.op("Add", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2])), mask)
    scores = net.op("Cast", net.op("Identity", scores), to=1) if cast else scores
    net.output(net.op("MatMul", net.op("Softmax", scores, axis=-1), v))
    sink = trace_model(net.model()).sink
    assert sink.layer("mask").n_units == 1
    assert sink.layer("x").n_units == 6


def test_keys_behind_a_cache_are_their_features():
    net = Net(seed=4)
    q, k, past = (net.input(1, n, 4, name=name) for n, name in ((2, "q"), (3, "k"), (5, "past")))
    keys = net.op("Concat", past, k, axis=1)
    net.output(net.op("MatMul", q, net.op("Transpose", keys, perm=[0, 2, 1])))
    sink = trace_model(net.model()).sink
    assert {name: sink.layer(name).n_units for name in ("q", "k", "past")} == {"q": 4, "k": 4, "past": 4}


def test_features_mixed_over_a_graph_of_nodes_are_features():
    net = Net()
    nodes = net.op("MatMul", net.input(5, 5, name="adjacency"), net.input(5, 3, name="x"))
    layer, _ = input_layer(net, net.op("MatMul", nodes, net.param(3, 2)), "x")
    assert layer.n_units == 3


def test_several_inputs_have_layers_of_their_own_and_unused_ones_stay():
    net = Net()
    a, b = net.input(1, 3, name="a"), net.input(1, 2, name="b")
    net.input(1, 7, name="unused")
    net.output(net.op("MatMul", net.op("Concat", a, b, axis=1), net.param(5, 2)), net.op("Relu", b))
    sink = trace_model(net.model()).sink
    assert {n: sink.layer(n).n_units for n in ("a", "b")} == {"a": 3, "b": 2}
    assert not [la for la in sink.layers if la.name == "unused"]
    assert sink.columns_of(sink.layer("b")).role is Role.INPUT


def test_a_scalar_input_is_one_unit():
    net = Net()
    net.output(net.op("Mul", net.dense(net.input(1, 3), 2), net.input(name="gain")))
    sink = trace_model(net.model()).sink
    assert sink.layer("gain").n_units == 1
    assert sink.count(EdgeKind.GATE) == 4


def test_an_input_that_is_an_output_is_traced():
    net = Net()
    net.output(net.op("Identity", net.input(2, 3, name="x")))
    assert trace_model(net.model()).sink.layer("x").n_units == 3


def test_one_hot_bytes_are_as_many_units_as_are_contracted_together():
    net = Net()
    ids = net.input(1, 4, name="bytes")
    hot = net.op(
        "OneHot", net.op("Cast", ids, to=7), net.value(np.asarray(5)), net.value([0.0, 1.0]), axis=-1
    )
    layer, traced = input_layer(net, net.op("MatMul", hot, net.param(5, 3, name="w")), "bytes")
    assert layer.n_units == 1
    assert sum(b.src.size for b in traced.sink.blocks if b.block.tensor == "w") == 15
