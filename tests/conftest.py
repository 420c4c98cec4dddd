"""Settings of all tests: no clock for property tests, children that start warm."""

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings
from warmchildren import warm_children

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

_COLD = subprocess.Popen
_COLD_MARKERS = ("cold", "fuzz", "kills", "strace")


@pytest.fixture(scope="session", autouse=True)
def warm():
    """Children that run models, queries and steps of reports are forked where all imports are done."""
    if sys.platform != "linux":
        yield
        return
    with warm_children():
        yield


@pytest.fixture(autouse=True)
def _cold_where_asked_for(request, monkeypatch):
    if any(request.node.get_closest_marker(name) for name in _COLD_MARKERS):
        monkeypatch.setattr(subprocess, "Popen", _COLD)
