"""What a command that is killed leaves behind, and how the next command finds and removes it.

Everything that is unfinished belongs to a `Scratch`: a private folder below `emergraph-UID` in the temporary
folder. It holds what a command needs for the moment, and a journal of what it has begun in other folders (a
result that is not complete yet, room for DuckDB to spill). The journal is locked as long as its command
lives, and the system drops the lock however the command ends. `remove_leftovers` takes away what belongs to
journals that nobody holds.

Nothing is recognised by its looks: what lies elsewhere has a random name that was in a journal before it came
to be. No link is followed, and nothing of another user is touched.
"""

import atexit
import contextlib
import errno
import fcntl
import functools
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from emergraph.errors import EmergraphError, LimitError, UsageError
from emergraph.safetext import escape_controls

_MARK = b"emergraph scratch 1\n"
"""First line of a journal."""
_JOURNAL = "journal"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OUR_NAME = re.compile(r"\.emergraph-[0-9a-f]{16}")
_LOCK_SECONDS = 1.0
"""Locks on the folder of all scratches are held for moments; a stopped process may hold one longer."""


class Scratch:
    """A folder for the moment, and a journal of unfinished things elsewhere; use it in a `with` statement.

    Raises:
        LimitError: The temporary folder has no room.
        UsageError: There is no temporary folder that can be written to, or it is in a place without locks.

    Example:
        >>> with Scratch() as scratch:
        ...     (scratch.path / "model.onnx").write_bytes(b"")
        0
    """

    def __init__(self) -> None:
        _clean_once()
        temporary = _temporary_folder()
        try:
            root, self.path, self._journal = _begin(temporary)
        except OSError as error:
            shown = escape_controls(str(temporary))
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise LimitError(
                    f"{shown}: not enough disk space for temporary files; name another folder in TMPDIR"
                ) from error
            told = f"cannot make temporary files there ({error.strerror}); name another folder in TMPDIR"
            raise UsageError(f"{shown}: {told}") from error
        self._root: int | None = root
        self._process = os.getpid()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def note(self, folder: Path, name: str) -> None:
        """Write down that `name` in `folder`, a file or folder with a random name, is about to be made.

        Raises:
            OSError: The temporary folder has no room, or there is no such folder.
        """
        found = folder.stat()
        entry = {"folder": os.fspath(folder), "device": found.st_dev, "inode": found.st_ino, "name": name}
        _append(self._journal, json.dumps(entry).encode() + b"\n")

    def close(self) -> None:
        """Remove the folder. What was noted must be gone or finished by now."""
        root, self._root = self._root, None
        if root is None:
            return
        if self._process == os.getpid():  # in a fork, it is the parent's
            _empty(root, self.path.name)
        os.close(self._journal)
        os.close(root)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()  # only where no other scratch is in it

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self.close()


def note_unfinished(folder: Path, name: str) -> bool:
    """Write into this process's journal that `name` in `folder` is about to be made.

    Returns:
        Whether that was possible. Where the temporary folder is full or cannot be written to, a command can
        still do its work; only what it leaves if it is killed is not found again.
    """
    try:
        own = _JOURNALS.get(os.getpid())
        if own is None:
            own = _JOURNALS[os.getpid()] = Scratch()
            atexit.register(own.close)
        own.note(folder, name)
    except (OSError, EmergraphError):
        return False
    return True


_JOURNALS: dict[int, Scratch] = {}
"""By process: one that was forked has a journal of its own."""


def remove_leftovers() -> None:
    """Remove what killed commands of this user left. Whatever cannot be removed stays."""
    with contextlib.suppress(OSError, UsageError):
        for path, root in _roots(_temporary_folder()):
            for name, journal in _dead(root):
                with contextlib.suppress(OSError):
                    if _all_removed(journal):
                        _empty(root, name)
                os.close(journal)
            os.close(root)
            with contextlib.suppress(OSError):
                path.rmdir()


@functools.cache
def _clean_once() -> None:
    remove_leftovers()


def random_name() -> str:
    """Return a name that no file has by accident: short, hidden, and told apart by 64 random bits."""
    return f".emergraph-{secrets.token_hex(8)}"


def _temporary_folder() -> Path:
    """Return where temporary files belong, as `tempfile` finds it, but without trying it with a file.

    Raises:
        UsageError: There is none.
    """
    named = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    for folder in (tempfile.tempdir, *named, "/tmp", "/var/tmp", "/usr/tmp"):  # noqa: S108 - as the library does
        if folder and Path(os.fsdecode(folder)).is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return Path(os.fsdecode(folder)).absolute()
    asked = escape_controls(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108
    raise UsageError(f"{asked}: no writable temporary folder; name one in TMPDIR")


def _base_name() -> str:
    return f"emergraph-{os.geteuid()}"


def _open_root(path: Path) -> int | None:
    """Open a folder of scratches; None for a link, a file, or what another user made or could change."""
    try:
        root = os.open(path, _FOLDER)
    except OSError:
        return None
    found = os.fstat(root)
    if found.st_uid == os.geteuid() and not found.st_mode & 0o077:
        return root
    os.close(root)
    return None


def _roots(temporary: Path) -> Iterator[tuple[Path, int]]:
    """Yield the folders of scratches of this user, open; the caller closes them."""
    base = _base_name()
    for path in sorted(path for path in temporary.iterdir() if f"{path.name}-".startswith(f"{base}-")):
        root = _open_root(path)
        if root is not None:
            yield path, root


def _locked_root(temporary: Path) -> tuple[Path, int]:
    """Return a folder of scratches of this user, with a shared lock that keeps cleaners out for a moment."""
    path = temporary / _base_name()
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    root = _open_root(path)
    if root is not None:
        if _lock(root, fcntl.LOCK_SH):
            return path, root
        os.close(root)
    # The name is another user's, or a stopped process holds the lock: no one else knows a random name.
    path = Path(tempfile.mkdtemp(prefix=f"{_base_name()}-", dir=temporary))
    root = os.open(path, _FOLDER)
    fcntl.flock(root, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return path, root


def _begin(temporary: Path) -> tuple[int, Path, int]:
    """Make a scratch: its folder of folders, its path, its locked journal."""
    for _ in range(100):
        path, root = _locked_root(temporary)
        name = secrets.token_hex(8)
        try:
            os.mkdir(name, 0o700, dir_fd=root)
            journal = _new_journal(root, name)
        except FileNotFoundError:
            os.close(root)  # it was removed as empty since it was opened
        except BaseException:
            with contextlib.suppress(OSError):
                _empty(root, name)
            os.close(root)
            with contextlib.suppress(OSError):
                path.rmdir()
            raise
        else:
            fcntl.flock(root, fcntl.LOCK_UN)
            return root, path / name, journal
    raise UsageError(f"{escape_controls(str(temporary))}: folders vanish as soon as they are made")


def _new_journal(root: int, name: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    journal = os.open(f"{name}/{_JOURNAL}", flags, 0o600, dir_fd=root)
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _append(journal, _MARK)
    except BaseException:
        os.close(journal)
        raise
    return journal


def _append(journal: int, data: bytes) -> None:
    if os.write(journal, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _lock(descriptor: int, kind: int) -> bool:
    """Take a lock that others hold for moments; return whether it was acquired."""
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.005)
        else:
            return True


def _dead(root: int) -> list[tuple[str, int]]:
    """Return scratches whose command is gone, each with its journal, now locked by this process."""
    if not _lock(root, fcntl.LOCK_EX):
        return []
    try:
        # Nobody makes a scratch now: one without a journal is what a command left that died in making it.
        found = [(name, _taken_over(root, name)) for name in os.listdir(root)]
    finally:
        fcntl.flock(root, fcntl.LOCK_UN)
    return [(name, journal) for name, journal in found if journal is not None]


def _taken_over(root: int, name: str) -> int | None:
    """Return the journal of a dead scratch, locked; None for a live one, or what is not a scratch."""
    try:
        journal = os.open(
            f"{name}/{_JOURNAL}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root
        )
    except OSError:
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=root)
        return None
    try:
        begins = os.pread(journal, len(_MARK), 0)
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISREG(os.fstat(journal).st_mode) and begins in (_MARK, b""):
            return journal
    except OSError:
        pass
    os.close(journal)
    return None


def _all_removed(journal: int) -> bool:
    """Remove what a journal lists; return whether nothing of it is left that could be removed later."""
    with open(journal, "rb", closefd=False) as stream:
        lines = stream.read().splitlines()[1:]
    left = [entry for line in lines if (entry := _entry(line)) is not None and not _removed(*entry)]
    return not left


def _entry(line: bytes) -> tuple[str, int, int, str] | None:
    """Read a line of a journal; None for the last one if its command died while it was written."""
    try:
        found = json.loads(line)
        folder, name = str(found["folder"]), str(found["name"])
        return folder, int(found["device"]), int(found["inode"]), name
    except (ValueError, KeyError, TypeError):
        return None


def _removed(path: str, device: int, inode: int, name: str) -> bool:
    """Remove one thing; return False where that may be possible another time."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    try:
        found = os.fstat(folder)
        # Another folder of that name holds nothing of ours: that was in the first one, and is gone with it.
        if (found.st_dev, found.st_ino) == (device, inode) and _OUR_NAME.fullmatch(name):
            _remove(folder, name)
    except OSError:
        return False
    finally:
        os.close(folder)
    return True


def _empty(root: int, name: str) -> None:
    """Remove a scratch: its journal last, so that it stays known as one until nothing else is in it."""
    try:
        scratch = os.open(name, _FOLDER, dir_fd=root)
    except OSError:
        return
    try:
        others = [entry for entry in os.listdir(scratch) if entry != _JOURNAL]  # noqa: PTH208 - a descriptor
        for entry in (*others, _JOURNAL):
            _remove(scratch, entry)
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=root)
    finally:
        os.close(scratch)


def _remove(folder: int, name: str) -> None:
    """Remove a file, or a folder with all that is in it, if it is this user's; links are not followed."""
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if found.st_uid != os.geteuid():
            return
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)


__all__: Sequence[str] = ("Scratch", "note_unfinished", "random_name", "remove_leftovers")
