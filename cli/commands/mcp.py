"""`emergraph mcp`: the commands that only read, for an assistant."""

from pathlib import Path
from typing import Annotated

import typer

from emergraph.cli.app import command
from emergraph.cli.limits import Limits
from emergraph.cli.mcpserver import Bounds, server
from emergraph.optionforms import parse_bytes, parse_seconds
from emergraph.options import FileRole


@command(
    examples="""
    emergraph mcp
    emergraph mcp --folder models --rows 50
    """,
    limits=Limits(time_limit="8760h", memory_limit="8GiB"),
)
def mcp(
    *,
    folder: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Only files inside it are opened."), FileRole.READS
    ] = Path(),
    rows: Annotated[int, typer.Option(min=1, help="Maximum number of entries of a list in an answer.")] = 200,
    characters: Annotated[
        int, typer.Option(min=1000, help="Maximum number of characters of an answer.")
    ] = 50_000,
    answer_time: Annotated[
        str, typer.Option(metavar="TIME", help="Limit on wall time of one answer.")
    ] = "2m",
    answer_memory: Annotated[
        str, typer.Option(metavar="SIZE", help="Limit on memory of one answer.")
    ] = "4GiB",
) -> None:
    """Answer an assistant's questions about stores and models, by the Model Context Protocol.

    The server speaks on stdin and stdout, only reads, opens files of one folder only, and uses no network.
    Answers are cut to the limits and say so; what they quote from files is marked as data.
    """
    parse_bytes(answer_memory)
    bounds = Bounds(
        folder=folder.resolve(),
        rows=rows,
        characters=characters,
        time_limit=answer_time,
        memory_limit=answer_memory,
        seconds=parse_seconds(answer_time),
    )
    server(bounds).run("stdio")
