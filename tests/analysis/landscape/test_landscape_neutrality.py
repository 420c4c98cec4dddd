import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.analysis.landscape.neutrality import neutrality, plateau_lengths
from emergraph.errors import UsageError


def naive_lengths(values, eps):
    lengths, current = [], 1
    for a, b in itertools.pairwise(values):
        if abs(b - a) <= eps:
            current += 1
        else:
            lengths.append(current)
            current = 1
    return [*lengths, current]


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30), st.sampled_from([0.0, 1.0, 2.0]))
@settings(max_examples=100, deadline=None)
def test_plateaus_equal_the_definition(values, eps):
    found = plateau_lengths(np.array(values, dtype=float), eps)
    assert found.tolist() == naive_lengths(values, eps)
    assert found.sum() == len(values)


def test_flat_is_wholly_neutral():
    found = neutrality(np.ones((3, 10)), eps=0.0)
    assert (found.neutral_share.mean, found.plateau_length.mean, found.longest_plateau) == (1.0, 10.0, 10)


def test_strictly_monotone_is_not_neutral():
    found = neutrality(np.arange(10.0)[None], eps=0.5)
    assert (found.neutral_share.mean, found.plateau_length.mean, found.longest_plateau) == (0.0, 1.0, 1)


def test_nan_steps_are_never_neutral():
    assert neutrality([[1.0, np.nan, 1.0]], eps=9.0).neutral_share.mean == 0.0


def test_resolution_must_be_stated_and_sensible():
    assert neutrality([[0.0, 1.0, 1.0]], eps=1.0).eps == 1.0
    with pytest.raises(UsageError, match="eps"):
        neutrality([[0.0, 1.0]], eps=-1.0)
