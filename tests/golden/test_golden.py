"""The answers are those that were frozen: a difference is a finding to explain in the CHANGELOG."""

import golden
import making
import pytest


def assert_same(name, found):
    lines = golden.differences(golden.read(name), found)
    assert not lines, "\n".join([f"{name}: {len(lines)} differences from the golden", *lines[:60]])


@pytest.mark.slow
def test_the_demo_answers_as_it_did(tmp_path):
    assert_same("demo", making.demo(tmp_path))


@pytest.mark.models
@pytest.mark.parametrize(
    ("name", "path", "options"), [pytest.param(*case, id=case[0]) for case in making.third_party()]
)
def test_a_third_party_model_answers_as_it_did(name, path, options, tmp_path):
    assert_same(name, making.model(path, tmp_path, *options))


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ({"n": 3}, {"n": 4}),
        ({"n": 3}, {"n": 3.0000001}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"mean": 1.0}, {"mean": 1.00002}),
        ({"rows": [1, 2]}, {"rows": [2, 1]}),
        ({"name": "conv"}, {"name": "dense"}),
        ({"flag": True}, {"flag": 1}),
    ],
)
def test_a_difference_is_seen(expected, found):
    assert golden.differences(golden.condense(expected), golden.condense(found))


def test_one_of_many_values_that_differs_is_seen():
    values = [float(i) for i in range(100)]
    moved = [*values[:50], values[50] + 0.1, *values[51:]]
    swapped = [values[99], *values[1:99], values[0]]
    for other in (moved, swapped):
        assert golden.differences(golden.condense({"x": values}), golden.condense({"x": other}))


def test_times_and_versions_are_no_difference():
    assert golden.condense({"seconds": 1.2, "tool_version": "1", "n": 1}) == {"n": 1}
