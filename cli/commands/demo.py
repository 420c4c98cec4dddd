"""`emergraph demo`: the whole way from two model files to answers, on bundled files."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from emergraph.atomic import together, write_atomically
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.errors import ExitCode, UsageError

DATA = Path(__file__).resolve().parent.parent / "demo-data"
MODELS = ("digits_conv", "digits_dense")
THRESHOLDS = "0.01,0.02,0.05,0.1,0.2,0.5"
QUESTIONS = {
    "How many parameters of each layer are exactly zero, because they were pruned?": """
SELECT g.name AS graph, l.name AS layer, l.kind, l.n_params, l.n_zeros,
       round(100.0 * l.n_zeros / l.n_params, 1) AS percent
FROM layers AS l JOIN graphs AS g ON g.id = l.graph
WHERE l.n_params > 0
ORDER BY g.id, l.id""",
    "Which pixels does the pruned network no longer look at?": """
SELECT u.position // 8 AS image_row, list(u.position % 8 ORDER BY u.position) AS image_columns
FROM units AS u JOIN graphs AS g ON g.id = u.graph
WHERE g.name = 'digits_dense' AND u.role = 'input'
  AND NOT EXISTS (FROM edges AS e WHERE e.graph = u.graph AND e.src = u.id)
GROUP BY image_row
ORDER BY image_row""",
    "How many units of each layer stay silent on all 300 images, and what weight leads out of them?": """
WITH silent AS (
    SELECT a.graph, a.layer, a.layer_name, a.unit
    FROM unit_activations AS a JOIN graphs AS g ON g.id = a.graph
    WHERE g.name = 'digits_dense' AND a.neuron AND a.max <= 0.05
)
SELECT s.layer_name AS layer, count(DISTINCT s.unit) AS silent_units, count(e.src) AS edges_out,
       round(coalesce(sum(e.l1), 0), 2) AS weight_out
FROM silent AS s LEFT JOIN edges AS e ON e.graph = s.graph AND e.src = s.unit
GROUP BY s.layer, s.layer_name
ORDER BY s.layer""",
}


@command(
    examples="""
    emergraph demo
    emergraph demo --dir /tmp/digits
    """,
    limits=LONG,
)
def demo(
    folder: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where the demo puts its models, inputs and store.")
    ] = Path("emergraph-demo"),
) -> None:
    """Export, trace and analyse two small networks that come with emergraph, ask in SQL, and write a report.

    Both were trained on 8x8 images of digits; the 300 images here are not among those they were trained on.
    The store and the report of an earlier demo in DIR are replaced.
    """
    store = folder / "digits.duckdb"
    inputs = folder / "digits.npz"
    report = folder / "digits.html"
    _prepare(folder, store, report)
    for name in MODELS:
        model = folder / f"{name}.onnx"
        _step("export", model, store)
        _step("trace", store, inputs, "--model", model)
        _step("emergence", store, "--thresholds", THRESHOLDS)
    _step("prune", store, "--level", "0,0.3,0.6,0.9")
    _step("percolate", store)
    _step("audit", folder / "digits_dense.onnx", "--store", store)
    for question, sql in QUESTIONS.items():
        sys.stdout.write(f"# {question}\n")
        _step("sql", store, sql.strip())
    _step("report", store, "--out", report)
    sys.stdout.write(f"The store is {store}: emergraph info {store}\n")
    sys.stdout.write(f"The report is {report}: open it in a browser\n")


def _prepare(folder: Path, store: Path, report: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with together():
            for path in DATA.iterdir():
                write_atomically(folder / path.name, path.read_bytes())
        store.unlink(missing_ok=True)
        report.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}; choose another --dir") from error


def _quoted(word: str) -> str:
    """Quote a word for a shell; SQL reads better in double quotes, for it has single quotes in it."""
    return f'"{word}"' if " " in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def _step(*arguments: str | Path) -> None:
    """Show a command and run it."""
    from emergraph.cli.main import main

    words = [str(argument) for argument in arguments]
    sys.stdout.write(f"$ emergraph {' '.join(map(_quoted, words))}\n")
    sys.stdout.flush()
    status = main(words)
    sys.stdout.write("\n")
    if status not in (ExitCode.OK, ExitCode.FINDINGS):
        raise typer.Exit(status)
