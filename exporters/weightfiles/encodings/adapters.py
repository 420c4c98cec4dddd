"""Low-rank adapters (LoRA): merged into the weights that they change, where the file defines how.

`lora_B` times `lora_A`, times alpha / r, is added to the weight. Alpha stands in `adapter_config.json`;
without it, or without the weight itself, the two matrices are layers of their own. DoRA, which rescales the
rows of the sum, is named and not merged.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from emergraph.exporters.weightfiles.encodings.parameter import Encoding, FloatArray, Parameter, Part

_SIDE = re.compile(
    r"(?P<base>.+)\.lora_(?P<table>embedding_)?(?P<side>[AB])(\.(?P<adapter>[^.]+?))??(\.weight)?"
)
_MAGNITUDE = re.compile(r"(?P<base>.+)\.lora_magnitude_vector(\.[^.]+)?(\.weight)?")
_BASE_LAYER = ".base_layer."
_PLAIN = re.compile(r"[\w.\-]+")
"""Keys of patterns that are plain names; regular expressions of a file are not run."""


@dataclass
class _Adapter:
    """The adapters of one layer, by the name of the adapter ("" where it has none)."""

    sides: dict[str, dict[str, Parameter]] = field(default_factory=dict)
    table: bool = False
    magnitude: Parameter | None = None


def apply(found: Mapping[str, Parameter], config: Mapping[str, object]) -> dict[str, Parameter]:
    """Merge adapters into weights.

    Args:
        found: Parameters by name, in file order.
        config: What `adapter_config.json` holds; empty where there is none.

    Returns:
        Parameters by name, in file order; merged adapters do not stand alone.
    """
    adapters = _adapters(found)
    used: set[str] = set()
    merged: dict[str, Parameter] = {}
    for base, adapter in adapters.items():
        name = next((n for n in (f"{base}{_BASE_LAYER}weight", f"{base}.weight") if n in found), None)
        if name is None:
            continue
        made = _merged(base, found[name], adapter, config)
        if made is not None:
            merged[name] = made
            tensors = {part.tensor.name for part in made.parts}
            used.update(n for n, parameter in found.items() if parameter.tensor.name in tensors)
    result: dict[str, Parameter] = {}
    for name, given in found.items():
        if name in used and name not in merged:
            continue
        if name not in merged and _SIDE.fullmatch(name):
            parameter = _alone(name, given)
            result[parameter.name] = parameter
            continue
        parameter = merged.get(name, given)
        base = name.partition(_BASE_LAYER)[0]
        shown = name.replace(_BASE_LAYER, ".") if base in adapters else name
        shown = shown if shown == name or shown not in found else name
        result[shown] = _renamed(parameter, shown)
    return result


def _alone(name: str, side: Parameter) -> Parameter:
    """One of the two matrices as a layer of its own; of a table the first one has a row for each entry."""
    match = _SIDE.fullmatch(name)
    shown = name if name.endswith(".weight") else f"{name}.weight"
    if match and match["table"] and match["side"] == "A" and len(side.shape) == 2 and not side.problem:
        encoding = Encoding(
            scheme="LoRA of a table",
            shape=(side.shape[1], side.shape[0]),
            parts=side.parts,
            decode=lambda: side.floats().T,
        )
        return Parameter(name=shown, tensor=side.tensor, encoding=encoding)
    return _renamed(side, shown)


def _renamed(parameter: Parameter, name: str) -> Parameter:
    if parameter.name == name:
        return parameter
    return Parameter(name=name, tensor=parameter.tensor, encoding=parameter.encoding)


def _adapters(found: Mapping[str, Parameter]) -> dict[str, _Adapter]:
    adapters: dict[str, _Adapter] = {}
    for name, parameter in found.items():
        side, magnitude = _SIDE.fullmatch(name), _MAGNITUDE.fullmatch(name)
        if side:
            adapter = adapters.setdefault(side["base"], _Adapter())
            adapter.sides.setdefault(side["adapter"] or "", {})[side["side"]] = parameter
            adapter.table = adapter.table or side["table"] is not None
        elif magnitude:
            adapters.setdefault(magnitude["base"], _Adapter()).magnitude = parameter
    return adapters


def _merged(
    base: str, weight: Parameter, adapter: _Adapter, config: Mapping[str, object]
) -> Parameter | None:
    """The weight with its adapter; None where the file does not say how they go together."""
    pairs = [pair for pair in adapter.sides.values() if len(pair) == 2]
    if len(adapter.sides) != 1 or len(pairs) != 1:
        return None
    down, up = pairs[0]["A"], pairs[0]["B"]
    parts = (*weight.parts, Part(down.tensor, "weight"), Part(up.tensor, "weight"))
    if adapter.magnitude is not None:
        problem = "DoRA rescales the rows of this weight; merge the adapter with peft (merge_and_unload)"
        parts = (*parts, Part(adapter.magnitude.tensor, "scale"))
        encoding = Encoding(scheme="DoRA", shape=weight.shape, parts=parts, problem=problem)
        return Parameter(name=weight.name, tensor=weight.tensor, encoding=encoding)
    factor = _factor(base, down.shape[0] if down.shape else 0, config)
    turned = adapter.table or config.get("fan_in_fan_out") is True
    if factor is None or weight.problem or _product_shape(down, up, turned=turned) != weight.shape:
        return None
    scheme = " with ".join(
        part for part in (weight.encoding and weight.encoding.scheme, "LoRA merged") if part
    )

    def decode() -> FloatArray:
        rank = down.shape[0]
        change = up.floats().reshape(-1, rank) @ down.floats().reshape(rank, -1)
        change = change.T if turned else change.reshape(weight.shape)
        result: FloatArray = weight.floats().astype("float32") + change.astype("float32") * factor
        return result.astype("float32")

    encoding = Encoding(scheme=scheme, shape=weight.shape, parts=parts, decode=decode)
    return Parameter(name=weight.name, tensor=weight.tensor, encoding=encoding)


def _product_shape(down: Parameter, up: Parameter, *, turned: bool) -> tuple[int, ...] | None:
    """Shape of up times down; of convolutions, up has kernels of size 1."""
    if len(down.shape) < 2 or len(up.shape) != len(down.shape) or down.shape[0] != up.shape[1]:
        return None
    if any(size != 1 for size in up.shape[2:]) or (turned and len(down.shape) != 2):
        return None
    return (down.shape[1], up.shape[0]) if turned else (up.shape[0], *down.shape[1:])


def _factor(base: str, rank: int, config: Mapping[str, object]) -> float | None:
    """Alpha / r, or alpha / sqrt(r); None where the configuration does not say it."""
    alpha = config.get("lora_alpha")
    patterns = config.get("alpha_pattern")
    if isinstance(patterns, dict):
        for key, value in patterns.items():
            if not isinstance(key, str) or not _PLAIN.fullmatch(key):
                return None
            if base == key or base.endswith(f".{key}"):
                alpha = value
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha) or rank < 1:
        return None
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") is True else rank)
