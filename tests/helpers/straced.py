"""Commands under strace, in an emptied environment: whom they call and what they write."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

_CALL = re.compile(r"^(\w+)\((.*)$")
_PLACE = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_LOCAL = re.compile(r"^AF_(UNIX|LOCAL)\b")
_CHANGES = frozenset(
    {
        *("mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link"),
        *("linkat", "symlink", "symlinkat", "truncate", "mknod", "mknodat", "creat", "chmod", "fchmodat"),
        *("fchmodat2", "chown", "lchown", "fchownat", "utime", "utimes", "utimensat", "setxattr"),
    }
)
_OPENS = frozenset({"open", "openat", "openat2"})
_TRACED = ",".join(("%network", *(f"?{name}" for name in sorted(_CHANGES | _OPENS))))
"""Not all of %file: most of that are questions whether a module is there."""
_WRITING = re.compile(r"\bO_(?:WRONLY|RDWR|CREAT|TRUNC|APPEND)\b")
_NOWHERE = re.compile(r"^/dev/(?:null|tty|pts/\d+|shm/sem\.\S+)$|/__pycache__(?:/|$)")
"""Not kept: byte-code, terminals, and semaphores that are unlinked as soon as they are open."""


@dataclass(frozen=True)
class Watched:
    """What a command did."""

    code: int
    out: str
    err: str
    network: tuple[str, ...]
    """Calls about sockets that are not of this machine's own processes."""
    written: tuple[str, ...]
    """Paths that were made, opened for writing, changed or removed, or that somebody tried to."""

    def outside(self, *folders: Path) -> list[str]:
        """What was written elsewhere than in some folders."""
        roots = [os.path.realpath(folder) for folder in folders]
        return [
            path
            for path in self.written
            if not any(Path(os.path.realpath(path)).is_relative_to(root) for root in roots)
        ]


def watch(words: Sequence[object], *, home: Path, temporary: Path, folder: Path, logs: Path) -> Watched:
    """Run a command with nothing in its environment but a search path, a home and a temporary folder."""
    log = Path(mkdtemp(dir=logs)) / "calls"
    done = subprocess.run(
        [
            *(
                "strace",
                "-ff",
                "--seccomp-bpf",
                "-qq",
                "-y",
                "-s",
                "4096",
                "-e",
                f"trace={_TRACED}",
                "-e",
                "signal=none",
            ),
            *("-o", str(log), *map(str, words)),
        ],
        cwd=folder,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(home),
            "TMPDIR": str(temporary),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    lines = [
        line
        for part in sorted(log.parent.iterdir())
        for line in part.read_text("utf-8", "replace").splitlines()
    ]
    return Watched(
        done.returncode, done.stdout, done.stderr, tuple(_network(lines)), tuple(_written(lines, folder))
    )


def _network(lines: Iterable[str]) -> list[str]:
    found = []
    for line in lines:
        call = _CALL.match(line)
        if call is None:
            continue
        opens = call[1] in ("socket", "socketpair") and not _LOCAL.match(call[2])
        names = re.search(r"sa_family=AF_(?!UNIX|LOCAL|UNSPEC)", call[2])
        if opens or names:
            found.append(line)
    return found


def _written(lines: Iterable[str], start: Path) -> list[str]:
    found: dict[str, None] = {}
    for line in lines:
        call = _CALL.match(line)
        if call is None or not (call[1] in _CHANGES or (call[1] in _OPENS and _WRITING.search(call[2]))):
            continue
        for folder, name in _PLACE.findall(call[2]):
            path = str(Path(start, folder, name))
            if not _NOWHERE.search(path):
                found[path] = None
    return list(found)
