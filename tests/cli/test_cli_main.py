"""The entry point: one line and a documented exit code for whatever goes wrong."""

import errno
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import duckdb
import pytest
import typer

from emergraph.analysis.registry import BUILT_IN
from emergraph.cli import commands
from emergraph.cli.app import app, command, program
from emergraph.cli.commands import COMMANDS, DAILY, RESEARCH
from emergraph.cli.main import main
from emergraph.cli.output import Output
from emergraph.errors import (
    ExitCode,
    InvalidInputError,
    LimitError,
    MissingExtraError,
    StoreError,
    UnsafeInputError,
    UsageError,
)


@dataclass(frozen=True)
class Extra:
    """Options of a group."""

    seed: Annotated[int, typer.Option(help="Seed.")] = 7
    ratio: Annotated[float | None, typer.Option(help="Ratio.")] = None


@pytest.fixture
def probe():
    """A command named `probe` that does what the test says."""
    calls = []

    def behave(store, extra, output):
        calls.append((store, extra, output))

    behaviour = [behave]

    def run(
        store: Annotated[Path, typer.Argument(metavar="STORE", help="The store.")],
        *,
        extra: Extra,
        output: Output,
    ) -> None:
        """Probe a store."""
        behaviour[0](store, extra, output)

    command(name="probe", examples="emergraph probe net.duckdb --seed 3")(run)
    program.cache_clear()
    yield behaviour, calls
    app.registered_commands.pop()
    program.cache_clear()


def fail_with(error):
    def behave(*_):
        raise error

    return behave


def test_dataclasses_become_options_and_come_back_as_objects(probe):
    _, calls = probe
    assert main(["probe", "net.duckdb", "--ratio", "0.5", "--format", "json", "-q"]) == 0
    assert calls == [(Path("net.duckdb"), Extra(seed=7, ratio=0.5), Output(format="json", quiet=True))]


def test_help_shows_options_defaults_and_examples(probe, capsys):
    assert main(["probe", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Probe a store." in text
    assert "--seed" in text
    assert "[default: 7]" in text
    assert "table|json|csv|markdown|parquet" in text
    assert "Examples:\n    emergraph probe net.duckdb --seed 3" in text


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        pytest.param(InvalidInputError("no such file: x"), 3, "no such file: x", id="invalid input"),
        pytest.param(UsageError("bad"), 2, "bad", id="usage"),
        pytest.param(UnsafeInputError("outside"), 4, "outside", id="unsafe"),
        pytest.param(StoreError("locked"), 5, "locked", id="store"),
        pytest.param(LimitError("too slow"), 6, "too slow", id="limit"),
        pytest.param(MissingExtraError("pip install 'emergraph[torch]'"), 2, "emergraph[torch]", id="extra"),
        pytest.param(MemoryError(), 6, "out of memory", id="memory"),
        pytest.param(OSError(errno.ENOSPC, "No space left on device"), 6, "No space left", id="disk full"),
        pytest.param(FileNotFoundError(errno.ENOENT, "No file", "m.onnx"), 3, "m.onnx: No file", id="file"),
        pytest.param(duckdb.CatalogException("Table x does not exist"), 5, "Table x does", id="store query"),
        pytest.param(duckdb.OutOfMemoryException("Out of Memory Error"), 6, "out of memory", id="DuckDB"),
        pytest.param(RuntimeError("std::bad_alloc"), 6, "out of memory", id="bad_alloc"),
        pytest.param(OSError(errno.EBADF, "Bad file descriptor"), 3, "Bad file descriptor", id="closed"),
        pytest.param(InvalidInputError("a" * 9999), 3, "a…a", id="endless"),
        pytest.param(
            KeyError("/x/lib/python3.11/site-packages/numpy/a.py"), 3, "KeyError: 'numpy/a.py'", id="folders"
        ),
        pytest.param(KeyError("boom"), 3, "unexpected KeyError: 'boom' (--debug", id="bug"),
        pytest.param(RecursionError("deep"), 3, "unexpected RecursionError", id="recursion"),
        pytest.param(KeyboardInterrupt(), 130, "Interrupted", id="Ctrl-C"),
        pytest.param(typer.Abort(), 130, "interrupted", id="abort"),
    ],
)
def test_errors_are_one_line_and_a_code(probe, capsys, error, code, line):
    probe[0][0] = fail_with(error)
    assert main(["probe", "x"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert line in captured.err


def test_hostile_names_in_errors_stay_on_their_line(probe, capsys):
    probe[0][0] = fail_with(InvalidInputError("layer a\nERROR \x1b[2J\u202e [/bold] is odd"))
    assert main(["probe", "x"]) == 3
    assert capsys.readouterr().err == "Error: layer a ERROR \\x1b[2J\\u202e [/bold] is odd\n"


@pytest.mark.parametrize("arguments", [["--debug", "probe", "x"], ["probe", "x", "--debug"]])
def test_debug_shows_the_traceback(probe, capsys, arguments):
    probe[0][0] = fail_with(StoreError("locked"))
    assert main(arguments) == 5
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.endswith("Error: locked\n")


def test_a_command_can_choose_its_exit_code(probe):
    probe[0][0] = fail_with(typer.Exit(ExitCode.FINDINGS))
    assert main(["probe", "x"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prob", "x"], "'probe'"),
        (["probe", "x", "--sed", "3"], "--seed"),
        (["probe", "x", "--seed", "many"], "'--seed'"),
        (["probe"], "'STORE'"),
        (["probe", "x", "--format", "xml"], "markdown"),
    ],
)
def test_wrong_command_lines_are_one_line_with_the_closest_names(probe, capsys, arguments, words):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert words in error
    known = arguments[0] == "probe"
    assert f"(see emergraph {'probe ' if known else ''}--help)" in error


def test_no_arguments_show_the_help(capsys):
    assert main([]) == 0
    assert "Usage: emergraph" in capsys.readouterr().out


def test_the_version_is_the_installed_one(capsys):
    import emergraph

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"emergraph {emergraph.__version__}\n"


def test_the_list_of_commands_says_what_their_help_says():
    """It is a table, so that the list of all commands imports none of them."""
    group = program()
    modules = {path.stem for path in Path(commands.__file__).parent.glob("*.py")} - {"__init__"}
    assert COMMANDS.keys() >= modules
    assert {name for name in COMMANDS if name not in modules} <= BUILT_IN.keys()
    for name, line in COMMANDS.items():
        assert " ".join(group.commands[name].help.partition("\n\n")[0].split()) == line


def test_help_is_one_narrow_screen_by_question(run):
    """80 x 45: every daily command on a line of its own, uncut; the others by name."""
    shown = run("--help").out
    lines = shown.rstrip("\n").split("\n")
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 80
    for name in COMMANDS.keys() - {"help"}:
        assert (name in RESEARCH) != any(name in group for group in DAILY.values())
    for group in DAILY.values():
        for name, line in group.items():
            assert [text.split(None, 1) for text in lines].count([name, line]) == 1
    assert ", ".join(RESEARCH) in " ".join(shown.split())


def test_options_are_grouped_by_purpose_the_shared_ones_last(run):
    shown = run("landscape", "--help").out
    headings = [
        line.removesuffix(":") for line in shown.splitlines() if line[:1].isalpha() and line.endswith(":")
    ]
    assert headings[:2] == ["Arguments", "Options"]
    assert headings[-2:] == ["Limits", "Output"]
    assert {"Inputs", "Loss", "Where it runs", "How much is measured"} < set(headings)
    inputs = shown.partition("\nInputs:\n")[2].partition("\n\n")[0]
    assert "--inputs FILE.npz" in inputs
    assert "--walks" not in inputs


def test_all_of_the_help_has_every_command_and_option(run):
    shown = " ".join(run("help", "--all").out.split())
    assert all(line in shown for name, line in COMMANDS.items() if name != "help")
    assert "--show-completion" in shown
    assert run("help", "ls").out == run("ls", "--help").out
    assert "unknown command 'lss'; available: ls" in run("help", "lss").err


@pytest.mark.parametrize(("words", "loaded"), [(["--help"], set()), (["ls", "--help"], {"ls"})])
def test_a_command_is_imported_when_it_is_asked_for(words, loaded):
    program = (
        "import sys\n"
        "from emergraph.cli.main import main\n"
        f"main({words})\n"
        "print([name for name in sys.modules if name.startswith('emergraph.cli.commands.')])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == str([f"emergraph.cli.commands.{name}" for name in loaded])


def test_help_loads_nothing_heavy():
    program = (
        "import sys\n"
        "from emergraph.cli.main import main\n"
        "main(['--help'])\n"
        "main(['export', '--help'])\n"
        "heavy = {'numpy', 'polars', 'duckdb', 'onnx', 'onnxruntime', 'torch', 'igraph', 'altair', 'scipy',"
        " 'pyarrow', 'rich', 'ml_dtypes', 'jinja2'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "loaded: []"


def test_help_starts_fast():
    command_line = [sys.executable, "-m", "emergraph", "--help"]
    seconds = []
    for _ in range(4):  # processor time, so that a busy machine does not fail the test
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command_line, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) <= 0.4
