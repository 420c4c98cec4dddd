"""What a model run may take."""

from dataclasses import dataclass


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
    """Address space of the child, bytes; mapped weights count, although they may be evicted at any time."""
    threads: int = 0
    """Threads that an operation may use; 0 leaves it to onnxruntime (one per core)."""
