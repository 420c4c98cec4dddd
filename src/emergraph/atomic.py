"""Result files that are either complete or absent, and results of a command that appear together.

A result is written in a private folder beside the place where it belongs (`.emergraph-` and a random word),
under its own name. When all results of a command are complete and on the disk, they are moved there; until
then a failure leaves none of them. A command that is killed leaves that folder, which the next command finds
in a journal (see `leftovers`).
"""

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from emergraph.errors import EmergraphError, LimitError, UsageError, chain_of
from emergraph.leftovers import note_unfinished, random_name
from emergraph.outputs import check_output
from emergraph.paths import own_descriptor
from emergraph.safetext import escape_controls

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SAID_NO_ROOM = re.compile(
    r"no space left|file too large|quota exceeded|os error (28|27|122)\b|\berrno (28|27|122)\b", re.IGNORECASE
)
"""What libraries say that keep the number of the error to themselves."""
_SCARCE = 16 << 20
"""Bytes; a disk with less is taken to be the reason where the size of a result is not known."""
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


@dataclass(frozen=True)
class _Staged:
    """A result on its way."""

    part: Path
    """Where it is written."""
    target: Path
    """Where it belongs."""
    shown: str
    """As the user named it."""
    replace: bool


class Outputs:
    """Results that appear together, by `publish`, or not at all; made by `together`."""

    def __init__(self) -> None:
        self._staged: dict[Path, _Staged] = {}
        self._synced: set[Path] = set()
        self._rooms: dict[Path, Path] = {}
        self._afterwards: list[Callable[[], None]] = []

    def stage(self, path: Path, *, replace: bool = True) -> Path:
        """Return where to write the file or folder that will be at `path`.

        Args:
            path: Where it belongs; a link is followed.
            replace: Whether a file that is there then is replaced; if not, publishing fails.

        Raises:
            UsageError: There is no such folder, it cannot be written to, or two results would have one name.
            LimitError: The disk is full.
        """
        target, shown = Path(os.path.realpath(path)), escape_controls(str(path))
        if target in self._staged:
            raise UsageError(f"{shown}: two results would be written to it; give each a name of its own")
        with _said(path):
            part = self._room(target.parent) / target.name
        self._staged[target] = _Staged(part, target, shown, replace)
        return part

    def staged(self, path: Path) -> Path | None:
        """Return where the result that will be at `path` is now, if there is one."""
        found = self._staged.get(Path(os.path.realpath(path)))
        return found.part if found is not None else None

    def drop(self, path: Path) -> None:
        """Give up a result."""
        del self._staged[Path(os.path.realpath(path))]

    def afterwards(self, action: Callable[[], None]) -> None:
        """Do something when the results are in their places."""
        self._afterwards.append(action)

    def sync(self) -> None:
        """Wait until all results are on the disk: what cannot be taken back, such as a commit, comes later.

        Raises:
            LimitError: The disk is full.
        """
        for one in self._staged.values():
            if one.part not in self._synced:
                with _said(Path(one.shown)):
                    _take_after(one)
                    _sync(one.part)
                self._synced.add(one.part)

    def publish(self) -> None:
        """Put all results in their places, when all of them are on the disk.

        Raises:
            UsageError: A place is taken by now, or its folder is gone; none of the results is there.
            LimitError: The disk is full; none of the results is there.
        """
        self.sync()
        staged = list(self._staged.values())
        with contextlib.ExitStack() as undo:
            for one in staged:
                with _said(Path(one.shown)):
                    _put(one, one.part.with_name(random_name()), undo)
            undo.pop_all()
        for folder in {one.target.parent for one in staged}:
            with contextlib.suppress(OSError):  # some file systems do not sync folders
                _sync_one(folder)
        self.discard()
        actions, self._afterwards = self._afterwards, []
        for action in actions:
            action()

    def discard(self) -> None:
        """Remove what is unfinished."""
        self._staged.clear()
        for room in self._rooms.values():
            shutil.rmtree(room, ignore_errors=True)
        self._rooms.clear()

    def no_room(self, error: BaseException) -> LimitError | None:
        """Return the error to raise where a disk is full, however a library has put it; None for another."""
        found = _no_room_in(error)
        if found is None or isinstance(error, LimitError):
            return None
        reason, name = found
        parts = {os.fspath(one.part): one.shown for one in self._staged.values()}
        names = [parts.get(name, name)] if name else list(parts.values())
        where = escape_controls(names[0]) if names else "a file"
        folder = next(iter(self._rooms), None)
        return _limit(where, reason, folder)

    def _room(self, folder: Path) -> Path:
        """Return the private folder in `folder`; it is in a journal before it is made."""
        room = self._rooms.get(folder)
        if room is None:
            room = folder / random_name()
            note_unfinished(folder, room.name)
            room.mkdir(mode=0o700)
            self._rooms[folder] = room
        return room


_TOGETHER: ContextVar[Outputs | None] = ContextVar("together", default=None)


@contextlib.contextmanager
def together() -> Iterator[Outputs]:
    """Publish the results of a block when it ends; discard them when it raises.

    Results that are written in the block by functions that know nothing of it belong to them, too.

    Raises:
        LimitError: A disk was full, wherever in the block.
    """
    outputs = Outputs()
    token = _TOGETHER.set(outputs)
    try:
        yield outputs
        outputs.publish()
    except Exception as error:
        full = outputs.no_room(error)
        if full is not None:
            raise full from error
        raise
    finally:
        _TOGETHER.reset(token)
        outputs.discard()


@contextlib.contextmanager
def joined() -> Iterator[Outputs]:
    """Write results that belong to the block around, if there is one, or appear at the end of this one."""
    around = _TOGETHER.get()
    if around is not None:
        yield around
        return
    with together() as outputs:
        yield outputs


def current_outputs() -> Outputs | None:
    """Return the results that belong together here, if this is in a block of `together`."""
    return _TOGETHER.get()


def write_atomically(path: Path, data: bytes, *, then: Callable[[], None] | None = None) -> None:
    """Write a file that is complete or not there; in a block of `together`, at the end of it.

    A link is followed, the owner and permissions of an existing file stay. The caller's own streams
    (/dev/stdout) and the null device are written to directly.

    Args:
        path: The file.
        data: What is in it.
        then: Called when it is in its place.

    Raises:
        UsageError: The folder does not exist or cannot be written to, or `path` must not be replaced: a file
            that the command reads, a store, a folder, a FIFO, a device.
        LimitError: The disk is full; a file that was there before is unchanged.
    """
    check_output(path)
    target = Path(os.path.realpath(path))
    with joined() as outputs:
        with _said(path, size=len(data)):
            own = own_descriptor(path)
            if own is not None:
                with os.fdopen(os.dup(own), "wb") as stream:
                    stream.write(data)
            elif target.exists() and not target.is_file():
                target.write_bytes(data)
            else:
                outputs.stage(path).write_bytes(data)
        if then is not None:
            outputs.afterwards(then)


@contextlib.contextmanager
def _said(path: Path, *, size: int | None = None) -> Iterator[None]:
    """Turn what the system says about a result into this project's errors."""
    shown = escape_controls(str(path))
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"no folder {escape_controls(str(path.parent))}: create it first") from None
    except OSError as error:
        if error.errno in NO_ROOM:
            folder = Path(os.path.realpath(path)).parent
            raise _limit(shown, str(error.strerror), folder, size=size) from error
        raise UsageError(f"cannot write {shown}: {error.strerror}") from error


def _limit(shown: str, reason: str, folder: Path | None, *, size: int | None = None) -> LimitError:
    known = [] if size is None else [f"{size / 1e6:.1f} MB to write"]
    with contextlib.suppress(OSError):
        state = None if folder is None else os.statvfs(folder)
        free = 0 if state is None else state.f_bavail * state.f_frsize
        if state is not None and free < (size or _SCARCE):  # else it is a quota, or a limit on files
            known.append(f"{free / 1e6:.1f} MB free there")
    told = f" ({', '.join(known)})" if known else ""
    return LimitError(f"not enough disk space to write {shown}: {reason}{told}; free some and try again")


def _no_room_in(error: BaseException) -> tuple[str, str | None] | None:
    """Return what was said about a full disk, and the file, in an error or in what it was raised from."""
    for cause in chain_of(error, context=False):
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            name = cause.filename
            return os.strerror(cause.errno), None if name is None else os.fsdecode(name)
        if not isinstance(cause, EmergraphError):
            said = _SAID_NO_ROOM.search(str(cause))
            if said is not None:
                return "the disk is full, or the file reached its size limit", None
    return None


def _take_after(one: _Staged) -> None:
    """Give a result the owner and permissions of the file that it replaces."""
    try:
        old = one.target.stat()
    except FileNotFoundError:
        return
    if one.replace and stat.S_ISREG(old.st_mode):
        with contextlib.suppress(PermissionError):  # only root gives files away
            os.chown(one.part, old.st_uid, old.st_gid)
        one.part.chmod(stat.S_IMODE(old.st_mode) & 0o777)


def _put(one: _Staged, backup: Path, undo: contextlib.ExitStack) -> None:
    """Move a result to its place, and say how to take it back."""
    if one.replace:
        if one.target.exists():
            with contextlib.suppress(OSError):  # some file systems have no links, and so no way back
                backup.hardlink_to(one.target)
                undo.callback(backup.replace, one.target)
        else:
            undo.callback(one.target.unlink)
        one.part.replace(one.target)
        return
    if one.target.exists():
        raise UsageError(
            f"{one.shown}: another process has created it meanwhile; choose another name or remove it first"
        )
    if one.part.is_dir():
        one.part.rename(one.target)
        undo.callback(shutil.rmtree, one.target, ignore_errors=True)
        return
    try:
        one.target.hardlink_to(one.part)  # fails where the name is taken by now
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        one.part.rename(one.target)
    undo.callback(one.target.unlink)


def _sync(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk."""
    if path.is_dir():
        for inner in path.iterdir():
            _sync(inner)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__: Sequence[str] = ("NO_ROOM", "Outputs", "current_outputs", "joined", "together", "write_atomically")
