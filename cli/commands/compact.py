"""`emergraph compact`: give back the room that removed graphs have left."""

from dataclasses import asdict

from emergraph.analysis.view import View
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.output import Output, emit
from emergraph.cli.storeargs import StorePath


@command(
    examples="""
    emergraph compact net.duckdb
    """,
    limits=LONG,
)
def compact(store: StorePath, *, output: Output) -> None:
    """Rewrite a store without the space that removed graphs have left in the file.

    The old file stays until the new one is complete.
    """
    from emergraph import api

    done = asdict(api.open_store(store).compact())
    emit(View(facts={name.replace("_", " "): value for name, value in done.items()}, document=done), output)
