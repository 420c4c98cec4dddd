"""How relations between models are sought."""

from emergraph.options import Options, option


class LineageOptions(Options):
    """When two models are said to be related, and how many are compared."""

    level: float = option(
        default=1e-6, help="Corrected p value below which two models are related.", above=0.0, most=0.05
    )
    neighbours: int = option(
        default=12, help="Models that each matrix is compared with, the nearest by fingerprint.", least=1
    )
    seed: int = option(default=0, help="Seed of searches and of the order of ties.", least=0)
