"""What is packed is what a page unpacks."""

import numpy as np
from explorerdata import unpacked

from emergraph.analysis.explorer.collect import packed, rounded


def test_a_header_and_arrays_come_back():
    rng = np.random.default_rng(1)
    arrays = {
        "a": np.append(rng.normal(size=9), [np.nan, np.inf]).astype(np.float32),
        "b": rng.integers(0, 2**32, 5).astype(np.uint32),
        "c": np.zeros(0, np.uint16),
        "d": np.arange(3, dtype=np.uint8),
    }
    text = packed({"title": "</script> \u202e"}, arrays)
    header, found = unpacked(text)
    assert header["title"] == "</script> \u202e"
    assert text.isascii()
    assert "<" not in text
    assert packed({"title": "</script> \u202e"}, arrays) == text
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_rounded_numbers_have_five_digits():
    rng = np.random.default_rng(2)
    exact = (rng.normal(size=1000) * 10.0 ** rng.integers(-30, 30, 1000)).astype(np.float32)
    found = rounded(exact)
    assert np.max(np.abs(found / exact.astype(np.float64) - 1)) <= 2.0**-17
    assert not (found.view(np.uint32) & 0x7F).any()
    whole = np.asarray([0, 1, -1, 131071, np.nan, np.inf, -np.inf], np.float32)
    np.testing.assert_array_equal(rounded(whole), whole)
    assert rounded(np.asarray([131073.0]))[0] != 131073  # the first whole number that is rounded
