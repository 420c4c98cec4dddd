"""Smaller models: outputs equal those of the masked model, whatever is masked; what stays is said."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from clifiles import DEMO
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Net
from onnx import numpy_helper
from randomnets import image_nets, sum_nets, token_nets

import emergraph
from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.analysis.pruning.options import PruningOptions
from emergraph.analysis.pruning.smaller import Shrinker, largest_difference
from emergraph.errors import LimitError, UsageError
from emergraph.exporters.runtime import wholemodel
from emergraph.exporters.runtime.concrete import ConcreteRun, TensorValue, made
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.sources import InMemorySource

CONTRACTIONS = ("Conv", "MatMul", "Gemm", "ConvTranspose")


def session(model):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options)


def feeds_of(model, seed):
    random = np.random.default_rng(seed)
    feeds = {}
    for value in session(model).get_inputs():
        shape = [size if isinstance(size, int) else 2 for size in value.shape]
        if "int" in value.type:
            feeds[value.name] = random.integers(0, 3, shape).astype(
                np.int64 if "64" in value.type else np.int32
            )
        else:
            feeds[value.name] = random.normal(size=shape).astype(np.float32)
    return feeds


def concrete(model, feeds):
    source = InMemorySource(model)
    flat = flatten(model, read_tensor=source.array)
    everything = onnx.ModelProto()
    everything.CopyFrom(model)
    del everything.graph.output[:]
    everything.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made(flat))
    arrays = session(everything).run(None, feeds)
    values = {n: TensorValue(a.shape, a.dtype, a) for n, a in zip(made(flat), arrays, strict=True)}
    values |= {n: TensorValue(a.shape, a.dtype, a) for n, a in feeds.items()}
    return ConcreteRun(flat, values, feeds), source


def with_zeros_in(model, zeroed):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in zeroed:
            values = numpy_helper.to_array(tensor).copy()
            values.reshape(-1)[zeroed[tensor.name]] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return copy


def structured_zeros(model, seed):
    """Whole rows or columns of weights, often with the bias, as removals of units make them."""
    random = np.random.default_rng(seed)
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    zeroed = {}
    for node in model.graph.node:
        name = next((n for n in node.input[1:2] if n in tensors), None)
        if node.op_type not in CONTRACTIONS or name is None or tensors[name].ndim < 2:
            continue
        shape = tensors[name].shape
        mask = np.zeros(shape, dtype=bool)
        for axis in (0, 1):
            if random.random() < 0.6:
                gone = random.random(shape[axis]) < 0.5
                np.moveaxis(mask, axis, 0)[gone] = True
                if node.op_type == "Conv" and axis == 0 and len(node.input) > 2 and random.random() < 0.7:
                    zeroed[node.input[2]] = np.flatnonzero(gone)
        zeroed[name] = np.flatnonzero(mask)
    return zeroed


def shrunk(model, zeroed, seed=0):
    feeds = feeds_of(model, seed)
    run, source = concrete(model, feeds)
    smaller, unneeded = Shrinker(run, source).smaller(zeroed)
    masked = session(with_zeros_in(model, zeroed)).run(None, feeds)
    found = session(smaller).run(None, {n: a for n, a in feeds.items() if n in inputs_of(smaller)})
    assert largest_difference(masked, found) < 1e-5
    return smaller, unneeded


def inputs_of(model):
    return {value.name for value in model.graph.input}


@settings(deadline=None, max_examples=25)
@given(model=st.one_of(image_nets(), token_nets(), sum_nets()), seed=st.integers(0, 999))
def test_outputs_equal_those_of_the_masked_model(model, seed):
    shrunk(model, structured_zeros(model, seed), seed)


def finished(net, out):
    net.output(out)
    return net.model()


def weights_of(model):
    return {t.name: tuple(t.dims) for t in model.graph.initializer}


def zero_units(model, tensor, units, *, axis=0):
    shape = weights_of(model)[tensor]
    mask = np.zeros(shape, dtype=bool)
    np.moveaxis(mask, axis, 0)[units] = True
    return {tensor: np.flatnonzero(mask)}


def total(model):
    return sum(int(np.prod(t.dims)) for t in model.graph.initializer)


def test_depthwise_channels_go_and_leave_their_bias():
    net = Net()
    x = net.input(1, 3, 6, 6)
    wide = net.op("Relu", net.op("Conv", x, net.param(8, 3, 1, 1, name="w1"), net.param(8, name="b1")))
    deep = net.op(
        "Conv", wide, net.param(8, 1, 3, 3, name="w2"), net.param(8, name="b2"), group=8, pads=[1, 1, 1, 1]
    )
    last = net.op("Conv", net.op("Relu", deep), net.param(4, 8, 1, 1, name="w3"), net.param(4, name="b3"))
    model = finished(net, last)
    zeroed = {**zero_units(model, "w1", [0, 3, 5]), **zero_units(model, "b1", [0, 3, 5])}
    smaller, _ = shrunk(model, zeroed)
    shapes = sorted(tuple(t.dims) for t in smaller.graph.initializer if len(t.dims) == 4)
    assert shapes == [(4, 5, 1, 1), (5, 1, 3, 3), (5, 3, 1, 1)]


def test_a_padded_reader_needs_a_channel_that_is_not_zero():
    net = Net()
    x = net.input(1, 3, 6, 6)
    first = net.op("Conv", x, net.param(8, 3, 1, 1, name="w1"), net.param(8, name="b1"))
    model = finished(net, net.op("Conv", first, net.param(4, 8, 3, 3, name="w2"), pads=[1, 1, 1, 1]))
    only_weights = zero_units(model, "w1", [0, 1])
    smaller, unneeded = shrunk(model, only_weights)
    assert total(smaller) == total(model)
    assert "Conv" in unneeded.why(int(unneeded.channels.readers[0].out[0]))
    smaller, _ = shrunk(model, {**only_weights, **zero_units(model, "b1", [0, 1])})
    assert total(smaller) < total(model)


def test_a_residual_sum_keeps_a_channel_until_all_that_feed_it_are_gone():
    net = Net()
    x = net.input(1, 3, 4, 4)
    stem = net.op("Conv", x, net.param(6, 3, 1, 1, name="w1"))
    branch = net.op("Conv", net.op("Relu", stem), net.param(6, 6, 1, 1, name="w2"))
    model = finished(net, net.op("Conv", net.op("Add", stem, branch), net.param(2, 6, 1, 1, name="w3")))
    half = zero_units(model, "w2", [1, 4])
    smaller, unneeded = shrunk(model, half)
    assert total(smaller) == total(model)
    assert unneeded.why(int(unneeded.channels.readers[1].out[1])).startswith("is read by Conv")
    smaller, _ = shrunk(model, {**half, **zero_units(model, "w1", [1, 4])})
    assert total(smaller) == 4 * 3 + 4 * 4 + 2 * 4


@pytest.mark.parametrize("how", ["softmax", "output", "attention", "layernorm"])
def test_what_needs_all_channels_keeps_them(how):
    net = Net(opset=17)
    x = net.input(1, 5, 6)
    h = net.op("MatMul", x, net.param(6, 8, name="w1"))
    if how == "softmax":
        h = net.op("MatMul", net.op("Softmax", h, axis=-1), net.param(8, 2))
    elif how == "attention":
        h = net.op("MatMul", h, net.op("Transpose", h, perm=[0, 2, 1]))
    elif how == "layernorm":
        h = net.op("MatMul", net.op("LayerNormalization", h, net.param(8)), net.param(8, 2))
    model = finished(net, h)
    smaller, unneeded = shrunk(model, zero_units(model, "w1", [0, 1], axis=1))
    assert total(smaller) == total(model)
    assert unneeded.why(int(unneeded.channels.readers[0].out[0])) != "is not needed"


@pytest.mark.parametrize(
    ("op", "settings"),
    [
        *((op, {}) for op in ("Relu", "Sinh", "Shrink", "ThresholdedRelu", "Sign", "Atan", "GlobalLpPool")),
        *((op, {"axes": [2, 3]}) for op in ("ReduceMax", "ReduceProd", "ReduceLogSumExp")),
    ],
)
def test_channels_ride_through_what_handles_each_by_itself(op, settings):
    net = Net(opset=17)
    h = net.op("Conv", net.input(1, 3, 4, 4), net.param(6, 3, 1, 1, name="w1"))
    model = finished(net, net.op("Conv", net.op(op, h, **settings), net.param(2, 6, 1, 1, name="w2")))
    smaller, unneeded = shrunk(model, zero_units(model, "w1", [2]))
    assert not unneeded.groups.fixed[unneeded.groups.label[unneeded.channels.readers[0].out]].any()
    knows_value = op != "ReduceLogSumExp"  # of zeros it makes the logarithm of their number
    assert total(model) - total(smaller) == (5 if knows_value else 0)


@pytest.mark.parametrize("as_type", [True, False])
def test_a_tensor_that_is_read_for_its_type_alone_keeps_no_channel(as_type):
    net = Net(opset=17)
    h = net.op("Conv", net.input(1, 3, 4, 4), net.param(6, 3, 1, 1, name="w1"))
    one = net.value(np.ones((1, 1, 1, 1), np.float32))
    cast = net.op("CastLike", one, h) if as_type else net.op("CastLike", h, one)
    other = h if as_type else one
    out = net.op("Conv", net.op("Mul", other, cast), net.param(2, 6, 1, 1, name="w2"))
    model = finished(net, out)
    smaller, _ = shrunk(model, zero_units(model, "w1", [2]))
    assert total(model) - total(smaller) == 5


def test_flattened_channels_last_take_every_position_with_them():
    net = Net()
    x = net.input(1, 3, 4, 4)
    h = net.op("Relu", net.op("Conv", x, net.param(6, 3, 3, 3, name="w1")))
    flat = net.op("Reshape", net.op("Transpose", h, perm=[0, 2, 3, 1]), net.ints(1, 24))
    model = finished(net, net.op("MatMul", flat, net.param(24, 5, name="w2")))
    smaller, _ = shrunk(model, zero_units(model, "w1", [2]))
    assert sorted(weights_of(smaller).values())[-2:] == [(5, 3, 3, 3), (20, 5)]


@pytest.mark.parametrize("name", ["digits_conv", "digits_dense"])
def test_a_smaller_model_says_what_the_masked_one_says(tmp_path, name):
    graph = emergraph.export(DEMO / f"{name}.onnx", tmp_path / "net.duckdb")
    pixels = {"pixels": np.load(DEMO / "digits.npz")["pixels"][:20]}
    files = ModelFiles(model=DEMO / f"{name}.onnx", inputs=pixels)
    found = {}
    for smaller in (True, False):
        out = tmp_path / f"{smaller}.onnx"
        options = PruningOptions(criterion="l2", levels=(0.5,), scope="layer")
        result = graph.prune(options, files=files, write=out, smaller=smaller)
        found[smaller] = ort.InferenceSession(out).run(None, pixels)
    assert largest_difference(found[False], found[True]) < 1e-6
    assert result.written.report is None
    assert (tmp_path / "True.onnx").stat().st_size < (tmp_path / "False.onnx").stat().st_size


@pytest.mark.parametrize("smaller", [True, False])
def test_models_that_do_not_fit_one_file(tmp_path, monkeypatch, smaller):
    model, out = DEMO / "digits_dense.onnx", tmp_path / "pruned.onnx"
    graph = emergraph.export(model, tmp_path / "net.duckdb")
    files = ModelFiles(model=model, inputs={"pixels": np.load(DEMO / "digits.npz")["pixels"][:5]})

    def write():
        out.unlink(missing_ok=True)
        options = PruningOptions(criterion="l2", levels=(0.5,), scope="layer")
        graph.prune(options, files=files, write=out, smaller=smaller)

    write()
    need = out.stat().st_size
    monkeypatch.setattr(wholemodel, "MAX_BYTES", need)
    write()
    assert out.exists()
    monkeypatch.setattr(wholemodel, "MAX_BYTES", need - 1)
    with pytest.raises(LimitError, match="larger than 2 GiB"):
        write()
    assert not out.exists()


def test_activity_is_measured_again(tmp_path):
    graph = emergraph.export(DEMO / "digits_dense.onnx", tmp_path / "net.duckdb")
    pixels = {"pixels": np.load(DEMO / "digits.npz")["pixels"][:30]}
    graph.trace(pixels, model=DEMO / "digits_dense.onnx")
    files = ModelFiles(model=DEMO / "digits_dense.onnx", inputs=pixels)
    result = graph.prune(PruningOptions(levels=(0.0, 0.6)), files=files)
    frame = result.frame
    assert frame["emergence_active_remeasured"][0] == pytest.approx(frame["emergence_active"][0], rel=1e-9)
    out = tmp_path / "pruned.onnx"
    graph.prune(PruningOptions(levels=(0.6,)), files=files, write=out)
    pruned = emergraph.export(out, tmp_path / "pruned.duckdb")
    pruned.trace(pixels, model=out)
    expected = pruned.emergence(save=False).active.exact
    assert frame["emergence_active_remeasured"][1] == pytest.approx(expected, rel=1e-6)


def test_keeping_needs_something_to_keep(tmp_path):
    graph = emergraph.export(DEMO / "digits_dense.onnx", tmp_path / "net.duckdb")
    files = ModelFiles(model=DEMO / "digits_dense.onnx")
    one = PruningOptions(levels=(0.5,))
    with pytest.raises(UsageError, match="--write"):
        graph.prune(one, files=files, smaller=True)
    with pytest.raises(UsageError, match="needs --model FILE"):
        graph.prune(one, graph="x")
    with pytest.raises(UsageError, match="no such folder"):
        graph.prune(one, files=files, write=tmp_path / "nowhere" / "x.onnx")
    with pytest.raises(UsageError, match="no such folder"):
        graph.prune(one, files=files, write=tmp_path / "nowhere" / "x.onnx", smaller=True)
