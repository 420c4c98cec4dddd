"""How two graphs are compared."""

from emergraph.options import Options, option


class MatchOptions(Options):
    """Whether hidden units are matched, which may be in another order."""

    match_units: bool = option(
        default=True, help="Seek which hidden unit of A stands for which of B (arXiv 2209.04836)."
    )
    seed: int = option(default=0, help="Seed of that search.", least=0)
