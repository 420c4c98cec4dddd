"""Readable layer names: the module path that PyTorch leaves on every node, else the node's own name."""

import ast
from functools import lru_cache

import onnx

_SCOPES = "pkg.torch.onnx.name_scopes"
_PARAMETER_ENDINGS = ("weight", "weight_orig", "weight_v", "kernel")


def module_path(node: onnx.NodeProto) -> tuple[str, str] | None:
    """The innermost module that a node stems from, and the name of the call in it.

    Example:
        >>> node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
        >>> _ = node.metadata_props.add(key=_SCOPES, value="['', 'encoder', 'encoder.fc', 'linear']")
        >>> module_path(node)
        ('encoder.fc', 'linear')
    """
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            return _parsed(entry.value)
    return None


@lru_cache(maxsize=4096)
def _parsed(text: str) -> tuple[str, str] | None:
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(scopes, list) or len(scopes) < 2 or not all(isinstance(s, str) for s in scopes):
        return None
    return scopes[-2], scopes[-1]


def operation_name(node: onnx.NodeProto) -> str:
    """`module/call` for nodes from PyTorch, else the node's name, its output, or its type."""
    path = module_path(node)
    if path is not None:
        return "/".join(part for part in path if part)
    return node.name or next((out for out in node.output if out), node.op_type)


def weight_layer_name(node: onnx.NodeProto, parameter: str | None) -> str:
    """Name of a layer that a parameter tensor makes: its module's path.

    A module with several weights (`in_proj_weight`, `out_proj.weight`) gives one name to each.
    """
    path = module_path(node)
    if path is None or not path[0]:
        return operation_name(node)
    module = path[0]
    if parameter is None or not parameter.startswith(f"{module}."):
        return module
    rest = parameter[len(module) + 1 :]
    if rest in _PARAMETER_ENDINGS or rest.startswith(("weight_ih", "weight_hh")):
        return module
    stem = rest.removesuffix(".weight").removesuffix("_weight")
    return f"{module}.{stem}"
