"""Attention and routed experts of transformers as operations that torch exports, and no cache.

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


@contextmanager
def written_out(module: Any) -> Iterator[None]:  # noqa: ANN401 - a module, or a program without parts
    """Let the parts of a module that are of transformers compute in this way for a while."""
    parts = module.modules() if hasattr(module, "modules") else ()
    configs = {id(part.config): part.config for part in parts if hasattr(part, "config")}
    before = [
        (config, name, vars(config)[name])
        for config in configs.values()
        for name in _SETTINGS
        if name in getattr(config, "__dict__", ())
    ]
    try:
        for config, name, _ in before:
            setattr(config, name, _SETTINGS[name])
        yield
    finally:
        for config, name, value in before:
            setattr(config, name, value)
