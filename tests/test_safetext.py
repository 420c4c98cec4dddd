"""Hostile names (cases 52 to 58 of the list of attacks) at the functions that make them safe."""

import doctest
import unicodedata
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergraph import safetext

TERMINAL_ATTACKS = [
    pytest.param("\x1b]0;owned\x07", id="window title"),
    pytest.param("\x1b[2Jgone", id="clear screen"),
    pytest.param("\x9b31m", id="C1 control sequence introducer"),
    pytest.param("fc\u202e1", id="right-to-left override"),
    pytest.param("fc\u200b1", id="zero-width space"),
    pytest.param("a\nERROR all is lost", id="line feed"),
    pytest.param("a\rb", id="carriage return"),
    pytest.param("a\u2028b\u2029c", id="line and paragraph separators"),
    pytest.param("\ud800", id="lone surrogate"),
    pytest.param("a\x00b", id="NUL"),
    pytest.param("a\U000e0ff0\ue000b", id="unassigned and private"),
]


def test_examples_in_the_docstrings():
    assert doctest.testmod(safetext).failed == 0


@pytest.mark.parametrize("name", TERMINAL_ATTACKS)
def test_escaped_names_hold_nothing_that_steers_a_terminal(name):
    shown = safetext.escape_controls(name)
    assert len(shown.splitlines()) == 1
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert shown.encode() == shown.encode("utf-8", "strict")


@pytest.mark.parametrize(
    ("name", "shown"), [("\x1b[2J", "\\x1b[2J"), ("\x9b", "\\x9b"), ("\u202e", "\\u202e"), ("é 層", "é 層")]
)
def test_escapes_name_the_code_and_letters_stay(name, shown):
    assert safetext.escape_controls(name) == shown


@given(st.text())
def test_escaping_twice_is_escaping_once(text):
    once = safetext.escape_controls(text)
    assert once.isprintable()
    assert safetext.escape_controls(once) == once


@pytest.mark.parametrize(
    "cell", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "  =1", "＝1"]
)
def test_formulas_are_guarded(cell):
    assert safetext.guard_formula(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", " ", "fc1", "a=b", "'=1", "1-2"])
def test_other_cells_stay(cell):
    assert safetext.guard_formula(cell) == cell


@given(st.text())
def test_xml_text_parses_back(name):
    written = safetext.escape_xml(name)
    assert "]]>" not in written
    root = ET.fromstring(f'<node name="{written}">{written}</node>')
    shown = safetext.escape_controls(name).replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
    assert root.attrib["name"] == shown
    assert (root.text or "") == shown


def test_lookalikes_are_told_apart_and_others_stay():
    names = ["fc1", "f\u0441" + "1", "FC1", "café", "naïve", "naive"]
    assert safetext.reveal_lookalikes(names) == {"f\u0441" + "1": "f\\u04411", "naïve": "na\\xefve"}


def test_names_that_differ_in_case_only_stay():
    assert safetext.reveal_lookalikes(["conv", "Conv", "CONV"]) == {}


@given(st.text(), st.integers(8, 50))
def test_shortened_names_fit_and_keep_both_ends(text, width):
    short = safetext.shorten(text, width)
    assert len(short) <= width
    if len(text) > width:
        assert short[0] == text[0]
        assert short[-1] == text[-1]
        assert "…" in short
    else:
        assert short == text
