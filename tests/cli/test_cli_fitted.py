"""Tables on terminals of any width: every number whole, every column there."""

import io
import itertools

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from emergraph.cli.fitted import TextColumn, column_groups, folded
from emergraph.cli.tables import rich_parts

NAMES = ("kept_parameters", "density", "effective_sparsity", "collapsed_layers", "bottleneck_width", "log10")


def shown(frame, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(*rich_parts({}, [frame]))
    return console.file.getvalue()


def wide_frame():
    numbers = {name: [213377.0 / (k + 1), 0.0511442, 2.02542e07] for k, name in enumerate(NAMES)}
    return pl.DataFrame({"level": [0.0, 0.5, 0.99], "layer": ["stem"] * 3, **numbers})


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_numbers_are_whole_and_all_columns_are_there(width):
    frame = wide_frame()
    words = shown(frame, width).split()
    for name in frame.columns:
        for value in frame[name]:
            assert (value if isinstance(value, str) else f"{value:.6g}") in words
    headings = " ".join(shown(frame, width).split())
    assert all(piece in headings for name in frame.columns for piece in name.split("_"))


def test_lines_stay_within_the_terminal():
    for width in (60, 80, 100):
        assert max(map(len, shown(wide_frame(), width).splitlines())) <= width


def test_a_table_with_room_is_one_table_with_plain_headings():
    lines = [line for line in shown(wide_frame(), 200).splitlines() if line.strip()]
    assert len(lines) == 5
    assert all(name in lines[0] for name in NAMES)


def test_long_names_fold_beside_whole_numbers():
    frame = pl.DataFrame({"layer": [1], "name": ["model/conv2d/" * 9], "n_units": [123456]})
    text = shown(frame, 60)
    assert "123456" in text.split()
    assert text.replace("\n", "").count("conv2d") >= 8


columns = st.builds(
    TextColumn,
    st.text("ab_", min_size=1, max_size=12),
    st.lists(st.text("0123456789", min_size=1, max_size=15), min_size=1, max_size=3),
    st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(columns, min_size=1, max_size=8), st.integers(10, 80))
def test_groups_hold_every_column_once_and_fit(given_columns, width):
    groups = column_groups(given_columns, width)
    assert all(group[0] is given_columns[0] for group in groups)
    rest = list(itertools.chain.from_iterable(group[1:] for group in groups))
    assert len(rest) == len(given_columns) - 1
    assert all(one is other for one, other in zip(rest, given_columns[1:], strict=True))
    for group in groups:
        assert sum(column.least + 3 for column in group) <= width or len(group) <= 2


@given(st.text("ab_", min_size=1, max_size=20), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_folded_headings_lose_nothing(name, width):
    lines = folded(name, width).split("\n")
    assert "".join(lines) == name
    assert all(len(line.rstrip("_")) <= width or line.strip("_").count("_") == 0 for line in lines)
