"""Text of a store's cells."""

import pytest

from emergraph.errors import StoreError
from emergraph.graphstore.text import stored_object


@pytest.mark.parametrize("text", [None, "", "{}"])
def test_an_empty_cell_is_an_empty_object(text):
    assert stored_object(text, "a cell") == {}


def test_a_cell_is_read():
    assert stored_object('{"a": [1, null]}', "a cell") == {"a": [1, None]}


@pytest.mark.parametrize("text", ["{", "nonsense", "[1]", "1", "null", "[" * 100_000, "\x1b[2J"])
def test_what_is_no_object_is_damage(text):
    with pytest.raises(
        StoreError, match="the store is damaged: settings of graph 0: expected a JSON object"
    ) as caught:
        stored_object(text, "settings of graph 0")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200
