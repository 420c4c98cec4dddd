"""torch warns about its own inside while it exports; nothing of that is about the project."""

import contextlib
import logging
import warnings

import pytest


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
