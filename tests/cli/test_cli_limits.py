"""Every command has limits of wall time and memory, declared in one place."""

import contextlib
import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from emergraph.cli.app import program
from emergraph.cli.limits import Limits, doing, held_to
from emergraph.errors import LimitError
from emergraph.memory import RESERVED_BYTES, allowance
from emergraph.processes import held_memory


def all_commands():
    pending = [(program(), "emergraph")]
    while pending:
        command, name = pending.pop()
        inner = getattr(command, "commands", {})
        pending.extend((each, f"{name} {word}") for word, each in inner.items())
        if not inner:
            yield name, command


def test_every_command_has_both_limits_once():
    found = dict(all_commands())
    assert len(found) >= 26
    for name, command in found.items():
        options = [word for parameter in command.params for word in parameter.opts]
        assert options.count("--time-limit") == 1, name
        assert options.count("--memory-limit") == 1, name


@pytest.mark.parametrize("option", ["--time-limit", "--memory-limit"])
def test_every_command_reads_its_limits(run, option):
    """A value that cannot be read stops every command before it looks at anything else."""
    for name, command in all_commands():
        required = [each for each in command.params if each.required]
        needed = ["0" if each.param_type_name == "argument" else f"{each.opts[0]}=0" for each in required]
        found = run(*name.split()[1:], *needed, option, "much")
        assert found.code == 2, name
        assert "is not a" in found.err, name


def test_a_limit_of_time_says_what_ran():
    begun = time.monotonic()
    with (
        pytest.raises(LimitError) as caught,
        doing("concepts"),
        held_to(Limits(time_limit="0.2s")),
        doing("reading a.csv"),
    ):
        time.sleep(20)
    assert time.monotonic() - begun < 5
    assert str(caught.value) == (
        "concepts, reading a.csv: terminated at the limit of 0.2s: nothing was changed; raise it with"
        " --time-limit, such as --time-limit 0.4s"
    )


def test_a_limit_of_memory_says_what_ran():
    with (
        pytest.raises(
            LimitError, match=r"^trace, reading a\.npz: out of memory, \d+ MiB were taken, and more is needed"
        ) as caught,
        doing("trace"),
        held_to(Limits(memory_limit="4GiB")),
        doing("reading a.npz"),
    ):
        bytearray(8 << 30)  # too much for any look to come in time
    assert "--memory-limit 8192MiB" in str(caught.value)
    with held_to(Limits(memory_limit="8GiB")):
        bytearray(64 << 20)


def held_within(limit, content, seconds=3.0):
    """Hold some bytes for a while under a limit that leaves room for so many."""
    room = Limits(memory_limit=f"{held_memory(os.getpid()) + limit}B")
    with doing("trace"), held_to(room):
        kept = content()
        time.sleep(seconds)
    del kept


def test_memory_is_what_no_file_backs_and_is_touched(tmp_path):
    held_within(200 << 20, lambda: mmap.mmap(-1, 600 << 20, flags=mmap.MAP_PRIVATE), 0.5)  # reserved alone
    with (tmp_path / "file").open("wb") as file:
        file.truncate(300 << 20)
    mapped = np.memmap(tmp_path / "file", np.uint8, mode="r")
    held_within(200 << 20, lambda: int(mapped[:: 1 << 12].sum()), 0.5)
    held_within(200 << 20, lambda: b"x" * (100 << 20), 0.5)
    with pytest.raises(LimitError, match=r"^trace: out of memory, \d+ MiB were taken of the limit of \d+B: "):
        held_within(200 << 20, lambda: b"x" * (300 << 20))


def test_what_a_command_has_started_counts():
    hold = "import sys, time; kept = b'x' * (int(sys.argv[1]) << 20); time.sleep(30)"

    def child(size):
        return subprocess.Popen([sys.executable, "-c", hold, str(size)])

    for size, fits in ((50, True), (300, False)):
        started = []
        with contextlib.nullcontext() if fits else pytest.raises(LimitError, match="were taken of the limit"):
            held_within(200 << 20, lambda: started.append(child(size)), 1.0 if fits else 20.0)  # noqa: B023
        for process in started:
            process.kill()
            process.wait()


def test_a_limit_from_outside_is_not_raised_by_an_option():
    program = """
import resource
from emergraph.cli.limits import Limits, held_to
resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, resource.getrlimit(resource.RLIMIT_DATA)[1]))
try:
    with held_to(Limits()):
        bytearray(4 << 30)
except Exception as error:
    print(type(error).__name__, error)
"""  # a process of its own: this one may have reserved as much already
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("LimitError ")
    assert "(ulimit -d 2097152)" in done.stdout
    assert "--memory-limit" not in done.stdout


def test_within_other_limits_the_tighter_hold():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with (
        pytest.raises(LimitError, match=r"limit of 0\.3s"),
        held_to(Limits(time_limit="0.3s")),
        held_to(Limits(time_limit="1h")),
    ):
        time.sleep(20)
    with held_to(Limits(time_limit="1h")):
        with pytest.raises(LimitError, match=r"limit of 0\.2s"), held_to(Limits(time_limit="0.2s")):
            time.sleep(20)
        left = signal.getitimer(signal.ITIMER_REAL)[0]
        assert 3500 < left <= 3600
    with held_to(Limits(memory_limit="4GiB")):
        alone = resource.getrlimit(resource.RLIMIT_DATA)[0]
    with held_to(Limits(memory_limit="4GiB")), held_to(Limits(memory_limit="8GiB")):
        within = resource.getrlimit(resource.RLIMIT_DATA)[0]
        assert (4 << 30) + RESERVED_BYTES <= within < alone + RESERVED_BYTES
        assert allowance() == 4 << 30
    assert allowance() is None
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_thread_has_no_clock_but_runs():
    done = []

    def work():
        with held_to(Limits(time_limit="1h")):
            done.append(signal.getitimer(signal.ITIMER_REAL)[0])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [0.0]
