"""A trained neural network as a weighted graph of its units in a DuckDB file, and answers about it.

From a model file to a graph, to what its units do, to an answer:

    import emergraph
    graph = emergraph.export("model.onnx", "net.duckdb")
    graph.trace("inputs.npz", model="model.onnx")
    graph.emergence(threshold=0.05).active.exact
    graph.plot("layers")

Look at a file:   audit(model), check(model), survey(folder, lake), lineage(models)
Make a graph:     export(model, store), record(module, store) in a training loop
Open one again:   open(store).graph(), which is a `Graph`
Ask it:           graph.layers, .units, .edges(), .prune(), .influence(), .circuit(), .contributions(),
                  .paths(), .emergence(), .percolate(), .topology(), .diff(other)
Ask in SQL:       open(store).sql("SELECT ... FROM edges")
Show it:          graph.plot(), .report(), .explore(); results show themselves in a notebook
Follow training:  open(store).trajectory()
Without a graph:  landscape(model), information(model, sequences), concepts(table), transition(table),
                  skills.fit(table)
Other tools:      graph.to_igraph(), .to_networkx(), .to_hetero_data(), .convert(file, format)

Names and keywords are those of the command line: `emergraph prune STORE --criterion wanda` is
`graph.prune(criterion="wanda")`. Tables are polars frames, results are frozen dataclasses with `to_dict()`,
and what fails raises an `EmergraphError` whose text is one line. No call leaves a file open, runs code from
a model file, or uses a network.
"""

import importlib
from typing import TYPE_CHECKING

from emergraph.quiet import silence
from emergraph.version import __version__

if TYPE_CHECKING:
    from emergraph.analysis.information.sequences import entity_sequences
    from emergraph.analysis.modelruns.files import ModelFiles
    from emergraph.api import (
        Graph,
        Store,
        audit,
        check,
        concepts,
        export,
        information,
        landscape,
        lineage,
        skills,
        survey,
        transition,
        with_model,
    )
    from emergraph.api import open_store as open  # noqa: A004 - emergraph.open reads like the built-in
    from emergraph.errors import EmergraphError
    from emergraph.exporters.pytorch.recorder import RecorderOptions, record

__all__ = [
    "EmergraphError",
    "Graph",
    "ModelFiles",
    "RecorderOptions",
    "Store",
    "__version__",
    "audit",
    "check",
    "concepts",
    "entity_sequences",
    "export",
    "information",
    "landscape",
    "lineage",
    "open",
    "record",
    "skills",
    "survey",
    "transition",
    "with_model",
]

silence()

_ELSEWHERE = {
    "EmergraphError": ("emergraph.errors", "EmergraphError"),
    "ModelFiles": ("emergraph.analysis.modelruns.files", "ModelFiles"),
    "RecorderOptions": ("emergraph.exporters.pytorch.recorder", "RecorderOptions"),
    "entity_sequences": ("emergraph.analysis.information.sequences", "entity_sequences"),
    "open": ("emergraph.api", "open_store"),
    "record": ("emergraph.exporters.pytorch.recorder", "record"),
}
"""Where public names live that are not in `emergraph.api` under their own name."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'emergraph' has no attribute {name!r}")
    module, attribute = _ELSEWHERE.get(name, ("emergraph.api", name))
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value  # imported when first used, so that `import emergraph` is cheap
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
