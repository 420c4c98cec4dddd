"""A call in a child process: no network, limits, and errors in one line."""

import importlib
import os
import socket
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from emergraph.errors import InvalidInputError, LimitError, UnsafeInputError, UsageError
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.offline import call_offline
from emergraph.quiet import CACHES, OFFLINE

pytestmark = pytest.mark.cold

SWALLOWED = """
import socket, urllib.request
try:
    urllib.request.urlopen("http://swallowed.invalid/")
except Exception:
    pass
"""
WITHIN = """
import socket
a, b = socket.socketpair()
a.sendall(b"x")
assert b.recv(1) == b"x"
with socket.socket(socket.AF_UNIX) as s:
    try:
        s.connect("/nowhere/at/all")
    except FileNotFoundError:
        pass
try:
    socket.socket(socket.AF_INET6)
except OSError:
    pass
"""
UDP = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
STEPS = """
def steps(n, *, progress):
    for i in range(n):
        progress(i + 1, n)
    return n
"""


def test_values_and_arrays_come_back():
    found = call_offline(np.add, np.arange(3), 1)
    assert found.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("function", "arguments", "place"),
    [
        (urllib.request.urlopen, ("http://nobody.invalid/",), "nobody.invalid"),
        (socket.create_connection, (("127.0.0.1", 9),), "127.0.0.1"),
        (socket.getaddrinfo, ("nobody.invalid", 80), "nobody.invalid"),
        (socket.gethostbyname, ("nobody.invalid",), "nobody.invalid"),
        (exec, (SWALLOWED,), "swallowed.invalid"),
    ],
    ids=["url", "address", "name", "old name", "swallowed"],
)
def test_the_network_is_closed(function, arguments, place):
    with pytest.raises(UnsafeInputError, match=f"would contact .*{place}.* without a network"):
        call_offline(function, *arguments)


def test_a_socket_that_only_opens_is_refused_without_a_verdict():
    with pytest.raises(
        InvalidInputError, match="building the model failed: NetworkClosedError: no network here"
    ):
        call_offline(exec, UDP)
    assert call_offline(exec, WITHIN) is None


def test_libraries_find_their_variables_and_folders(monkeypatch):
    for name in OFFLINE:
        monkeypatch.setenv(name, "something else")
    found = call_offline(eval, "dict(__import__('os').environ)")
    assert {name: found[name] for name in OFFLINE} == OFFLINE
    folders = {found[name] for name in CACHES}
    assert len(folders) == 1
    assert not Path(folders.pop()).exists()


def test_progress_is_passed_on(tmp_path, monkeypatch):
    (tmp_path / "stepping.py").write_text(STEPS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    found = call_offline(importlib.import_module("stepping").steps, 3, progress=lambda *b: seen.append(b))
    assert (found, seen) == (3, [(1, 3), (2, 3), (3, 3)])


def test_a_clock_ends_it():
    begin = time.monotonic()
    with pytest.raises(LimitError, match="longer than 1 s"):
        call_offline(time.sleep, 60, limits=RunLimits(wall_seconds=1))
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize(("size", "fits"), [(64 << 20, True), (4 << 30, False)])
def test_memory_is_bounded(size, fits):
    limits = RunLimits(memory_bytes=1 << 30)
    if fits:
        assert call_offline(exec, f"bytearray({size})", limits=limits) is None
        return
    with pytest.raises(LimitError, match="more than 1 GiB of memory"):
        call_offline(exec, f"bytearray({size})", limits=limits)


@pytest.mark.parametrize(
    ("function", "arguments", "line"),
    [
        (os.abort, (), "crashed .SIGABRT.; nothing was changed"),
        (os._exit, (3,), "exit code 3"),
        (int, ("x",), "failed: ValueError: invalid literal"),
    ],
    ids=["crash", "exit", "error"],
)
def test_ends_without_an_answer_are_one_line(function, arguments, line):
    with pytest.raises(InvalidInputError, match=line) as caught:
        call_offline(function, *arguments)
    assert "\n" not in str(caught.value)


def test_errors_of_the_house_keep_their_kind():
    with pytest.raises(UsageError, match=r"^wrong$"):
        call_offline(exec, "from emergraph.errors import UsageError\nraise UsageError('wrong')")
