"""One unit per index of a weight's output axes, whatever position carries it."""

import numpy as np
import pytest
from edgesink import reach
from nets import Net
from pathtruth import assert_path_truth, influence
from tokennets import WIDTH, block, finish, heads, linear, normed, tokens
from tracedmodel import trace_model

from emergraph.graphstore.records import PATH_KINDS, EdgeKind, LayerKind, SplitBy


def _plain(net):
    return tokens(net)


def _class_token(net):
    return net.op("Concat", net.param(1, 1, WIDTH), tokens(net), axis=1)


def _class_token_last(net):
    return net.op("Concat", tokens(net), net.param(1, 1, WIDTH), axis=1)


def _registers(net):
    return net.op("Concat", net.param(1, 2, WIDTH), tokens(net), net.param(1, 3, WIDTH), axis=1)


def _padded_tokens(net):
    return net.op("Pad", tokens(net), net.ints(0, 1, 0, 0, 2, 0))


def _first_position_times_zero(net):
    scale = net.random(4, WIDTH)
    scale[0] = 0
    return net.op("Mul", tokens(net), net.value(scale))


def _every_second_token(net):
    return net.op("Slice", tokens(net, 8), net.ints(0), net.ints(8), net.ints(1), net.ints(2))


def _every_second_through_another_layer(net):
    x = net.input(1, 6, 3, name="x")
    first, second = linear(net, x, WIDTH, "first", 3), linear(net, x, WIDTH, "second", 3)
    even = np.arange(6)[:, None] % 2 == 0
    return net.op("Where", net.value(even), first, second)


def _two_kinds_of_tokens(net):
    return net.op("Concat", tokens(net), tokens(net, 3, name="text"), axis=1)


def _class_token_and_a_time(net):
    time = linear(net, net.input(1, 1, 2, name="time"), WIDTH, "time.in", 2)
    return net.op("Add", _class_token(net), time)


def _class_token_by_scatter(net):
    places = net.value(np.full((1, 1, WIDTH), 2, np.int64))
    return net.op("ScatterElements", tokens(net), places, net.param(1, 1, WIDTH), axis=1)


KINDS = {
    f.__name__.strip("_"): f
    for f in (
        _plain,
        _class_token,
        _class_token_last,
        _registers,
        _padded_tokens,
        _first_position_times_zero,
        _every_second_token,
        _every_second_through_another_layer,
        _two_kinds_of_tokens,
        _class_token_and_a_time,
        _class_token_by_scatter,
    )
}


def assert_units_are_outputs(traced):
    """Every layer that a weight matrix makes has as many units as that has columns, and shows them."""
    checked = 0
    for layer in traced.sink.layers:
        if layer.kind is not LayerKind.DENSE:
            continue
        tensor = next(b.block.tensor for b in traced.sink.blocks if b.block.layer == layer.id)
        assert layer.n_units == traced.sink.tensors[tensor].shape[-1], layer.name
        assert layer.activation_tensor is not None, layer.name
        checked += 1
    assert checked


def assert_no_path_is_missing(traced, draws=2):
    found = influence(traced, draws=draws)
    reached = reach(traced.sink, (*PATH_KINDS, EdgeKind.NORM))
    for unit in found.sources:
        missing = np.flatnonzero(found.observed & found.changed[unit] & ~reached[unit])
        assert missing.size == 0, (unit, missing)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_whatever_stands_at_a_position(kind):
    net = Net()
    traced = trace_model(finish(net, KINDS[kind](net)))
    assert_units_are_outputs(traced)
    assert_no_path_is_missing(traced, draws=1)
    assert not traced.summary.opaque


def _shape_of_the_graph(traced, without=()):
    """Weighted layers with their units, and the pairs of them that a path without another one joins."""
    sink = traced.sink
    shown = [la for la in sink.layers if la.kind is LayerKind.DENSE and la.name not in without]
    graph = sink.digraph(PATH_KINDS)
    owner = {u: la.name for la in shown for u in range(la.first_unit, la.first_unit + la.n_units)}
    pairs = set()
    for layer in shown:
        seen, todo = set(), list(range(layer.first_unit, layer.first_unit + layer.n_units))
        while todo:
            for after in graph.successors(todo.pop()):
                if after not in seen:
                    seen.add(after)
                    if after in owner:
                        pairs.add((layer.name, owner[after]))
                    else:
                        todo.append(after)
    return {la.name: la.n_units for la in shown}, pairs


@pytest.mark.parametrize("kind", ["class_token", "class_token_last", "registers", "padded_tokens"])
def test_tokens_that_carry_nothing_change_no_layer(kind):
    with_token, without = (
        _shape_of_the_graph(trace_model(finish(net, make(net))))
        for net, make in ((Net(), KINDS[kind]), (Net(), _plain))
    )
    assert with_token == without


def _rotation(net, first, length=4, size=WIDTH // 2):
    """x cos + x' sin for positions from `first`; sin 0 = 0."""
    angle = (np.arange(length)[:, None] + first) * np.linspace(0.5, 1.0, size)[None, :]
    cos, sin = (net.value(f(angle).astype(np.float32)) for f in (np.cos, np.sin))

    def turn(x):
        other = net.op("Gather", x, net.value(np.asarray([1, 2, 0], np.int64)), axis=3)
        return net.op("Add", net.op("Mul", x, cos), net.op("Mul", other, sin))

    return turn


def test_rotary_embedding_from_position_zero_is_that_from_one():
    counts = []
    for first in (0, 1):
        net = Net()
        x = block(net, tokens(net), "b0", turn=_rotation(net, first))
        net.output(linear(net, x, 2, "head"))
        traced = trace_model(net.model())
        assert_units_are_outputs(traced)
        assert_no_path_is_missing(traced)
        edges = [(b.block.kind, b.src.tolist(), b.dst.tolist()) for b in traced.sink.blocks]
        counts.append(([(la.name, la.n_units) for la in traced.sink.layers], edges))
    assert counts[0] == counts[1]


def _causal(net, s):
    mask = np.triu(np.ones((4, 4), bool), 1)
    return net.op("Where", net.value(mask), net.value(np.float32(-1e9)), s)


def _windowed(net, s):
    mask = (np.abs(np.subtract.outer(np.arange(4), np.arange(4))) < 2).astype(np.float32)
    return net.op("Mul", s, net.value(mask))


def _relative_bias(net, s):
    return net.op("Add", s, net.param(2, 4, 4))


def _skewed(net, s):
    """Relative positions by padding and reshaping: the diagonals of a second product, with gaps."""
    padded = net.op("Pad", s, net.ints(0, 0, 0, 1, 0, 0, 0, 0))
    skewed = net.op("Reshape", padded, net.ints(1, 2, 5, 4))
    cut = net.op("Slice", skewed, net.ints(1), net.ints(5), net.ints(2))
    return net.op("Add", s, cut)


@pytest.mark.parametrize("scores", [_causal, _windowed, _relative_bias, _skewed])
def test_masks_and_relative_positions(scores):
    net = Net()
    x = block(net, tokens(net), "b0", scores=lambda s: scores(net, s))
    net.output(linear(net, x, 2, "head"))
    traced = trace_model(net.model())
    assert_units_are_outputs(traced)
    assert_no_path_is_missing(traced, draws=1)
    found = [la.n_units for la in traced.sink.layers if la.kind in (LayerKind.SCORE, LayerKind.CONTEXT)]
    assert found == [2, WIDTH]


def test_a_unit_that_is_masked_everywhere_is_dead():
    net = Net()
    x = net.op("Mul", tokens(net), net.value(np.asarray([1, 1, 0, 1, 1, 1], np.float32)))
    net.output(linear(net, net.op("Add", x, linear(net, x, WIDTH, "inner")), 2, "head"))
    traced = trace_model(net.model())
    dead = traced.sink.layer("x.in").first_unit + 2
    assert all(dead not in b.src for b in traced.sink.blocks)
    # Beside a feature that carries nothing, the other operand passes: no junction is made for it.
    joined = next(la for la in traced.sink.layers if la.kind is LayerKind.JUNCTION)
    assert joined.n_units == WIDTH - 1


def test_edges_are_the_union_over_positions():
    net = Net()
    x = _two_kinds_of_tokens(net)
    net.output(net.op("MatMul", x, net.param(WIDTH, 2, name="head"), name="head"))
    traced = trace_model(net.model())
    head = traced.sink.layer("head")
    blocks = traced.sink.into("head")
    sources = {traced.sink.layer(name).first_unit for name in ("x.in", "text.in")}
    assert head.n_units == 2
    assert {int(b.src.min()) for b in blocks} == sources
    weight = traced.sink.tensors["head"]
    values = np.frombuffer(weight.data, np.float32).reshape(weight.shape) if weight.data else None
    for found in blocks:
        assert found.src.size == WIDTH * 2
        assert not found.has_kernels
        if values is not None:
            expected = values[found.src - found.src.min(), found.dst - head.first_unit]
            assert np.array_equal(found.weight, expected)


def test_heads_of_their_own_stay_apart():
    """Heads from layers of their own are features, not positions, though no two units of a layer contend."""
    net = Net()
    x = net.input(1, 4, 3, name="x")
    parts = {
        p: net.op(
            "Concat",
            *(net.op("Unsqueeze", linear(net, x, 2, f"{p}{h}", 3), net.ints(1)) for h in (0, 1)),
            axis=1,
        )
        for p in "qkv"
    }
    scores = net.op("MatMul", parts["q"], net.op("Transpose", parts["k"], perm=[0, 1, 3, 2]))
    net.output(net.op("MatMul", net.op("Softmax", scores, axis=-1), parts["v"]))
    traced = trace_model(net.model())
    found = [la.n_units for la in traced.sink.layers if la.kind in (LayerKind.SCORE, LayerKind.CONTEXT)]
    assert found == [2, 4]


def test_single_features_side_by_side_stay_apart():
    net = Net()
    x = net.input(1, 3, name="x")
    parts = [linear(net, x, 1, f"part{k}", 3) for k in range(3)]
    gate = linear(net, x, 1, "gate", 3)
    net.output(net.op("Mul", net.op("Concat", *parts, axis=1), gate))
    traced = trace_model(net.model())
    assert next(la.n_units for la in traced.sink.layers if la.kind is LayerKind.GATE) == 3


def _mixer(net):
    """Two blocks of a mixer: weights contract over four tokens, then over features."""
    x = tokens(net)
    for k in range(2):
        mixed = net.op("MatMul", net.param(4, 4, name=f"tokens{k}"), normed(net, x), name=f"tokens{k}")
        x = net.op("Add", x, mixed)
        x = net.op("Add", x, linear(net, net.op("Tanh", linear(net, x, 7, f"up{k}")), WIDTH, f"down{k}", 7))
    return x


def test_positions_over_which_weights_contract_are_units():
    net = Net()
    net.output(linear(net, _mixer(net), 2, "head"))
    traced = trace_model(net.model())
    found = {la.name: la for la in traced.sink.layers if la.kind is LayerKind.DENSE}
    assert {name: la.n_units for name, la in found.items()} == {
        "x.in": WIDTH,
        **{f"tokens{k}": 4 * WIDTH for k in range(2)},
        **{f"up{k}": 4 * 7 for k in range(2)},
        **{f"down{k}": 4 * WIDTH for k in range(2)},
        "head": 4 * 2,
    }
    reasons = {name: la.split_by for name, la in found.items()}
    assert reasons == dict.fromkeys(found, SplitBy.WEIGHTS) | {"x.in": None}
    assert traced.summary.split_by == {SplitBy.WEIGHTS: 7}
    (warning,) = traced.summary.warnings
    assert warning == (
        "more units than the weight has outputs, weights contract over positions: "
        "tokens0 (24 for 4), up0 (28 for 7), down0 (24 for 6) and 4 more"
    )
    assert all(la.activation_tensor for la in found.values())
    assert_no_path_is_missing(traced)


def test_tokens_as_channels_of_a_pointwise_convolution():
    net = Net()
    net.output(net.op("Conv", tokens(net), net.param(5, 4, 1), net.param(5), name="mixed"))
    traced = trace_model(net.model())
    layer = next(la for la in traced.sink.layers if la.kind is LayerKind.CONV)
    assert (layer.n_units, layer.split_by) == (5 * WIDTH, SplitBy.WEIGHTS)
    assert layer.activation_tensor == "mixed.out"
    assert_path_truth(traced)


def test_a_box_decoder_is_a_matrix_product():
    """16 bins of each of 4 sides: the convolution has one output, and a unit for each side."""
    net = Net()
    x = net.op("Conv", net.input(1, 3, 2, 2, name="x"), net.param(8, 3, 1, 1), name="bins")
    split = net.op("Reshape", x, net.ints(1, 4, 2, 4))
    bins = net.op("Softmax", net.op("Transpose", split, perm=[0, 2, 1, 3]), axis=1)
    net.output(
        net.op("Conv", bins, net.value(np.arange(1, 3, dtype=np.float32).reshape(1, 2, 1, 1)), name="sides")
    )
    traced = trace_model(net.model())
    layer = [la for la in traced.sink.layers if la.kind is LayerKind.CONV][-1]
    assert (layer.n_units, layer.split_by) == (4, SplitBy.POINTWISE)
    (found,) = [traced.sink.into(layer.name)]
    assert sum(b.src.size for b in found) == 8


def test_dense_units_laid_out_as_positions():
    net = Net()
    x = net.op("Reshape", linear(net, net.input(1, 3, name="x"), 8, "made", 3), net.ints(1, 4, 2))
    net.output(linear(net, x, 5, "each", 2))
    traced = trace_model(net.model())
    layer = traced.sink.layer("each")
    assert (layer.n_units, layer.split_by) == (4 * 5, SplitBy.POINTWISE)
    assert_path_truth(traced)


def test_a_flattened_image():
    """Its pixels are units, as one layer contracts them all; another is used row by row."""
    net = Net()
    x = net.input(1, 12, name="x")
    whole = linear(net, x, 2, "whole", 12)
    rows = linear(net, net.op("Reshape", x, net.ints(1, 4, 3)), 5, "rows", 3)
    net.output(whole, rows)
    traced = trace_model(net.model())
    layer = traced.sink.layer("rows")
    assert (layer.n_units, layer.split_by) == (4 * 5, SplitBy.IMAGE)
    assert traced.sink.layer("whole").split_by is None
    assert_path_truth(traced)


def _unrolled(net, steps):
    """A plain recurrence written out, and its states side by side."""
    x = net.input(1, steps, 3, name="x")
    fed = net.op("MatMul", x, net.param(3, 4, name="in"), name="in")
    again, states = net.param(4, 4, name="again"), []
    for t in range(steps):
        own = net.op("Slice", fed, net.ints(t), net.ints(t + 1), net.ints(1))
        if states:
            own = net.op("Add", own, net.op("MatMul", states[-1], again, name=f"again{t}"))
        states.append(net.op("Tanh", own))
    return net.op("Concat", *states, axis=1)


@pytest.mark.parametrize(("steps", "n_units", "reason"), [(3, 15, SplitBy.STEPS), (2, 5, None)])
def test_unrolled_steps(steps, n_units, reason):
    """Steps are positions of one unit until a weight is used on what it made."""
    net = Net()
    net.output(net.op("MatMul", _unrolled(net, steps), net.param(4, 5, name="out"), name="out"))
    traced = trace_model(net.model())
    assert [la.n_units for la in traced.sink.layers if la.name.startswith("again")] == [4] * (steps - 1)
    layer = traced.sink.layer("out")
    assert (layer.n_units, layer.split_by) == (n_units, reason)
    if reason:
        assert_path_truth(traced)


def test_uses_of_one_weight_side_by_side_are_no_steps():
    net = Net()
    shared = net.param(3, WIDTH, name="shared")
    parts = [net.op("MatMul", net.input(1, 2, 3, name=f"x{k}"), shared, name=f"use{k}") for k in range(3)]
    net.output(
        net.op("MatMul", net.op("Concat", *parts, axis=1), net.param(WIDTH, 5, name="out"), name="out")
    )
    traced = trace_model(net.model())
    assert traced.sink.layer("out").n_units == 5
    assert [traced.sink.layer(n).n_units for n in ("x0", "x1", "x2")] == [3, 3, 3]
    assert_path_truth(traced)


def test_patch_merging_contracts_four_neighbours():
    net = Net()
    x = net.op("Reshape", tokens(net, 16), net.ints(1, 4, 4, WIDTH))
    corners = [
        net.op("Slice", x, net.ints(i, j), net.ints(4, 4), net.ints(1, 2), net.ints(2, 2))
        for i in (0, 1)
        for j in (0, 1)
    ]
    merged = linear(net, net.op("Concat", *corners, axis=3), 2 * WIDTH, "merge", 4 * WIDTH)
    net.output(merged)
    traced = trace_model(net.model())
    layer = traced.sink.layer("merge")
    assert (layer.n_units, layer.split_by) == (2 * WIDTH, None)
    assert [b.n_params.tolist() for b in traced.sink.into("merge")] == [[4] * (WIDTH * 2 * WIDTH)]
    assert_path_truth(traced)


def test_rolled_windows_with_a_mask():
    net = Net()
    x = tokens(net, 8)
    ends = [net.op("Slice", x, net.ints(a), net.ints(b), net.ints(1)) for a, b in ((3, 8), (0, 3))]
    windows = net.op("Reshape", net.op("Concat", *ends, axis=1), net.ints(2, 4, WIDTH))
    mask = np.zeros((2, 1, 4, 4), np.float32)
    mask[1, :, :2, 2:] = 1
    x = block(
        net,
        windows,
        "b0",
        scores=lambda s: net.op("Where", net.value(mask.astype(bool)), net.value(np.float32(-100)), s),
    )
    net.output(linear(net, x, 2, "head"))
    traced = trace_model(net.model())
    assert_units_are_outputs(traced)
    assert_no_path_is_missing(traced)
    assert [la.n_units for la in traced.sink.layers if la.kind in (LayerKind.SCORE, LayerKind.CONTEXT)] == [
        2,
        WIDTH,
    ]


def _learned_queries(net, n):
    """Context of a cross-attention whose queries are parameters: (1, heads, n, features)."""
    x = tokens(net)
    k, v = (heads(net, linear(net, x, WIDTH, f"b.{p}")) for p in "kv")
    scores = net.op(
        "MatMul", net.param(1, 2, n, WIDTH // 2), net.op("Transpose", k, perm=[0, 1, 3, 2]), name="scores"
    )
    return net.op("MatMul", net.op("Softmax", scores, axis=-1), v, name="context")


def test_learned_queries_are_positions_of_the_next_layer():
    net = Net()
    rows = net.op(
        "Reshape", net.op("Transpose", _learned_queries(net, 3), perm=[0, 2, 1, 3]), net.ints(1, 3, WIDTH)
    )
    net.output(linear(net, net.op("Add", linear(net, rows, WIDTH, "o"), net.param(1, 3, WIDTH)), 2, "head"))
    traced = trace_model(net.model())
    found = {la.name: (la.n_units, la.kind, la.split_by) for la in traced.sink.layers}
    assert found["context"] == (3 * WIDTH, LayerKind.CONTEXT, None)
    assert found["o"] == (WIDTH, LayerKind.DENSE, None)
    assert sum(b.src.size for b in traced.sink.into("o")) == 3 * WIDTH * WIDTH
    assert_path_truth(traced)


def test_learned_queries_side_by_side_are_features():
    net = Net()
    flat = net.op("Reshape", _learned_queries(net, 3), net.ints(1, 3 * WIDTH))
    net.output(linear(net, flat, 2, "head", 3 * WIDTH))
    traced = trace_model(net.model())
    assert sum(b.src.size for b in traced.sink.into("head")) == 3 * WIDTH * 2
    assert_path_truth(traced)


def _relative_keys(net, q):
    """Products of queries (1, heads, 4, features) with learned keys of 7 distances, laid out by distance."""
    products = net.op("MatMul", q, net.param(1, 2, WIDTH // 2, 7))
    distance = np.subtract.outer(np.arange(4), np.arange(4)) + 3
    return net.op(
        "GatherElements", products, net.value(np.broadcast_to(distance, (1, 2, 4, 4)).copy()), axis=3
    )


def test_learned_relative_keys():
    net = Net()
    found = []

    def turn(t):
        found.append(t)
        return t

    x = block(
        net, tokens(net), "b0", turn=turn, scores=lambda s: net.op("Add", s, _relative_keys(net, found[0]))
    )
    net.output(linear(net, x, 2, "head"))
    traced = trace_model(net.model())
    by_name = {la.name: la for la in traced.sink.layers if la.kind is LayerKind.DENSE}
    assert [la.n_units for la in by_name.values() if la.split_by] == []
    assert [by_name[n].n_units for n in ("b0.o", "b0.down", "head")] == [WIDTH, WIDTH, 2]
    joined = next(la for la in traced.sink.layers if la.kind is LayerKind.JUNCTION)
    assert joined.n_units == 2
    assert_no_path_is_missing(traced)


def test_gathered_elements_may_cover_a_part_of_the_data():
    net = Net()
    x = tokens(net)
    part = net.op("GatherElements", x, net.value(np.asarray([[[2], [0]]])), axis=2)
    net.output(part)
    traced = trace_model(net.model())
    first = traced.sink.layer("x.in").first_unit
    assert traced.labels[part].ravel().tolist() == [first + 2, first]
    assert not traced.summary.opaque
