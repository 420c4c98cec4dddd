"""Networks that share outputs and no weights, held against others of their task."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emergraph.analysis.lineage.kinds import Judged, Kind
from emergraph.analysis.lineage.outputs import (
    FEWEST,
    SHARED,
    Answers,
    answers_of,
    shared_outputs,
    with_outputs,
)
from emergraph.analysis.lineage.pairs import Relation
from emergraph.errors import InvalidInputError
from emergraph.exporters.runtime.inputfile import InputFile


def population(n=12, *, own=1.0, seed=0):
    """Outputs of nets that learnt one task, each with a part of its own."""
    rng = np.random.default_rng(seed)
    task = rng.standard_normal(3000)
    return np.array([task + own * rng.standard_normal(3000) for _ in range(n)])


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def student_of(teacher, misfit, seed=1):
    return teacher + misfit * np.random.default_rng(seed).standard_normal(teacher.size)


def says(rows, families=None):
    found = shared_outputs(unit(np.array(rows)), families or list(range(len(rows))))
    return {pair: one.says for pair, one in found.items()}


def test_nets_of_one_task_do_not_follow_each_other_however_much_they_share():
    for own in (0.05, 1.0):
        found = list(says(population(own=own)).values())
        assert "follow" not in found
        assert found.count("no sign") >= 0.9 * len(found)


def test_a_student_follows_its_teacher_and_no_other():
    nets = population()
    found = says([*nets, student_of(nets[3], 0.2)])
    assert [pair for pair, what in found.items() if what == "follow"] == [(3, 12)]


def test_two_students_of_one_teacher_do_not_hide_each_other():
    nets = population()
    found = says([*nets, student_of(nets[3], 0.3, 1), student_of(nets[3], 0.3, 2)])
    assert found[3, 12] == found[3, 13] == "follow"
    assert all({*pair} <= {3, 12, 13} for pair, what in found.items() if what == "follow")


@pytest.mark.parametrize(("misfit", "expected"), [(0.4, "follow"), (1.2, "unclear")])
def test_below_the_score_what_stands_out_is_unclear(misfit, expected):
    nets = population(own=1.0)
    found = shared_outputs(unit(np.array([*nets, student_of(nets[0], misfit)])), range(13))[0, 12]
    assert (found.score >= SHARED) == (expected == "follow")
    assert found.says == expected


@pytest.mark.parametrize(("others", "expected"), [(FEWEST, "follow"), (FEWEST - 1, "undecided")])
def test_a_pair_is_held_against_enough_others(others, expected):
    nets = population(n=others + 1)
    assert says([*nets, student_of(nets[0], 0.2)])[0, others + 1] == expected


def test_others_that_share_weights_count_once():
    nets = population(n=FEWEST + 1)
    rows = [*nets, nets[1] + 1e-3, student_of(nets[0], 0.2)]
    families = [*range(FEWEST + 1), 1, FEWEST + 2]
    assert says(rows, families)[0, FEWEST + 2] == "follow"
    assert (1, FEWEST + 1) not in says(rows, families)  # one family: its weights have said it
    assert says(rows[1:], [0, *range(1, FEWEST), 0, FEWEST])[1, FEWEST + 1] == "undecided"


def test_pairs_that_no_weights_suggested_are_added():
    nets = unit(np.array([*population(), student_of(population()[0], 0.2)]))
    answers = {n: Answers(task=(1,), samples="40 samples", vector=row) for n, row in enumerate(nets)}
    answers[13] = Answers(task=(2,), samples="40 samples", vector=nets[0])  # of another task
    weights = Judged(kind=Kind.INDEPENDENT, origin="", evidence="weights")
    known = Relation(a=1, b=2, test=None, alike=None, share=0.0, score=None, judged=weights)
    first, second = (one for one in with_outputs([known], answers, []) if one.outputs != "unclear")
    assert (first.judged.kind, first.outputs, first.related) == (Kind.INDEPENDENT, "no sign", False)
    assert (second.a, second.b, second.related, second.by) == (0, 12, True, "outputs")
    assert second.judged.kind is Kind.DISTILLED
    assert "a score, no test" in second.judged.evidence
    assert not [one for one in with_outputs([], answers, [(0, 12)]) if one.related]


def net(path, weight, *, name="x", last="Identity"):
    nodes = [
        helper.make_node("MatMul", [name, "w"], ["h"]),
        helper.make_node(last, ["h"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in ((name, 4), ("y", 3))]
    tensors = [numpy_helper.from_array(weight.astype(np.float32), "w")]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_probabilities_and_their_logits_are_the_same_answers(tmp_path):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 3))
    samples = InputFile({"any": rng.standard_normal((20, 4)).astype(np.float32)}, "x.npz", "")
    logits = answers_of(net(tmp_path / "a.onnx", weight), samples)
    chances = answers_of(net(tmp_path / "b.onnx", weight, name="pixels", last="Softmax"), samples)
    assert logits.task == chances.task
    assert np.allclose(logits.vector, chances.vector, atol=1e-4)
    assert logits.samples == "20 samples of x.npz"


def test_outputs_that_say_nothing_are_named(tmp_path):
    samples = InputFile({"x": np.zeros((5, 4), np.float32)}, "x.npz", "")
    with pytest.raises(InvalidInputError, match=r"still\.onnx: its outputs on the samples say nothing"):
        answers_of(net(tmp_path / "still.onnx", np.ones((4, 3))), samples)
