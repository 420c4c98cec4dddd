"""Operations of versions 1 to 6 run as what they meant, and neighbours that cannot run end in no error."""

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnx import helper as oh

from emergraph.exporters.runtime.concrete import concrete_run
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.sources import InMemorySource

LIMITS = RunLimits(wall_seconds=60, threads=1)
RNG = np.random.default_rng(0)
X = RNG.uniform(0.5, 2, (2, 3, 4, 5)).astype(np.float32)
B = RNG.uniform(0.5, 2, (3, 4)).astype(np.float32)
WIDE = B[None, :, :, None]
"""B where axis=1 puts it."""


def old(nodes, x=X, *, opset=6, constants=(), inputs=(), shape=None, outputs=("y",), domains=()):
    """What the nodes make of an input x, and the operations that did not run."""
    protos = [numpy_helper.from_array(np.asarray(values), name) for name, values in dict(constants).items()]
    kind = oh.np_dtype_to_tensor_dtype(x.dtype)
    graph = oh.make_graph(
        nodes,
        "g",
        [oh.make_tensor_value_info("x", kind, shape or x.shape), *inputs],
        [oh.make_empty_tensor_value_info(name) for name in outputs],
        protos,
    )
    imports = [oh.make_opsetid("", opset), *(oh.make_opsetid(domain, 1) for domain in domains)]
    model = oh.make_model(graph, opset_imports=imports, ir_version=3)
    return concrete_run(InMemorySource(model), inputs={"x": x}, limits=LIMITS)


def y_of(nodes, x=X, **options):
    run = old(nodes, x, **options)
    assert not run.not_run
    return run.values["y"].value


ARITHMETIC = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power}
COMPARED = {"Less": np.less, "Greater": np.greater}
LOGIC = {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor}


@pytest.mark.parametrize("opset", [1, 6])
@pytest.mark.parametrize("axis", [1, -3])
def test_a_second_operand_begins_at_axis(axis, opset):
    operations = {**ARITHMETIC, **COMPARED}
    nodes = [oh.make_node(op, ["x", "b"], [op], broadcast=1, axis=axis) for op in operations]
    run = old(nodes, opset=opset, constants={"b": B}, outputs=[*operations])
    for op, function in operations.items():
        np.testing.assert_allclose(run.values[op].value, function(X, WIDE), rtol=1e-5, err_msg=op)


def test_logic_and_equality_begin_at_axis():
    x, b = X > 1, B > 1
    nodes = [oh.make_node(op, ["x", "b"], [op], broadcast=1, axis=1) for op in LOGIC]
    run = old(nodes, x, constants={"b": b}, outputs=[*LOGIC])
    for op, function in LOGIC.items():
        np.testing.assert_array_equal(run.values[op].value, function(x, b[None, :, :, None]), err_msg=op)
    x, b = np.round(X).astype(np.int32), np.round(B).astype(np.int32)
    node = oh.make_node("Equal", ["x", "b"], ["y"], broadcast=1, axis=1)
    np.testing.assert_array_equal(y_of([node], x, constants={"b": b}), x == b[None, :, :, None])


@pytest.mark.parametrize(
    ("b", "settings", "expected"),
    [
        (B[0, 0], {"broadcast": 1}, B[0, 0]),
        (B[:1, 0], {"broadcast": 1, "axis": 1}, B[0, 0]),
        (RNG.uniform(1, 2, (4, 5)).astype(np.float32), {"broadcast": 1}, None),
        (RNG.uniform(1, 2, (4, 5)).astype(np.float32), {"broadcast": 1, "axis": 2}, None),
        (X, {}, None),
    ],
)
def test_other_ways_to_align(b, settings, expected):
    node = oh.make_node("Add", ["x", "b"], ["y"], **settings)
    np.testing.assert_allclose(
        y_of([node], constants={"b": b}), X + (b if expected is None else expected), rtol=1e-6
    )


def test_ranks_that_nobody_declares_are_found_in_the_run():
    # Behind an operation that only onnxruntime has, no rank is inferred.
    nodes = [
        oh.make_node("Gelu", ["x"], ["g"], domain="com.microsoft"),
        oh.make_node("Gelu", ["v"], ["h"], domain="com.microsoft"),
        oh.make_node("Add", ["g", "b"], ["k"], broadcast=1, axis=1),
        oh.make_node("Sub", ["k", "h"], ["y"], broadcast=1, axis=-3),
    ]
    run = old(nodes, constants={"b": B, "v": B}, domains=("com.microsoft",))
    assert not run.not_run
    g, h, y = (run.values[name].value for name in "ghy")
    np.testing.assert_allclose(y, g + WIDE - h[None, :, :, None], rtol=1e-6)


def test_one_slope_per_channel():
    slope = np.asarray([0.5, 2, -1], np.float32)
    node = oh.make_node("PRelu", ["x", "s"], ["y"])
    expected = np.where(X > 1, X - 1, (X - 1) * slope[None, :, None, None])
    got = y_of([node], X - 1, constants={"s": slope})
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    got = y_of([node], X - 1, constants={"s": slope[:1]})
    np.testing.assert_allclose(got, np.where(X > 1, X - 1, (X - 1) * 0.5), rtol=1e-6)


def test_normalisation_says_which_statistics_count():
    s, o, m, v = RNG.uniform(0.5, 2, (4, 3)).astype(np.float32)
    constants = {"s": s, "o": o, "m": m, "v": v}

    def per_channel(a):
        return a[None, :, None, None]

    def normalised(mean, variance):
        scaled = (X - per_channel(mean)) / np.sqrt(per_channel(variance) + 1e-5)
        return scaled * per_channel(s) + per_channel(o)

    stored = normalised(m, v)
    batch = normalised(X.mean((0, 2, 3)), X.var((0, 2, 3)))
    for settings, expected in (({"is_test": 1}, stored), ({"is_test": 0}, batch), ({}, stored)):
        node = oh.make_node(
            "BatchNormalization",
            ["x", *"somv"],
            ["y"],
            spatial=1,
            consumed_inputs=[0, 0, 0, 1, 1],
            **settings,
        )
        np.testing.assert_allclose(
            y_of([node], opset=1, constants=constants), expected, rtol=1e-4, atol=1e-4, err_msg=str(settings)
        )


@pytest.mark.parametrize(
    ("op", "opset", "settings", "constants", "expected"),
    [
        ("Reshape", 4, {"shape": [2, 0, -1]}, {}, X.reshape(2, 3, 20)),
        ("Pad", 1, {"paddings": [0, 0, 1, 0, 0, 0, 0, 2]}, {}, np.pad(X, [(0, 0)] * 2 + [(1, 0), (0, 2)])),
        ("Slice", 1, {"axes": [1], "starts": [1], "ends": [3]}, {}, X[:, 1:3]),
        ("Cast", 5, {"to": "INT32"}, {}, X.astype(np.int32)),
        (
            "Tile",
            5,
            {},
            {"t": np.asarray(3, np.float32), "a": np.asarray(1, np.float32)},
            np.tile(X, (1, 3, 1, 1)),
        ),
        ("Upsample", 1, {"height_scale": 2.0, "width_scale": 3.0}, {}, X.repeat(2, 2).repeat(3, 3)),
        ("Softmax", 1, {}, {}, np.exp(X) / np.exp(X).sum((1, 2, 3), keepdims=True)),
        ("Dropout", 1, {"is_test": 0, "ratio": 0.9}, {}, X),
        ("Dropout", 6, {"is_test": 1}, {}, X),
        ("Relu", 1, {"consumed_inputs": [1]}, {}, X),
        ("Selu", 1, {}, {}, np.float32(1.0507) * X),
        ("Squeeze", 1, {"axes": [0]}, {}, X[0]),
        ("GlobalLpPool", 1, {"p": 1.0}, {}, X.sum((2, 3), keepdims=True)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_changed_their_form(op, opset, settings, constants, expected):
    x = X[:1] if op == "Squeeze" else X
    node = oh.make_node(op, ["x", *constants], ["y"], **settings)
    np.testing.assert_allclose(y_of([node], x, opset=opset, constants=constants), expected, rtol=1e-5)


def test_parts_that_are_joined_along_the_default_axis():
    nodes = [
        oh.make_node("Split", ["x", "sizes"], ["a", "b"], axis=1),
        oh.make_node("Concat", ["b", "a"], ["y"]),
    ]
    got = y_of(nodes, opset=1, constants={"sizes": np.asarray([1, 2], np.float32)})
    np.testing.assert_array_equal(got, X[:, [1, 2, 0]])


@pytest.mark.parametrize("c", [B[:, :1].T, B[:1, :1], B[:1, :3]], ids=["row", "one", "another row"])
def test_a_product_whose_bias_is_broadcast(c):
    a, b = RNG.standard_normal((2, 4)).astype(np.float32), RNG.standard_normal((4, 3)).astype(np.float32)
    node = oh.make_node("Gemm", ["x", "b", "c"], ["y"], broadcast=1)
    np.testing.assert_allclose(y_of([node], a, constants={"b": b, "c": c}), a @ b + c, rtol=1e-4, atol=1e-5)


def test_a_recurrence_without_the_old_attribute():
    w, r = (RNG.standard_normal((1, 12, n)).astype(np.float32) for n in (5, 4))
    node = oh.make_node("GRU", ["x", "w", "r"], ["y"], hidden_size=4, output_sequence=1)
    constants = {"w": w, "r": r}
    assert y_of([node], X[:, 0], opset=6, constants=constants).shape == (2, 1, 4, 4)


def test_a_loop_body_of_an_old_version():
    body = oh.make_graph(
        [
            oh.make_node("Add", ["state", "b"], ["more"], broadcast=1, axis=1),
            oh.make_node("Mul", ["more", "b"], ["next"], broadcast=1, axis=1),
            oh.make_node("Identity", ["go"], ["going"]),
        ],
        "body",
        [
            oh.make_tensor_value_info("i", TensorProto.INT64, []),
            oh.make_tensor_value_info("go", TensorProto.BOOL, []),
            oh.make_tensor_value_info("state", TensorProto.FLOAT, X.shape),
        ],
        [
            oh.make_tensor_value_info("going", TensorProto.BOOL, []),
            oh.make_tensor_value_info("next", TensorProto.FLOAT, X.shape),
        ],
    )
    node = oh.make_node("Loop", ["n", "yes", "x"], ["y"], body=body)
    constants = {"b": B, "n": np.asarray(2, np.int64), "yes": np.asarray(True)}
    expected = ((X + WIDE) * WIDE + WIDE) * WIDE
    np.testing.assert_allclose(y_of([node], constants=constants), expected, rtol=1e-5)


def test_version_7_is_taken_as_it_is():
    node = oh.make_node("Add", ["x", "b"], ["y"])
    run = old([node], opset=7, constants={"b": B[:, :, None]})
    assert [one.op_type for one in run.flat.nodes] == ["Add"]
    assert run.flat.opsets[""] == 7
    assert old([node], opset=6, constants={"b": X}).flat.opsets[""] == 7


def unknown(source, target, **settings):
    return oh.make_node("Unknown", [source], [target], domain="elsewhere", **settings)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("at", ["start", "middle", "end"])
def test_neighbours_that_cannot_run(n, at):
    chain = [unknown(f"u{k}", f"u{k + 1}") for k in range(n)]
    before = [oh.make_node("MatMul", ["x", "w"], ["u0"])]
    after = [oh.make_node("MatMul", [f"u{n}", "w"], ["y"])]
    if at == "start":
        before = [oh.make_node("Identity", ["x"], ["u0"])]
        chain[0].input[0] = "x"
    outputs = [f"u{n}"] if at == "end" else ["y", f"u{n}"]
    nodes = [*before, *chain, *([] if at == "end" else after)]
    run = old(nodes, outputs=outputs, domains=("elsewhere",), constants={"w": np.eye(5, dtype=np.float32)})
    assert len(run.not_run) == n
    assert [run.values[f"u{k}"].shape for k in range(n + 1)] == [X.shape] * (n + 1)
    assert run.values[f"u{n}"].kind == "assumed"
    if at != "end":
        assert run.values["y"].kind == "tensor"


def test_a_standard_operation_between_two_that_cannot_run():
    nodes = [
        oh.make_node("MatMul", ["x", "w"], ["m"]),
        unknown("m", "u"),
        oh.make_node("Transpose", ["u"], ["t"], perm=[0, 1, 3, 2]),
        unknown("t", "v"),
        oh.make_node("Add", ["v", "v"], ["y"]),
    ]
    run = old(nodes, opset=17, domains=("elsewhere",), constants={"w": np.eye(5, dtype=np.float32)})
    assert len(run.not_run) == 2
    assert run.values["y"].shape == (2, 3, 5, 4)


@pytest.mark.parametrize("inside", [1, 2])
def test_a_branch_with_neighbours_that_cannot_run(inside):
    def branch(name):
        nodes = [unknown("x" if k == 0 else f"{name}{k}", f"{name}{k + 1}") for k in range(inside)]
        return oh.make_graph(
            nodes, name, [], [oh.make_tensor_value_info(f"{name}{inside}", TensorProto.FLOAT, X.shape)]
        )

    nodes = [
        oh.make_node("If", ["c"], ["u"], then_branch=branch("a"), else_branch=branch("b")),
        unknown("u", "y"),
    ]
    flag = oh.make_tensor_value_info("c", TensorProto.BOOL, [])
    run = old(nodes, opset=17, domains=("elsewhere",), inputs=[flag])
    assert len(run.not_run) == inside + 1
    assert run.values["y"].shape == X.shape


def test_a_loop_whose_body_cannot_run_has_the_types_that_it_declares():
    body = oh.make_graph(
        [unknown("state", "next"), oh.make_node("Identity", ["go"], ["going"])],
        "body",
        [
            oh.make_tensor_value_info("i", TensorProto.INT64, []),
            oh.make_tensor_value_info("go", TensorProto.BOOL, []),
            oh.make_tensor_value_info("state", TensorProto.FLOAT, X.shape),
        ],
        [
            oh.make_tensor_value_info("going", TensorProto.BOOL, []),
            oh.make_tensor_value_info("next", TensorProto.FLOAT, X.shape),
        ],
    )
    nodes = [oh.make_node("Loop", ["n", "yes", "x"], ["u"], body=body), unknown("u", "y")]
    constants = {"n": np.asarray(2, np.int64), "yes": np.asarray(True)}
    run = old(nodes, opset=17, domains=("elsewhere",), constants=constants)
    assert run.values["u"].shape == run.values["y"].shape == X.shape
    assert run.values["u"].dtype == np.float32


def test_the_file_keeps_its_own_protos():
    node = oh.make_node("Add", ["x", "b"], ["y"], broadcast=1, axis=1)
    run = old([node], constants={"b": B})
    assert [one.op_type for one in run.flat.nodes] == ["Unsqueeze", "Add"]
    assert {attribute.name for attribute in node.attribute} == {"broadcast", "axis"}
