"""The child process: messages, limits, crashes."""

import itertools
import os
import signal
import time

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from onnx import helper as oh

from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.runtime import pooling
from emergraph.exporters.runtime.assembly import assemble
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.frames import FrameError, pack, receive
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.pooling import MOMENTS, Codes, SampleAxis, pooled
from emergraph.exporters.runtime.process import ModelProcess, Pooling
from emergraph.exporters.runtime.refusals import ModelRefusedError, one_line
from emergraph.exporters.runtime.singles import widened_bits
from emergraph.exporters.runtime.sources import InMemorySource

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def model_of(nodes, inputs, outputs, initializers=()):
    graph = oh.make_graph(
        nodes,
        "g",
        [oh.make_tensor_value_info(*one) for one in inputs],
        [oh.make_empty_tensor_value_info(name) for name in outputs],
        list(initializers),
    )
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 21)], ir_version=10)


def load(process, model, fetch):
    process.load(assemble(flatten(model), fetch, InMemorySource(model)))


@pytest.fixture
def process():
    with ModelProcess(RunLimits(wall_seconds=60, threads=1)) as started:
        yield started


def endless_loop():
    body = oh.make_graph(
        [oh.make_node("Identity", ["go"], ["go_out"]), oh.make_node("Neg", ["s"], ["s_out"])],
        "body",
        [
            oh.make_tensor_value_info("i", INT64, []),
            oh.make_tensor_value_info("go", BOOL, []),
            oh.make_tensor_value_info("s", FLOAT, None),
        ],
        [oh.make_tensor_value_info("go_out", BOOL, []), oh.make_tensor_value_info("s_out", FLOAT, None)],
    )
    return model_of(
        [oh.make_node("Loop", ["n", "true", "x"], ["y"], body=body)],
        [("x", FLOAT, ["k"])],
        ["y"],
        [oh.make_tensor("n", INT64, [], [10**15]), oh.make_tensor("true", BOOL, [], [True])],
    )


@given(st.lists(st.binary(max_size=50), max_size=5), st.dictionaries(st.text(max_size=5), st.integers()))
def test_messages_survive_the_way(buffers, header):
    header.pop("buffers", None)
    stream = b"".join(bytes(piece) for piece in pack(header, buffers))
    position = 0

    def read(count):
        nonlocal position
        position += count
        return stream[position - count : position]

    found, received = receive(read, 1000)
    assert found == header
    assert [bytes(buffer) for buffer in received] == buffers
    assert position == len(stream)


@pytest.mark.parametrize(
    "stream",
    [
        b"XXXX\x00\x00\x00\x00",
        b"EMG1\xff\xff\xff\xff",
        b"".join(bytes(piece) for piece in pack({}, [b"x" * 1001])),
        b'EMG1\x0f\x00\x00\x00{"buffers":[-1]}'[:8] + b'{"buffers":[-1]}'[:15],
    ],
)
def test_foreign_messages_are_refused(stream):
    position = 0

    def read(count):
        nonlocal position
        position += count
        return stream[position - count : position]

    with pytest.raises((FrameError, ValueError)):
        receive(read, 1000)


def test_intermediate_values_come_back(process):
    model = model_of(
        [oh.make_node("Neg", ["x"], ["t"]), oh.make_node("MatMul", ["t", "w"], ["y"])],
        [("x", FLOAT, ["n", 40])],
        ["y"],
        [numpy_helper.from_array(np.eye(40, dtype=np.float32) * 2, "w")],
    )
    load(process, model, ["t", "y"])
    x = np.arange(80, dtype=np.float32).reshape(2, 40)
    found = process.run({"x": x}, ["t", "y"])
    np.testing.assert_array_equal(found["t"].values, -x)
    np.testing.assert_array_equal(found["y"].values, -2 * x)
    wide = np.ones((2000, 40), np.float32)
    again = process.run({"x": wide}, ["y"])
    assert again["y"].shape == (2000, 40)
    assert again["y"].values is None, "large float tensors stay in the child"


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
def test_every_type_and_shape_survives(process, shape, dtype):
    from emergraph.exporters.onnxfile.dtypes import element_type_of

    element_type = element_type_of(np.dtype(dtype))
    model = model_of([oh.make_node("Identity", ["x"], ["y"])], [("x", element_type, list(shape))], ["y"])
    load(process, model, ["y"])
    x = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    found = process.run({"x": x}, ["y"])["y"]
    assert found.values.dtype == x.dtype
    assert found.shape == shape
    np.testing.assert_array_equal(found.values, x)


def test_sequences_and_text_have_no_values(process):
    text = TensorProto(name="s", data_type=TensorProto.STRING, dims=[1], string_data=[b"a"])
    model = model_of(
        [oh.make_node("SplitToSequence", ["x"], ["y"]), oh.make_node("Identity", ["s"], ["z"])],
        [("x", FLOAT, [3])],
        ["y", "z"],
        [text],
    )
    load(process, model, ["y", "z"])
    found = process.run({"x": np.zeros(3, np.float32)}, ["y", "z"])
    assert (found["y"].shape, found["y"].kind) == (None, "seq(tensor(float))")
    assert (found["z"].shape, found["z"].values) == ((1,), None)


def test_four_bit_and_bfloat16_weights(process):
    w4 = oh.make_tensor("w4", TensorProto.INT4, [64, 64], np.arange(4096) % 16 - 8)
    scale = oh.make_tensor("scale", FLOAT, [], [0.5])
    wb = numpy_helper.from_array(np.linspace(-3, 3, 4096).astype(ml_dtypes.bfloat16).reshape(64, 64), "wb")
    nodes = [
        oh.make_node("DequantizeLinear", ["w4", "scale"], ["d"]),
        oh.make_node("Cast", ["x"], ["xb"], to=TensorProto.BFLOAT16),
        oh.make_node("MatMul", ["xb", "wb"], ["y"]),
    ]
    model = model_of(nodes, [("x", FLOAT, [1, 64])], ["d", "y"], [w4, scale, wb])
    load(process, model, ["d", "y"])
    found = process.run({"x": np.ones((1, 64), np.float32)}, ["d", "y"])
    np.testing.assert_array_equal(found["d"].values, ((np.arange(4096) % 16 - 8) / 2).reshape(64, 64))
    expected = numpy_helper.to_array(wb).astype(np.float32).sum(0, keepdims=True)
    np.testing.assert_allclose(found["y"].values, expected, rtol=1e-5)


@given(st.lists(st.integers(0, 2**16 - 1), max_size=20))
def test_widened_bits_equal_the_library(bits):
    raw = np.array(bits, "<u2")
    expected = raw.view(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(widened_bits(raw.view(np.uint8)), expected)


@given(st.data())
def test_pooling_equals_its_naive_twin(data):
    rank = data.draw(st.integers(1, 4))
    shape = tuple(data.draw(st.integers(1, 3)) for _ in range(rank))
    order = data.draw(st.permutations(range(rank)))
    count = data.draw(st.integers(0, rank - 1))
    unit_axes = tuple(order[1 : 1 + count])
    axis, innermost = order[0], data.draw(st.booleans())
    where = SampleAxis(axis, innermost) if data.draw(st.booleans()) else None
    n_samples = data.draw(st.sampled_from([n for n in (1, 2, 3) if shape[axis] % n == 0]))
    values = np.random.default_rng(0).standard_normal(shape)
    found = pooled(values, unit_axes, where, n_samples)
    assert len(found.mean) == (1 if where is None else n_samples)
    by_unit = {}
    for index in np.ndindex(*shape):
        sample = 0
        if where is not None:
            sample = index[axis] % n_samples if innermost else index[axis] // (shape[axis] // n_samples)
        unit = 0
        for unit_axis in unit_axes:
            unit = unit * shape[unit_axis] + index[unit_axis]
        by_unit.setdefault((sample, unit), []).append(values[index])
    assert found.mean.size == len(by_unit)
    for place, numbers in by_unit.items():
        one = np.array(numbers)
        assert found.n_positions == len(one)
        assert found.mean[place] == pytest.approx(one.mean(), abs=1e-12)
        assert found.mean_abs[place] == pytest.approx(np.abs(one).mean(), abs=1e-12)
        assert found.variance[place] == pytest.approx(one.var(), abs=1e-12)
        assert found.min[place] == one.min()
        assert found.max[place] == one.max()
        assert found.share_positive[place] == (one > 0).mean()


@pytest.mark.parametrize("block", [1, 7, 60, 1 << 17])
def test_pooling_in_blocks_gives_what_one_block_gives(block, monkeypatch):
    monkeypatch.setattr(pooling, "BLOCK", block)
    values = np.random.default_rng(0).standard_normal((3, 5, 4, 2)).astype(np.float32)
    for axes in ((1,), (3, 1), (2,), ()):
        rest = tuple(axis for axis in range(1, 4) if axis not in axes)
        found = pooled(values, axes, SampleAxis(0), 3)
        order = [0, *[1 + sorted(axes).index(axis) for axis in axes]]
        mean = values.astype(np.float64).mean(rest).transpose(order).reshape(3, -1)
        np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
        largest = values.max(rest).transpose(order).reshape(3, -1)
        np.testing.assert_array_equal(found.max, largest)


@pytest.mark.parametrize("most", [10, 60])
def test_single_precision_keeps_what_double_does(most, monkeypatch):
    """Of 11 and 60 positions in float32: of more than `most` the sums are float64."""
    monkeypatch.setattr(pooling, "MOST_IN_SINGLE", most)
    rng = np.random.default_rng(2)
    for mean, count in ((0, 11), (1e4, 60)):
        values = (rng.standard_normal((3, 4, count)) + mean).astype(np.float32)
        found, exact = pooled(values, (1,), SampleAxis(0), 3), values.astype(np.float64)
        np.testing.assert_allclose(found.mean, exact.mean(2), rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(found.mean_abs, np.abs(exact).mean(2), rtol=1e-6)
        np.testing.assert_allclose(found.variance, exact.var(2), rtol=1e-5)
        np.testing.assert_array_equal(found.share_positive, (exact > 0).mean(2))
    large = np.full((1, 1, 4), 3e38, np.float32)
    assert pooled(large, (1,), SampleAxis(0), 1).mean.item() == pytest.approx(3e38, rel=1e-6)
    large[0, 0, 1] = np.inf
    assert pooled(large, (1,), SampleAxis(0), 1).mean.item() == np.inf


def test_codes_are_pooled_as_what_they_stand_for():
    """Half of the codes lie below the zero point: their mean is small, their mean absolute value is not."""
    codes = np.array([[[118, 138], [128, 130]]], np.uint8)
    found = pooled(codes, (1,), SampleAxis(0), 1, Codes(0.5, 128))
    assert found.mean.tolist() == [[0.0, 0.5]]
    assert found.mean_abs.tolist() == [[5.0, 0.5]]
    assert (found.min.tolist(), found.max.tolist()) == ([[-5.0, 0.0]], [[5.0, 1.0]])
    single = pooled(codes[..., :1], (1,), SampleAxis(0), 1, Codes(0.5, 128))
    assert (single.mean.tolist(), single.n_positions) == ([[-5.0, 0.0]], 1)


def test_no_positions_give_no_numbers():
    found = pooled(np.zeros((2, 3, 0)), (1,), SampleAxis(0), 2)
    assert found.mean.shape == (2, 3)
    assert np.isnan(found.mean_abs).all()
    assert found.n_positions == 0


def test_pooling_in_the_child_equals_pooling_here(process):
    model = model_of([oh.make_node("Neg", ["x"], ["y"])], [("x", FLOAT, None)], ["y"])
    load(process, model, ["y"])
    x = np.random.default_rng(1).standard_normal((3, 4, 5, 6)).astype(np.float32)
    found = process.run({"x": x}, ["y"], pooling={"y": Pooling((1,), SampleAxis(0), 3)})["y"]
    here = pooled(-x, (1,), SampleAxis(0), 3)
    assert (found.values, found.pooled.n_positions) == (None, 30)
    for name in MOMENTS:
        np.testing.assert_array_equal(getattr(found.pooled, name), getattr(here, name))
    one = process.run({"x": x[..., :1, :1]}, ["y"], pooling={"y": Pooling((1,), SampleAxis(0), 3)})["y"]
    np.testing.assert_array_equal(one.pooled.mean_abs, np.abs(x[..., 0, 0]))


def test_a_refused_input_leaves_the_child_alive(process):
    model = model_of(
        [oh.make_node("Reshape", ["x", "s"], ["an\nodd\x1b name"])],
        [("x", FLOAT, ["n"])],
        ["an\nodd\x1b name"],
        [oh.make_tensor("s", INT64, [1], [4])],
    )
    load(process, model, ["an\nodd\x1b name"])
    with pytest.raises(ModelRefusedError, match="running the model failed in onnxruntime") as caught:
        process.run({"x": np.zeros(3, np.float32)}, ["an\nodd\x1b name"])
    assert str(caught.value).isprintable()
    assert "onnxruntime_src" not in str(caught.value)
    assert process.run({"x": np.zeros(4, np.float32)}, ["an\nodd\x1b name"])


def test_names_of_the_file_never_reach_onnxruntime():
    names = ["x", "a" * 5000, "nul\0in it", "ünï\u202e"]
    nodes = [oh.make_node("Neg", [a], [b], name=b * 2) for a, b in itertools.pairwise(names)]
    model = model_of(nodes, [("x", FLOAT, [1])], names[-1:])
    content = assemble(flatten(model), names[1:], InMemorySource(model)).model
    assert b"aaa" not in content
    assert b"nul" not in content


def test_an_endless_model_hits_the_clock():
    limits = RunLimits(wall_seconds=1.5)
    model = endless_loop()
    started = time.monotonic()
    with ModelProcess(limits) as process:
        load(process, model, ["y"])
        with pytest.raises(LimitError, match=r"running the model took longer than 1\.5 s; raise the limit"):
            process.run({"x": np.zeros(1, np.float32)}, ["y"])
    assert time.monotonic() - started < 10


def test_a_greedy_model_hits_the_memory_limit():
    model = model_of(
        [oh.make_node("Expand", ["x", "s"], ["y"])],
        [("x", FLOAT, [1])],
        ["y"],
        [oh.make_tensor("s", INT64, [2], [1 << 20, 1 << 14])],
    )
    with ModelProcess(RunLimits(memory_bytes=2 << 30)) as process:
        load(process, model, ["y"])
        with pytest.raises(LimitError, match=r"needs more than 2 GiB of memory.*; raise the limit"):
            process.run({"x": np.zeros(1, np.float32)}, ["y"])


def test_a_limit_too_small_to_start_is_named():
    model = model_of([oh.make_node("Neg", ["x"], ["y"])], [("x", FLOAT, [1])], ["y"])
    with (
        ModelProcess(RunLimits(memory_bytes=8 << 20)) as process,
        pytest.raises(LimitError, match=r"0\.00781 GiB"),
    ):
        load(process, model, ["y"])


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (signal.SIGSEGV, InvalidInputError, r"crashed onnxruntime \(SIGSEGV\)"),
        (signal.SIGKILL, LimitError, "killed by the system"),
    ],
)
def test_a_crash_is_one_line(process, code, error, message):
    load(process, endless_loop(), ["y"])
    os.kill(process._process.pid, code)
    with pytest.raises(error, match=message) as caught:
        process.run({"x": np.zeros(1, np.float32)}, ["y"])
    assert "\n" not in str(caught.value)
    load(process, endless_loop(), ["y"])


def test_the_child_ends_with_its_parent():
    with ModelProcess(RunLimits()) as process:
        load(process, endless_loop(), ["y"])
        child = process._process
    assert child.returncode == -signal.SIGKILL


def test_modules_are_not_imported_from_the_current_folder(tmp_path, monkeypatch):
    marker = tmp_path / "executed"
    for name in ("numpy.py", "onnxruntime.py", "json.py", "emergraph.py"):
        (tmp_path / name).write_text(f"open({str(marker)!r}, 'w')\nraise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    model = model_of([oh.make_node("Neg", ["x"], ["y"])], [("x", FLOAT, [1])], ["y"])
    with ModelProcess(RunLimits()) as process:
        load(process, model, ["y"])
        assert process.run({"x": np.ones(1, np.float32)}, ["y"])["y"].values.tolist() == [-1]
    assert not marker.exists()


def test_messages_become_one_short_line():
    text = "[ONNXRuntimeError] : 1 : FAIL : bad\nthing \x1b[2J " + "x" * 1000
    found = one_line(text)
    assert found.startswith("bad thing [2J xxx")
    assert found.isprintable()
    assert len(found) == 300
