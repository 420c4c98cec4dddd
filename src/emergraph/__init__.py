"""emergraph: a trained neural network as a weighted graph in a DuckDB file, and answers about it.

Example:
    >>> import emergraph
    >>> graph = emergraph.export("model.onnx", "net.duckdb")  # doctest: +SKIP
    >>> graph.trace("inputs.npz", model="model.onnx")  # doctest: +SKIP
    >>> graph.emergence(threshold=0.05).active.emergence.log10  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING

from emergraph.quiet import silence
from emergraph.version import __version__

if TYPE_CHECKING:
    from emergraph.api import Graph, Store, audit, export, information, landscape, with_model
    from emergraph.api import open_store as open  # noqa: A004 - emergraph.open reads like the built-in
    from emergraph.errors import EmergraphError
    from emergraph.exporters.pytorch.recorder import record

__all__ = [
    "EmergraphError",
    "Graph",
    "Store",
    "__version__",
    "audit",
    "export",
    "information",
    "landscape",
    "open",
    "record",
    "with_model",
]

silence()

_HOMES = {
    "EmergraphError": ("emergraph.errors", "EmergraphError"),
    "Graph": ("emergraph.api", "Graph"),
    "Store": ("emergraph.api", "Store"),
    "audit": ("emergraph.api", "audit"),
    "export": ("emergraph.api", "export"),
    "information": ("emergraph.api", "information"),
    "landscape": ("emergraph.api", "landscape"),
    "open": ("emergraph.api", "open_store"),
    "with_model": ("emergraph.api", "with_model"),
    "record": ("emergraph.exporters.pytorch.recorder", "record"),
}
"""Where each public name lives; it is imported when it is first used, so that `import emergraph` is cheap."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'emergraph' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
