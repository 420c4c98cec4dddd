"""What the documents say is what happens: commands, queries, links, exit codes, the reference."""

import contextlib
import doctest
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest

from emergraph.cli.commands import COMMANDS
from emergraph.cli.main import main
from emergraph.cli.reference import exit_code_table, reference

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPE = re.compile(r"([^\n]*\?)\n\n```sql\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


def fenced(text, language):
    return re.findall(rf"^```{re.escape(language)}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def sessions(text):
    """The commands of console blocks and what they print; a quoted argument may run over several lines."""
    for block in fenced(text, "console"):
        command_line, expected = "", []
        for line in block.splitlines():
            if command_line and expected is None:
                command_line += f"\n{line}"
            elif line.startswith("$ "):
                if command_line:
                    yield command_line, expected
                command_line, expected = line[2:], []
            else:
                expected.append(line)
                continue
            try:
                shlex.split(command_line)
            except ValueError:
                expected = None
            else:
                expected = []
        yield command_line, expected


def execute(words):
    """Run one command and return what it prints."""
    output = io.StringIO()
    if words[0] == "cp":
        shutil.copy(*words[1:])
        return ""
    with contextlib.redirect_stdout(output):
        code = main(words[1:])
    assert code == 0 or (code == 1 and words[1] == "audit"), words  # which found something
    return output.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the demo has run."""
    path = tmp_path_factory.mktemp("readme")
    with contextlib.chdir(path), contextlib.redirect_stdout(io.StringIO()):
        assert main(["demo"]) == 0
    return path


def test_commands_of_the_readme_print_what_it_shows(folder):
    checker = doctest.OutputChecker()
    blocks = fenced(README, "console")
    with contextlib.chdir(folder):
        demo = execute(["emergraph", "demo"])  # once more, in the same folder
        assert demo.count("$ emergraph ") == 13
        assert Path("emergraph-demo/digits.html").stat().st_size > 10_000
        assert (
            execute(["emergraph", "ls", "emergraph-demo/digits.duckdb", "--format", "csv"]).count("digits_")
            == 4
        )
        shown = next(block for block in blocks if block.startswith("$ emergraph demo\n"))
        assert checker.check_output(shown.partition("\n")[2], demo, doctest.ELLIPSIS), demo
        others = "\n".join(f"```console\n{block}```" for block in blocks if block is not shown)
        ran = 0
        for command_line, expected in sessions(others):
            words = shlex.split(command_line)
            if words[0] == "make":
                continue
            found = execute(words)
            wanted = "".join(f"{line}\n" for line in expected)
            assert checker.check_output(wanted, found, doctest.ELLIPSIS), f"{command_line}\n{found}"
            ran += 1
    assert ran >= 5


def test_python_of_the_readme_runs(folder):
    (code,) = fenced(README, "python")
    output = io.StringIO()
    with contextlib.chdir(folder):
        for name, copy in (("digits_dense.onnx", "model.onnx"), ("digits.npz", "inputs.npz")):
            shutil.copy(Path("emergraph-demo") / name, copy)
        with contextlib.redirect_stdout(output):
            exec(compile(code, "README.md", "exec"), {})
    assert "6831" in output.getvalue()


@pytest.mark.parametrize("recipe", RECIPE.findall(README), ids=lambda recipe: recipe[0])
def test_questions_in_sql_have_answers(folder, recipe):
    _, query, answer = recipe
    with contextlib.chdir(folder):
        found = execute(["emergraph", "sql", "emergraph-demo/digits.duckdb", query])
    assert len(found.splitlines()) > 1
    if answer:
        assert found == answer


def test_there_are_enough_recipes():
    assert 5 <= len(RECIPE.findall(README)) <= 8
    assert len(RECIPE.findall(README)) == len(fenced(README, "sql"))


def test_every_page_is_in_the_site_once():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = [
        line for tree in fenced(index, "{toctree}") for line in tree.splitlines() if line and line[0] != ":"
    ]
    docs = ROOT / "docs"
    pages = [path.relative_to(docs).with_suffix("").as_posix() for path in docs.rglob("*.md")]
    assert sorted(listed) == sorted(
        set(pages) - {"index"} - {page for page in pages if page.startswith("study/")}
    )


def test_what_pages_show_is_imported_from_emergraph_itself():
    shown = [
        *PAGES,
        *(ROOT / "docs" / "tutorials").glob("*.md"),
        *(ROOT / "docs" / "notebooks").glob("*.ipynb"),
    ]
    imports = re.compile(r"(?:from|import) +(emergraph\.[\w.]+)(?: +import|\b)")
    deeper = {
        page.name: found for page in shown if (found := imports.findall(page.read_text(encoding="utf-8")))
    }
    assert deeper == {}


def test_names_of_python_that_pages_show_are_there():
    import emergraph

    uses = re.compile(r"\bemergraph\.(\w+)(?:\.(\w+))?\(")
    for page in [*PAGES, *(ROOT / "docs" / "tutorials").glob("*.md")]:
        for name, inner in uses.findall(page.read_text(encoding="utf-8")):
            found = getattr(emergraph, name)
            assert not inner or hasattr(found, inner) or name == "open", (
                f"{page.name}: emergraph.{name}.{inner}"
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readme_names_every_command_and_exit_code():
    table = README.partition("## Commands")[2].partition("## The store")[0]
    for name in COMMANDS:
        assert f"`{name} " in table or f"`{name}`" in table, name
    assert exit_code_table() in README


def test_every_top_folder_has_a_line_in_the_readme():
    section = README.partition("## How the code is organised")[2]
    for path in ROOT.iterdir():
        if path.is_dir() and any(path.glob("*.py")):
            assert f"`{path.name}/`" in section


def test_the_command_line_reference_is_what_the_commands_say():
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference(), "run make docs"


def test_every_command_has_an_example():
    page = reference()
    for name in COMMANDS:
        section = page.partition(f"## emergraph {name}\n")[2].partition("\n## ")[0]
        assert f"emergraph {name}" in section.partition("Examples:")[2], name


def test_every_make_target_says_what_it_does():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split():
        assert re.search(rf"^{target}:.*## \w", makefile, re.MULTILINE), target
