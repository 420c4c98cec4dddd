"""A command that lacks memory and does nothing any more is told from one that works or waits."""

import contextlib
import resource
import subprocess
import sys
import time

import pytest

from emergraph.cli import supervision
from emergraph.cli.supervision import CHECKS, Standstill
from emergraph.processes import family, read_status

IDLE = "import time; time.sleep(60)"
SPINS = """
import mmap, resource
resource.setrlimit(resource.RLIMIT_DATA, (100 << 20, 100 << 20))
while True:
    try:
        mmap.mmap(-1, 1 << 33)
    except OSError:
        pass
"""
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (100 << 20, 100 << 20))\n"
READS = f"{LIMITED}while True: open('/dev/zero', 'rb').read(1 << 12)"
COMPUTES = f"{LIMITED}while True: 7 ** 7"
TAKES = """
import mmap, resource
resource.setrlimit(resource.RLIMIT_DATA, (100 << 20, 100 << 20))
while True:
    with mmap.mmap(-1, 1 << 20) as taken:
        taken[:] = bytes(1 << 20)
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere commands have no process above them"
)


@contextlib.contextmanager
def running(program):
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        time.sleep(0.5)
        try:
            yield process.pid
        finally:
            process.kill()


def looks(child, pause=0.1):
    """What twice as many looks as are needed say, where memory ran out and where it did not."""
    lacking, other = Standstill(child, lambda: True), Standstill(child, lambda: False)
    answers = []
    for _ in range(2 * CHECKS):
        answers.append((lacking.reached(), other.reached()))
        time.sleep(pause)
    return [list(each) for each in zip(*answers, strict=True)]


def test_a_process_that_waits_for_ever_is_at_a_standstill_where_memory_ran_out():
    with running(IDLE) as child:
        lacking, other = looks(child)
        assert lacking == [False] * CHECKS + [True] * CHECKS
        assert not any(other)


def test_so_is_one_that_asks_for_memory_again_and_again():
    with running(SPINS) as child:
        assert looks(child)[1][-1]


@pytest.mark.parametrize("program", [READS, COMPUTES, TAKES])
def test_one_that_works_near_its_limit_is_not(program):
    with running(program) as child:
        assert not any(map(any, looks(child)))


def test_work_of_what_it_started_counts():
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {COMPUTES!r}])"
    with running(outer) as child:
        assert len(list(family(child))) == 2
        try:
            assert not any(map(any, looks(child)))
        finally:
            for process in list(family(child))[1:]:
                subprocess.run(["kill", "-9", str(process)], check=True)


@pytest.mark.parametrize(("room", "at_limit"), [(-1, True), (1 << 20, False)])
def test_how_near_a_limit_is(monkeypatch, room, at_limit):
    with running(IDLE) as child:
        status = read_status(child)
        held = int(status.split("VmSize:")[1].split()[0]) * 1024
        _, hard = resource.prlimit(child, resource.RLIMIT_AS)
        resource.prlimit(child, resource.RLIMIT_AS, (held + supervision.ROOM_BYTES + room, hard))
        assert supervision._at_limit(child) == at_limit


def test_a_process_that_is_gone_is_no_reason_to_fail():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert not any(Standstill(process.pid, lambda: False).reached() for _ in range(CHECKS + 2))
