"""A hundred whole commands on spoiled files in CI, and an oracle that can say no."""

import argparse
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fuzz_commands
from commandseeds import COMMANDS
from fuzz_commands import REPOSITORY, Ran, judged

GOOD = Ran(3, "", "Error: m.onnx: not a model\n", 1.0)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"err": "Error: unexpected KeyError: 'a' (--debug shows where; please report it)\n"}, "unexpected"),
        ({"err": "Error: shapes differ; please report it\n"}, "please report"),
        ({"err": "Traceback (most recent call last):\nError: x\n"}, "Traceback"),
        ({"err": "a.py:3: RuntimeWarning: odd\nError: x\n"}, "RuntimeWarning"),
        ({"err": "thread 'main' panicked at src/lib.rs\nError: x\n"}, "panicked"),
        ({"err": f"Error: {REPOSITORY}/cli/main.py is odd\n"}, f"stderr: {REPOSITORY}"),
        ({"err": "Error: /usr/lib/python3/dist-packages/numpy is odd\n"}, "stderr: dist-packages"),
        ({"out": f"{sys.prefix}/lib\n"}, "stdout"),
        ({"err": ""}, "0 errors"),
        ({"err": "Error: a\nError: b\n"}, "2 errors"),
        ({"code": 0}, "1 errors"),
        ({"err": "noise of a library\nError: a\n"}, "noise"),
        ({"err": "Note: two graphs\nError: a\n"}, "Note"),
        ({"err": "Error: \x1b[2J\n"}, "steer a terminal"),
        ({"err": f"Error: {'a' * 3000}\n"}, "2000 characters"),
        ({"code": 1}, "exit code 1"),
        ({"code": 130}, "exit code 130"),
        ({"code": -11}, "exit code -11"),
        ({"code": 139}, "exit code 139"),
        ({"seconds": 91.0}, "took 91 s"),
        ({"memory_bytes": 4 << 30}, "4096 MiB"),
        ({"warned": ["RuntimeWarning: divide by zero (a.py:3)"]}, "divide by zero"),
    ],
)
def test_the_oracle_says_no(change, problem):
    assert judged(GOOD, quiet=True, check=False) == []
    found = judged(replace(GOOD, **change), quiet=True, check=False)
    assert any(problem in text for text in found), found


def test_the_oracle_says_yes():
    assert judged(Ran(0, "data\n", "", 89.0, 2 << 30), quiet=True, check=False) == []
    assert judged(Ran(1, "", "", 1.0), quiet=True, check=True) == []
    talk = "Note: odd\nWrote r.html\n120 evaluations, about 3 s\ndone in 0.8 s: emergraph export a b\n"
    assert judged(Ran(0, "", talk, 1.0), quiet=False, check=False) == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sound files of every format."""
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def seeds(folder):
    return fuzz_commands.found_seeds(folder)


@pytest.mark.fuzz
def test_commands_take_the_sound_files(seeds, tmp_path):
    lines = fuzz_commands.sample_of(fuzz_commands.sound_lines())
    assert {kind for kind, _ in lines} == set(COMMANDS)
    before = set(Path.cwd().iterdir())
    assert fuzz_commands.not_done(lines, seeds, tmp_path) == []
    assert set(Path.cwd().iterdir()) == before, "commands that write where all of them are started meet there"


@pytest.mark.fuzz
def test_a_case_is_decided_by_its_seed_and_number(seeds, tmp_path):
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        case = fuzz_commands.prepared(12, 5, seeds, tmp_path / name)
        files = [p for p in sorted((tmp_path / name).rglob("*")) if p.is_file() and p.suffix != ".duckdb"]
        made.append((case.command, case.format, [p.read_bytes() for p in files]))
    assert made[0] == made[1]


@pytest.mark.fuzz
def test_a_hundred_commands_are_done_or_refused_in_one_line(folder, seeds):
    options = argparse.Namespace(
        mode="processes", cases=100, first=0, seed=14, jobs=2, formats="", state=str(folder)
    )
    assert fuzz_commands.run(options, seeds) == 0, (folder / "processes-14.json").read_text()
    state = json.loads((folder / "processes-14.json").read_text())
    formats = {name.split()[0] for name in state["counts"]}
    codes = {name.split()[1] for name in state["counts"]}
    assert len(formats) >= 8
    assert {"0", "3", "5"} <= codes
    assert sum(state["counts"].values()) == state["next"] == 100


@pytest.mark.fuzz
def test_the_same_cases_inside_one_process_go_on_where_they_stopped(folder, seeds):
    options = argparse.Namespace(
        mode="inside", cases=20, first=0, seed=14, jobs=1, formats="", state=str(folder)
    )
    assert fuzz_commands.run(options, seeds) == 0
    options.cases = 40
    assert fuzz_commands.run(options, seeds) == 0
    state = json.loads((folder / "inside-14.json").read_text())
    assert sum(state["counts"].values()) == state["next"] == 40
    codes = Counter(name.split()[1] for name in state["counts"])
    assert {"0", "3"} <= set(codes), "the commands did not run"
