"""How the goldens are made: commands on the demo's networks and on third-party model files."""

import io
import json
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import duckdb
from golden import condense

from emergraph.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "cli" / "demo-data"
MODELS = Path(os.environ.get("EMERGRAPH_MODELS") or Path.home() / ".cache" / "emergraph" / "models")
_EDGES_FOR_ANALYSES = 800_000
"""Third-party graphs above this number of edges are frozen by structure and emergence alone."""

_TABLES = {
    "layers": "id",
    "units": "id",
    "blocks": "id",
    "tensors": "name",
    "operations": "position",
}
_NOT_STRUCTURE = {"graph", "scope"}


def answer(*arguments: object, refused: tuple[int, ...] = ()) -> Any:
    """Run a command with `--format json` in this process and return its condensed answer.

    Args:
        arguments: The command line.
        refused: Exit codes that are an answer, too.
    """
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*map(str, arguments), "--format", "json", "--quiet"])
    text = out.getvalue()
    if code not in {0, 1, *refused}:
        raise AssertionError(f"{arguments}: exit code {code}: {err.getvalue()}")
    return {"code": int(code), "json": condense(json.loads(text)) if text.strip() else None}


def structure(store: Path, graph: int = 0) -> dict[str, Any]:
    """Return the hashes of a graph's tables, column by column, and of its edges.

    The hash of a column is a sum over rows: it does not depend on their order, and a column that comes
    to a table later changes none of the others.
    """
    with duckdb.connect(str(store), read_only=True) as connection:
        return {
            **{table: _columns(connection, table, key, graph) for table, key in _TABLES.items()},
            "edges": _edges(connection, graph),
        }


def _columns(connection: duckdb.DuckDBPyConnection, table: str, key: str, graph: int) -> dict[str, Any]:
    described = connection.execute(f"DESCRIBE {table}").fetchall()
    names = [name for name, *_ in described if name not in _NOT_STRUCTURE]
    if key not in names:
        raise AssertionError(f"{table} has no column {key}: {names}")
    sums = ", ".join(
        f"sum(md5_number_lower(concat({key}, '|', {name}::VARCHAR))::HUGEINT)::VARCHAR" for name in names
    )
    row = connection.execute(f"SELECT count(*), {sums} FROM {table} WHERE graph = {graph}").fetchone()
    assert row is not None
    return {"rows": row[0], **dict(zip(names, row[1:], strict=True))}


def _edges(connection: duckdb.DuckDBPyConnection, graph: int) -> list[Any]:
    question = f"""
        SELECT kind, count(*) AS edges, sum(n_params)::VARCHAR AS parameters,
               sum(hash(src, dst, n_params)::HUGEINT)::VARCHAR AS pairs,
               sum(greatest(weight, 0)::DOUBLE) AS positive,
               sum(l1) AS l1, sum(l2) AS l2, max(max_abs) AS largest
        FROM edges WHERE graph = {graph} GROUP BY kind ORDER BY kind
    """
    found = connection.execute(question)
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def activations(store: Path) -> Any:
    """Return what the units of each layer do, as sums over the layer."""
    question = """
        SELECT layer_name, count(mean) AS n, sum(abs(mean)) AS mean, sum(std) AS std, sum(abs(max)) AS largest
        FROM unit_activations GROUP BY layer, layer_name ORDER BY layer
    """
    with duckdb.connect(str(store), read_only=True) as connection:
        return condense([list(row) for row in connection.execute(question).fetchall()])


def demo(folder: Path) -> dict[str, Any]:
    """Return the demo's networks after every analysis, with their pictures."""
    for name in ("digits_dense.onnx", "digits_conv.onnx", "digits.npz"):
        shutil.copy(DEMO / name, folder / name)
    before = Path.cwd()
    os.chdir(folder)  # stored command lines and JSON name the files as they were given
    try:
        return {**_demo_answers(), "figures": _figures(Path("net.duckdb"))}
    finally:
        os.chdir(before)


def _demo_answers() -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for name in ("digits_conv", "digits_dense"):
        answers[f"export {name}"] = answer("export", f"{name}.onnx", "net.duckdb")
        answers[f"trace {name}"] = answer(
            "trace", "net.duckdb", "digits.npz", "--model", f"{name}.onnx", "--graph", name
        )
        answers[f"check {name}"] = answer("check", f"{name}.onnx")
        for command in ("info", "percolate", "topology", "prune"):
            answers[f"{command} {name}"] = answer(command, "net.duckdb", "--graph", name)
        full = ("--full", "--draws", "40", "--model", f"{name}.onnx", "--inputs", "digits.npz")
        answers[f"emergence {name}"] = answer("emergence", "net.duckdb", "--graph", name, *full)
        answers[f"prune units {name}"] = answer(
            "prune", "net.duckdb", "--graph", name, "--unit", "unit", "--model", f"{name}.onnx", "--no-save"
        )
        answers[f"landscape {name}"] = answer(
            "landscape",
            f"{name}.onnx",
            "--inputs",
            "digits.npz",
            "--store",
            "net.duckdb",
            "--graph",
            name,
            "--directions",
            "4",
            "--planes",
            "2",
            "--walks",
            "2",
            "--budget",
            "0",
        )
    answers["diff"] = answer("diff", "digits_dense.onnx", "digits_conv.onnx")
    answers["structure"] = {str(graph): structure(Path("net.duckdb"), graph) for graph in (0, 1)}
    answers["ls"] = answer("ls", "net.duckdb")
    for name in ("digits_conv", "digits_dense"):
        answers[f"report {name}"] = answer("report", "net.duckdb", "--graph", name)
    return answers


def _figures(store: Path) -> dict[str, Any]:
    """Return the specifications of all pictures that the store has data for, condensed."""
    from emergraph.analysis.figures.reading import read_figure
    from emergraph.analysis.registry import Known, built_in
    from emergraph.graphstore.store import open_store

    specifications: dict[str, Any] = {}
    with open_store(store) as opened:
        for name in ("digits_conv", "digits_dense"):
            for figure in Known(analyses=built_in()).figures():
                data = read_figure(opened.graph(name), figure)
                if data is not None:
                    specifications[f"{figure.name} {name}"] = _specification(data.chart())
    return specifications


def _specification(chart: Any) -> Any:
    document = chart.to_dict() if hasattr(chart, "to_dict") else {"svg": str(chart)}
    return condense(_by_content(document))


def _by_content(document: Any) -> Any:
    """Return a specification whose data sets are named by their order, not by a hash of their floats."""
    data = document.get("datasets", {})
    text = json.dumps(document)
    for index, name in enumerate(data):
        text = text.replace(name, f"data-{index}")
    return json.loads(text)


def model(path: Path, folder: Path, *options: str) -> dict[str, Any]:
    """Return the structure of a third-party file and what the analyses say about it."""
    store = folder / "net.duckdb"
    exported = answer("export", path, store, *options, refused=(3, 4))
    if exported["code"] != 0:
        return {"export": exported}
    answers = {"export": exported, "structure": structure(store)}
    # a weight file has no operations to run
    traced = answer("trace", store, "--random", 4, "--model", path, *options, refused=(2, 3))
    answers["trace"] = traced
    if traced["code"] == 0:
        answers["activations"] = activations(store)
        answers["emergence"] = answer("emergence", store)
    edges = sum(row["edges"] for row in answers["structure"]["edges"])
    if edges <= _EDGES_FOR_ANALYSES:
        for command in ("prune", "percolate", "topology"):
            answers[command] = answer(command, store)
    return answers


def third_party() -> list[tuple[str, Path, tuple[str, ...]]]:
    """Return name, file and export options of the third-party models, in the order of the manifest."""
    facts = json.loads((ROOT / "tests" / "third_party_models.json").read_text(encoding="utf-8"))
    return [
        (
            f"{fact['package']}--{'-'.join(Path(fact['path']).parts[1:])}".replace(".", "-"),
            MODELS / fact["package"] / fact["path"],
            ("--input", "sr=16000") if Path(fact["path"]).name in _TWO_RATES else (),
        )
        for fact in facts
    ]


_TWO_RATES = {"silero_vad.onnx", "silero_vad_op18_ifless.onnx"}
"""These hold a network for 8 kHz, too, and choose by an input."""
