"""Folders and GGUF files wired by the class that `transformers` has for them, without their weights.

A child process without a network builds the module with parameters that hold nothing, and exports it to an
ONNX file in which parameters are inputs. Where the module is small, it is filled and run, too, so that the
export can be compared with it. The parent joins the file with the weights, which stay where they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emergraph.choices import unknown
from emergraph.errors import InvalidInputError
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.pytorch.checking import feeds_of
from emergraph.exporters.pytorch.emptymodel import empty_model
from emergraph.exporters.pytorch.folderconfig import closed_settings, read_config
from emergraph.exporters.pytorch.huggingface import config_place, example_inputs, named_model
from emergraph.exporters.pytorch.onnxexport import save_onnx
from emergraph.exporters.pytorch.tensors import Array, outputs_of, require_torch
from emergraph.exporters.pytorch.written_out import written_out
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.offline import call_offline
from emergraph.exporters.runtime.sources import as_source
from emergraph.exporters.weightfiles.dtypes import FLOATING
from emergraph.exporters.weightfiles.encodings.parameter import Parameter
from emergraph.exporters.weightfiles.gguf.architectures import described
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.exporters.weightfiles.recipes import Made, Recipe, Shape, shape_of, stored_names, values_of
from emergraph.exporters.weightfiles.wiring_parameters import parameters
from emergraph.exporters.wiredmodel import MASK

COMPARED_PARAMETERS = 1 << 24
"""Up to so many parameters, the export is compared with the module itself."""


@dataclass(frozen=True, kw_only=True)
class WiredCapture:
    """A module in an ONNX file without its weights, and how they are made; needs no torch any more."""

    label: str
    """Class of the module."""
    feeds: Mapping[str, Array]
    """The example inputs, by the names that they have in the file."""
    expected: tuple[Array, ...] | None
    """What the module gives for them; None where it was too large to be filled."""
    recipes: Mapping[str, Made]
    """By name of the parameters that are inputs of the file."""
    unused: tuple[str, ...]
    """Names of parameters that no operation reads."""
    left_over: tuple[str, ...]
    """Tensors of the weight file that the module does not have."""
    lacking: tuple[str, ...]
    """Parameters that could not be found; then there is no ONNX file."""


def capture_wired(
    model: Path,
    path: Path,
    *,
    allow_missing_classes: bool = False,
    root: Path | None = None,
    inputs: Mapping[str, Array] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    limits: RunLimits | None = None,
    compared: int = COMPARED_PARAMETERS,
) -> WiredCapture:
    """Write the module of a folder or a GGUF file to an ONNX file without its weights, in a child process.

    Args:
        model: A folder with `config.json`, or a GGUF file.
        path: The ONNX file.
        allow_missing_classes: As for `read_weights`.
        root: As for `read_weights`.
        inputs: Example inputs by name; small ones of the kind that the model takes by default.
        shapes: Shapes of those that are not given.
        limits: Of the child.
        compared: Up to how many parameters the module is filled and run.

    Raises:
        UnsafeInputError: The folder asks for code, or for something that would have to be fetched.
        InvalidInputError: It cannot be read, or torch cannot export its model.
        LimitError: A limit was hit.
        MissingExtraError: A library that it needs is not installed.
    """
    asked = _Asked(allow_missing_classes, root, dict(inputs or {}), dict(shapes or {}), compared)
    return call_offline(_captured, model, path, asked, limits=limits)


@dataclass(frozen=True)
class _Asked:
    """What the child is told besides the paths."""

    allow_missing: bool
    root: Path | None
    inputs: dict[str, Array]
    shapes: dict[str, tuple[int, ...]]
    compared: int


def _captured(path: Path, target: Path, asked: _Asked) -> WiredCapture:
    torch = require_torch()
    weights = read_weights(path, allow_missing_classes=asked.allow_missing, root=asked.root)
    found = parameters(weights)
    if path.is_dir():
        named = named_model(read_config(path, root=asked.root), config_place(path))
        model = empty_model(named.build)
        recipes = recipes_for(model, found)
    else:
        network = described(weights)
        named = named_model(closed_settings(network.settings), printable(weights.source))
        model = empty_model(named.build)
        recipes = fitting(model, network.recipes(list(model.state_dict())), found)
    label = type(model).__name__
    for name, buffer in model.named_buffers():
        if name in recipes:
            _fill(torch, buffer, found, recipes[name])
    by_name = _with_tied(model, recipes)
    lacking = tuple(name for name, _ in model.named_parameters() if name not in by_name)
    taken = {name for recipe in recipes.values() for name in stored_names(recipe)}
    left_over = tuple(name for name in found if name not in taken)
    kwargs = _inputs(torch, model, named.where, asked)
    expected: tuple[Array, ...] | None = None
    if lacking:
        return WiredCapture(
            label=label, feeds={}, expected=None, recipes={}, unused=(), left_over=left_over, lacking=lacking
        )
    with written_out(model):
        if sum(parameter.numel() for parameter in model.parameters()) <= asked.compared:
            for name, parameter in model.named_parameters():
                _fill(torch, parameter, found, by_name[name])
            expected = tuple(outputs_of(model, (), kwargs))
        save_onnx(model, (), kwargs, None, target, label, outside=by_name)
    source = as_source(read_onnx(target))
    there = {value.name for value in source.model.graph.input} & by_name.keys()
    return WiredCapture(
        label=label,
        feeds=_feeds(source, kwargs, there),
        expected=expected,
        recipes={name: by_name[name] for name in by_name if name in there},
        unused=_unread(model, there),
        left_over=left_over,
        lacking=(),
    )


def _inputs(torch: Any, model: Any, where: str, asked: _Asked) -> dict[str, Any]:  # noqa: ANN401
    """Example inputs: what was given, the rest of the kinds that the model takes.

    Raises:
        InvalidInputError: An input is of another size than those that were given.
    """
    found = example_inputs(model, where)
    usual = {name: tuple(value.shape) for name, value in found.items()}
    extra = sorted({*asked.inputs, *asked.shapes} - usual.keys())
    if extra:
        raise InvalidInputError(unknown("input", extra[0], usual))
    for name, shape in asked.shapes.items():
        found[name] = torch.zeros(shape, dtype=found[name].dtype)
    for name, array in asked.inputs.items():
        found[name] = torch.from_numpy(np.ascontiguousarray(array)).to(found[name].dtype)
    main, mask = model.main_input_name, found.get(MASK)
    if mask is not None and MASK not in {*asked.inputs, *asked.shapes}:
        found[MASK] = torch.ones(found[main].shape, dtype=mask.dtype)
    return found


def _fill(torch: Any, tensor: Any, found: Mapping[str, Parameter], recipe: Made) -> None:  # noqa: ANN401
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(values_of(recipe, found).copy()))


def _with_tied(model: Any, recipes: Mapping[str, Made]) -> dict[str, Made]:  # noqa: ANN401
    """Recipes of parameters under all names that tied ones have."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    found: dict[str, Made] = {}
    for names in groups.values():
        recipe = next((recipes[name] for name in names if name in recipes), None)
        if recipe is not None:
            found.update(dict.fromkeys(names, recipe))
    return found


def _feeds(source: Any, kwargs: Mapping[str, Any], weights: set[str]) -> dict[str, Array]:  # noqa: ANN401
    """The example inputs by the names in the file, in which the weights stand behind them."""
    import onnx

    light = onnx.ModelProto()
    for value in source.model.graph.input:
        if value.name not in weights:
            light.graph.input.append(value)

    @dataclass(frozen=True)
    class _Inputs:
        model: Any

    return feeds_of(_Inputs(light), (), kwargs)  # type: ignore[arg-type]


def _unread(model: Any, there: set[str]) -> tuple[str, ...]:  # noqa: ANN401
    """Parameters that no operation reads, under none of their names."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return tuple(names[0] for names in groups.values() if not there & set(names))


def refuse_lacking(captured: WiredCapture, source: str) -> InvalidInputError:
    """The error for a file that lacks parameters of the module."""
    shown = ", ".join(printable(name) for name in captured.lacking[:3])
    more = f" and {len(captured.lacking) - 3} more" if len(captured.lacking) > 3 else ""
    return InvalidInputError(
        f"{printable(source)} does not fit {captured.label}: it lacks {shown}{more}; use --wire none"
    )


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
