"""Which of a module's parameters its export uses."""

from typing import Any

from emergraph.exporters.runtime.assembly import ModelSource
from emergraph.exporters.runtime.flat_model import names_used


def parameters_in(source: ModelSource, module: Any) -> tuple[frozenset[str], tuple[str, ...]]:  # noqa: ANN401
    """The parameters of a module or program that an export of it uses, and those that it does not.

    Args:
        source: The export, in which parameters have their names.
        module: A `torch.nn.Module` or an exported program.

    Returns:
        Names of the export's tensors that are parameters; names of parameters that no operation reads, under
        none of the names that tied ones have. Buffers are in neither.
    """
    graph = source.model.graph
    read = names_used([*graph.node, *(node for function in source.model.functions for node in function.node)])
    read.update(value.name for value in graph.output)
    named: list[tuple[str, Any]] = list(_named_parameters(module))
    stored = {tensor.name for tensor in graph.initializer}
    used = {id(parameter) for name, parameter in named if name in read and name in stored}
    return (
        frozenset(name for name, parameter in named if id(parameter) in used),
        tuple(dict.fromkeys(name for name, parameter in named if id(parameter) not in used)),
    )


def _named_parameters(module: Any) -> Any:  # noqa: ANN401
    if hasattr(module, "modules"):
        return module.named_parameters(remove_duplicate=False)
    return module.named_parameters()
