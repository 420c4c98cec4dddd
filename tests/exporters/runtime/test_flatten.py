"""Flattening: functions, constants, scopes."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx import helper as oh
from onnx.reference import ReferenceEvaluator

from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.runtime.assembly import assemble
from emergraph.exporters.runtime.branches import take_branches
from emergraph.exporters.runtime.flat_model import is_if, walk_nodes
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.sources import InMemorySource

OPSETS = [oh.make_opsetid("", 21)]
X = oh.make_tensor_value_info("x", TensorProto.FLOAT, [2])


def value(name, element_type=TensorProto.FLOAT, shape=None):
    return oh.make_tensor_value_info(name, element_type, shape)


def model_of(nodes, outputs, *, inputs=(X,), initializers=(), functions=(), domains=()):
    graph = oh.make_graph(list(nodes), "g", list(inputs), [value(o) for o in outputs], list(initializers))
    opsets = OPSETS + [oh.make_opsetid(domain, 1) for domain in domains]
    return oh.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)


def results_of(flat, model, feeds):
    """Run a flat model by way of the light model, weights put back in, on the reference implementation."""
    source = InMemorySource(model)
    outputs = [name for name in flat.outputs if name not in flat.initializers]
    assembly = assemble(flat, outputs, source)
    light = onnx.ModelProto.FromString(assembly.model)
    for weight in assembly.weights:
        for tensor in light.graph.initializer:
            if tensor.name == weight.slot:
                del tensor.external_data[:]
                tensor.ClearField("data_location")
                tensor.raw_data = bytes(weight.tensor.raw)
    named = {assembly.slots[name]: array for name, array in feeds.items()}
    return ReferenceEvaluator(light).run(None, named)


def all_tensor_names(flat):
    names = [v.name for v in flat.inputs] + list(flat.initializers)
    for node in walk_nodes(flat.nodes):
        names.extend(o for o in node.output if o)
    return names


def constant(name, array):
    return oh.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(np.asarray(array), "v"))


def test_constants_become_initializers_and_top_level_names_stay():
    model = model_of([constant("c", np.float32([1, 2])), oh.make_node("Add", ["x", "c"], ["y"])], ["y"])
    flat = flatten(model)
    assert [node.op_type for node in flat.nodes] == ["Add"]
    assert list(flat.nodes[0].input) == ["x", "c"]
    assert onnx.numpy_helper.to_array(flat.initializers["c"]).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ({"value_float": 2.5}, np.float32(2.5)),
        ({"value_floats": [1.0, 2.0]}, np.float32([1, 2])),
        ({"value_int": 7}, np.int64(7)),
        ({"value_ints": [7, 8]}, np.int64([7, 8])),
    ],
)
def test_literal_constants(attribute, expected):
    node = oh.make_node("Constant", [], ["c"], **attribute)
    flat = flatten(model_of([node, oh.make_node("Identity", ["c"], ["y"])], ["y"]))
    found = onnx.numpy_helper.to_array(flat.initializers["c"])
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("coordinates", [False, True])
def test_sparse_initializers_become_dense(coordinates):
    indices = np.int64([[0, 1], [1, 2]]) if coordinates else np.int64([1, 5])
    sparse = oh.make_sparse_tensor(
        onnx.numpy_helper.from_array(np.float32([3, 4]), "s"), onnx.numpy_helper.from_array(indices), [2, 3]
    )
    model = model_of([oh.make_node("Identity", ["s"], ["y"])], ["y"])
    model.graph.sparse_initializer.append(sparse)
    dense = onnx.numpy_helper.to_array(flatten(model).initializers["s"])
    assert dense.tolist() == [[0, 3, 0], [0, 0, 4]]


@pytest.mark.parametrize(
    ("dims", "index", "error"), [([2, 3], 6, InvalidInputError), ([1 << 20, 1 << 20], 0, LimitError)]
)
def test_bad_sparse_initializers_are_refused(dims, index, error):
    sparse = oh.make_sparse_tensor(
        onnx.numpy_helper.from_array(np.float32([3]), "s"),
        onnx.numpy_helper.from_array(np.int64([index])),
        dims,
    )
    model = model_of([oh.make_node("Identity", ["s"], ["y"])], ["y"])
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(error, match="sparse tensor 's'"):
        flatten(model)


def scale_function(factor_default=None):
    """f(a) = a * k with k an attribute."""
    default = [oh.make_attribute("k", factor_default)] if factor_default is not None else []
    constant_node = oh.make_node("Constant", [], ["t"])
    attribute = onnx.AttributeProto(name="value_float", ref_attr_name="k", type=onnx.AttributeProto.FLOAT)
    constant_node.attribute.append(attribute)
    return oh.make_function(
        "own",
        "Scale",
        ["a"],
        ["b"],
        [constant_node, oh.make_node("Mul", ["a", "t"], ["b"])],
        OPSETS,
        attributes=[] if default else ["k"],
        attribute_protos=default,
    )


def test_functions_are_inlined_with_their_own_names_and_attributes():
    nodes = [
        oh.make_node("Scale", ["x"], ["t"], domain="own", k=2.0, name="first"),
        oh.make_node("Scale", ["t"], ["y"], domain="own", k=5.0, name="second"),
    ]
    model = model_of(nodes, ["y"], functions=[scale_function()], domains=["own"])
    flat = flatten(model)
    assert [node.op_type for node in flat.nodes] == ["Mul", "Mul"]
    assert flat.nodes[0].name.startswith("first/")
    names = all_tensor_names(flat)
    assert len(names) == len(set(names))
    assert {"x", "t", "y"} <= set(names)
    (y,) = results_of(flat, model, {"x": np.float32([1, -3])})
    assert y.tolist() == [10, -30]


def test_an_omitted_attribute_takes_the_default():
    node = oh.make_node("Scale", ["x"], ["y"], domain="own")
    model = model_of([node], ["y"], functions=[scale_function(3.0)], domains=["own"])
    (y,) = results_of(flatten(model), model, {"x": np.float32([1, 2])})
    assert y.tolist() == [3, 6]


def test_a_constant_inside_a_function_is_one_initializer():
    function = oh.make_function(
        "own",
        "F",
        ["a"],
        ["b"],
        [constant("w", np.float32([1, 2])), oh.make_node("Mul", ["a", "w"], ["b"])],
        OPSETS,
    )
    nodes = [oh.make_node("F", ["x"], ["t"], domain="own"), oh.make_node("F", ["t"], ["y"], domain="own")]
    flat = flatten(model_of(nodes, ["y"], functions=[function], domains=["own"]))
    assert list(flat.initializers) == ["w"]
    assert [node.input[1] for node in flat.nodes] == ["w", "w"]


def test_function_bodies_do_not_see_names_outside():
    function = oh.make_function(
        "own", "F", ["a"], ["b"], [oh.make_node("Add", ["a", "hidden"], ["b"])], OPSETS
    )
    nodes = [oh.make_node("Relu", ["x"], ["hidden"]), oh.make_node("F", ["x"], ["y"], domain="own")]
    with pytest.raises(InvalidInputError, match="reads tensor 'hidden'"):
        flatten(model_of(nodes, ["y"], functions=[function], domains=["own"]))


def test_outputs_that_pass_an_input_or_a_constant_through():
    function = oh.make_function(
        "own",
        "F",
        ["a"],
        ["a", "c", "c2"],
        [constant("c", np.float32([5, 6])), constant("c2", np.float32([7, 8]))],
        OPSETS,
    )
    node = oh.make_node("F", ["x"], ["y", "z", ""], domain="own")
    model = model_of([node], ["y", "z"], functions=[function], domains=["own"])
    y, z = results_of(flatten(model), model, {"x": np.float32([1, 2])})
    assert y.tolist() == [1, 2]
    assert z.tolist() == [5, 6]


def test_omitted_function_inputs_stay_omitted():
    function = oh.make_function(
        "own", "F", ["a", "low", "high"], ["b"], [oh.make_node("Clip", ["a", "low", "high"], ["b"])], OPSETS
    )
    node = oh.make_node("F", ["x", "", "m"], ["y"], domain="own")
    model = model_of(
        [node], ["y"], functions=[function], domains=["own"], initializers=[oh.make_tensor("m", 1, [], [1.5])]
    )
    flat = flatten(model)
    assert list(flat.nodes[0].input) == ["x", "", "m"]


def test_recursive_functions_are_refused():
    function = oh.make_function(
        "own",
        "F",
        ["a"],
        ["b"],
        [oh.make_node("F", ["a"], ["b"], domain="own")],
        [*OPSETS, oh.make_opsetid("own", 1)],
    )
    with pytest.raises(InvalidInputError, match="'F' calls itself"):
        flatten(
            model_of(
                [oh.make_node("F", ["x"], ["y"], domain="own")], ["y"], functions=[function], domains=["own"]
            )
        )


def test_a_long_chain_of_functions_needs_no_recursion():
    count = 3000
    own = [*OPSETS, oh.make_opsetid("own", 1)]
    functions = [
        oh.make_function(
            "own", f"F{k}", ["a"], ["b"], [oh.make_node(f"F{k + 1}", ["a"], ["b"], domain="own")], own
        )
        for k in range(count)
    ]
    functions.append(
        oh.make_function("own", f"F{count}", ["a"], ["b"], [oh.make_node("Relu", ["a"], ["b"])], OPSETS)
    )
    flat = flatten(
        model_of(
            [oh.make_node("F0", ["x"], ["y"], domain="own")], ["y"], functions=functions, domains=["own"]
        )
    )
    assert [node.op_type for node in flat.nodes] == ["Relu"]


def test_a_function_for_another_version_of_an_operation_is_refused():
    old = [oh.make_opsetid("", 11)]
    same = oh.make_function(
        "own", "F", ["a"], ["b"], [oh.make_node("Neg", ["a"], ["b"])], [oh.make_opsetid("", 20)]
    )
    other = oh.make_function("own", "F", ["a"], ["b"], [oh.make_node("Softmax", ["a"], ["b"])], old)
    call = oh.make_node("F", ["x"], ["y"], domain="own")
    assert flatten(model_of([call], ["y"], functions=[same], domains=["own"])).nodes[0].op_type == "Neg"
    with pytest.raises(InvalidInputError, match="Softmax of opset 11, the model opset 21"):
        flatten(model_of([call], ["y"], functions=[other], domains=["own"]))


def test_unsorted_nodes_are_sorted_and_cycles_refused():
    swapped = [oh.make_node("Relu", ["t"], ["y"]), oh.make_node("Neg", ["x"], ["t"])]
    assert [node.op_type for node in flatten(model_of(swapped, ["y"])).nodes] == ["Neg", "Relu"]
    cycle = [oh.make_node("Relu", ["t"], ["y"], name="r"), oh.make_node("Neg", ["y"], ["t"])]
    with pytest.raises(InvalidInputError, match="'r' is part of"):
        flatten(model_of(cycle, ["y"]))


@pytest.mark.parametrize(
    "nodes",
    [
        [oh.make_node("Relu", ["x"], ["y"]), oh.make_node("Neg", ["x"], ["y"])],
        [oh.make_node("Relu", ["x"], ["x"]), oh.make_node("Neg", ["x"], ["y"])],
    ],
)
def test_a_name_defined_twice_is_refused(nodes):
    with pytest.raises(InvalidInputError, match="defined twice"):
        flatten(model_of(nodes, ["y"]))


def test_inputs_with_a_default_are_constants_unless_overridden():
    default = oh.make_tensor("w", TensorProto.FLOAT, [2], [1, 2])
    model = model_of(
        [oh.make_node("Add", ["x", "w"], ["y"])],
        ["y"],
        inputs=[X, value("w", shape=[2])],
        initializers=[default],
    )
    assert [v.name for v in flatten(model).inputs] == ["x"]
    overridden = flatten(model, overridden=frozenset({"w"}))
    assert [v.name for v in overridden.inputs] == ["x", "w"]
    assert "w" not in overridden.initializers


def branching_model():
    """y = x + shared (then) or -(x * own) (else), the names inside both branches alike."""
    shared = onnx.numpy_helper.from_array(np.float32([10, 20]), "shared")
    then = oh.make_graph([oh.make_node("Add", ["x", "shared"], ["r"])], "then", [], [value("r")])
    other = oh.make_graph(
        [
            constant("own", np.float32([2, 3])),
            oh.make_node("Mul", ["x", "own"], ["t"], name="mul"),
            oh.make_node("Neg", ["t"], ["r"], name="neg"),
        ],
        "else",
        [],
        [value("r")],
    )
    nodes = [
        oh.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        oh.make_node("Greater", ["s", "zero"], ["c"]),
        oh.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other, name="pick"),
    ]
    zero = oh.make_tensor("zero", TensorProto.FLOAT, [], [0.0])
    return model_of(nodes, ["y"], initializers=[shared, zero])


@pytest.mark.parametrize(
    ("truth", "expected", "label"), [(True, [11, 22], "then"), (False, [-2, -6], "else")]
)
def test_taking_a_branch(truth, expected, label):
    model = branching_model()
    flat = flatten(model)
    names = all_tensor_names(flat)
    assert len(names) == len(set(names))
    assert flat.open_conditions() == ("c",)
    taken = take_branches(flat, {"c": truth})
    assert taken.branches == (f"pick:{label}",)
    assert not any(is_if(node) for node in taken.nodes)
    assert ("shared" in taken.initializers) == truth
    (y,) = results_of(taken, model, {"x": np.float32([1, 2])})
    assert y.tolist() == expected
    assert flat.open_conditions() == ("c",), "the model before is unchanged"


def test_a_branch_that_hands_outer_tensors_out_twice():
    then = oh.make_graph([], "then", [], [value("x"), value("x")])
    other = oh.make_graph([oh.make_node("Neg", ["x"], ["n"])], "else", [], [value("n"), value("n")])
    node = oh.make_node("If", ["c"], ["y", "z"], then_branch=then, else_branch=other)
    model = model_of([node], ["y", "z"], inputs=[X, value("c", TensorProto.BOOL, [])])
    for truth, expected in ((True, [1, 2]), (False, [-1, -2])):
        results = results_of(
            take_branches(flatten(model), {"c": truth}),
            model,
            {"x": np.float32([1, 2]), "c": np.array(truth)},
        )
        assert [r.tolist() for r in results] == [expected, expected]


def test_inner_names_hide_outer_ones():
    """Not legal ONNX, but seen; readers resolve such names lexically."""
    inner = oh.make_graph(
        [oh.make_node("Neg", ["x"], ["t"]), oh.make_node("Relu", ["t"], ["r"])], "then", [], [value("r")]
    )
    outer = oh.make_graph([oh.make_node("Identity", ["t"], ["q"])], "else", [], [value("q")])
    nodes = [
        oh.make_node("Abs", ["x"], ["t"]),
        oh.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=outer),
    ]
    model = model_of(nodes, ["y"], inputs=[X, value("c", TensorProto.BOOL, [])])
    feeds = {"x": np.float32([-1, 2]), "c": np.array(True)}
    (then,) = results_of(take_branches(flatten(model), {"c": True}), model, feeds)
    (other,) = results_of(take_branches(flatten(model), {"c": False}), model, feeds)
    assert then.tolist() == [1, 0]
    assert other.tolist() == [1, 2]


def test_loop_bodies_stay_with_unique_names_and_hoisted_constants():
    body = oh.make_graph(
        [
            oh.make_node("Identity", ["keep"], ["keep_out"]),
            constant("two", np.float32([2, 2])),
            oh.make_node("Scale", ["state"], ["t"], domain="own", k=3.0),
            oh.make_node("Add", ["t", "two"], ["state_out"]),
        ],
        "body",
        [value("i", TensorProto.INT64, []), value("keep", TensorProto.BOOL, []), value("state")],
        [value("keep_out", TensorProto.BOOL, []), value("state_out")],
    )
    nodes = [oh.make_node("Loop", ["count", "go", "x"], ["y"], body=body)]
    limits = [
        oh.make_tensor("count", TensorProto.INT64, [], [2]),
        oh.make_tensor("go", TensorProto.BOOL, [], [1]),
    ]
    model = model_of(nodes, ["y"], initializers=limits, functions=[scale_function()], domains=["own"])
    flat = flatten(model)
    (loop,) = flat.nodes
    inner = next(a.g for a in loop.attribute if a.name == "body")
    assert sorted(node.op_type for node in inner.node) == ["Add", "Identity", "Mul"]
    assert "two" in flat.initializers
    names = all_tensor_names(flat)
    assert len(names) == len(set(names))
    (y,) = results_of(flat, model, {"x": np.float32([1, 0])})
    assert y.tolist() == [17, 8]  # 3 (3 x + 2) + 2


def test_an_if_inside_a_loop_is_taken_where_its_condition_is_outside():
    then = oh.make_graph([oh.make_node("Neg", ["state"], ["a"])], "then", [], [value("a")])
    other = oh.make_graph([oh.make_node("Identity", ["state"], ["b"])], "else", [], [value("b")])
    body = oh.make_graph(
        [
            oh.make_node("Identity", ["keep"], ["keep_out"]),
            oh.make_node("If", ["c"], ["state_out"], then_branch=then, else_branch=other, name="inner"),
        ],
        "body",
        [value("i", TensorProto.INT64, []), value("keep", TensorProto.BOOL, []), value("state")],
        [value("keep_out", TensorProto.BOOL, []), value("state_out")],
    )
    limits = [
        oh.make_tensor("count", TensorProto.INT64, [], [3]),
        oh.make_tensor("go", TensorProto.BOOL, [], [1]),
    ]
    model = model_of(
        [oh.make_node("Loop", ["count", "go", "x"], ["y"], body=body)],
        ["y"],
        inputs=[X, value("c", TensorProto.BOOL, [])],
        initializers=limits,
    )
    flat = flatten(model)
    assert flat.open_conditions() == ("c",)
    taken = take_branches(flat, {"c": True})
    assert taken.branches == ("inner:then",)
    assert taken.open_conditions() == ()
    (y,) = results_of(taken, model, {"x": np.float32([1, 2]), "c": np.array(True)})
    assert y.tolist() == [-1, -2]


def test_if_nested_thirty_deep():
    graph = oh.make_graph([oh.make_node("Relu", ["x"], ["r30"])], "leaf", [], [value("r30")])
    for level in reversed(range(30)):
        other = oh.make_graph([oh.make_node("Identity", ["x"], ["o"])], "else", [], [value("o")])
        node = oh.make_node("If", ["c"], [f"r{level}"], then_branch=graph, else_branch=other)
        graph = oh.make_graph([node], "g", [], [value(f"r{level}")])
    model = oh.make_model(
        oh.make_graph(list(graph.node), "g", [X, value("c", TensorProto.BOOL, [])], [value("r0")]),
        opset_imports=OPSETS,
        ir_version=10,
    )
    flat = take_branches(flatten(model), {"c": True})
    assert [node.op_type for node in flat.nodes] == ["Relu"]
    assert len(flat.branches) == 30


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_random_nests_of_functions_and_branches_compute_the_same(data):
    """Function calls and Ifs nested at random give what the reference evaluator gives for the original."""
    counter = iter(range(10**6))

    def body(names, depth, sources):
        nodes = []
        for _ in range(data.draw(st.integers(1, 3))):
            kind = data.draw(st.sampled_from(["Neg", "Add", "F", "If"] if depth else ["Neg", "Add"]))
            out = f"t{next(counter) if data.draw(st.booleans()) else f'{depth}_{len(names)}'}"
            if out in names:
                out = f"u{next(counter)}"
            source = data.draw(st.sampled_from(names))
            if kind == "Neg":
                nodes.append(oh.make_node("Neg", [source], [out]))
            elif kind == "Add":
                nodes.append(oh.make_node("Add", [source, data.draw(st.sampled_from(names))], [out]))
            elif kind == "F":
                nodes.append(oh.make_node("F", [source], [out], domain="own"))
            else:
                graphs = []
                for label in ("then", "else"):
                    inner_nodes, last = body([*names], depth - 1, sources)
                    graphs.append(oh.make_graph(inner_nodes, label, [], [value(last)]))
                condition = data.draw(st.sampled_from(["c", "d"]))
                nodes.append(
                    oh.make_node("If", [condition], [out], then_branch=graphs[0], else_branch=graphs[1])
                )
            names.append(out)
        return nodes, names[-1]

    function_body = [
        oh.make_node("Neg", ["a"], ["t1_1"]),
        constant("k", np.float32([2, 3])),
        oh.make_node("Mul", ["t1_1", "k"], ["b"]),
    ]
    function = oh.make_function("own", "F", ["a"], ["b"], function_body, OPSETS)
    nodes, last = body(["x"], 2, ["x"])
    model = model_of(
        nodes,
        [last],
        inputs=[X, value("c", TensorProto.BOOL, []), value("d", TensorProto.BOOL, [])],
        functions=[function],
        domains=["own"],
    )
    for c, d in ((True, False), (False, True)):
        feeds = {"x": np.float32([1.5, -2]), "c": np.array(c), "d": np.array(d)}
        (expected,) = ReferenceEvaluator(model).run(None, feeds)
        flat = take_branches(flatten(model), {"c": c, "d": d})
        assert not any(is_if(node) for node in flat.nodes)
        names = all_tensor_names(flat)
        assert len(names) == len(set(names))
        (found,) = results_of(flat, model, feeds)
        np.testing.assert_array_equal(found, expected)
