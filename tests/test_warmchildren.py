"""Children that start warm are children like others: parent, streams, folder, limits, exit code."""

import resource
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children start cold elsewhere")
COMMAND = [sys.executable, "-P", "-m", "emergraph"]


def test_what_a_caller_sees_of_a_warm_child_is_what_it_sees_of_a_cold_one(tmp_path):
    for words in (["--version"], ["ls", "missing.duckdb"], ["concepts", "-"]):
        found = [
            subprocess.run(
                [sys.executable, *start, "emergraph", *words],
                cwd=tmp_path,
                input=b"entity,property\na,b\n",
                capture_output=True,
                check=False,
            )
            for start in (["-P", "-m"], ["-Pm"])
        ]
        assert len({(done.returncode, done.stdout, done.stderr) for done in found}) == 1, found
    assert found[0].returncode == 0


def test_it_is_the_child_of_who_asked_and_holds_the_same_limits():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (123_000, before[1]))
    try:
        child = subprocess.Popen([*COMMAND, "concepts", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with child:
        assert psutil.Process(child.pid).ppid() == psutil.Process().pid
        deadline = time.monotonic() + 20
        while resource.prlimit(child.pid, resource.RLIMIT_FSIZE)[0] != 123_000:  # it sets them when it runs
            assert time.monotonic() < deadline
            time.sleep(0.01)
        out, _ = child.communicate(b"entity,property\na,b\n", timeout=60)
    assert (child.returncode, b"entities" in out) == (0, True)
