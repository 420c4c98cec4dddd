"""The examples in docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import emergraph.analysis.emergence as package

MODULES = [
    "emergraph.analysis.layerednets",
    *(f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs={"np": importlib.import_module("numpy")}).failed == 0
