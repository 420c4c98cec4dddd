"""The template of a plug-in, installed: it is in the help, the API, a report, diff, SQL and JSON."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from clifiles import DEMO

import emergraph
from emergraph.graphstore.store import open_store
from emergraph.plugins import OFF

ROOT = Path(__file__).parents[1]
LEFT = {name: value for name, value in os.environ.items() if name not in (OFF, "PYTHONPATH")}


def run(python, *words, folder, code=0, **environment):
    """Run emergraph in an environment; return stdout and stderr."""
    told = subprocess.run(
        [python, "-m", "emergraph", *map(str, words)],
        cwd=folder,
        env={**LEFT, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == code, told.stderr
    return told.stdout, told.stderr


def run_all(python, commands, *, folder):
    """Run commands in one process of an environment, which is faster."""
    program = (
        f"from emergraph.cli.main import main\nfor words in {commands!r}:\n    assert main(words) == 0, words"
    )
    subprocess.run([python, "-c", program], cwd=folder, env=LEFT, check=True)


def told_by(python, program, *, folder):
    """What a program prints."""
    told = subprocess.run([python, "-c", program], cwd=folder, env=LEFT, capture_output=True, check=True)
    return told.stdout.decode()


def environment(folder):
    """A new environment that also sees the packages of this one; its site-packages, and its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = (folder / "lib").glob("python*/site-packages")
    here = [str(Path(pytest.__file__).parents[1]), str(Path(emergraph.__file__).parents[1])]
    (packages / "here.pth").write_text("\n".join([*here, ""]))
    return python, packages


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with the plug-in, as pip installs it, and a store with two graphs."""
    folder = tmp_path_factory.mktemp("plugin")
    python, packages = environment(folder / "environment")
    source = Path(shutil.copytree(ROOT / "examples" / "plugin", folder / "source"))
    words = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", packages, source]
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *map(str, words)]
    subprocess.run(command, check=True, env=LEFT)
    for name in ("digits_dense", "digits_conv"):
        run(python, "export", DEMO / f"{name}.onnx", "net.duckdb", "--quiet", folder=folder)
    return python, folder


HELP = """
import sys
from emergraph.cli.main import main
main(["--help"])
print("emergraph_fan" in sys.modules)
"""


def test_help_lists_it_by_its_metadata(installed):
    python, folder = installed
    out, _ = run(python, "--help", folder=folder)
    assert "Commands of plug-ins:\n  fan  From emergraph-fan 1.0.\n" in out
    assert "fan" not in run(python, "--no-plugins", "--help", folder=folder)[0]
    assert "fan" not in run(python, "--help", folder=folder, EMERGRAPH_NO_PLUGINS="1")[0]
    assert told_by(python, HELP, folder=folder).endswith("False\n")


def test_its_command_has_help_options_and_json(installed):
    python, folder = installed
    out, _ = run(python, "fan", "--help", folder=folder)
    assert "Count the edges that lead into the units of each layer." in out
    assert "--least" in out
    assert "emergraph fan net.duckdb --kinds weight --format json" in out
    words = ["fan", "net.duckdb", "--no-save"]
    run_all(
        python, [[*words, "--out", "all.json"], [*words, "--least", "10", "--out", "few.json"]], folder=folder
    )
    found = json.loads((folder / "all.json").read_text())
    assert found["graph"] == "digits_conv"
    expected = [row for row in found["layers"] if row["fan_in"] >= 10]
    assert json.loads((folder / "few.json").read_text())["layers"] == expected
    assert 0 < len(expected) < len(found["layers"])
    _, err = run(python, "fan", "net.duckdb", "--no-plugins", folder=folder, code=2)
    assert "No such command 'fan'" in err


def test_a_store_keeps_it_and_report_diff_and_plot_show_it(installed):
    python, folder = installed
    shutil.copy(folder / "net.duckdb", folder / "kept.duckdb")
    fan = ["fan", "kept.duckdb", "--kinds", "weight", "--quiet", "--out", os.devnull]
    commands = [
        [*fan, "--graph", "digits_dense"],
        [*fan, "--graph", "digits_conv"],
        ["sql", "kept.duckdb", "FROM fan", "--out", "rows.json"],
        ["report", "kept.duckdb", "--out", "report.json"],
        ["diff", "kept.duckdb:digits_dense", "kept.duckdb:digits_conv", "--out", "diff.json"],
        ["plot", "kept.duckdb", "fan", "--out", "fan.svg"],
        ["--no-plugins", "report", "kept.duckdb", "--out", "plain.json"],
    ]
    run_all(python, commands, folder=folder)
    rows, report, diff, plain = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("rows", "report", "diff", "plain")
    )
    assert {row["run"] for row in rows} == {0, 1}
    with open_store(folder / "kept.duckdb") as store:
        asked = "SELECT comment FROM duckdb_columns() WHERE table_name = 'fan' AND column_name = 'fan_in'"
        assert store.connection.execute(asked).fetchall() == [("Edges into the layer over its units.",)]
    section = next(one for one in report["sections"] if one["id"] == "fan")
    assert [table["name"] for table in section["tables"]] == ["fan"]
    assert [figure["name"] for figure in section["figures"]] == ["fan"]
    command = section["tables"][0]["runs"][0]["command"]
    assert command == "emergraph fan kept.duckdb --graph digits_conv --kinds weight"
    assert "edges into each unit of" in section["finding"]
    assert {row["analysis"] for row in diff["measures"]} >= {"graph", "fan"}
    assert "<svg" in (folder / "fan.svg").read_text()
    assert "fan" not in {one["id"] for one in plain["sections"]}


API = """
import sys
import emergraph
assert "emergraph_fan" not in sys.modules
from emergraph.analysis.registry import analysis_named, built_in
from emergraph.analysis.resultpage import schema_page
graph = emergraph.open("net.duckdb").graph("digits_dense")
found = graph.analyse("fan", save=False)
print(found.layers["fan_in"].max())
page = schema_page((*built_in(), analysis_named("fan")))
print("| `fan_in` | DOUBLE | Edges into the layer over its units. |" in page)
"""


def test_the_api_runs_it_and_the_schema_page_describes_it(installed):
    python, folder = installed
    assert told_by(python, API, folder=folder) == "18.3125\nTrue\n"


def test_what_lies_beside_a_model_is_no_plugin(installed, tmp_path):
    """Neither metadata in the working folder, nor a module there of the name that metadata give."""
    python, folder = installed
    info = tmp_path / "planted-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[emergraph.analyses]\nplanted = planted:IT\n")
    for name in ("planted", "emergraph_fan"):
        (tmp_path / f"{name}.py").write_text(f"open('{name}.ran', 'w').close()\n")
    shutil.copy(folder / "net.duckdb", tmp_path / "net.duckdb")
    for path in ("", str(tmp_path)):
        out, _ = run(python, "--help", folder=tmp_path, PYTHONPATH=path)
        assert "planted" not in out
        run(python, "planted", "net.duckdb", folder=tmp_path, code=2, PYTHONPATH=path)
        run(python, "fan", "net.duckdb", "--no-save", folder=tmp_path, PYTHONPATH=path)
    assert not list(tmp_path.glob("*.ran"))


BROKEN = {
    "not_importable": "import nothing_of_this_name",
    "no_analysis": "IT = 3",
    "takes_a_table": (
        "from emergraph.analysis.declaration import Analysis, Subject\n"
        "from emergraph.graphstore.results import Column, ResultTable\n"
        "TABLE = ResultTable('topology', 'Mine.', (Column('a', 'DOUBLE', 'Any.'),))\n"
        "IT = Analysis(name='takes_a_table', summary='Mine.', of=Subject.GRAPH, tables=(TABLE,))\n"
    ),
}


def test_broken_ones_cost_one_line(tmp_path):
    python, packages = environment(tmp_path / "environment")
    info = packages / "broken-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 2.0\n")
    entries = [f"{name} = {name}:IT" for name in (*BROKEN, "topology")]
    (info / "entry_points.txt").write_text("\n".join(["[emergraph.analyses]", *entries, ""]))
    for name, code in BROKEN.items():
        (packages / f"{name}.py").write_text(code)
    out, err = run(python, "--help", folder=tmp_path)
    assert all(name in out for name in BROKEN)
    assert err == "Note: plug-in topology of broken 2.0: the name is built in and stays what it is\n"
    for name in BROKEN:
        _, err = run(python, name, "net.duckdb", folder=tmp_path, code=3)
        assert err.startswith(f"Error: plug-in {name} of broken 2.0 cannot be used: ")
        assert err.count("\n") == 1
    run(python, "export", DEMO / "digits_dense.onnx", "net.duckdb", "--quiet", folder=tmp_path)
    assert json.loads(run(python, "topology", "net.duckdb", "--format", "json", folder=tmp_path)[0])[
        "measures"
    ]
    with open_store(tmp_path / "net.duckdb", mode="write") as store:
        store.record_run(store.graph().id, "not_importable", {}, result_tables={})
    for words in (["diff", "net.duckdb:0", "net.duckdb:0"], ["plot", "net.duckdb", "list"]):
        _, err = run(python, *words, folder=tmp_path)
        assert err.startswith("Note: plug-in not_importable of broken 2.0 cannot be used: "), words
        assert err.count("plug-in") == 1


MATRICES = "emergraph text-matrix\nfirst.weight 2 3\n1 2 3\n4 5 6\nsecond.weight 1 2\n0 -1\n"


def test_a_file_of_its_format_is_exported(installed):
    python, folder = installed
    (folder / "small.txt").write_text(MATRICES)
    run(python, "export", "small.txt", "matrices.duckdb", "--quiet", folder=folder)
    out, _ = run(python, "info", "matrices.duckdb", "--format", "json", folder=folder)
    assert json.loads(out)["format"] == "text-matrix"
    assert [layer["n_params"] for layer in json.loads(out)["layers"] if layer["n_params"]] == [6, 2]
    without, error = run(python, "--no-plugins", "export", "small.txt", "other.duckdb", folder=folder, code=3)
    assert (without, len(error.splitlines())) == ("", 1)
    assert not (folder / "other.duckdb").exists()


def test_check_asks_a_format_of_a_plugin_when_it_is_named(installed):
    python, folder = installed
    (folder / "small.txt").write_text(MATRICES)
    out, _ = run(python, "check", "small.txt", folder=folder, code=1)
    assert "FILE-FORMAT" in out
    out, _ = run(python, "check", "small.txt", "--plugin", "text-matrix", folder=folder)
    assert "nothing found" in out
    (folder / "broken.txt").write_text(MATRICES + "third 5\n")
    for words in (["check", "broken.txt", "--plugin", "text-matrix"], ["export", "broken.txt", "b.duckdb"]):
        _, error = run(python, *words, folder=folder, code=3)
        assert len(error.splitlines()) == 1
        assert "text-matrix" in error
