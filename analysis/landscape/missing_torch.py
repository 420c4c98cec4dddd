"""The one place that imports torch for the landscape, or says how to get it."""

from types import ModuleType

from emergraph.errors import MissingExtraError


def require_torch(what: str) -> ModuleType:
    """Return the torch module.

    Args:
        what: What needs it, as the subject of the message.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtraError(f'{what} needs PyTorch: pip install "emergraph[torch]"') from None
    return torch
