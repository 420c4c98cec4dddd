"""Children that start warm: forked from a process that has imported what all of them import.

Fuzzing runs commands by the thousand, and importing libraries takes most of the time of a child process. So
one process imports them once and starts no thread, and is asked to fork wherever this program starts its own
interpreter with a module of its own. Who asks becomes the parent, as with any child.
"""

import contextlib
import ctypes
import inspect
import json
import os
import runpy
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

_PRELOADED = (
    *("emergraph.cli.main", "duckdb", "polars", "pyarrow", "onnx", "onnxruntime", "joblib", "jinja2"),
    *("torch", "transformers", "transformers.models.vit.modeling_vit", "safetensors.torch"),
)
_PARAMETERS = tuple(inspect.signature(subprocess.Popen._execute_child).parameters)[2:]
_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
ADDRESS = "WARM_CHILDREN"
"""Variable that says to a script that was started warm where its own children come from."""
_PR_SET_CHILD_SUBREAPER = 36
_MOST_BYTES = 1 << 17


@contextlib.contextmanager
def warm_children() -> Iterator[str]:
    """Start the process that forks; children of the body come from it. Yields where it listens."""
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        address = f"{folder}/socket"
        server = subprocess.Popen(
            [sys.executable, "-P", __file__, address], env={**os.environ, "HF_HOME": folder}
        )
        try:
            while not Path(address).exists():
                assert server.poll() is None
                time.sleep(0.05)
            with forked_from(address):
                yield address
        finally:
            server.kill()
            server.wait()


@contextlib.contextmanager
def forked_from(address: str) -> Iterator[None]:
    """Let children of the body come from the process that listens at an address."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans are given to this process
    asked = threading.Lock()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.connect(address)

        class Warm(subprocess.Popen):  # type: ignore[type-arg]
            """A child that is asked for, if it is one of this program."""

            def _execute_child(self, args: Any, *rest: Any) -> None:
                given = dict(zip(_PARAMETERS, rest, strict=True))
                if not _ours(args) or given["pass_fds"] or given["preexec_fn"]:
                    super()._execute_child(args, *rest)  # type: ignore[misc]
                    return
                request = {
                    "words": [os.fspath(word) for word in args[1:]],
                    "folder": str(given["cwd"] or Path.cwd()),
                    "environment": dict(given["env"] or os.environ),
                    "parent": os.getpid(),
                    "new_session": bool(given["start_new_session"]),
                }
                ends = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
                streams = [number if end == -1 else end for number, end in enumerate(ends)]
                with asked:
                    socket.send_fds(line, [json.dumps(request).encode()], streams)
                    self.pid = int(line.recv(100))
                self._child_created = True
                self._close_pipe_fds(*(given[name] for name in _PIPES))  # type: ignore[attr-defined]

        with mock.patch.object(subprocess, "Popen", Warm):
            yield


def reap_orphans() -> None:
    """Take note of the ends of processes that children of this one have left to it."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _ours(words: Any) -> bool:
    if not isinstance(words, list) or not words or words[0] != sys.executable:
        return False
    if words[1:3] == ["-P", "-m"]:
        return str(words[3]).startswith("emergraph")
    return str(words[1]).endswith("fuzz_commands.py")


def serve(address: str, parent: int) -> None:
    """Listen, and fork for whoever asks; returns in each child alone, when it has done what was asked for."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{address}.part")
    listener.listen()
    Path(f"{address}.part").rename(address)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while os.getppid() == parent:
            for key, _ in selector.select(5):
                line: Any = key.fileobj
                if line is listener:
                    selector.register(listener.accept()[0], selectors.EVENT_READ)
                    continue
                data, descriptors, _, _ = socket.recv_fds(line, _MOST_BYTES, 3)
                if not data:
                    selector.unregister(line)
                    line.close()
                elif _fork(line):
                    _run(json.loads(data), descriptors, address)
                    return
                for descriptor in descriptors:
                    os.close(descriptor)
    os._exit(0)


def _fork(line: socket.socket) -> bool:
    """Fork twice, so that the child is an orphan, and tell its number when it is one; True in the child."""
    told, tells = os.pipe()
    middle = os.fork()
    if middle:
        os.waitpid(middle, 0)
        line.send(os.read(told, 100))
        os.close(told)
        os.close(tells)
        return False
    child = os.fork()
    if child:
        os.write(tells, str(child).encode())
        os._exit(0)
    os.close(told)
    os.close(tells)
    return True


def _run(request: dict[str, Any], descriptors: list[int], address: str) -> None:
    while os.getppid() != request["parent"]:
        time.sleep(0.0005)
    if request["new_session"]:
        os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(3, max(descriptors) + 64)
    _reopen_streams()
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    words = request["words"]
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
    if words[0] == "-P":
        sys.argv = words[2:]
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        return
    # a script may want such children itself, and only a child of its own can give it any
    os.environ[ADDRESS] = f"{address}-{os.getpid()}"
    if os.fork() == 0:
        serve(os.environ[ADDRESS], os.getppid())
        return
    while not Path(os.environ[ADDRESS]).exists():
        time.sleep(0.0005)
    sys.argv = words
    sys.path[0] = str(Path(words[0]).parent)
    runpy.run_path(words[0], run_name="__main__")


def _reopen_streams() -> None:
    """Make the streams anew: those of the server may take a pipe for a file that can be sought."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = open(number, "w" if number else "r", errors=getattr(sys, name).errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _preload() -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            __import__(name)


if __name__ == "__main__":
    asker = os.getppid()
    _preload()
    serve(sys.argv[1], asker)

__all__ = ["ADDRESS", "forked_from", "reap_orphans", "warm_children"]
