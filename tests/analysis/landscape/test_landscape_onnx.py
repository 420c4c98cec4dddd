"""Landscapes of ONNX models through onnxruntime: promotion, dequantization, losses."""

import pickle

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from emergraph.analysis.landscape import reweight
from emergraph.analysis.landscape.engine_ort import OrtEvaluator
from emergraph.analysis.landscape.losses import (
    LossKind,
    OutputKind,
    cross_entropy,
    kl_to_base,
    make_loss,
    mse_to,
    output_kind,
)
from emergraph.analysis.landscape.onnxmodels import given_inputs, probe_inputs
from emergraph.analysis.landscape.options import Norm
from emergraph.analysis.landscape.reweight import find_parameters, reweightable
from emergraph.errors import InvalidInputError, LimitError, UsageError
from emergraph.exporters.runtime.concrete import concrete_run
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.quantization import dequantize
from emergraph.exporters.runtime.sources import InMemorySource

LIMITS = RunLimits(wall_seconds=60, threads=1)
RNG = np.random.default_rng(0)


def model(nodes, inputs, outputs, constants, opset=21, domains=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def floats(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def mlp(last="Softmax"):
    constants = {"w1": floats(6, 4), "b1": floats(6), "w2": floats(6, 3), "b2": floats(3)}
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first", transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["m"], name="second"),
        helper.make_node("Add", ["m", "b2"], ["s"]),
        helper.make_node(last, ["s"], ["y"]),
    ]
    return model(nodes, [("x", TensorProto.FLOAT, ["n", 4])], ["y"], constants)


def promoted(proto, inputs=None, **options):
    source = InMemorySource(proto)
    run = concrete_run(source, inputs=inputs, limits=LIMITS)
    return reweightable(run, source, **options)


def evaluator(proto, batch, loss=LossKind.AUTO, targets=None, **options):
    return OrtEvaluator(promoted(proto, batch, **options), [batch], loss=loss, targets=targets, threads=1)


def run_directly(proto, batch):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, batch)


def with_constants(proto, **values):
    """The naive twin: the model file written anew with other weights."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    for tensor in changed.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return changed


def test_a_model_that_does_not_run_as_a_whole_has_no_landscape():
    nodes = [
        helper.make_node("NoSuch", ["x"], ["h"], name="odd", domain="somewhere"),
        helper.make_node("MatMul", ["h", "w"], ["y"], name="dense"),
    ]
    proto = model(
        nodes, [("x", TensorProto.FLOAT, [1, 3])], ["y"], {"w": floats(4, 2)}, domains=("somewhere",)
    )
    with pytest.raises(InvalidInputError, match="'y' of the model cannot be computed: 'odd': "):
        promoted(proto)


def test_any_weights_give_the_loss_of_a_model_file_with_these_weights():
    proto, batch = mlp(), {"x": floats(20, 4)}
    found = evaluator(proto, batch, LossKind.MSE, vectors=True)
    assert [b.name for b in found.layout.blocks] == ["w1", "b1", "w2", "b2"]
    assert [b.unit_axes for b in found.layout.blocks] == [(0,), (), (1,), ()]
    assert [b.is_vector for b in found.layout.blocks] == [False, True, False, True]
    base = run_directly(proto, batch)[0]
    for _ in range(3):
        theta = (found.base + 0.3 * floats(found.n_params)).astype(np.float32)
        values = {b.name: theta[b.span].reshape(b.shape) for b in found.layout.blocks}
        naive = run_directly(with_constants(proto, **values), batch)[0]
        assert found.loss(theta) == pytest.approx(float(np.mean((naive - base) ** 2)), rel=1e-5)


def test_label_free_loss_is_exactly_zero_at_the_base_and_positive_around_it():
    found = evaluator(mlp(), {"x": floats(20, 4)})
    assert found.loss_name == "kl to the base model's outputs (probabilities)"
    assert found.loss(found.base) == 0.0
    direction = floats(found.n_params)
    assert (found.losses_along(found.base, direction, np.array([-0.1, 0.1])) > 0).all()


def test_kl_is_flat_at_the_base_and_its_hessian_is_positive_semidefinite():
    found = evaluator(mlp(), {"x": floats(50, 4)})
    for _ in range(5):
        plus, zero, minus = found.losses_along(found.base, floats(found.n_params), np.array([0.01, 0, -0.01]))
        assert (plus - minus) / 0.02 == pytest.approx(0, abs=0.05 * (plus + minus) / 0.01**2 * 0.01)
        assert plus + minus - 2 * zero > 0


def test_losses_along_a_line_count_from_the_start_and_do_not_drift():
    found = evaluator(mlp(), {"x": floats(20, 4)})
    direction, steps = floats(found.n_params), np.linspace(-1, 1, 9)
    once = found.losses_along(found.base, direction, steps)
    again = found.losses_along(found.base, direction, steps[::-1])[::-1]
    assert np.array_equal(once, again)
    assert np.array_equal(once, [found.loss(np.float32(s) * direction + found.base) for s in steps])


def test_base_weights_and_user_arrays_are_bit_identical_afterwards_also_after_an_exception():
    proto, x = mlp(), floats(20, 4)
    kept, weights = x.copy(), proto.SerializeToString()
    calls = []

    def breaking(outputs):
        calls.append(outputs)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return 1.0

    found = OrtEvaluator(promoted(proto), [{"x": x}], loss=LossKind.FUNCTION, function=breaking, threads=1)
    before = found.base.tobytes()
    with pytest.raises(KeyboardInterrupt):
        found.losses_along(found.base, floats(found.n_params), np.array([1.0, 2.0, 3.0]))
    assert found.base.tobytes() == before
    assert not found.base.flags.writeable
    assert np.array_equal(x, kept)
    assert proto.SerializeToString() == weights


def test_a_copy_in_another_process_gives_the_same_losses():
    found = evaluator(mlp(), {"x": floats(20, 4)})
    theta = found.base + np.float32(0.1)
    copy = pickle.loads(pickle.dumps(found))
    assert copy.loss(theta) == found.loss(theta)
    assert not copy.base.flags.writeable
    assert found.with_threads(2).loss(theta) == pytest.approx(found.loss(theta), rel=1e-6)


def test_several_batches_count_equally():
    proto = mlp()
    first, second = {"x": floats(5, 4)}, {"x": floats(5, 4)}
    both = OrtEvaluator(promoted(proto), [first, second], threads=1)
    theta = both.base + np.float32(0.2)
    alone = [OrtEvaluator(promoted(proto), [b], threads=1).loss(theta) for b in (first, second)]
    assert both.loss(theta) == pytest.approx(np.mean(alone))


def test_cross_entropy_of_probabilities_and_of_logits_agree():
    x, labels = floats(30, 4), RNG.integers(0, 3, size=30)
    proto = mlp()
    logits = onnx.ModelProto()
    logits.CopyFrom(proto)
    logits.graph.node[-1].op_type = "Identity"
    one = evaluator(proto, {"x": x}, LossKind.CROSS_ENTROPY, labels)
    other = evaluator(logits, {"x": x}, LossKind.CROSS_ENTROPY, labels)
    p = run_directly(proto, {"x": x})[0]
    assert one.loss(one.base) == pytest.approx(-np.mean(np.log(p[np.arange(30), labels])), rel=1e-5)
    assert other.loss(other.base) == pytest.approx(one.loss(one.base), rel=1e-5)


def test_convolutions_recurrences_and_their_filters():
    constants = {
        "k": floats(4, 2, 3),
        "t": floats(4, 5, 2),
        "W": floats(1, 12, 5),
        "R": floats(1, 12, 3),
        "g": floats(6, 3),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], name="conv"),
        helper.make_node("ConvTranspose", ["c", "t"], ["u"], name="up"),
        helper.make_node("Transpose", ["u"], ["s"], perm=[2, 0, 1]),
        helper.make_node("LSTM", ["s", "W", "R"], ["", "h"], name="lstm", hidden_size=3),
        helper.make_node("Transpose", ["g"], ["gt"]),
        helper.make_node("MatMul", ["h", "gt"], ["y"], name="head"),
    ]
    proto = model(nodes, [("x", TensorProto.FLOAT, [2, 2, 9])], ["y"], constants)
    batch = {"x": floats(2, 2, 9)}
    found = evaluator(proto, batch, LossKind.MSE)
    axes = {b.name: b.unit_axes for b in found.layout.blocks}
    assert axes == {"k": (0,), "t": (1,), "W": (0, 1), "R": (0, 1), "g": (0,)}
    base = run_directly(proto, batch)[0]
    theta = found.base + np.float32(0.1) * floats(found.n_params)
    values = {b.name: theta[b.span].reshape(b.shape) for b in found.layout.blocks}
    naive = run_directly(with_constants(proto, **values), batch)[0]
    assert found.loss(theta) == pytest.approx(float(np.mean((naive - base) ** 2)), rel=1e-4)


def test_a_tied_weight_is_one_parameter_and_embeddings_are_left_out_unless_asked():
    table = floats(7, 4)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="embed"),
        helper.make_node("Transpose", ["table"], ["head"]),
        helper.make_node("MatMul", ["e", "head"], ["y"], name="logits"),
        helper.make_node("Gather", ["other", "ids"], ["o"]),
        helper.make_node("ReduceSum", ["o"], ["z"]),
    ]
    proto = model(
        nodes, [("ids", TensorProto.INT64, ["n"])], ["y", "z"], {"table": table, "other": floats(9, 2)}
    )
    batch = {"ids": np.arange(5)}
    tied = promoted(proto, batch)
    assert [b.name for b in tied.layout.blocks] == ["table"]
    assert tied.layout.blocks[0].unit_axes == (0,)
    assert any("1 embedding tables (18 parameters)" in note for note in tied.notes)
    assert {b.name for b in promoted(proto, batch, embeddings=True).layout.blocks} == {"table", "other"}


def test_half_precision_weights_are_perturbed_in_single_precision():
    constants = {"w": floats(4, 3).astype(np.float16)}
    nodes = [
        helper.make_node("Cast", ["x"], ["x16"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["x16", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
    ]
    proto = model(nodes, [("x", TensorProto.FLOAT, ["n", 4])], ["y"], constants)
    found = evaluator(proto, {"x": floats(6, 4)}, LossKind.MSE)
    assert np.array_equal(found.base.astype(np.float16).reshape(4, 3), constants["w"])
    assert found.loss(found.base) == 0.0
    assert found.loss(found.base + np.float32(0.5)) > 0


def quantized(values, axis=None):
    """Symmetric int8 values with scale and zero point, per tensor or per channel."""
    largest = np.abs(values).max() if axis is None else np.abs(values).max(axis=1 - axis)
    scale = (largest / 127).astype(np.float32)
    shaped = scale if axis is None else (scale[:, None] if axis == 0 else scale[None])
    return np.rint(values / shaped).astype(np.int8), scale


def qdq():
    q, scale = quantized(floats(5, 4), axis=0)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=0),
        helper.make_node("Gemm", ["x", "w"], ["y"], name="dense", transB=1),
    ]
    constants = {"q": q, "scale": scale, "zero": np.zeros(5, np.int8)}
    return model(nodes, [("x", TensorProto.FLOAT, ["n", 4])], ["y"], constants)


def weight_only():
    q, scale = quantized(floats(4, 5), axis=1)
    nodes = [
        helper.make_node("Cast", ["q"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="dense"),
    ]
    return model(nodes, [("x", TensorProto.FLOAT, ["n", 4])], ["y"], {"q": q, "scale": scale})


def integer_matmul():
    q, scale = quantized(floats(4, 5))
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("MatMulInteger", ["xq", "q", "xz", "zero"], ["i"], name="dense"),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["xs", "scale"], ["s"]),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    constants = {"q": q, "scale": scale, "zero": np.array(3, np.int8)}
    return model(nodes, [("x", TensorProto.FLOAT, ["n", 4])], ["y"], constants)


def integer_conv():
    q, scale = quantized(floats(3, 2 * 3))
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("ConvInteger", ["xq", "q", "xz"], ["i"], name="conv"),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["xs", "scale"], ["s"]),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    constants = {"q": q.reshape(3, 2, 3).view(np.uint8) // 2, "scale": scale}
    return model(nodes, [("x", TensorProto.FLOAT, ["n", 2, 8])], ["y"], constants)


def qlinear(op="QLinearMatMul"):
    conv = op == "QLinearConv"
    q, scale = quantized(floats(4, 4), axis=0 if conv else 1)
    q = q.reshape(4, 2, 2) if conv else q
    constants = {
        "q": q,
        "ws": scale,
        "wz": np.zeros(4, np.int8),
        "xs": np.float32(0.05),
        "xz": np.uint8(128),
        "ys": np.float32(0.1),
        "yz": np.uint8(128),
    }
    names = ["xq", "xs", "xz", "q", "ws", "wz", "ys", "yz"]
    if conv:
        constants["bias"] = np.array([1, -20, 300, 0], np.int32)
        names.append("bias")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node(op, names, ["yq"], name="q"),
        helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    shape = ["n", 2, 6] if conv else ["n", 4]
    return model(nodes, [("x", TensorProto.FLOAT, shape)], ["y"], constants)


def quantized_lstm():
    w, w_scale = quantized(floats(5, 12))
    r, r_scale = quantized(floats(3, 12))
    constants = {
        "W": w[None],
        "R": r[None],
        "b": floats(1, 24),
        "ws": w_scale[None],
        "wz": np.zeros(1, np.int8),
        "rs": r_scale[None],
        "rz": np.zeros(1, np.int8),
    }
    nodes = [
        helper.make_node(
            "DynamicQuantizeLSTM",
            ["x", "W", "R", "b", "", "", "", "", "ws", "wz", "rs", "rz"],
            ["", "y"],
            name="lstm",
            domain="com.microsoft",
            hidden_size=3,
        )
    ]
    return model(nodes, [("x", TensorProto.FLOAT, [4, "n", 5])], ["y"], constants, domains=["com.microsoft"])


@pytest.mark.parametrize(
    ("build", "shape", "n_params", "exact"),
    [
        (qdq, (6, 4), 20, 1e-6),
        (weight_only, (6, 4), 20, 1e-6),
        (integer_matmul, (6, 4), 20, 1e-5),
        (integer_conv, (2, 2, 8), 18, 1e-5),
        (qlinear, (6, 4), 16, 0.11),
        (lambda: qlinear("QLinearConv"), (3, 2, 6), 16, 0.11),
        (quantized_lstm, (4, 2, 5), 96, 0.05),
    ],
    ids=["qdq", "cast-mul", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "QLSTM"],
)
def test_dequantized_models_compute_what_the_quantized_ones_do(build, shape, n_params, exact):
    """`exact`: rounding for exact rewritings, one quantization step of the activations for the others."""
    proto, batch = build(), {"x": floats(*shape)}
    expected = run_directly(proto, batch)[-1]
    found = evaluator(proto, batch, LossKind.MSE)
    assert found.n_params == n_params
    assert found.outputs(found.base)[0][0] == pytest.approx(expected, abs=exact)
    assert found.loss(found.base) == 0.0
    assert found.loss(found.base * np.float32(1.5)) > 0
    assert found.notes


def test_blocked_and_per_axis_dequantization():
    q = np.arange(-6, 6, dtype=np.int8).reshape(2, 6)
    scale = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    blocked = dequantize(q, scale, np.ones((2, 2), np.int8), axis=1, block_size=3)
    assert blocked.tolist() == ((q - 1.0) * np.repeat(scale, 3, axis=1)).tolist()
    assert dequantize(q, scale[:, 0], None, axis=0).tolist() == (q * scale[:, :1]).tolist()


@pytest.mark.parametrize("per_column", [False, True])
def test_codes_of_both_directions_of_a_recurrent_operation(per_column):
    q = np.arange(-12, 12, dtype=np.int8).reshape(2, 3, 4)
    scale = (
        np.arange(1, 9, dtype=np.float32).reshape(2, 4) if per_column else np.array([1.0, 2.0], np.float32)
    )
    zero = (scale - 2).astype(np.int8)
    scales, zeros = (n.reshape(2, 1, -1).astype(np.float32) for n in (scale, zero))
    assert dequantize(q, scale, zero, axis=0).tolist() == ((q - zeros) * scales).tolist()


@pytest.mark.parametrize(
    ("position", "turned", "axes"), [(1, 0, (1,)), (1, 1, (0,)), (0, 0, (0,)), (0, 1, (1,))]
)
@pytest.mark.parametrize(
    ("op", "domain"), [("Gemm", ""), ("FusedMatMul", "com.microsoft"), ("FusedGemm", "com.microsoft")]
)
def test_filters_are_the_axis_that_is_not_contracted(op, domain, position, turned, axes):
    inputs = ["x", "w"] if position else ["w", "x"]
    node = helper.make_node(op, inputs, ["y"], domain=domain, **{"transB" if position else "transA": turned})
    weight = numpy_helper.from_array(np.ones((3, 4), np.float32), "w")
    (found,) = find_parameters([node], {"w": weight}, vectors=False)
    assert (found.unit_axes, found.is_vector) == (axes, False)


def test_weights_put_together_from_slices_are_one_tensor():
    parts = floats(12, 5)
    nodes = [
        helper.make_node("Slice", ["w", "s0", "s6"], ["a"]),
        helper.make_node("Slice", ["w", "s6", "s12"], ["b"]),
        helper.make_node("Concat", ["b", "a"], ["c"], axis=0),
        helper.make_node("Unsqueeze", ["c", "s0"], ["W"]),
        helper.make_node("LSTM", ["x", "W", "R"], ["", "y"], name="lstm", hidden_size=3),
    ]
    constants = {"w": parts, "R": floats(1, 12, 3)}
    constants |= {f"s{i}": np.array([i]) for i in (0, 6, 12)}
    proto = model(nodes, [("x", TensorProto.FLOAT, [2, "n", 5])], ["y"], constants)
    batch = {"x": floats(2, 3, 5)}
    found = evaluator(proto, batch, LossKind.MSE)
    assert [b.shape for b in found.layout.blocks] == [(1, 12, 5), (1, 12, 3)]
    assert found.outputs(found.base)[0][0] == pytest.approx(run_directly(proto, batch)[0], abs=1e-6)


def test_carried_states_are_not_compared_unless_asked():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "state"], ["next"]),
        helper.make_node("ReduceMean", ["next"], ["out"]),
    ]
    proto = model(
        nodes,
        [("x", TensorProto.FLOAT, [2, 4]), ("state", TensorProto.FLOAT, [2, 3])],
        ["out", "next"],
        {"w": floats(4, 3)},
    )
    assert promoted(proto).output_names == ("out",)
    assert promoted(proto, outputs=["next"]).output_names == ("next",)
    with pytest.raises(UsageError, match="'nope'"):
        promoted(proto, outputs=["nope"])


def test_only_sigmoid_outputs_count_as_bernoulli_probabilities():
    x = {"x": floats(8, 4)}
    assert "bernoulli" in evaluator(mlp("Sigmoid"), x).loss_name
    assert evaluator(mlp("HardSigmoid"), x).loss_name == "mse to the base model's outputs"


def test_models_without_weights_and_broken_weights_are_refused():
    proto = model([helper.make_node("Relu", ["x"], ["y"])], [("x", TensorProto.FLOAT, [2, 2])], ["y"], {})
    with pytest.raises(InvalidInputError, match="no weights to perturb"):
        promoted(proto)
    broken = with_constants(mlp(), w1=np.full((6, 4), np.nan, np.float32))
    with pytest.raises(InvalidInputError, match="24 weights of w1 are NaN"):
        promoted(broken)


def test_probe_inputs_fill_a_dynamic_batch_and_repeat():
    source = InMemorySource(mlp())
    one, two = (probe_inputs(source, n=12, seed=3, limits=LIMITS) for _ in range(2))
    assert len(one.batches) == 1
    assert one.batches[0]["x"].shape == (12, 4)
    assert np.array_equal(one.batches[0]["x"], two.batches[0]["x"])
    assert len(np.unique(one.batches[0]["x"], axis=0)) == 12


def test_probe_inputs_of_a_fixed_batch_are_several_batches():
    proto = mlp()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5
    found = probe_inputs(InMemorySource(proto), n=12, seed=3, limits=LIMITS)
    assert [b["x"].shape for b in found.batches] == [(5, 4)] * 3
    assert found.n == 15
    assert not np.array_equal(found.batches[0]["x"], found.batches[1]["x"])


def test_given_inputs_are_used_as_they_are():
    x = floats(7, 4)
    found = given_inputs(InMemorySource(mlp()), {"x": x}, limits=LIMITS)
    assert np.array_equal(found.batches[0]["x"], x)
    assert (found.n, found.seed) == (7, None)


def test_wrong_inputs_are_refused():
    with pytest.raises(UsageError, match=r"expected \['x'\]"):
        OrtEvaluator(promoted(mlp()), [{"z": floats(2, 4)}])
    with pytest.raises(InvalidInputError, match="running the model"):
        OrtEvaluator(promoted(mlp()), [{"x": floats(2, 5)}])


def test_directions_of_a_promoted_model_keep_filter_norms():
    from emergraph.analysis.landscape.directions import random_directions

    found = promoted(mlp())
    d = random_directions(found.base, found.layout, n=1, seed=0, norm=Norm.FILTER).vectors[0]
    w2 = found.layout.blocks[1]
    columns = d[w2.span].reshape(6, 3)
    assert np.linalg.norm(columns, axis=0) == pytest.approx(
        np.linalg.norm(found.base[w2.span].reshape(6, 3), axis=0)
    )


def test_output_kinds():
    assert output_kind(np.array([[0.2, 0.8]])) is OutputKind.PROBABILITIES
    assert output_kind(np.array([[0.2], [0.9]])) is OutputKind.SCORES
    assert output_kind(np.array([[0.2], [0.9]]), sigmoid=True) is OutputKind.BERNOULLI
    assert output_kind(np.array([[0.2, -0.8]]), sigmoid=True) is OutputKind.SCORES


def test_losses_against_their_formulas():
    p0, p1 = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[0.25, 0.75], [0.9, 0.1]])
    expected = np.mean(np.sum(p0 * np.log(p0 / p1), axis=1))
    kind = OutputKind.PROBABILITIES
    assert kl_to_base([p0], [kind])([p1]) == pytest.approx(expected)
    assert kl_to_base([np.log(p0) + 5], [OutputKind.SCORES])([np.log(p1) - 3]) == pytest.approx(expected)
    bits0, bits1 = p0[:, 1:], p1[:, 1:]
    assert kl_to_base([bits0], [OutputKind.BERNOULLI])([bits1]) == pytest.approx(expected)
    assert mse_to([p0, np.array([7])])([p1, np.array([9])]) == pytest.approx(np.mean((p0 - p1) ** 2))
    assert cross_entropy(np.array([0, 1]), kind)([p0]) == pytest.approx(-np.mean(np.log([0.5, 0.1])))


def test_losses_that_do_not_fit_are_refused():
    scores = [np.ones((2, 1))]
    with pytest.raises(UsageError, match="no classes"):
        make_loss(LossKind.KL, scores)
    with pytest.raises(UsageError, match="needs labels"):
        make_loss(LossKind.CROSS_ENTROPY, scores)
    with pytest.raises(UsageError, match="drop the targets"):
        make_loss(LossKind.KL, scores, targets=np.ones(2))
    with pytest.raises(UsageError, match="function"):
        make_loss(LossKind.FUNCTION, scores)
    with pytest.raises(UsageError, match="floating-point"):
        make_loss(LossKind.AUTO, [np.ones(3, np.int64)])
    with pytest.raises(UsageError, match="expected shape"):
        cross_entropy(np.array([0]), OutputKind.SCORES)([np.zeros((2, 3))])


@pytest.mark.parametrize("beyond", [0, 1])
def test_constants_that_are_not_perturbed_have_room_in_one_message(monkeypatch, beyond):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "c"], ["y"]),
    ]
    constants = {"w": floats(4, 3), "c": floats(3)}
    proto = model(nodes, [("x", TensorProto.FLOAT, ["n", 4])], ["y"], constants)
    sizes = []
    whole = reweight._self_contained
    monkeypatch.setattr(reweight, "_self_contained", lambda a: sizes.append(_size(a)) or whole(a))
    promoted(proto)
    monkeypatch.setattr(reweight, "MAX_MODEL_BYTES", sizes[0] - beyond)
    if not beyond:
        promoted(proto)
    else:
        with pytest.raises(LimitError, match=f"expected at most {sizes[0] - 1} bytes"):
            promoted(proto)


def _size(assembly):
    return len(assembly.model) + sum(memoryview(w.tensor.raw).nbytes for w in assembly.weights)
