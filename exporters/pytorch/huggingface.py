"""A folder in Hugging Face's layout, wired by the class that `transformers` itself has for it."""

import importlib
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emergraph.errors import EmergraphError, InvalidInputError, MissingExtraError, UnsafeInputError, chain_of
from emergraph.exporters.onnxfile.names import printable
from emergraph.exporters.pytorch.folderconfig import CONFIG, read_config
from emergraph.exporters.pytorch.tensors import require_torch
from emergraph.exporters.pytorch.weights import decoded_tensors, load_weights
from emergraph.exporters.pytorch.written_out import ATTENTION, EXPERTS
from emergraph.exporters.runtime.feeds import MAX_MADE
from emergraph.exporters.weightfiles.weightfile import WeightFile
from emergraph.graphstore.text import first_line
from emergraph.memory import ran_out_of_memory

if TYPE_CHECKING:
    import torch

_PLAIN = {"use_cache": False, "attn_implementation": ATTENTION, "experts_implementation": EXPERTS}
_TOKENS = 6
_LARGEST = 1 << 30
"""Of a size in a configuration."""
_SHOWN = 3


@dataclass(frozen=True)
class NamedModel:
    """A class of transformers and a configuration of it, by what a file says."""

    model_class: Any
    config: Any
    where: str
    """The file, for messages."""

    def build(self) -> Any:  # noqa: ANN401 - a module of transformers
        """The model, with the parameters that the class begins with.

        Raises:
            InvalidInputError: The configuration does not fit the class.
            UnsafeInputError: Something would have to be fetched.
        """
        name = self.model_class.__name__
        try:
            return self.model_class(self.config)
        except Exception as error:
            raise _not_built(error, name, self.where) from error


def named_model(settings: dict[str, Any], where: str) -> NamedModel:
    """The class that a configuration names. Only classes of the installed `transformers` are used.

    Args:
        settings: As `read_config` gives them.
        where: The file that they are from, for messages.

    Raises:
        InvalidInputError: transformers has no such architecture, or cannot make a configuration of it.
        UnsafeInputError: Something would have to be fetched.
        MissingExtraError: transformers is not installed.
    """
    require_torch()
    transformers = _require_transformers()
    kind, architecture = _names(settings, where)
    mapping: Any = transformers.CONFIG_MAPPING
    if kind not in mapping:
        raise _unknown(where, f"model_type {kind!r}")
    config_class = mapping[kind]
    model_class = None if architecture is None else getattr(transformers, architecture, None)
    fits = isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel)
    if not fits or getattr(model_class, "config_class", None) != config_class:
        raise _unknown(where, f"architecture {architecture!r} for model_type {kind!r}")
    try:
        return NamedModel(model_class, config_class.from_dict({**settings, **_PLAIN}), where)
    except Exception as error:
        raise _not_built(error, str(architecture), where) from error


def _not_built(error: Exception, architecture: str, where: str) -> Exception:
    if isinstance(error, EmergraphError) or ran_out_of_memory(error):
        return error
    if _wanted_the_network(error):
        return UnsafeInputError(
            f"{where}: {architecture} would have to fetch something "
            f"({printable(first_line(error))}), and is opened without a network; use --wire none"
        )
    told = printable(" ".join(str(error).split()))
    return InvalidInputError(f"{where} does not build a {architecture}: {told}")


def config_place(folder: Path) -> str:
    """The configuration of a folder, as messages name it."""
    return f"{printable(folder.name)}/{CONFIG}"


def load_folder(
    folder: Path, weights: WeightFile, *, root: Path | None = None
) -> "tuple[torch.nn.Module, dict[str, torch.Tensor], tuple[str, ...]]":
    """Make the model that `config.json` names, with the weights of the folder.

    To be called where there is no network (see `runtime.offline`).

    Args:
        folder: With `config.json`.
        weights: What `read_weights` gave for the folder.
        root: As for `read_weights`.

    Returns:
        The model in evaluation mode, example inputs by name, and tensors of the file that it does not have.

    Raises:
        UnsafeInputError: The configuration asks for code of its own (`auto_map`), or for something that would
            have to be fetched.
        InvalidInputError: transformers has no such architecture, or the weights do not fit it.
        MissingExtraError: transformers is not installed.
    """
    named = named_model(read_config(folder, root=root), config_place(folder))
    model = named.build()
    try:
        unused = load_weights(model, weights, unused=True)
    except InvalidInputError as error:
        transformers = _require_transformers()
        model, unused = _renamed(transformers, named.model_class, named.config, weights, error)
    model.eval()
    return model, example_inputs(model, named.where), unused


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
            None, config=config, state_dict=decoded_tensors(weights), output_loading_info=True
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


def _require_transformers() -> Any:  # noqa: ANN401 - the module itself
    _hide("kernels", always=True)
    _hide("torchvision")
    try:
        transformers = importlib.import_module("transformers")
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise MissingExtraError(
            'wiring a Hugging Face folder needs transformers; install it with: pip install "emergraph[hf]", '
            "or use --wire none"
        ) from error
    # a backbone's name that passed is one of timm's, and transformers would ask the hub first
    hub.HfApi.repo_exists = lambda *_args, **_options: False
    return transformers


def _hide(name: str, *, always: bool = False) -> None:
    """Make an optional package look as if it were not installed, where it does not even import."""
    try:
        if not always:
            importlib.import_module(name)
            return
    except Exception:  # noqa: BLE001 - a broken package raises anything
        for part in [part for part in sys.modules if part.partition(".")[0] == name]:
            del sys.modules[part]
    modules: dict[str, Any] = sys.modules
    modules[name] = None  # how Python marks what cannot be imported


def _wanted_the_network(error: BaseException | None) -> bool:
    """Whether the hub's library or this process refused to fetch something."""
    refused = ("OfflineModeIsEnabled", "LocalEntryNotFoundError", "NetworkClosedError")
    return any(type(one).__name__ in refused for one in chain_of(error))


def _unknown(where: str, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"{where}: transformers has no {printable(what)}; use --wire none, or name "
        "a factory with package.module:factory and --weights"
    )


def _names(settings: dict[str, Any], where: str) -> tuple[str | None, str | None]:
    """The kind of model and its first architecture, as text or not there."""
    kind, listed = settings.get("model_type"), settings.get("architectures") or [None]
    if not (kind is None or isinstance(kind, str)):
        raise _mistyped(where, "model_type", kind, "a name")
    if not isinstance(listed, list) or not (listed[0] is None or isinstance(listed[0], str)):
        raise _mistyped(where, "architectures", listed, "a list of names")
    return kind, listed[0]


def _mistyped(where: str, key: str, found: object, expected: str) -> InvalidInputError:
    return InvalidInputError(
        f"{where}: {key} is {printable(json.dumps(found, default=str))}; expected {expected}"
    )


def _size(where: str, config: Any, key: str, default: int | None = None) -> int:  # noqa: ANN401
    """A size that a configuration holds."""
    size = getattr(config, key, default)
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= _LARGEST:
        raise _mistyped(where, key, size, f"a whole number from 1 to {_LARGEST}")
    return size


def example_inputs(model: Any, where: str) -> "dict[str, torch.Tensor]":  # noqa: ANN401
    """Small inputs of the kind that a model takes first; of one with a decoder, for that, too.

    Args:
        model: Of transformers.
        where: The file that it is from, for messages.

    Raises:
        InvalidInputError: It takes something else, or sizes that its configuration gives are no sizes.
    """
    torch, config = require_torch(), model.config
    name = model.main_input_name
    found: dict[str, Any] = {}
    if name == "input_ids" and getattr(config, "vocab_size", 0):
        ids = torch.arange(_TOKENS).reshape(1, -1) % _size(where, config, "vocab_size")
        found = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    elif name == "pixel_values" and getattr(config, "image_size", None) is not None:
        channels = _size(where, config, "num_channels", 3)
        sides = [_size(where, config, "image_size")] * 2
        if channels * sides[0] * sides[1] > MAX_MADE:
            raise _mistyped(where, "image_size", config.image_size, "fewer pixels")
        found = {name: torch.zeros((1, channels, *sides))}
    elif name == "input_features" and getattr(config, "num_mel_bins", None) is not None:
        bins, frames = _size(where, config, "num_mel_bins"), 2 * _size(where, config, "max_source_positions")
        if bins * frames > MAX_MADE:
            raise _mistyped(where, "max_source_positions", config.max_source_positions, "fewer frames")
        found = {name: torch.zeros((1, bins, frames))}
    if not found:
        raise InvalidInputError(
            f"{where}: no example for inputs {name!r}; make one in a factory that returns (module, arguments)"
        )
    if getattr(config, "is_encoder_decoder", False):
        ids = torch.arange(_TOKENS).reshape(1, -1) % _size(where, config, "vocab_size")
        found["decoder_input_ids"] = ids
    return found
