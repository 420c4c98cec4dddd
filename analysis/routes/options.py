"""What is asked of paths."""

from emergraph.graphstore.records import PATH_KINDS, EdgeKind
from emergraph.options import Options, option


class PathOptions(Options):
    """Where paths begin and end, and which are named."""

    start: str | None = option(
        default=None,
        help="SQL predicate over units where paths begin, such as \"layer = 'input' AND position = 3\".",
        flag="--from",
        default_text="the model's inputs",
        metavar="PREDICATE",
    )
    end: str | None = option(
        default=None,
        help="SQL predicate over units where paths end.",
        flag="--to",
        default_text="the model's outputs",
        metavar="PREDICATE",
    )
    k: int = option(
        default=3, help="Strongest paths to name.", flag="--strongest", metavar="K", least=1, most=100
    )
    kinds: tuple[EdgeKind, ...] = option(default=PATH_KINDS, help="Kinds of edges that paths follow.")
