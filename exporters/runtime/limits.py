"""What a model run may take."""

from dataclasses import dataclass

from emergraph.errors import LimitError
from emergraph.memory import mebibytes, outside_limit


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """Limits of the child process that runs a model.

    Example:
        >>> RunLimits(wall_seconds=10).memory_bytes
        8589934592
    """

    wall_seconds: float = 300.0
    """Wall time in seconds for all work on one model, waiting for the child included."""
    memory_bytes: int = 8 << 30
    """Memory of the child that no file backs, bytes: mapped weights do not count."""
    threads: int = 0
    """Threads that an operation may use; 0 leaves it to onnxruntime (one per core)."""


def too_large(what: str, memory_bytes: int, held: int = 0) -> LimitError:
    """The error for work in a child that needs more memory than it may take.

    Args:
        what: The work.
        memory_bytes: The limit.
        held: What was taken, if that is known.
    """
    if not held and (outside := outside_limit()):
        return LimitError(f"{what} needs more memory than the limit from outside ({outside}); raise that")
    taken = f" ({mebibytes(held)} were taken)" if held else ""
    return LimitError(
        f"{what} needs more than {memory_bytes / (1 << 30):.3g} GiB of memory{taken}; "
        "raise the limit with --memory-limit, or use smaller inputs"
    )
