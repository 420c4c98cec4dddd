"""The notebooks of docs/ run, and hold the cells that run here."""

import importlib.util
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "notebooks"
_SPEC = importlib.util.spec_from_file_location("make_notebooks", FOLDER / "make_notebooks.py")
notebooks = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(notebooks)


@pytest.mark.parametrize("name", notebooks.NOTEBOOKS)
def test_the_file_holds_these_cells_with_outputs(name):
    stored = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert [cell.source for cell in stored.cells] == notebooks.NOTEBOOKS[name], (
        "run docs/notebooks/make_notebooks.py"
    )
    assert any(cell.get("outputs") for cell in stored.cells)
    assert not any(
        output.output_type == "error" for cell in stored.cells for output in cell.get("outputs", ())
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.models] if name == "third-party-file" else [])
        for name in notebooks.NOTEBOOKS
    ],
)
def test_a_notebook_runs_and_gives_the_tables_it_shows(name):
    stored = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    again = notebooks.executed(name)
    for before, after in zip(stored.cells, again.cells, strict=True):
        kinds = [sorted(output.get("data", {})) for output in before.get("outputs", ())]
        assert [sorted(output.get("data", {})) for output in after.get("outputs", ())] == kinds
