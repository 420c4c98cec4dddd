"""What a page for walking through a graph holds."""

from emergraph.options import Options, option


class ExplorerOptions(Options):
    """How much of a graph is on the page."""

    strongest: int | None = option(
        default=None,
        help="Edges kept into and out of every unit, the strongest ones.",
        default_text="20, fewer above 15,000 units",
        metavar="K",
        least=1,
        most=500,
    )
