"""What stands beside a weight file: the settings of its quantization and of its adapters."""

import os
from collections.abc import Mapping
from pathlib import Path

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.links import is_below
from emergraph.exporters.weightfiles.jsontext import parse_json
from emergraph.paths import open_file

_MAX_BYTES = 1 << 20
_QUANTIZED = ("quantization_config", "compression_config")
_WHOLE = {"quantize_config.json": "gptq", "quant_config.json": "awq", "quantization_config.json": None}
"""Files that hold nothing but the settings of a quantization, with the method whose file it is."""


def read_beside(path: Path, root: Path | None) -> dict[str, object]:
    """Read the settings beside a weight file, as far as reading its weights needs them.

    A file that is missing, is not a JSON object, or links to outside says nothing: weights that would need
    it are then named as not understood.

    Args:
        path: The weight file.
        root: Folder inside which links are followed.

    Returns:
        "quantization_config" and "adapter_config", each where there is one.
    """
    folder = path.parent
    found: dict[str, object] = {}
    settings = _read(folder / "config.json", root)
    nested = settings.get("text_config")
    for place in (settings, nested if isinstance(nested, dict) else {}):
        for key in _QUANTIZED:
            if isinstance(place.get(key), dict):
                found.setdefault("quantization_config", place[key])
    for name, method in _WHOLE.items():
        if "quantization_config" not in found and (given := _read(folder / name, root)):
            found["quantization_config"] = {**({"quant_method": method} if method else {}), **given}
    adapter = _read(folder / "adapter_config.json", root)
    if adapter:
        found["adapter_config"] = adapter
    return found


def _read(path: Path, root: Path | None) -> Mapping[str, object]:
    if not path.is_file() or (path.is_symlink() and not is_below(path, root or path.parent)):
        return {}
    try:
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size > _MAX_BYTES:
                return {}
            parsed = parse_json(
                file.read(_MAX_BYTES), path.name, malformed="SAFETENSORS-HEADER", limit=_MAX_BYTES
            )
    except (OSError, EmergraphError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
