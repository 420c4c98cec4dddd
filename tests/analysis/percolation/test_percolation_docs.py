"""The examples in the docstrings of percolation give what they say."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import emergraph.analysis.percolation as package


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(package.__path__)])
def test_examples(name):
    module = importlib.import_module(f"{package.__name__}.{name}")
    assert doctest.testmod(module, extraglobs={"np": np}).failed == 0
