"""One unit per index of a weight's output axes, whatever position carries it."""

import numpy as np
import pytest
from edgesink import reach
from nets import Net
from pathtruth import influence
from tokennets import WIDTH, block, finish, linear, tokens
from tracedmodel import trace_model

from emergraph.graphstore.records import PATH_KINDS, EdgeKind, LayerKind


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
