"""Sizes of dynamic axes and values of inputs, in the order in which they are tried."""

import itertools

import numpy as np
import pytest
from onnx import TensorProto
from onnx import helper as oh

from emergraph.errors import InvalidInputError
from emergraph.exporters.runtime.feeds import InputHints, input_hints, make_feeds, scalar_choices
from emergraph.exporters.runtime.flat_model import FlatInput
from emergraph.exporters.runtime.flat_model import flat_input as flat_input_of
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.sizes import (
    APART,
    LADDER,
    axes_of,
    candidate_sizes,
    open_shapes,
    open_shapes_note,
)
from emergraph.exporters.runtime.sources import InMemorySource

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
NO_HINTS = InputHints({}, {})


def flat_input(name, shape, element_type=FLOAT):
    return FlatInput(name, element_type, shape)


def first_shapes(*inputs, given=None, count=1):
    axes = axes_of(inputs, given or {}, 2)
    return [axes.filled(sizes) for sizes in itertools.islice(candidate_sizes(axes), count)]


def test_batches_are_one_and_other_axes_distinct():
    (shapes,) = first_shapes(flat_input("image", ("batch", 3, "height", "width")))
    assert shapes == {"image": (1, 3, 2, 3)}


def test_a_name_that_repeats_is_one_size():
    (shapes,) = first_shapes(
        flat_input("ids", ("batch", "sequence")), flat_input("mask", ("batch", "sequence"))
    )
    assert shapes["ids"] == shapes["mask"] == (1, 2)


def test_sizes_that_nobody_decided_are_told():
    image = flat_input("image", ("batch", 3, "height", "width"))
    state = flat_input("state", (2, "batch", 8))
    got = {"image": (1, 3, 2, 3), "state": (2, 1, 8)}
    free = open_shapes((image, state), {}, got)
    assert free == {"image": (1, 3, 2, 3)}
    assert open_shapes_note(free) == (
        "input 'image' has free sizes and ran at [1, 3, 2, 3], perhaps far from real ones; "
        "--input-shape decides"
    )
    assert open_shapes((image, state), {"image": (1, 3, 64, 64)}, got) == {}


def test_a_question_mark_is_no_name():
    value = oh.make_tensor_value_info("image", FLOAT, ["?", 3, "?", "?"])
    image = flat_input_of(value)
    assert image == flat_input("image", (None, 3, None, None))
    assert first_shapes(image) == [{"image": (1, 3, 2, 3)}]
    assert first_shapes(image, given={"image": (1, 3, 48, 192)}) == [{"image": (1, 3, 48, 192)}]
    named = oh.make_tensor_value_info("image", FLOAT, ["batch", 3, "h", "w"])
    assert flat_input_of(named).shape == ("batch", 3, "h", "w")


def test_a_size_that_follows_from_others_is_as_free_as_they_are():
    past = flat_input("past", ("batch", "past_len"))
    mask = flat_input("mask", ("batch", "past_len + 1"))
    got = {"past": (1, 2), "mask": (1, 3)}
    assert open_shapes((past, mask), {}, got) == got
    assert open_shapes((past, mask), {"past": (1, 2)}, got) == {}


def test_unnamed_axes_are_unknowns_of_their_own():
    tried = first_shapes(flat_input("audio", (None, None)), flat_input("state", (2, None, 128)), count=400)
    assert tried[0] == {"audio": (1, 2), "state": (2, 3, 128)}
    assert tried[1] == {"audio": (1, 1), "state": (2, 1, 128)}
    assert {"audio": (1, 512), "state": (2, 1, 128)} in tried
    assert len({tuple(sorted(shapes.items())) for shapes in tried}) > len(LADDER)


def test_a_first_axis_named_as_a_sequence_is_no_batch():
    (shapes,) = first_shapes(flat_input("x", ("sequence_length", 576)))
    assert shapes["x"] == (APART[0], 576)


def test_sums_of_names_follow_their_terms():
    inputs = (
        flat_input("ids", ("batch", "sequence_length"), INT64),
        flat_input("mask", ("batch", "past_sequence_length + sequence_length"), INT64),
        flat_input("past", ("batch", 4, "past_sequence_length", 8)),
        flat_input("position", ("batch", "total_sequence_length"), INT64),
    )
    for shapes in first_shapes(*inputs, count=5):
        total = shapes["ids"][1] + shapes["past"][2]
        assert shapes["mask"][1] == total
        assert shapes["position"][1] == total


def test_given_shapes_bind_names_everywhere():
    inputs = (flat_input("a", ("batch", "n")), flat_input("b", ("n", "m")))
    assert first_shapes(*inputs, given={"a": (4, 9)}) == [{"a": (4, 9), "b": (9, 2)}]


def test_contradicting_given_shapes_are_refused():
    inputs = (flat_input("a", ("batch", "n")), flat_input("b", ("n", "m")))
    with pytest.raises(InvalidInputError, match=r"axis 'n' was given two sizes, 9 and 8 \(input 'b'\)"):
        axes_of(inputs, {"a": (4, 9), "b": (8, 1)}, 2)
    with pytest.raises(
        InvalidInputError, match=r"'a' was given shape \[4\] with 1 axes; the model declares 2"
    ):
        axes_of(inputs, {"a": (4,)}, 2)


def test_a_model_without_unknowns_has_one_candidate():
    axes = axes_of((flat_input("x", (10, 3)),), {}, 2)
    assert [axes.filled(sizes) for sizes in candidate_sizes(axes)] == [{"x": (10, 3)}]


def fill(*inputs, shapes, hints=NO_HINTS, scalars=None, style="counting", seed=0):
    return make_feeds(inputs, shapes, hints, scalars=scalars or {}, style=style, seed=seed)


def test_values_by_name_and_type():
    shapes = {
        "input_ids": (1, 5),
        "attention_mask": (1, 5),
        "token_type_ids": (1, 5),
        "position_ids": (1, 5),
        "lengths": (1,),
        "flag": (),
        "x": (2, 3),
        "float_mask": (1, 2),
    }
    types = dict.fromkeys(shapes, INT64) | {"flag": BOOL, "x": FLOAT, "float_mask": FLOAT}
    feeds = fill(*(flat_input(name, (None,), kind) for name, kind in types.items()), shapes=shapes)
    assert feeds["input_ids"].tolist() == [[1, 2, 3, 1, 2]]
    assert feeds["attention_mask"].tolist() == [[1] * 5]
    assert feeds["token_type_ids"].tolist() == [[0] * 5]
    assert feeds["position_ids"].tolist() == [[0, 1, 2, 3, 4]]
    assert feeds["lengths"].tolist() == [5]
    assert feeds["flag"].dtype == bool
    assert feeds["float_mask"].tolist() == [[1, 1]]
    np.testing.assert_array_equal(
        feeds["x"], np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    )


def test_ids_stay_below_the_rows_of_their_table():
    feeds = fill(flat_input("ids", (None,), INT64), shapes={"ids": (4,)}, hints=InputHints({}, {"ids": 2}))
    assert feeds["ids"].tolist() == [1, 1, 1, 1]


def test_text_inputs_are_asked_for():
    with pytest.raises(InvalidInputError, match=r"'t' takes string, .* give one with --input t=VALUE"):
        fill(flat_input("t", (1,), TensorProto.STRING), shapes={"t": (1,)})


def test_hints_from_comparisons_ifs_and_tables():
    branch = oh.make_graph(
        [oh.make_node("Identity", ["x"], ["r"])], "b", [], [oh.make_empty_tensor_value_info("r")]
    )
    inner = oh.make_graph(
        [
            oh.make_node("Equal", ["sr", "eight"], ["is8"]),
            oh.make_node("Identity", ["x"], ["q"]),
        ],
        "b",
        [],
        [oh.make_empty_tensor_value_info("q")],
    )
    nodes = [
        oh.make_node("Cast", ["sr"], ["srf"], to=INT64),
        oh.make_node("Equal", ["sixteen", "srf"], ["is16"]),
        oh.make_node("If", ["is16"], ["y"], then_branch=branch, else_branch=inner),
        oh.make_node("If", ["cache"], ["z"], then_branch=branch, else_branch=branch),
        oh.make_node("Gather", ["table", "ids"], ["e"]),
    ]
    inputs = [("x", FLOAT, [1]), ("sr", INT64, []), ("cache", BOOL, [1]), ("ids", INT64, ["n"])]
    constants = [
        oh.make_tensor("sixteen", INT64, [], [16000]),
        oh.make_tensor("eight", INT64, [1], [8000]),
        oh.make_tensor("table", FLOAT, [7, 2], np.zeros(14)),
    ]
    graph = oh.make_graph(
        nodes,
        "g",
        [oh.make_tensor_value_info(*one) for one in inputs],
        [oh.make_empty_tensor_value_info(name) for name in ("y", "z", "e")],
        constants,
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 21)], ir_version=10)
    flat = flatten(model)
    hints = input_hints(flat, InMemorySource(model))
    assert hints.choices == {"sr": (16000, 8000), "cache": (False, True)}
    assert hints.rows == {"ids": 7}
    choices = list(scalar_choices(flat.inputs, hints, {}))
    assert choices[0] == {"sr": 16000, "cache": False}
    assert len(choices) == 4
    assert list(scalar_choices(flat.inputs, hints, {"cache": np.array([True])})) == [
        {"sr": 16000},
        {"sr": 8000},
    ]
