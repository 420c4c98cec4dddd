"""Models in double precision whose operations onnxruntime has no float64 kernels for run as float32."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from emergraph.exporters.runtime.assembly import INLINE_BYTES, assemble
from emergraph.exporters.runtime.concrete import concrete_run
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.refusals import ModelRefusedError
from emergraph.exporters.runtime.singles import narrowed
from emergraph.exporters.runtime.sources import InMemorySource

LIMITS = RunLimits(wall_seconds=60, threads=1)
RNG = np.random.default_rng(0)


def model(nodes, shape, initializers, dtype=np.float64):
    """A model whose input x and weights are of one type."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node(op, ins, outs, name=outs[0], **attributes) for op, ins, outs, attributes in nodes],
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [onnx.ValueInfoProto(name=nodes[-1][2][0])],
        [
            numpy_helper.from_array(a if a.dtype.kind == "i" else a.astype(dtype), n)
            for n, a in initializers.items()
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return InMemorySource(onnx.ModelProto.FromString(made.SerializeToString()))


def convolution(dtype=np.float64, channels=4):
    """A convolution and a dense layer."""
    weights = {"A": RNG.standard_normal((channels, 3, 3, 3)), "B": RNG.standard_normal((channels, 2))}
    nodes = [
        ("Conv", ["x", "A"], ["c"], {}),
        ("GlobalAveragePool", ["c"], ["p"], {}),
        ("Flatten", ["p"], ["f"], {}),
        ("MatMul", ["f", "B"], ["y"], {}),
    ]
    return model(nodes, [1, 3, 5, 5], weights, dtype)


RECURRENT = [("LSTM", ["x", "W", "R"], ["y"], {"hidden_size": 2})]
GELU = [("MatMul", ["x", "A"], ["a"], {}), ("Erf", ["a"], ["y"], {})]
CAST = [("Cast", ["x"], ["d"], {"to": onnx.TensorProto.DOUBLE}), ("Erf", ["d"], ["y"], {})]
LSTM_WEIGHTS = {"W": RNG.standard_normal((1, 8, 3)), "R": RNG.standard_normal((1, 8, 2))}


@pytest.mark.parametrize(
    ("source", "single"),
    [
        (convolution(), True),
        (model(RECURRENT, [4, 1, 3], LSTM_WEIGHTS), True),
        (model(GELU, [1, 3], {"A": RNG.standard_normal((3, 2))}), True),
        (model(CAST, [1, 3], {}, np.float32), True),
        (model(GELU[:1], [1, 3], {"A": RNG.standard_normal((3, 2))}), False),
    ],
    ids=["convolution", "LSTM", "error function", "double by a cast", "a product has a kernel"],
)
def test_every_tensor_is_computed(source, single):
    run = concrete_run(source, limits=LIMITS)
    assert run.in_single is single
    assert not run.not_run
    outputs = [name for node in run.flat.nodes for name in node.output]
    assert all(run.values[name].kind == "tensor" for name in outputs)
    assert run.values[outputs[-1]].dtype == (np.float32 if single else np.float64)


@pytest.mark.parametrize("channels", [4, 5])  # A takes 864 bytes inline, and 1080 beside the model
def test_the_values_are_those_of_float32(channels):
    assert (channels * 27 * 8 > INLINE_BYTES) is (channels == 5)
    x = RNG.standard_normal((1, 3, 5, 5))
    found = {}
    seed = RNG.bit_generator.state
    for dtype in (np.float32, np.float64):
        RNG.bit_generator.state = seed
        source = convolution(dtype, channels)
        flat = flatten(source.model, read_tensor=source.array)
        with ModelProcess(LIMITS) as process:
            process.load(assemble(flat, flat.outputs, source))
            for _ in range(2):
                found[dtype] = process.run({"x": x.astype(dtype)}, list(flat.outputs))["y"].values
    np.testing.assert_array_equal(found[np.float64], found[np.float32])


def test_a_child_that_went_to_float32_stays_there():
    first, second = convolution(), model(GELU[:1], [1, 3], {"A": np.ones((3, 2))})
    with ModelProcess(LIMITS) as process:
        for source, shape in ((first, (1, 3, 5, 5)), (second, (1, 3))):
            flat = flatten(source.model, read_tensor=source.array)
            process.load(assemble(flat, flat.outputs, source))
            results = process.run({"x": np.ones(shape)}, list(flat.outputs))
            assert next(iter(results.values())).values.dtype == np.float32


def test_what_has_no_kernel_in_float32_either_is_refused():
    nodes = [("Conv", ["x", "A"], ["c"], {}), ("BitwiseNot", ["c"], ["y"], {})]
    source = model(nodes, [1, 3, 5, 5], {"A": np.ones((1, 3, 3, 3))})
    flat = flatten(source.model, read_tensor=source.array)
    with ModelProcess(LIMITS) as process, pytest.raises(ModelRefusedError):
        process.load(assemble(flat, flat.outputs, source))


def test_finite_numbers_stay_finite():
    given = np.array([1.5, 1e300, -1.7e308, np.inf, -np.inf, np.nan])
    largest = np.finfo(np.float32).max
    np.testing.assert_array_equal(narrowed(given), [1.5, largest, -largest, np.inf, -np.inf, np.nan])
    assert narrowed(given).dtype == np.float32
