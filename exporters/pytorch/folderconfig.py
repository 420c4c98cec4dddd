"""The config.json of a model folder before any library sees it: what is left are sizes and plain names.

The rule is one of what is allowed. A text may hold anything but the characters that an address needs (every
repository with an owner, path, URL and native kernel has one of them), unless its key is known to hold notes.
The few keys that libraries look up by a name without them (timm's models) are checked against what is
installed; keys that ask for code are refused; keys that ask for weights or kernels are left out, and the
model is built without them.
"""

import importlib
import importlib.util
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emergraph.errors import InvalidInputError, MissingExtraError, UnsafeInputError
from emergraph.exporters.onnxfile.links import is_below, refuse_link
from emergraph.exporters.onnxfile.names import printable
from emergraph.paths import open_file

CONFIG = "config.json"
_MAX_BYTES = 1 << 20
_MAX_DEPTH = 32
_NO_ADDRESS = re.compile(r"[^/\\:@~%$\x00-\x1f\x7f]*")

_NOTES = frozenset(
    {
        *("_name_or_path", "name_or_path", "base_model_name_or_path", "pretrained_model_name_or_path"),
        *("_commit_hash", "_from_auto", "_from_pipeline", "transformers_version", "license", "tags"),
        *("task_specific_params", "finetuning_task", "prefix", "chat_template", "tokenizer_class"),
    }
)
"""What a model comes from and how its tokenizer and generator are to be used: left out."""

_LABELS = frozenset({"id2label", "label2id", "label_names", "vocab_list", "vocabulary_map"})
"""Texts that only count, or that only people read."""

_CODE = frozenset(
    {"auto_map", "trust_remote_code", "custom_pipelines", "_auto_class", "custom_code", "checkpoint_path"}
)
"""Code, or pickles, that a library would run."""

_QUANTIZED = frozenset({"quantization_config", "compression_config"})
"""How a library has packed the weights: the plain model gets them unpacked."""

_WEIGHTS = frozenset(
    {
        *("use_pretrained_backbone", "pretrained_backbone", "pretrained"),
        *("pretrained_cfg", "pretrained_cfg_overlay"),
    }
)
"""Weights that would be fetched: the model is built without, and gets those of the folder."""

_KERNELS = frozenset(
    f"{prefix}{kind}_implementation{suffix}"
    for prefix in ("", "_")
    for kind in ("attn", "experts")
    for suffix in ("", "_internal", "_autoset")
)
"""How attention and experts are computed: always plainly."""

_TIMM = frozenset({"backbone", "architecture"})
"""Names of models of timm; transformers would look a backbone up on the hub first."""


def read_config(folder: Path, *, root: Path | None = None) -> dict[str, Any]:
    """Read the settings of a model folder, without what would fetch or run something.

    Args:
        folder: Of the model.
        root: Folder below which the file may lead as a symbolic link, beside the model's own folder.

    Raises:
        UnsafeInputError: The file is another symbolic link, or the settings ask for code, or name something
            that would have to be fetched.
        InvalidInputError: They are not a JSON object.
        MissingExtraError: A backbone of timm, which is not installed.
    """
    path = folder / CONFIG
    if path.is_symlink() and not (is_below(path, folder) or is_below(path, root)):
        raise refuse_link("FOLDER-LINK", path, CONFIG)
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
    return closed_settings(settings)


def closed_settings(settings: Mapping[str, Any], where: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings without notes, weights and kernels; see `read_config` for what is refused."""
    kept = {}
    for key, value in settings.items():
        path = (*where, key)
        if key in _CODE and value:
            raise UnsafeInputError(
                f"{CONFIG} asks for custom Python code ({_shown(path)}), which is never run; use --wire "
                "none, or name a factory that you trust: emergraph export package.module:factory STORE "
                "--weights FILE"
            )
        if key in _NOTES or key in _CODE or key in _QUANTIZED:
            continue
        if key in _LABELS:
            kept[key] = value
            continue
        if key == "backbone" and isinstance(settings.get("backbone_config"), dict):
            continue  # what the backbone was made from; it is built from its own settings
        closed = _closed(value, path)
        if key in _WEIGHTS or key in _KERNELS:
            continue
        if key in _TIMM and isinstance(value, str):
            _check_timm(value, path)
        kept[key] = closed
    return kept


def _closed(value: object, path: tuple[str, ...]) -> object:
    if len(path) > _MAX_DEPTH:
        raise InvalidInputError(f"{CONFIG} is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, dict):
        return closed_settings(value, path)
    if isinstance(value, list):
        return [_closed(one, (*path, str(place))) for place, one in enumerate(value)]
    if isinstance(value, str) and not _NO_ADDRESS.fullmatch(value):
        raise _fetched(value, path)
    return value


def _check_timm(name: str, path: tuple[str, ...]) -> None:
    """Let only models pass that the installed timm can build itself."""
    if importlib.util.find_spec("timm") is None:
        raise MissingExtraError(
            f"{CONFIG}: {_shown(path)} {printable(name)!r} is a model of timm, or would have to be fetched; "
            "pip install timm, or use --wire none"
        )
    timm: Any = importlib.import_module("timm")
    if not timm.is_model(name.partition(".")[0]):
        raise _fetched(name, path)


def _fetched(name: str, path: tuple[str, ...]) -> UnsafeInputError:
    return UnsafeInputError(
        f"{CONFIG}: {_shown(path)} names {printable(name[:80])!r}, which would have to be fetched, and a "
        "folder is opened without a network; remove the key if it is only a note, or use --wire none"
    )


def _shown(path: tuple[str, ...]) -> str:
    return printable(".".join(path))
