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
    time_option: str = "--time-limit"
    """What raises `wall_seconds` on the command line."""
    memory_option: str = "--memory-limit"


def too_slow(what: str, limits: RunLimits) -> LimitError:
    """The error for work in a child that takes longer than it may."""
    return LimitError(
        f"{what} took longer than {limits.wall_seconds:g} s; "
        f"raise the limit with {limits.time_option}, or use smaller inputs"
    )


def too_large(what: str, limits: RunLimits, held: int = 0) -> LimitError:
    """The error for work in a child that needs more memory than it may take.

    Args:
        what: The work.
        limits: Of the child.
        held: What was taken, if that is known.
    """
    if not held and (outside := outside_limit()):
        return LimitError(f"{what} needs more memory than the limit from outside ({outside}); raise that")
    taken = f" ({mebibytes(held)} were taken)" if held else ""
    return LimitError(
        f"{what} needs more than {limits.memory_bytes / (1 << 30):.3g} GiB of memory{taken}; "
        f"raise the limit with {limits.memory_option}, or use smaller inputs"
    )
