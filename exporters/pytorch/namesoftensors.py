"""Which tensors of a file make up each parameter of a module of transformers."""

from collections.abc import Mapping
from typing import Any

from emergraph.exporters.weightfiles.dtypes import FLOATING
from emergraph.exporters.weightfiles.encodings import Parameter
from emergraph.exporters.weightfiles.recipes import Made, Recipe, Shape, shape_of, stored_names


def recipes_for(model: Any, found: Mapping[str, Parameter]) -> dict[str, Made]:  # noqa: ANN401
    """How the tensors of a model are made of those of a file, as transformers itself would load it.

    By their names; where those are of an older version of the class, or each expert has tensors of its own,
    by the renamings and conversions that transformers has for the class.

    Args:
        model: Of transformers.
        found: Parameters of the file.

    Returns:
        By name of the model's state; what the file does not have, or what would have to be converted in
        another way, is left out.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    direct = _by_prefix(expected, found)
    made = direct if len(direct) == len(expected) else {**direct, **_converted(model, expected, found)}
    return fitting(model, made, found)


def fitting(model: Any, made: Mapping[str, Made], found: Mapping[str, Parameter]) -> dict[str, Made]:  # noqa: ANN401
    """Those of some recipes that give tensors of the shapes that a model has, floats where it has floats."""
    state = model.state_dict()
    return {name: recipe for name, recipe in made.items() if _fits(recipe, found, state[name])}


def _fits(recipe: Made, found: Mapping[str, Parameter], expected: Any) -> bool:  # noqa: ANN401 - a tensor
    stored = [found[name] for name in stored_names(recipe)]
    if any(one.problem for one in stored):
        return False
    if expected.is_floating_point() and any(
        one.is_plain and one.tensor.dtype not in FLOATING for one in stored
    ):
        return False
    try:
        return shape_of(recipe, found) == tuple(expected.shape)
    except ValueError:
        return False


def _by_prefix(expected: Mapping[str, Shape], found: Mapping[str, Parameter]) -> dict[str, Made]:
    """Names as they are; or without the first part, or with one more, that all of them have."""
    names: dict[str, Made] = {name: name for name in expected if name in found}
    if names:
        return names
    firsts = {name.partition(".")[0] for name in found}
    if len(firsts) == 1:
        (first,) = firsts
        return {name: f"{first}.{name}" for name in expected if f"{first}.{name}" in found}
    return {name: name.partition(".")[2] for name in expected if name.partition(".")[2] in found}


def _converted(model: Any, expected: Mapping[str, Shape], found: Mapping[str, Parameter]) -> dict[str, Made]:  # noqa: ANN401
    from transformers import core_model_loading as loading
    from transformers.conversion_mapping import get_model_conversion_mapping

    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, loading.WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, loading.WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    state = model.state_dict()
    gathered: dict[str, dict[str, list[str]]] = {}
    result: dict[str, Made] = {}
    for name in sorted(found, key=loading.dot_natural_key):
        target, pattern = loading.rename_source_key(
            name, renamings, converters, model.base_model_prefix, state
        )
        if target not in expected:
            continue
        if pattern is None:
            result.setdefault(target, name)
        else:
            gathered.setdefault(target, {}).setdefault(pattern, []).append(name)
    for target, groups in gathered.items():
        converter = by_pattern[next(iter(groups))]
        made = _operations(loading, converter, groups)
        if made is not None:
            result[target] = made
    return result


def _operations(loading: Any, converter: Any, groups: Mapping[str, list[str]]) -> Made | None:  # noqa: ANN401
    """A conversion as a recipe; None for one that none of the operations here can do."""
    parts: list[list[Made]] = [list(groups.get(pattern, ())) for pattern in converter.source_patterns]
    if len(converter.target_patterns) != 1 or not all(parts):
        return None
    for operation in converter.operations:
        if isinstance(operation, loading.MergeModulelist):
            parts = [[Recipe("stack", tuple(part), (operation.dim,))] for part in parts]
        elif isinstance(operation, loading.Concatenate):
            joined = tuple(one for part in parts for one in part)
            parts = [[Recipe("join", joined, (operation.dim,))]]
        else:
            return None
    return parts[0][0] if len(parts) == 1 and len(parts[0]) == 1 else None
