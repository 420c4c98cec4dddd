"""The examples in the docstrings of information and skills give what they say."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import emergraph.analysis.information as information
import emergraph.analysis.skills as skills

MODULES = [
    f"{package.__name__}.{module.name}"
    for package in (information, skills)
    for module in pkgutil.iter_modules(package.__path__)
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs={"np": np}).failed == 0
