"""Results that are complete or not there, together or not at all, with the owner and mode of the old file."""

import errno
import os
import stat
from pathlib import Path

import pytest

from emergraph.atomic import joined, together, write_atomically
from emergraph.errors import InvalidInputError, LimitError, UsageError


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_nothing_is_there_before_the_end_and_everything_at_it(tmp_path):
    (tmp_path / "b").write_bytes(b"old")
    said = []
    with together():
        write_atomically(tmp_path / "a", b"1", then=lambda: said.append((tmp_path / "b").read_bytes()))
        write_atomically(tmp_path / "b", b"2")
        assert not (tmp_path / "a").exists()
        assert (tmp_path / "b").read_bytes() == b"old"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1", "b": b"2"}
    assert said == [b"2"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, LimitError])
def test_a_failure_leaves_none_of_the_results(tmp_path, error):
    (tmp_path / "b").write_bytes(b"old")

    def failing():
        with together():
            write_atomically(tmp_path / "a", b"1")
            write_atomically(tmp_path / "b", b"2")
            raise error

    with pytest.raises(error):
        failing()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"b": b"old"}


@pytest.mark.parametrize(
    ("call", "count"), [("fsync", 1), ("fsync", 3), ("chmod", 1), ("replace", 1), ("link", 2), ("link", 3)]
)
def test_a_failure_while_publishing_leaves_none_of_the_results(tmp_path, monkeypatch, call, count):
    """The n-th call of the system fails: before the first move, and between the first and the last."""
    (tmp_path / "old").write_bytes(b"old")
    left = [count]
    real = getattr(os, call)

    def failing(*arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            full()
        return real(*arguments, **options)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(LimitError, match="not enough disk space"):
        write_three(tmp_path)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"old": b"old"}


def write_three(folder):
    with together() as outputs:
        write_atomically(
            folder / "old", b"1"
        )  # its backup is the first link; without one, there is no failure
        for name in ("new", "newer"):
            outputs.stage(folder / name, replace=False).write_bytes(b"2")


def test_every_file_and_its_folder_are_synced_before_the_first_move(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        calls.append(("fsync", Path(f"/dev/fd/{descriptor}").resolve()))
        fsync(descriptor)

    def noted_replace(*arguments, **options):
        calls.append(("move", Path(arguments[1])))
        replace(*arguments, **options)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    with together() as outputs:
        write_atomically(tmp_path / "a", b"1")
        folder = outputs.stage(tmp_path / "f", replace=False)
        folder.mkdir()
        (folder / "inner").write_bytes(b"2")
    first_move = [kind for kind, _ in calls].index("move")
    before = {path.name for _, path in calls[:first_move]}
    assert {"a", "f", "inner"} <= before
    assert calls[-1] == ("fsync", tmp_path)


def test_blocks_within_blocks(tmp_path):
    with together():
        with joined():
            write_atomically(tmp_path / "outer", b"")
        assert not (tmp_path / "outer").exists(), "a joined block waits for the one around it"
        with together():
            write_atomically(tmp_path / "inner", b"")
        assert (tmp_path / "inner").exists(), "a block of its own does not"
    assert (tmp_path / "outer").exists()


def test_two_results_of_one_name_are_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "a")

    def twice():
        with together():
            write_atomically(tmp_path / "a", b"1")
            write_atomically(tmp_path / "link", b"2")

    with pytest.raises(UsageError, match="two results"):
        twice()
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_what_must_not_be_replaced_is_not(tmp_path):
    def late():
        with together() as outputs:
            outputs.stage(tmp_path / "a", replace=False).write_bytes(b"1")
            (tmp_path / "a").write_bytes(b"somebody's")

    with pytest.raises(UsageError, match="meanwhile"):
        late()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"somebody's"}


def test_without_links_a_new_file_is_moved(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    (tmp_path / "old").write_bytes(b"old")
    with together() as outputs:
        outputs.stage(tmp_path / "a", replace=False).write_bytes(b"1")
        write_atomically(tmp_path / "old", b"2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1", "old": b"2"}


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664])
def test_mode_of_the_old_file_stays(tmp_path, mode):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(mode)
    write_atomically(tmp_path / "a", b"new")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_a_new_file_has_the_mode_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody")
def test_owner_of_the_old_file_stays(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    os.chown(tmp_path / "a", 65534, 65534)
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").stat().st_uid == 65534


def test_nobody_can_look_into_what_is_unfinished(tmp_path):
    with together() as outputs:
        part = outputs.stage(tmp_path / "a")
        assert stat.S_IMODE(part.parent.stat().st_mode) == 0o700
        assert len(os.fsencode(part.parent.name)) < 40
        outputs.drop(tmp_path / "a")


@pytest.mark.parametrize("length", [250, 255])
def test_a_name_as_long_as_the_file_system_allows(tmp_path, length):
    name = "ü" * (length // 2) + "x" * (length % 2)
    write_atomically(tmp_path / name, b"1")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(UsageError, match="File name too long"):
        write_atomically(tmp_path / f"{name}{'x' * (256 - length)}", b"1")


class EngineError(Exception):
    """What a library raises."""


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EFBIG, "File too large"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (EngineError("IO Error: could not write: No space left on device"), True),
        (EngineError("ComputeError: File too large (os error 27)"), True),
        (EngineError("[Errno 28] Error writing bytes to file"), True),
        (EngineError("os error 2"), False),
        (EngineError("errno 281"), False),
    ],
    ids=str,
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_is_told_however_a_library_puts_it(tmp_path, error, limit, wrapped):
    def failing():
        with together() as outputs:
            outputs.stage(tmp_path / "result").write_bytes(b"half")
            if wrapped:
                raise InvalidInputError("torch cannot export it") from error
            raise error

    with pytest.raises(LimitError if limit else (type(error), InvalidInputError)) as caught:
        failing()
    if limit:
        assert str(caught.value).startswith("not enough disk space to write ")
        assert "result" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_how_much_was_to_be_written_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        LimitError, match=r"not enough disk space to write .*a: No space left on device \(2\.5 MB to write"
    ):
        write_atomically(tmp_path / "a", bytes(2_500_000))
    assert list(tmp_path.iterdir()) == []
