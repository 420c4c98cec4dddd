import doctest
import importlib
import pkgutil

import pytest

from emergraph.analysis import landscape

PURE = [m.name for m in pkgutil.iter_modules(landscape.__path__)]


@pytest.mark.parametrize("name", PURE)
def test_examples_in_docstrings_are_true(name):
    module = importlib.import_module(f"{landscape.__name__}.{name}")
    result = doctest.testmod(module, extraglobs={"np": __import__("numpy")})
    assert result.failed == 0
