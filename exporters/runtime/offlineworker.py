"""The child process without a network: `python -P -m emergraph.exporters.runtime.offlineworker LIMITS`.

It reads one pickled call on stdin, and answers on stdout (see `frames`). Libraries find their offline
variables set when they are imported here; what they try to reach all the same is refused by a hook that they
cannot take off, and makes the whole call fail, also where they swallow the refusal.
"""

import json
import os
import pickle
import resource
import sys
from typing import Any, BinaryIO

from emergraph.errors import EmergraphError, InvalidInputError, UnsafeInputError
from emergraph.exporters.runtime.frames import pack
from emergraph.exporters.runtime.limits import RunLimits, too_large
from emergraph.exporters.runtime.offline import Task
from emergraph.exporters.runtime.refusals import one_line
from emergraph.exporters.runtime.worker import leave_with_parent
from emergraph.memory import bound, ran_out_of_memory

_ASKED = frozenset(
    {
        *("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"),
        *("socket.getnameinfo", "socket.sendto", "socket.sendmsg"),
    }
)
"""Events that say where something wants to go."""
_OPENED = frozenset({"socket.__new__", "socket.bind"})
"""Events that some libraries cause while they are imported, to see what the machine can do."""


class NetworkClosedError(OSError):
    """This process has no network."""


def close_network() -> list[str]:
    """Refuse all sockets but those of this machine; return the list that will hold what was asked for."""
    from socket import AF_UNIX

    asked: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not event.startswith("socket."):
            return
        if event in _ASKED:
            own = event in ("socket.connect", "socket.sendto", "socket.sendmsg")
            if own and arguments[0] is not None and arguments[0].family == AF_UNIX:
                return
            asked.append(str(arguments[1] if own else arguments[0]))
            raise NetworkClosedError("no network here")
        if event in _OPENED:
            family = arguments[1] if event == "socket.__new__" else arguments[0].family
            # -1: by the descriptor, which an earlier caller must have opened
            if family not in (AF_UNIX, -1):
                raise NetworkClosedError("no network here")

    sys.addaudithook(hook)
    return asked


def answer(request: bytes, asked: list[str], sink: BinaryIO, limits: RunLimits, task: Task) -> None:
    """Call what a request asks for, and write progress and the result, or what went wrong."""

    def send(header: dict[str, object], buffers: list[bytes] | None = None) -> None:
        for piece in pack(header, buffers or []):
            sink.write(piece)
        sink.flush()

    def report(done: int, total: int) -> None:
        send({"progress": [int(done), int(total)]})

    error: EmergraphError
    try:
        function, arguments, wanted = pickle.loads(request)  # noqa: S301 - made by the parent
        value = function(*arguments, **({"progress": report} if wanted else {}))
        if not asked:
            send({"ok": True}, [_packed(value, task)])
            return
        error = UnsafeInputError(_reached(asked, task))
    except EmergraphError as found:
        error = UnsafeInputError(_reached(asked, task)) if asked else found
    except Exception as found:  # noqa: BLE001 - libraries raise many kinds, and all go to the parent
        if asked:
            error = UnsafeInputError(_reached(asked, task))
        elif ran_out_of_memory(found):
            error = too_large(task.doing, limits)
        else:
            told = one_line(f"{type(found).__name__}: {found}")
            error = InvalidInputError(f"{task.doing} failed: {told}")
    if not asked and ran_out_of_memory(error):
        error = too_large(task.doing, limits)
    send({"ok": False, "kind": type(error).__name__, "message": str(error)})


def _packed(value: object, task: Task) -> bytes:
    if task.plain:
        return json.dumps(value).encode()
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def _reached(asked: list[str], task: Task) -> str:
    return f"{task.doing} would contact {asked[0][:100]}, and is done without a network; {task.advice}"


def main() -> None:
    """Set the limits from the command line, close the network, and answer."""
    about = json.loads(sys.argv[1])
    limits, parent = RunLimits(**about.pop("limits")), int(about.pop("parent"))
    bound(limits.memory_bytes)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    leave_with_parent(parent)
    # whatever a library prints must not land in the protocol
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answer(sys.stdin.buffer.read(), close_network(), sink, limits, Task(**about))


if __name__ == "__main__":
    main()
