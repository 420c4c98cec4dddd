"""`emergraph ls`: the graphs of a store."""

from emergraph.analysis.view import View
from emergraph.cli.app import command
from emergraph.cli.output import Output, emit
from emergraph.cli.storeargs import StorePath


@command(
    examples="""
    emergraph ls net.duckdb
    emergraph ls net.duckdb --format csv
    """
)
def ls(store: StorePath, *, output: Output) -> None:
    """List the graphs of a store, oldest first."""
    from emergraph.graphstore.store import open_store

    with open_store(store) as opened:
        graphs = opened.graphs()
    columns = [
        "id",
        "name",
        "source",
        "format",
        "n_layers",
        "n_units",
        "n_edges",
        "n_parameters",
        "created_at",
    ]
    if graphs["step"].count():
        columns.insert(2, "step")  # of a training that was recorded
    short = graphs.select(columns)
    notes = [] if graphs.height else ["the store holds no graph; emergraph export MODEL STORE writes one"]
    emit(View(rows=short, document=graphs, notes=notes), output)
