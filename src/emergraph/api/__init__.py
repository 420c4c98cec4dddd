"""The Python API: a store and its graphs, opened only for as long as each call takes.

Nothing here holds a file open, so a notebook does not keep other programs from the store. Tables come back as
polars frames, results as frozen dataclasses with `to_dict()`. What is seldom used is imported when it is.
"""

import importlib
from typing import TYPE_CHECKING

from emergraph.api.graph import Graph
from emergraph.api.store import Store, open_graph, open_store

if TYPE_CHECKING:
    from emergraph.api import skills
    from emergraph.api.files import check, lineage, survey
    from emergraph.api.models import audit, export, information, landscape, with_model
    from emergraph.api.tables import concepts, transition

__all__ = [
    "Graph",
    "Store",
    "audit",
    "check",
    "concepts",
    "export",
    "information",
    "landscape",
    "lineage",
    "open_graph",
    "open_store",
    "skills",
    "survey",
    "transition",
    "with_model",
]

_HOMES = {
    **dict.fromkeys(("audit", "export", "information", "landscape", "with_model"), "models"),
    **dict.fromkeys(("check", "lineage", "survey"), "files"),
    **dict.fromkeys(("concepts", "transition"), "tables"),
}


def __getattr__(name: str) -> object:
    if name == "skills":
        return importlib.import_module("emergraph.api.skills")
    if name not in _HOMES:
        raise AttributeError(f"module 'emergraph.api' has no attribute {name!r}")
    return getattr(importlib.import_module(f"emergraph.api.{_HOMES[name]}"), name)
