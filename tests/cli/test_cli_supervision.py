"""Whatever becomes of a command's process, the caller gets one line and a documented code."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clifiles import DEMO

from emergraph.processes import family

BESIDE = """
import os, sys, time, warnings
from emergraph.cli import supervision
from emergraph.cli.commands import ls
from emergraph.cli.main import main
def behave(*_, **__):
    {}
ls.emit = behave
supervision.CHECKS, supervision.GRACE_SECONDS, supervision.MEMORY_GRACE_SECONDS = 2, 1.0, 0.5
sys.argv = ["emergraph", "ls", {!r}, *{!r}]
sys.exit(main())
"""


def probe(store, what, *options, redirect="", **more):
    """Run `ls` on a store, with something else where it prints; what came of it."""
    program = BESIDE.format(what, str(store), options)
    shell = f'exec "$0" -c "$1" {redirect}'
    command = ["bash", "-c", shell, sys.executable, program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)


def emergraph(*arguments, redirect="", before=""):
    """Run a command in a shell, with redirections."""
    shell = f'{before} exec "$0" -m emergraph "$@" {redirect}'
    command = ["bash", "-c", shell, sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ("os.kill(os.getpid(), 11)", 3, "a library ended the command (SIGSEGV)"),
        ("os._exit(77)", 3, "a library ended the command (code 77)"),
        ("os.abort()", 3, "a library ended the command (SIGABRT)"),
        ("os.write(2, b'memory allocation of 64 bytes failed\\n' * 500); os.abort()", 6, "out of memory"),
        ("os.write(2, b'OpenBLAS error: Memory allocation still failed'); os._exit(1)", 6, "out of memory"),
        ("os.write(2, b'pthread_create failed'); os.kill(os.getpid(), 2); time.sleep(9)", 6, "out of memory"),
        ("os.kill(os.getpid(), 9)", 6, "out of memory"),
    ],
)
def test_a_process_that_ends_by_itself_is_one_line_and_a_code(store, what, code, words):
    ran = probe(store, what)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (code, 1), ran.stderr
    assert words in ran.stderr


@pytest.mark.parametrize("blocks", [0, 4, 1024, 1025])  # what libraries write is kept in 1024 KiB of memory
def test_a_limit_on_the_size_of_files_is_for_files_alone(store, blocks):
    ran = emergraph("ls", store, "--format", "csv", before=f"ulimit -f {blocks};")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout


def test_what_libraries_write_is_shown_with_debug_alone(store):
    noise = "os.write(2, b'[W:onnxruntime] noise' + bytes([10])); warnings.warn('odd'); print('data')"
    ran = probe(store, noise)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "data\n", "")
    ran = probe(store, noise, "--debug")
    assert ran.returncode == 0
    assert "noise" in ran.stderr
    assert "UserWarning: odd" in ran.stderr


def test_how_a_thread_of_a_library_ended_is_not_for_the_user(store):
    thread = (
        "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join(); print('data')"
    )
    ran = probe(store, thread)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "data\n", "")
    assert "ZeroDivisionError" in probe(store, thread, "--debug").stderr


def test_what_an_ended_command_has_started_ends_with_it(store, tmp_path):
    hangs = (
        "import subprocess, threading; os.write(2, b'bad_alloc'); print('x', flush=True);"
        "child = subprocess.Popen(['sleep', '300'], start_new_session=True);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(300)"
    )
    ran = probe(store, hangs)  # which waits until nobody holds the pipes
    assert (ran.returncode, len(ran.stderr.splitlines())) == (6, 1), ran.stderr
    status = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    assert not status.exists() or " Z " in status.read_text()  # nobody may have asked how it ended


def test_a_flood_of_lines_takes_no_memory_and_no_time(store):
    flood = "any(os.write(2, bytes(1 << 16)) < 0 for _ in range(1 << 14))"
    ran = probe(store, f"try: {flood}\n    except OSError: pass")  # a buffer that is full says so
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_command_that_does_not_stop_at_its_limit_is_ended(store, monkeypatch):
    deaf = (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]);"
        "supervision.announce_limits(time.monotonic() - supervision.GRACE_SECONDS, 1 << 40); time.sleep(50)"
    )
    begun = time.monotonic()
    ran = probe(store, deaf)
    assert ran.returncode == 6
    assert "--time-limit" in ran.stderr
    assert time.monotonic() - begun < 40
    early = deaf.replace("monotonic() - supervision.GRACE_SECONDS", "monotonic() + 1")
    assert probe(store, early.replace("sleep(50)", "sleep(1)")).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no memory is counted")
def test_a_command_that_does_not_stop_at_its_limit_of_memory_is_ended(store):
    deaf = (
        "from emergraph.processes import held_memory;"
        "supervision.announce_limits(0, held_memory(os.getpid()) + (100 << 20)); kept = b'x' * (SIZE << 20);"
        "time.sleep(2 if len(kept) < 100 << 20 else 50)"
    )
    ran = probe(store, deaf.replace("SIZE", "200"))
    assert ran.returncode == 6
    assert "were taken of the limit" in ran.stderr
    assert "--memory-limit" in ran.stderr
    assert probe(store, deaf.replace("SIZE", "50")).returncode == 0


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGKILL, -9)]
)
def test_signals_reach_the_command_and_its_end_is_the_caller_s(store, sent, code):
    program = BESIDE.format("print(os.getpid(), flush=True); time.sleep(50)", str(store), ())
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        inner = int(process.stdout.readline())
        assert inner != process.pid
        process.send_signal(sent)
        assert process.wait(30) == code
        for _ in range(100):
            try:
                os.kill(inner, 0)
            except ProcessLookupError:
                break
            time.sleep(0.05)
        else:
            pytest.fail("the command outlives the process that the caller knows")


@pytest.mark.parametrize("command", ["ls", "export", "emergence"])
def test_without_stdout_a_command_is_refused_before_it_does_anything(store, tmp_path, command):
    arguments = {
        "ls": [store],
        "export": [DEMO / "digits_dense.onnx", tmp_path / "new.duckdb"],
        "emergence": [store],
    }[command]
    ran = emergraph(command, *arguments, redirect=">&-")
    assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1), ran.stderr
    assert "--out FILE" in ran.stderr
    assert not (tmp_path / "new.duckdb").exists()


@pytest.mark.parametrize(
    "redirect", ["<&-", "2>&-", "<&- 2>&-", ">&- --out /dev/null", ">&- 2>&- <&- --out /dev/null"]
)
def test_closed_streams_change_nothing_else(tmp_path, redirect):
    new = tmp_path / "new.duckdb"
    ran = emergraph("export", DEMO / "digits_dense.onnx", new, "--quiet", redirect=redirect)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert emergraph("ls", new).stdout.count("digits_dense") == 2


@pytest.mark.parametrize(("redirect", "code"), [(">/dev/full", 6), ("1</dev/null", 3)])
@pytest.mark.parametrize("arguments", [("ls",), ("--help",)])
def test_a_stdout_that_takes_nothing_is_a_line(store, redirect, code, arguments):
    ran = emergraph(*arguments, *([store] if arguments == ("ls",) else []), redirect=redirect)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (code, 1), ran.stderr
    assert "unexpected" not in ran.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere these limits do not hold")
@pytest.mark.parametrize(
    ("command", "limit"),
    [
        ("export", "-d 250000"),
        ("export", "-v 600000"),
        ("landscape", "-d 250000"),
        ("landscape", "-v 600000"),
        ("report", "-d 200000"),
        ("topology", "-v 600000"),
    ],
)
def test_too_little_memory_is_6_and_one_line(store, tmp_path, limit, command):
    arguments = {
        "export": [DEMO / "digits_conv.onnx", tmp_path / "new.duckdb"],
        "landscape": [DEMO / "digits_dense.onnx", "--directions", "2", "--walks", "2"],
        "report": [DEMO / "digits_dense.onnx", "--terminal", "--quiet"],
        "topology": [store],
    }[command]
    ran = emergraph(command, *arguments, before=f"ulimit {limit};")
    assert ran.returncode == 6, ran.stderr
    lines = [line for line in ran.stderr.splitlines() if not line.startswith("failed in ")]  # steps of report
    assert len(lines) == 1
    assert f"ulimit {limit}" in lines[0]
    assert "--memory-limit" not in lines[0]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no memory is counted")
@pytest.mark.parametrize("command", ["plot", "report", "demo", "sql"])
def test_a_small_limit_of_memory_is_6_and_one_line(store, tmp_path, command):
    arguments = {
        "plot": [store, "--out", tmp_path / "map.svg"],
        "report": [
            DEMO / "digits_dense.onnx",
            "--store",
            tmp_path / "new.duckdb",
            "--quiet",
            "--out",
            tmp_path / "r.html",
        ],
        "demo": ["--dir", tmp_path / "demo"],
        "sql": [store, "FROM edges"],
    }[command]
    ran = emergraph(command, *arguments, "--memory-limit", "20MiB", redirect=">/dev/null")
    assert ran.returncode == 6, ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert "--memory-limit" in ran.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {store.name, "demo"}


def test_a_process_that_ends_while_it_is_looked_at_has_no_family(monkeypatch):
    def gone(self, pattern):
        yield Path("/proc/none/task/0/children")  # a thread that has ended, then the process itself
        raise FileNotFoundError(2, "No such file or directory", str(self))

    monkeypatch.setattr(Path, "glob", gone)
    assert list(family(7)) == [7]
