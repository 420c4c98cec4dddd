"""Which axis of an input has the samples, and random samples."""

import numpy as np
import pytest

from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.runtime.flat_model import FlatInput
from emergraph.exporters.traces.samples import DrawnSamples, GivenSamples, sample_axes


def declared(**shapes):
    return [FlatInput(name, 1, shape) for name, shape in shapes.items()]


def zeros(**shapes):
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("shapes", "arrays", "told", "n", "axes"),
    [
        ({"x": ("batch", 3)}, {"x": (5, 3)}, {}, 5, {"x": 0}),
        ({"x": ("batch", 3), "sr": ()}, {"x": (5, 3), "sr": ()}, {}, 5, {"x": 0, "sr": None}),
        (
            {"state": (2, "batch", 8), "x": ("batch", 3)},
            {"state": (2, 5, 8), "x": (5, 3)},
            {},
            5,
            {"state": 1, "x": 0},
        ),
        (
            {"x": (None, None), "state": (2, None, 8)},
            {"x": (5, 9), "state": (2, 5, 8)},
            {},
            5,
            {"x": 0, "state": 1},
        ),
        ({"x": ("n", 3), "h": (1, 1, 8)}, {"x": (5, 3), "h": (1, 1, 8)}, {}, 5, {"x": 0, "h": None}),
        ({"x": (1, 3)}, {"x": (5, 3)}, {}, 5, {"x": 0}),
        ({"x": (10, 3)}, {"x": (10, 3)}, {}, 10, {"x": 0}),
        ({"x": ("t", "n", 3)}, {"x": (7, 5, 3)}, {"x": 1}, 5, {"x": 1}),
        ({"x": ("t", "n", 3)}, {"x": (7, 5, 3)}, {"x": -2}, 5, {"x": 1}),
        ({"x": ("t", 3), "y": ("n",)}, {"x": (7, 3), "y": (5,)}, {"x": None}, 5, {"x": None, "y": 0}),
    ],
)
def test_samples_are_found(shapes, arrays, told, n, axes):
    assert sample_axes(declared(**shapes), zeros(**arrays), told) == (n, axes)


def test_inputs_that_disagree_are_refused():
    with pytest.raises(InvalidInputError, match=r"'y' has shape \[4, 3\], the samples are 5"):
        sample_axes(declared(x=("n", 3), y=("m", 3)), zeros(x=(5, 3), y=(4, 3)), {})
    with pytest.raises(UsageError, match="unknown input 'z'; available: x"):
        sample_axes(declared(x=("n", 3)), zeros(x=(5, 3)), {"z": 0})
    with pytest.raises(UsageError, match="'x' has 2 axes; axis 2 does not exist"):
        sample_axes(declared(x=("n", 3)), zeros(x=(5, 3)), {"x": 2})


def test_given_samples_are_views_where_they_can_be():
    arrays = {"x": np.arange(24.0).reshape(2, 4, 3), "k": np.array(7.0)}
    samples = GivenSamples(4, arrays, {"x": 1, "k": None})
    some = samples.feeds(range(1, 3))
    np.testing.assert_array_equal(some["x"], arrays["x"][:, 1:3])
    assert some["x"].base is not None
    assert some["k"] is arrays["k"]
    np.testing.assert_array_equal(samples.feeds([3, 0])["x"], arrays["x"][:, [3, 0]])


def drawn(**options):
    template = {
        "x": np.zeros((1, 4), np.float32),
        "ids": np.int64([[1, 2, 3]]),
        "mask": np.ones((1, 3), np.int64),
        "state": np.zeros((2, 1, 3), np.float32),
        "sr": np.array(16000),
    }
    axes = {"x": 0, "ids": 0, "mask": 0, "state": 1, "sr": None}
    return DrawnSamples(50, 3, template, axes, frozenset({"mask"}), **options)


def test_a_random_sample_does_not_depend_on_its_batch():
    samples = drawn(rows={"ids": 9})
    together = samples.feeds([4, 0, 7])
    for position, index in enumerate([4, 0, 7]):
        alone = samples.feeds([index])
        for name, axis in samples.axes.items():
            found = together[name] if axis is None else np.take(together[name], [position], axis)
            np.testing.assert_array_equal(found, alone[name], err_msg=name)


def test_random_values_are_legal_and_differ():
    feeds = drawn(rows={"ids": 9}).feeds(range(50))
    assert feeds["ids"].dtype == np.int64
    assert set(feeds["ids"].ravel()) == set(range(9))
    assert feeds["mask"].tolist() == [[1, 1, 1]] * 50
    assert feeds["sr"] == 16000
    assert feeds["state"].shape == (2, 50, 3)
    assert abs(feeds["x"].mean()) < 0.3
    assert feeds["x"].std() == pytest.approx(1, abs=0.2)
    unknown_table = drawn().feeds(range(50))["ids"]
    assert {tuple(sorted(row)) for row in unknown_table} == {(1, 2, 3)}
    assert len({tuple(row) for row in unknown_table}) > 1


def test_without_a_sample_axis_every_run_is_one_new_sample():
    template = {"x": np.zeros((7, 4), np.float32), "k": np.array(2)}
    samples = DrawnSamples(3, 0, template, {"x": None, "k": None}, frozenset({"k"}))
    one, two = samples.feeds([0])["x"], samples.feeds([1])["x"]
    assert one.shape == (7, 4)
    assert not np.array_equal(one, two)
