"""What is found out about each file of a survey, and what that may take."""

from emergraph.optionforms import parse_bytes, parse_seconds
from emergraph.options import Options, option


class PopulationOptions(Options):
    """How each file is looked at."""

    analyses: tuple[str, ...] = option(
        default=(),
        help="Analyses of each graph besides the audit, at their defaults, such as topology,percolate.",
        metavar="NAME,...",
    )
    file_time: str = option(default="2m", help="Wall time for one file.", metavar="TIME")
    file_memory: str = option(
        default="4GiB", help="Memory for one file, as for --memory-limit.", metavar="SIZE"
    )
    resume: bool = option(
        default=False, help="Look at no file again, not even at one that hit a limit in an earlier run."
    )
    seed: int = option(default=0, help="Seed of random inputs.", least=0)

    def check(self) -> None:
        """Refuse what is no limit.

        Raises:
            UsageError: A time or a size cannot be read.
        """
        parse_seconds(self.file_time), parse_bytes(self.file_memory)
