"""torch warns about its own inside while it exports; nothing of that is about the project."""

import contextlib
import functools
import logging
import warnings

import pytest


@pytest.fixture(scope="session", autouse=True)
def _known_operations():
    """torch parses the source of its 500 ONNX translations for every export: half the time of a small one."""
    registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
    registry = registration.ONNXRegistry
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(registry, "from_torchlib"):
            known = functools.cache(registry.from_torchlib)
            patch.setattr(registry, "from_torchlib", staticmethod(known))
        yield


@pytest.fixture
def quiet():
    """A context in which torch keeps its warnings to itself."""

    @contextlib.contextmanager
    def silently():
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            logging.disable(before)

    return silently
