"""The one way to open a file, and where results may be written."""

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from emergraph import paths
from emergraph.atomic import write_atomically
from emergraph.commandfiles import note_input, noted_as, one_command
from emergraph.errors import InvalidInputError, UsageError
from emergraph.outputs import check_output
from emergraph.paths import NotRegularError, open_descriptor, open_file, own_descriptor, read_file, read_head


@pytest.fixture
def special(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(tmp_path)
        bound.bind("socket")
        os.chdir(here)
    return {
        tmp_path / "fifo": "a FIFO (a pipe)",
        tmp_path / "socket": "a socket",
        tmp_path: "a folder",
        Path("/dev/zero"): "a device",
    }


@pytest.mark.parametrize("way", [open_descriptor, open_file, lambda path: read_file(path, limit=9)])
def test_what_is_no_regular_file_is_named(special, way):
    start = time.monotonic()
    for path, kind in special.items():
        with pytest.raises(NotRegularError) as caught:
            way(path)
        assert caught.value.kind == kind
        assert str(caught.value) == f"{path} is {kind}; expected a regular file"
    assert time.monotonic() - start < 2


def test_a_file_that_becomes_a_pipe_is_refused_without_waiting(tmp_path, monkeypatch):
    """It is looked at again through the descriptor."""
    fifo, file = tmp_path / "fifo", tmp_path / "file"
    os.mkfifo(fifo)
    file.write_bytes(b"x")
    regular = file.stat()
    monkeypatch.setattr(paths.os, "stat", lambda *_args, **_options: regular)
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(NotRegularError):
        open_descriptor(fifo)
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_links_are_followed_unless_they_must_not_be(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    with open_file(tmp_path / "link") as opened:
        assert opened.read() == b"content"
    with pytest.raises(OSError, match="symbolic links"):
        open_descriptor(tmp_path / "link", follow=False)


def test_what_cannot_be_opened_is_one_line(tmp_path):
    for path, said in (
        (tmp_path / "no\nne", "no such file"),
        ("a\0b", "cannot be read"),
        ("x" * 300, "too long"),
    ):
        with pytest.raises(InvalidInputError, match=said) as caught:
            open_file(path)
        assert str(caught.value).isprintable()


def test_the_limit_of_a_file_that_is_read_whole(tmp_path):
    (tmp_path / "f").write_bytes(b"1234")
    assert read_file(tmp_path / "f", limit=4) == b"1234"
    with pytest.raises(InvalidInputError, match="larger than 3 bytes"):
        read_file(tmp_path / "f", limit=3)


def test_own_streams():
    for path, number in (("/dev/stdin", 0), ("/dev/stdout", 1), ("/proc/self/fd/63", 63)):
        assert own_descriptor(path) == number
    assert own_descriptor("/dev/stderr") == sys.stderr.fileno()
    for path in ("/dev/null", "/dev/fd", "/dev/fd/x", "fd/1", "/tmp/1", "/proc/1/fd/1"):
        assert own_descriptor(path) is None


def test_an_own_stream_is_read_where_a_stream_will_do(tmp_path):
    ours, theirs = os.pipe()
    os.write(theirs, b"piped")
    os.close(theirs)
    try:
        with pytest.raises(NotRegularError):
            open_file(f"/dev/fd/{ours}")
        with open_file(f"/dev/fd/{ours}", stream=True) as opened:
            assert opened.read() == b"piped"
        os.fstat(ours)  # still open
    finally:
        os.close(ours)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NotRegularError):
        open_file(tmp_path / "fifo", stream=True)


def test_heads(tmp_path):
    (tmp_path / "f").write_bytes(b"head and tail")
    assert read_head(tmp_path / "f", 4) == b"head"
    with (tmp_path / "f").open("rb") as other:
        other.seek(5)
        assert read_head(tmp_path / "f", 4) == b"head"
        assert other.read() == b"and tail"


def test_what_a_command_reads_is_noted(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "hard").hardlink_to(tmp_path / "a")
    with one_command():
        open_file(tmp_path / "a").close()
        open_file(tmp_path / "b", noted=False).close()
        assert noted_as((tmp_path / "hard").stat()) == str(tmp_path / "a")
        with one_command():
            note_input((tmp_path / "b").stat(), "b")
        assert noted_as((tmp_path / "b").stat()) == "b"
        with one_command(joining=False):
            assert noted_as((tmp_path / "a").stat()) is None
        with pytest.raises(UsageError, match=f"hard is a file that this command reads as {tmp_path / 'a'}"):
            write_atomically(tmp_path / "hard", b"lost")
    open_file(tmp_path / "a").close()
    check_output(tmp_path / "a")  # the command is over
    assert (tmp_path / "a").read_bytes() == b"x"


def test_results_go_to_no_pipe_socket_or_device(special, tmp_path):
    for path, kind in special.items():
        with pytest.raises(UsageError, match=kind.split("(", maxsplit=1)[0]):
            write_atomically(path, b"x")
    write_atomically(Path(os.devnull), b"x")
    ours, theirs = os.pipe()
    try:
        write_atomically(Path(f"/dev/fd/{theirs}"), b"x")
        assert os.read(ours, 9) == b"x"
    finally:
        os.close(ours)
        os.close(theirs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "socket"]
