"""Chains of errors, which can be circles."""

import pytest

from emergraph.atomic import together
from emergraph.errors import chain_of
from emergraph.memory import ran_out_of_memory


def circle():
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def test_a_chain_is_followed_to_its_end_and_a_circle_once():
    assert [str(error) for error in chain_of(circle())] == ["first", "'second'"]
    outer = ValueError("outer")
    outer.__context__ = MemoryError()
    assert len(list(chain_of(outer))) == 2
    assert len(list(chain_of(outer, context=False))) == 1
    assert list(chain_of(None)) == []


def test_a_command_that_ends_with_a_circle_ends():
    assert not ran_out_of_memory(circle())
    with pytest.raises(ValueError, match="first"), together():
        raise circle()
