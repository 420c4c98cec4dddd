"""Files of plain arrays (npz, dicts of numpy arrays): every matrix of floats is a layer, whatever its name.

Nothing in such a file says which axis is which. Rows are taken as the outputs, as torch stores them, unless a
bias beside the matrix has as many values as it has columns, and not as many as it has rows.
"""

import re
from collections.abc import Mapping

from emergraph.exporters.weightfiles.dtypes import FLOATING
from emergraph.exporters.weightfiles.encodings.parameter import Parameter

ORIENTATION = "plain matrices are taken as (outputs, inputs), unless their biases fit the columns alone"

_WORD = re.compile(
    r"(?<![a-zA-Z])(?:(?P<weight>w|weights?|kernel|mat|matrix)|(?P<bias>b|bias|biases))(?![a-z])", re.I
)

Groups = dict[str, dict[str, Parameter]]


def plain_groups(groups: Mapping[str, Mapping[str, Parameter]]) -> Groups:
    """Turn matrices whose names say nothing into weights, each with the vector whose name goes with it.

    Args:
        groups: Parameters by module and role, as their names tell.

    Returns:
        The same with roles "weight" and "bias" where the names say nothing; the other groups as they are.
    """
    result: Groups = {}
    biases = _biases(groups)
    taken: set[str] = set()
    for name, parts in groups.items():
        weight = _single(parts)
        if weight is None or len(weight.shape) != 2:
            continue
        bias = biases.get(_key(weight.name, "weight"))
        held = groups[bias] if bias is not None and bias not in taken else {}
        result[name] = {"weight": weight}
        for vector in held.values():
            if bias is not None and vector.shape in {(size,) for size in weight.shape}:
                result[name]["bias"] = vector
                taken.add(bias)
    return {name: result.get(name, dict(parts)) for name, parts in groups.items() if name not in taken}


def _single(parts: Mapping[str, Parameter]) -> Parameter | None:
    """The array of floats that stands alone under a name without a role."""
    if len(parts) != 1:
        return None
    ((role, parameter),) = parts.items()
    number = parameter.tensor.dtype in FLOATING or not parameter.is_plain
    return parameter if role != "weight" and number and parameter.n_elements else None


def _biases(groups: Mapping[str, Mapping[str, Parameter]]) -> dict[str, str]:
    """Groups of a single vector, by what their names have besides the word for a bias."""
    found: dict[str, str] = {}
    for name, parts in groups.items():
        vector = _single(parts)
        key = "" if vector is None else _key(vector.name, "bias")
        if key and vector is not None and len(vector.shape) == 1:
            found.setdefault(key, name)
    return found


def _key(name: str, kind: str) -> str:
    """A name without its last word for a weight or a bias; "" where it has none."""
    words = [match for match in _WORD.finditer(name) if match[kind]]
    return f"{name[: words[-1].start()]}*{name[words[-1].end() :]}" if words else ""
