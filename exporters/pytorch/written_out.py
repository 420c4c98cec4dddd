"""Attention and routed experts of transformers and timm as operations that torch exports, and no cache.

Models of transformers compute each in one of several ways, which give the same numbers. Fused attention does
not export for some layouts of its inputs, and grouped products of experts do not export at all. The cache
of a decoder, which some classes return unless they are told not to, is not a result of the network.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ATTENTION = "eager"
EXPERTS = "batched_mm"
_SETTINGS: dict[str, str | bool] = {
    "_attn_implementation_internal": ATTENTION,
    "_experts_implementation_internal": EXPERTS,
    "use_cache": False,
}
_OF_TIMM: dict[str, str | bool] = {"fused_attn": False}
"""The attention of timm has the setting itself."""


@contextmanager
def written_out(module: Any) -> Iterator[None]:  # noqa: ANN401 - a module, or a program without parts
    """Let the parts of a module that are of transformers or timm compute in this way for a while."""
    parts = list(module.modules()) if hasattr(module, "modules") else []
    configs = {id(part.config): part.config for part in parts if hasattr(part, "config")}
    wanted = [(config, _SETTINGS) for config in configs.values()] + [(part, _OF_TIMM) for part in parts]
    before = [
        (held, name, vars(held)[name])
        for held, settings in wanted
        for name in settings
        if name in getattr(held, "__dict__", ())
    ]
    try:
        for held, name, _ in before:
            setattr(held, name, {**_SETTINGS, **_OF_TIMM}[name])
        yield
    finally:
        for held, name, value in before:
            setattr(held, name, value)
