"""Option values: sizes, durations, names with values."""

import numpy as np
import pytest

from emergraph.errors import UsageError
from emergraph.exporters.runtime.inputwords import parse_shapes, parse_values
from emergraph.optionforms import parse_axes, parse_bytes, parse_numbers, parse_seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 * 2**30), ("500MB", 500_000_000), ("1.5 gib", 3 * 2**29), ("1024", 1024), ("2kb", 2000)],
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1h", 3600), ("0.5s", 0.5)]
)
def test_durations(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "many", "-1", "5 parsecs", "1e9GB", "0", "nan", "inf"])
@pytest.mark.parametrize("parse", [parse_bytes, parse_seconds])
def test_what_is_no_quantity_is_refused_with_an_example(parse, text):
    with pytest.raises(UsageError, match="such as"):
        parse(text)


def test_shapes():
    assert parse_shapes(["input:0=1,224,224,3", "a=b=2", "s="]) == {
        "input:0": (1, 224, 224, 3),
        "a=b": (2,),
        "s": (),
    }


@pytest.mark.parametrize("entry", ["x", "=1", "x=1,a", "x=-1", "x=0", "x=1.5", "x=1,,2"])
def test_bad_shapes_are_refused(entry):
    with pytest.raises(UsageError, match="expected"):
        parse_shapes([entry])


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("sr=16000", np.array(16000)),
        ("x=0.5", np.array(0.5)),
        ("m=1,1,0", np.array([1, 1, 0])),
        ("m=[[1,2],[3,4]]", np.array([[1, 2], [3, 4]])),
        ("flag=true", np.array(True)),
        ("flags=[true]", np.array([True])),
    ],
)
def test_values(entry, value):
    ((_, array),) = parse_values([entry]).items()
    assert array.dtype == value.dtype
    assert array.shape == value.shape
    assert np.array_equal(array, value)


@pytest.mark.parametrize("entry", ["x", "=1", "x=", "x=abc", "x=[1,[2]]", "x={}", 'x="a"', "x=null", "x=[1"])
def test_bad_values_are_refused(entry):
    with pytest.raises(UsageError, match="expected"):
        parse_values([entry])


@pytest.mark.parametrize("parse", [parse_axes, parse_shapes, parse_values])
def test_a_name_given_twice_is_refused(parse):
    with pytest.raises(UsageError, match="twice"):
        parse(["x=1", "x=2"])


def test_numbers():
    assert parse_numbers("0.01, 0.05,1e-3", "--thresholds") == (0.01, 0.05, 0.001)


@pytest.mark.parametrize("text", ["", "a", "1,,2", "nan", "1,inf"])
def test_bad_numbers_are_refused(text):
    with pytest.raises(UsageError, match="--thresholds"):
        parse_numbers(text, "--thresholds")


def test_axes():
    assert parse_axes(["state=1", "x=-1", "sr=none"]) == {"state": 1, "x": -1, "sr": None}


@pytest.mark.parametrize("entry", ["x", "x=", "x=a", "x=1.5", "x=--1"])
def test_bad_axes_are_refused(entry):
    with pytest.raises(UsageError, match="expected"):
        parse_axes([entry])
