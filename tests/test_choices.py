"""The sentence about a name that is not available."""

import pytest

from emergraph.choices import unknown


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        ((), "none"),
        (("b",), "b"),
        (("b", "c", "b"), "b, c"),
        ([f"n{i}" for i in range(12)], "n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11"),
    ],
)
def test_up_to_twelve_names_are_listed_in_full(available, expected):
    assert unknown("criterion", "a", available) == f"unknown criterion 'a'; available: {expected}"


def test_of_more_than_twelve_the_closest_are_listed():
    names = [f"layer{i}.weight" for i in range(12)] + ["head.bias"]
    assert (
        unknown("tensor", "head.bais", names)
        == "unknown tensor 'head.bais'; available: head.bias and 12 more"
    )


def test_of_more_than_twelve_where_none_is_close_the_first_are_listed():
    assert unknown("tensor", "??", [f"n{i}" for i in range(13)]).endswith("available: n0, n1, n2 and 10 more")


def test_names_from_files_are_one_line_of_limited_length():
    message = unknown("tensor", "a\x1b[2J", ["b\nc", "d" * 1000])
    assert message.isprintable()
    assert "a\\x1b[2J" in message
    assert len(message) < 200


def test_names_need_not_be_text():
    assert unknown("trace", 3, [1, 2]) == "unknown trace '3'; available: 1, 2"
