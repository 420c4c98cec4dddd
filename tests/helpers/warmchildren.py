"""Children that start warm: forked from a process that has imported what all of them import.

Importing libraries takes most of the time of most child processes of commands: those that run models and
queries, and the steps of a report. So a process imports them once, starts no thread, and is asked to fork
wherever this program starts its own interpreter with a module of its own. Who asks becomes the parent, as
with any child; a child that is a command has such a process, too. Tests of the processes themselves are
marked `cold`.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import inspect
import json
import os
import pkgutil
import re
import resource
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

_LIGHT = ("duckdb", "polars", "pyarrow", "onnx", "onnxruntime", "joblib", "jinja2", "scipy.stats", "igraph")
_HEAVY = ("torch", "transformers", "transformers.models.vit.modeling_vit", "safetensors.torch")
_BUILDS_MODELS = "emergraph.exporters.runtime.offlineworker"
_PARAMETERS = tuple(inspect.signature(subprocess.Popen._execute_child).parameters)[2:]
_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
_LIMITS = (resource.RLIMIT_DATA, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_MOST_BYTES = 1 << 17
_INTERRUPTING = (signal.SIGALRM, signal.SIGINT, signal.SIGTERM)
_prctl = ctypes.CDLL(None).prctl

Ask = Callable[[list[str], bytes, list[int]], int]
"""Has a child forked: takes its words, the request and its standard streams, returns its process id."""


def _popen(ask: Ask) -> type:
    """A `subprocess.Popen` that asks for the children that start warm."""

    asking = os.getpid()

    class Warm(subprocess.Popen):  # type: ignore[type-arg]
        """A child that is asked for, if it is one of this program."""

        def _execute_child(self, args: Any, *rest: Any) -> None:
            given = dict(zip(_PARAMETERS, rest, strict=True))
            unlike = given["pass_fds"] or given["preexec_fn"] or os.getpid() != asking
            if unlike or not _ours(args):
                super()._execute_child(args, *rest)  # type: ignore[misc]
                return
            words = [os.fspath(word) for word in args[1:]]
            request = {
                "words": words,
                "folder": str(given["cwd"] or Path.cwd()),
                "environment": dict(given["env"] or os.environ),
                "parent": os.getpid(),
                "new_session": bool(given["start_new_session"]),
                "limits": [(kind, *resource.getrlimit(kind)) for kind in _LIMITS],
            }
            ends = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
            streams = [number if end == -1 else end for number, end in enumerate(ends)]
            self.pid = ask(words, json.dumps(request).encode(), streams)
            self._child_created = True
            self._close_pipe_fds(*(given[name] for name in _PIPES))  # type: ignore[attr-defined]

    return Warm


def _ours(words: Any) -> bool:
    if not isinstance(words, list) or not words or words[0] != sys.executable:
        return False
    if words[1:3] == ["-P", "-m"]:
        return str(words[3]).startswith("emergraph")
    return str(words[1]).endswith("fuzz_commands.py")


class _Line:
    """A connection to a process that forks."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.close = end.close
        self._alone = threading.Lock()
        self._asked = 0

    def ask(self, request: bytes, streams: list[int]) -> int:
        """Have a child forked; return its number."""
        with self._alone:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTING)  # answers belong to questions
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # for now, an orphan is given to this process
            try:
                self._asked += 1
                socket.send_fds(self._end, [b"%d %s" % (self._asked, request)], streams)
                while True:
                    question, child = self._end.recv(100).split()
                    if int(question) == self._asked:
                        return int(child)
            finally:
                _prctl(_PR_SET_CHILD_SUBREAPER, 0)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def warm_children() -> Iterator[None]:
    """Let children of the body start warm; the processes that fork them are started when first needed."""
    cold, starting = subprocess.Popen, threading.Lock()
    lines: dict[str, _Line] = {}
    servers = []

    def ask(words: list[str], request: bytes, streams: list[int]) -> int:
        kind = "heavy" if _BUILDS_MODELS in words else "light"
        with starting:
            if kind not in lines:
                own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                command = [sys.executable, "-P", __file__, kind, str(other.fileno())]
                servers.append(cold(command, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL))
                other.close()
                lines[kind] = _Line(own)
        try:
            return lines[kind].ask(request, streams)
        except (
            OSError,
            ValueError,
        ):  # it was killed, such as for want of memory: the next child starts another
            with starting:
                lines.pop(kind, None)
            raise

    try:
        with mock.patch.object(subprocess, "Popen", _popen(ask)):
            yield
    finally:
        for line in lines.values():
            line.close()
        for server in servers:
            server.kill()
            server.wait()


_kept = contextlib.ExitStack()


def warm_from_now_on() -> None:
    """The same until this process ends: for workers that others have started."""
    if subprocess.Popen.__name__ != "Warm":
        _kept.enter_context(warm_children())


def _serve(line: socket.socket) -> None:
    """Fork for whoever asks; returns in each child alone, when it has done what was asked for."""
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(line, _MOST_BYTES, 3)
        except ConnectionResetError:
            data, descriptors = b"", []
        if not data:
            os._exit(0)
        question, request = data.split(b" ", 1)
        if _fork(line, question):
            _run(json.loads(request), descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)


def _fork(line: socket.socket, question: bytes) -> bool:
    """Fork twice, so that the child is an orphan, and tell its number when it is one; True in the child."""
    told, tells = os.pipe()
    middle = os.fork()
    if middle:
        os.waitpid(middle, 0)
        line.send(question + b" " + os.read(told, 100))
        os.close(told)
        os.close(tells)
        return False
    middle = os.getpid()
    child = os.fork()
    if child:
        os.write(tells, str(child).encode())
        os._exit(0)
    while os.getppid() == middle:
        time.sleep(0.0003)
    os.close(told)
    os.close(tells)
    return True


def _run(request: dict[str, Any], descriptors: list[int]) -> None:
    if os.getppid() != request["parent"]:
        os._exit(1)  # who asked is gone, or was interrupted
    if request["new_session"]:
        os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(3, max(descriptors) + 64)
    _reopen_streams()
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    for kind, soft, hard in request["limits"]:
        resource.setrlimit(kind, (soft, hard))
    words = request["words"]
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
    if words[0] == "-P":
        if words[2] == "emergraph":  # runs its command in a child that it forks
            os.register_at_fork(after_in_child=_fork_for_this_process)
        sys.argv = words[2:]
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        return
    _fork_for_this_process()
    sys.argv = words
    sys.path[0] = str(Path(words[0]).parent)
    runpy.run_path(words[0], run_name="__main__")


_lines: list[_Line] = []
"""Of this process: that to the process that forks its children."""


def _fork_for_this_process() -> None:
    """Let children of this process start warm, too: only a child of its own can give it any."""
    if _lines:
        return
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    _lines.append(_Line(own))
    parent = os.getpid()
    if os.fork():
        other.close()
        subprocess.Popen = _popen(lambda _, request, streams: _lines[0].ask(request, streams))  # type: ignore[misc]
        return
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    own.close()
    _lines.clear()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):  # a pipe ends when all that hold it do
        os.dup2(nowhere, number)
    _end_with(lambda: _serve(other))


def _reopen_streams() -> None:
    """Make the streams anew: those of the server may take a pipe for a file that can be sought."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = open(number, "w" if number else "r", errors=getattr(sys, name).errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _preload(kind: str) -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    os.environ |= {"HF_HOME": os.devnull, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    names = [*_LIGHT, *_of_this_program(), *(_HEAVY if kind == "heavy" else ())]
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that no child copies what all of them share when it looks for garbage


def _of_this_program() -> Iterator[str]:
    """All modules that do without torch, and are no program of their own."""
    import emergraph

    for found in pkgutil.walk_packages(emergraph.__path__, "emergraph.", onerror=lambda _: None):
        if not re.search(r"\.pytorch|\.__main__$|\.reference$", found.name):
            yield found.name


def _end_with(work: Callable[[], None]) -> NoReturn:
    """Work, and end as a process does, but for taking libraries down, which takes longer than most work."""
    try:
        work()
        status: object = 0
    except SystemExit as left:
        status = left.code
    except BaseException:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        status = 1
    if not isinstance(status, int | None):
        sys.stderr.write(f"{status}\n")
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status or 0)


if __name__ == "__main__":
    # it ends with the connection; a signal at the end of its parent would come at the end of a thread already
    _preload(sys.argv[1])
    os.chdir("/")  # no folder is kept from being removed
    asked = socket.socket(fileno=int(sys.argv[2]))
    _end_with(lambda: _serve(asked))

__all__ = ["warm_children", "warm_from_now_on"]
