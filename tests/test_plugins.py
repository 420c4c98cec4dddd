"""Plug-ins come from site-packages alone, are imported when asked for, and replace nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emergraph import plugins
from emergraph.errors import InvalidInputError
from emergraph.plugins import ANALYSES, FORMATS, OFF, site_folders


def install(folder, package, entries, *, modules=(), group=ANALYSES, version="1.0"):
    """Write an installed package: its metadata and its modules."""
    info = folder / f"{package}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    lines = [f"{name} = {target}" for name, target in entries.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    for name, text in dict(modules).items():
        (folder / f"{name}.py").write_text(text)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """An empty folder that is all the environment's site-packages."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr(plugins, "site_folders", lambda: [str(folder)])
    monkeypatch.delenv(OFF, raising=False)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_names_come_from_metadata_and_nothing_is_imported(packages):
    install(packages, "toys", {"toy": "toys_one:IT"}, modules={"toys_one": "raise SystemExit('imported')"})
    (found,) = plugins.plugins(ANALYSES, taken=()).found
    assert (found.name, found.package, found.target) == ("toy", "toys 1.0", "toys_one:IT")
    assert "toys_one" not in sys.modules
    assert plugins.plugins(FORMATS, taken=()).found == ()


def test_a_plugin_is_loaded_on_request(packages):
    install(packages, "toys", {"toy": "toys_two:A.it"}, modules={"toys_two": "class A:\n    it = 7\n"})
    assert plugins.plugins(ANALYSES, taken=()).found[0].load() == 7


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("def broken(:", "SyntaxError"),
        ("raise ValueError('a\\n\\x1b[31mb')", "ValueError: a \\\\x1b"),
        ("OTHER = 1", "AttributeError"),
    ],
)
def test_a_broken_one_costs_one_line(packages, code, said):
    install(packages, "toys", {"toy": "toys_broken:IT"}, modules={"toys_broken": code})
    with pytest.raises(InvalidInputError, match=said) as caught:
        plugins.plugins(ANALYSES, taken=()).found[0].load()
    line = str(caught.value)
    assert line.startswith("plug-in toy of toys 1.0 cannot be used: ")
    assert "\n" not in line
    assert len(line) < 400


def test_nothing_that_is_built_in_is_replaced(packages):
    install(packages, "toys", {"topology": "toys:A", "toy": "toys:B", "Toy!": "toys:C"})
    found = plugins.plugins(ANALYSES, taken={"topology"})
    assert [plugin.name for plugin in found.found] == ["toy"]
    assert len(found.refused) == 2
    assert any("plug-in topology of toys 1.0: the name is built in" in line for line in found.refused)


def test_two_packages_with_one_name_are_both_left_out(packages):
    install(packages, "toys", {"toy": "toys:A"})
    install(packages, "others", {"toy": "others:A"})
    found = plugins.plugins(ANALYSES, taken=())
    assert found.found == ()
    assert found.refused == ("plug-in toy: declared twice, by others 1.0, toys 1.0; remove one of them",)


@pytest.mark.parametrize(("value", "expected"), [("1", 0), ("yes", 0), ("0", 1), ("", 1)])
def test_the_environment_switches_them_off(packages, monkeypatch, value, expected):
    install(packages, "toys", {"toy": "toys:A"})
    monkeypatch.setenv(OFF, value)
    assert len(plugins.plugins(ANALYSES, taken=()).found) == expected


def test_a_module_in_the_working_folder_is_not_imported_instead(packages, tmp_path, monkeypatch):
    install(packages, "toys", {"toy": "toys_three:IT"}, modules={"toys_three": "IT = 'installed'\n"})
    model = tmp_path / "model"
    model.mkdir()
    (model / "toys_three.py").write_text("IT = 'planted'\n")
    monkeypatch.chdir(model)
    monkeypatch.setattr(sys, "path", ["", str(model), *sys.path])
    assert plugins.plugins(ANALYSES, taken=()).found[0].load() == "installed"
    assert sys.path[:2] == ["", str(model)]


def test_an_editable_installation_is_found(packages, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "toys_four.py").write_text("import json\nIT = json.dumps(4)\n")
    install(packages, "toys", {"toy": "toys_four:IT"})
    (packages / "toys.pth").write_text(f"# of the tool that made it\nimport os\n{source}\n")
    assert plugins.plugins(ANALYSES, taken=()).found[0].load() == "4"


LISTED = """
import os
from emergraph.plugins import ANALYSES, plugins
print([plugin.name for plugin in plugins(ANALYSES, taken=()).found], os.path.exists("ran"))
"""


def test_metadata_in_the_working_folder_or_on_the_path_are_not_looked_at(tmp_path):
    """A `.dist-info` that lies beside a model: `python -m emergraph` runs in its folder."""
    planted = {"evil": "evil_module:IT"}
    install(tmp_path, "evil", planted, modules={"evil_module": "open('ran', 'w')"})
    environment = {name: value for name, value in os.environ.items() if name != OFF}
    for path in ("", str(tmp_path)):
        told = subprocess.run(
            [sys.executable, "-c", LISTED],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout == "[] False\n"


def test_site_folders_are_those_of_the_environment():
    assert all(Path(folder).is_absolute() for folder in site_folders())
    assert any(Path(pytest.__file__).is_relative_to(folder) for folder in site_folders())
    assert str(Path.cwd()) not in site_folders()
