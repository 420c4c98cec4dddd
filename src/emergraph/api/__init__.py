"""The Python API: a store and its graphs, opened only for as long as each call takes.

Nothing here holds a file open, so a notebook does not keep other programs from the store. Tables come back as
polars frames, results as frozen dataclasses with `to_dict()`.
"""

from emergraph.api.graph import Graph
from emergraph.api.models import audit, export, information, landscape, with_model
from emergraph.api.store import Store, open_graph, open_store

__all__ = [
    "Graph",
    "Store",
    "audit",
    "export",
    "information",
    "landscape",
    "open_graph",
    "open_store",
    "with_model",
]
