"""What a killed command leaves is taken away by the next one, and nothing else is."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emergraph.errors import LimitError, UsageError
from emergraph.leftovers import Scratch, random_name, remove_leftovers

OURS = random_name()
KILLED = """
import os, signal, sys
from pathlib import Path
from emergraph.atomic import together
from emergraph.leftovers import Scratch
scratch = Scratch()
(scratch.path / "inner").mkdir()
(scratch.path / "inner" / "model.onnx").write_bytes(b"a copy of the model")
with together() as outputs:
    outputs.stage(Path(sys.argv[1]) / "result").write_bytes(b"half of it")
    print("ready", flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture
def living(temporary, tmp_path):
    """A process with a scratch and an unfinished result."""
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", KILLED, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def root_of(temporary):
    return temporary / f"emergraph-{os.geteuid()}"


def test_what_a_killed_process_left_is_taken_away(living, temporary, tmp_path):
    living.kill()
    living.wait()
    assert names(tmp_path / "out") != []
    remove_leftovers()
    assert names(tmp_path / "out") == []
    assert names(temporary) == []


def test_a_living_process_keeps_what_it_has(living, temporary, tmp_path):
    before = names(tmp_path / "out"), names(root_of(temporary))
    remove_leftovers()
    assert (names(tmp_path / "out"), names(root_of(temporary))) == before
    living.send_signal(signal.SIGSTOP)
    remove_leftovers()
    assert (names(tmp_path / "out"), names(root_of(temporary))) == before


def test_a_scratch_leaves_nothing(temporary):
    with Scratch() as scratch:
        (scratch.path / "file").touch()
        assert scratch.path.stat().st_mode & 0o777 == 0o700
        with Scratch() as other:
            assert other.path != scratch.path
        assert scratch.path.exists()
    assert names(temporary) == []
    scratch.close()


def test_what_only_looks_alike_stays(temporary, tmp_path):
    for folder in (temporary, tmp_path):
        for name in ("emergraph-abc", "emergraph-tmp123", random_name()):
            (folder / name).mkdir()
            (folder / name / "mine").touch()
    (tmp_path / "net.duckdb.123.compact").touch()
    (tmp_path / ".g.txt.5.part").touch()
    before = names(temporary), names(tmp_path)
    remove_leftovers()
    assert (names(temporary), names(tmp_path)) == before


def test_a_folder_of_the_right_name_with_other_things_in_it_stays(temporary):
    root = root_of(temporary)
    root.mkdir(mode=0o700)
    (root / "notes.txt").touch()
    (root / "work").mkdir()
    (root / "work" / "file").touch()
    (root / "journals").mkdir()
    (root / "journals" / "journal").write_text("dear diary\n")
    remove_leftovers()
    with Scratch():
        pass
    assert names(root) == ["journals", "notes.txt", "work"]


def dead_scratch(temporary, *entries, text=None):
    """A scratch whose process is gone, with these entries in its journal."""
    folder = root_of(temporary) / "0123456789abcdef"
    folder.mkdir(parents=True)
    root_of(temporary).chmod(0o700)
    lines = [json.dumps(entry) for entry in entries]
    (folder / "journal").write_text(
        text if text is not None else "\n".join(["emergraph scratch 1", *lines, ""])
    )
    return folder


def entry(folder, name, **other):
    found = folder.stat()
    return {"folder": str(folder), "device": found.st_dev, "inode": found.st_ino, "name": name} | other


def test_links_are_not_followed(temporary, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / OURS).symlink_to(tmp_path / "precious")
    scratch = dead_scratch(temporary, entry(tmp_path / "out", OURS))
    (scratch / "link").symlink_to(tmp_path / "precious")
    remove_leftovers()
    assert names(tmp_path / "precious") == ["file"]
    assert names(temporary) == []


@pytest.mark.parametrize("name", ["../precious", "/etc/hostname", "", ".", "..", "a/b", "a"])
def test_names_in_a_journal_that_lead_elsewhere_are_not_followed(temporary, tmp_path, name):
    (tmp_path / "precious").touch()
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "b").touch()
    dead_scratch(temporary, entry(tmp_path / "out", name))
    remove_leftovers()
    assert (tmp_path / "precious").exists()
    assert (tmp_path / "out" / "a" / "b").exists()
    assert names(temporary) == []


def test_another_folder_of_that_name_by_now_keeps_its_files(temporary, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / OURS).touch()
    dead_scratch(temporary, entry(tmp_path / "out", OURS, inode=1))
    remove_leftovers()
    assert names(tmp_path / "out") == [OURS]
    assert names(temporary) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "emergraph scratch 1\n",
        'emergraph scratch 1\n{"folder": "/tm',
        "emergraph scratch 1\n[]\n3\nnull\n",
    ],
)
def test_journals_that_were_cut_short(temporary, text):
    dead_scratch(temporary, text=text)
    remove_leftovers()
    assert names(temporary) == []


def test_a_scratch_that_died_before_its_journal(temporary):
    (root_of(temporary) / "0123456789abcdef").mkdir(parents=True)
    root_of(temporary).chmod(0o700)
    remove_leftovers()
    assert names(temporary) == []


@pytest.mark.parametrize("kind", ["loose mode", "link", "file"])
def test_a_folder_that_somebody_else_could_change_is_not_used(temporary, tmp_path, kind):
    root = root_of(temporary)
    if kind == "loose mode":
        root.mkdir()
        root.chmod(0o777)
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        root.symlink_to(tmp_path / "elsewhere")
    else:
        root.touch()
    with Scratch() as scratch:
        assert scratch.path.parent != root
        assert scratch.path.parent.parent == temporary
        assert scratch.path.parent.stat().st_mode & 0o777 == 0o700
    assert names(temporary) == [root.name]
    if kind != "file":
        assert names(root) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody")
def test_a_folder_of_another_user_is_not_used_nor_cleaned(temporary):
    scratch = dead_scratch(temporary)
    os.chown(root_of(temporary), 65534, 65534)
    remove_leftovers()
    with Scratch() as own:
        assert own.path.parent != root_of(temporary)
    assert scratch.exists()


def test_who_was_stopped_while_making_a_scratch_holds_nobody_up(temporary, monkeypatch):
    monkeypatch.setattr("emergraph.leftovers._LOCK_SECONDS", 0.05)
    with Scratch() as first:
        root = os.open(first.path.parent, os.O_RDONLY)
        fcntl.flock(root, fcntl.LOCK_EX)
        with Scratch() as second:
            assert second.path.parent != first.path.parent
        remove_leftovers()
        os.close(root)
    assert names(temporary) == []


def test_what_cannot_be_removed_now_is_removed_another_time(temporary, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / OURS).touch()
    dead_scratch(temporary, entry(tmp_path / "out", OURS))

    def refused(*_, **__):
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr("emergraph.leftovers._remove", refused)
        remove_leftovers()
    assert names(tmp_path / "out") == [OURS]
    remove_leftovers()
    assert names(tmp_path / "out") == []
    assert names(temporary) == []


def test_without_a_temporary_folder_there_is_one_line(monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="TMPDIR"):
        Scratch()
    remove_leftovers()


def test_a_full_temporary_folder_is_one_line(temporary, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(LimitError, match="not enough disk space for temporary files"):
        Scratch()
    assert names(temporary) == []


def test_a_fork_leaves_the_scratch_of_its_parent_alone(temporary):
    with Scratch() as scratch:
        child = os.fork()
        if child == 0:
            scratch.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert scratch.path.exists()
        assert Path(scratch.path, "journal").exists()
