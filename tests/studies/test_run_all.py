"""Studies run part by part, none for longer than it may."""

import time

import pytest
import run_all


@pytest.mark.parametrize(("seconds", "code", "written"), [(30.0, 3, True), (0.5, run_all.OUT_OF_TIME, False)])
def test_a_part_ends_by_itself_or_is_ended_with_what_it_started(
    tmp_path, monkeypatch, capfd, seconds, code, written
):
    script = tmp_path / "part.py"
    wait = 0.0 if written else 60.0
    script.write_text(
        "import pathlib, subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', 'import time; time.sleep({wait})'])\n"
        f"pathlib.Path({str(tmp_path / 'end')!r}).touch()\n"
        "sys.exit(3)\n"
    )
    monkeypatch.setattr(run_all, "HERE", tmp_path)
    begin = time.monotonic()
    assert run_all.run_part("part.py", (), seconds=seconds) == code
    assert time.monotonic() - begin < 30
    assert (tmp_path / "end").exists() == written
    assert ("ended after" in capfd.readouterr().out) != written
