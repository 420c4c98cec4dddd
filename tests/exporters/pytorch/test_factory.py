"""Factories by module and by file."""

import sys

import pytest

from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.pytorch.factory import load_factory
from emergraph.exporters.sourcekinds import SourceKind, source_kind

NET = """
from dataclasses import dataclass

@dataclass
class Made:
    n: int = 3

class Inner:
    make = Made
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "beside.py").write_text("raise AssertionError('imported')")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "net.py"


@pytest.mark.parametrize("spec", ["net.py:Made", "./net.py:Made", "net.py:Inner.make"])
def test_a_file_is_imported_alone(file, spec):
    before = list(sys.path)
    assert source_kind(spec) is SourceKind.FACTORY
    assert load_factory(spec).n == 3
    assert sys.path == before
    (file.parent / "importing.py").write_text("import beside")
    with pytest.raises(UsageError, match="No module named 'beside'"):
        load_factory("importing.py:make")


def test_a_module_that_is_a_file_here_is_told_how(file):
    with pytest.raises(UsageError, match=r"for the file in this folder: \./net\.py:Made"):
        load_factory("net:Made")


def test_what_is_no_factory(file):
    with pytest.raises(UsageError, match="no such file"):
        load_factory("other.py:make")
    assert source_kind("other.py:make") is SourceKind.ONNX
    with pytest.raises(UsageError, match="has no attribute"):
        load_factory("net.py:nothing")
    file.write_text("1 / 0")
    with pytest.raises(InvalidInputError, match=r"net\.py failed: ZeroDivisionError"):
        load_factory("net.py:make")
