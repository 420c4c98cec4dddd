"""A folder in Hugging Face's layout, wired by the class that `transformers` itself has for it."""

import importlib
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emergraph.errors import InvalidInputError, MissingExtraError, UnsafeInputError
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.pytorch.tensors import require_torch
from emergraph.exporters.pytorch.weights import load_weights, torch_tensors
from emergraph.exporters.weightfiles import WeightFile
from emergraph.paths import open_file

if TYPE_CHECKING:
    import torch

CONFIG = "config.json"
_MAX_BYTES = 1 << 20
_TOKENS = 6
_SHOWN = 3


def is_folder_with_config(path: Path) -> bool:
    """Whether a path is a folder that says what model is in it."""
    return path.is_dir() and (path / CONFIG).is_file()


def load_folder(
    folder: Path, weights: WeightFile
) -> "tuple[torch.nn.Module, dict[str, torch.Tensor], tuple[str, ...]]":
    """Make the model that `config.json` names, with the weights of the folder.

    Only classes of the installed `transformers` are used: code that a folder brings along is never run.

    Args:
        folder: With `config.json`.
        weights: What `read_weights` gave for the folder.

    Returns:
        The model in evaluation mode, example inputs by name, and tensors of the file that it does not have.

    Raises:
        UnsafeInputError: The configuration asks for code of its own (`auto_map`).
        InvalidInputError: transformers has no such architecture, or the weights do not fit it.
        MissingExtraError: transformers is not installed.
    """
    settings = _read_config(folder / CONFIG)
    torch, transformers = require_torch(), _require_transformers()
    config_class: Any
    model_class: Any
    kind, architecture = settings.get("model_type"), (settings.get("architectures") or [None])[0]
    mapping: Any = transformers.CONFIG_MAPPING
    if kind not in mapping:
        raise _unknown(folder, f"model_type {kind!r}")
    config_class = mapping[kind]
    model_class = getattr(transformers, architecture, None) if isinstance(architecture, str) else None
    fits = isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel)
    if not fits or getattr(model_class, "config_class", None) != config_class:
        raise _unknown(folder, f"architecture {architecture!r} for model_type {kind!r}")
    try:
        config = config_class.from_dict({**settings, "use_cache": False})
        model = model_class(config)
    except Exception as error:
        raise InvalidInputError(
            f"{printable(folder.name)}/{CONFIG} makes no {architecture}: {printable(str(error))}"
        ) from error
    try:
        unused = load_weights(model, weights, unused=True)
    except InvalidInputError as error:
        model, unused = _renamed(transformers, model_class, config, weights, error)
    model.eval()
    return model, _example(torch, model, config, folder), unused


def _renamed(
    transformers: Any,  # noqa: ANN401 - modules and classes of transformers
    model_class: Any,  # noqa: ANN401
    config: Any,  # noqa: ANN401
    weights: WeightFile,
    error: InvalidInputError,
) -> "tuple[torch.nn.Module, tuple[str, ...]]":
    """Let transformers find the tensors of a file whose names are those of an older version of the class.

    Raises:
        InvalidInputError: The file lacks parameters by the older names too.
    """
    loading = logging.getLogger("transformers")
    level = loading.level
    bars = transformers.utils.logging.is_progress_bar_enabled()
    try:
        loading.setLevel(logging.CRITICAL)
        transformers.utils.logging.disable_progress_bar()
        # no path and no name: nothing is fetched or opened
        model, report = model_class.from_pretrained(
            None, config=config, state_dict=torch_tensors(weights), output_loading_info=True
        )
    except Exception as reason:
        raise error from reason
    finally:
        loading.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()
    if lacking := sorted({*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])}):
        shown = ", ".join(printable(name) for name in lacking[:_SHOWN])
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        raise InvalidInputError(
            f"{printable(weights.source)} does not fit {model_class.__name__}: it lacks {shown}{more}"
        ) from error
    return model, tuple(sorted(report["unexpected_keys"]))


def _read_config(path: Path) -> dict[str, Any]:
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MAX_BYTES:
            raise UnsafeInputError(f"{CONFIG} has {size} bytes; expected at most {_MAX_BYTES}")
        text = file.read(_MAX_BYTES)
    try:
        settings = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{CONFIG} is not JSON: {printable(str(error))}") from error
    if not isinstance(settings, dict):
        raise InvalidInputError(f"{CONFIG} holds a {type(settings).__name__}; expected an object")
    if "auto_map" in settings:
        raise UnsafeInputError(
            f"{CONFIG} asks for Python code of its own (auto_map), which is never run; use --wire none, or "
            "name a factory that you trust: emergraph export package.module:factory STORE --weights FILE"
        )
    if "quantization_config" in settings:
        raise InvalidInputError(
            f"{CONFIG}: weights quantized by their library cannot be wired by transformers; use --wire none"
        )
    return settings


def _require_transformers() -> Any:  # noqa: ANN401 - the module itself
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtraError(
            'wiring a Hugging Face folder needs transformers; install it with: pip install "emergraph[hf]", '
            "or use --wire none"
        ) from error


def _unknown(folder: Path, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"{printable(folder.name)}/{CONFIG}: transformers has no {printable(what)}; use --wire none, or name "
        "a factory with package.module:factory and --weights"
    )


def _example(torch: Any, model: Any, config: Any, folder: Path) -> "dict[str, torch.Tensor]":  # noqa: ANN401
    """Small inputs of the kind that the model takes first."""
    name = model.main_input_name
    if name == "input_ids" and getattr(config, "vocab_size", 0):
        ids = torch.arange(_TOKENS).reshape(1, -1) % config.vocab_size
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if name == "pixel_values" and isinstance(getattr(config, "image_size", None), int):
        size = (1, getattr(config, "num_channels", 3), config.image_size, config.image_size)
        return {name: torch.zeros(size)}
    raise InvalidInputError(
        f"{printable(folder.name)}: no example for inputs {name!r}; make one in a factory that returns "
        "(module, arguments)"
    )
