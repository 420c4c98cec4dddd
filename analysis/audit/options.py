"""What decides the findings of an audit."""

from emergraph.options import Options, option


class AuditOptions(Options):
    """How a model is audited."""

    seed: int = option(default=0, least=0, help="Seed of random inputs.")
