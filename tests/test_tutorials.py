"""The tutorials of the site do what they print, from top to bottom, each in a folder of its own."""

import contextlib
import doctest
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest

from emergraph.cli.main import main

# of torch.onnx.export, about torch itself
pytestmark = [
    pytest.mark.site,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]
TUTORIALS = sorted((Path(__file__).resolve().parent.parent / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\$ ([^\n]*)\n((?:(?!\$ )[^\n]*\n)*)", re.MULTILINE)
MAY_FIND = {"check", "audit"}
"""Commands that exit with 1 where they found something."""


def runs(command_line):
    """Run one command and return what it prints."""
    words = shlex.split(command_line)
    if words[0] == "cp":
        shutil.copy(*words[1:])
        return ""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = main(words[1:])
    assert code == 0 or (code == 1 and words[1] in MAY_FIND), f"{command_line}: exit code {code}"
    return output.getvalue()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder in which the demo has run."""
    path = tmp_path_factory.mktemp("demo")
    with contextlib.chdir(path), contextlib.redirect_stdout(io.StringIO()):
        assert main(["demo"]) == 0
    return path


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_from_top_to_bottom(page, demo, tmp_path):
    checker, ran = doctest.OutputChecker(), 0
    shutil.copytree(demo, tmp_path, dirs_exist_ok=True)
    with contextlib.chdir(tmp_path):
        for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language == "python":
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(block, page.name, "exec"), {})
                continue
            for command_line, expected in COMMAND.findall(block):
                if command_line == "emergraph demo":
                    continue
                found = runs(command_line)
                assert checker.check_output(expected, found, doctest.ELLIPSIS), f"{command_line}\n{found}"
                ran += 1
    assert ran >= 3
