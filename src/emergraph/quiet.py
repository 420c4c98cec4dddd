"""The libraries underneath, kept from telling anybody about this machine and from fetching anything.

`import emergraph` calls `silence`: onnxruntime looks at its variable while it is imported, and begins to
report there unless it is 1. A process that has imported onnxruntime before emergraph cannot be silenced.
"""

import os

NO_TELEMETRY = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""For every process that runs code of this package."""

OFFLINE = {
    **NO_TELEMETRY,
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_XET": "1",
    "USE_HUB_KERNELS": "NO",
}
"""For a process that builds what a stranger's file asks for; read when the libraries are imported."""

CACHES = (
    *("HF_HOME", "HF_HUB_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE", "HF_MODULES_CACHE"),
    *("TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "TRITON_CACHE_DIR"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"),
)
"""Folders that libraries keep things in."""


def silence() -> None:
    """Switch reporting off in this process and all that it starts, whatever the environment said before."""
    os.environ.update(NO_TELEMETRY)


def offline_environment(folder: str) -> dict[str, str]:
    """The environment of a child that fetches nothing, and keeps what it must keep in a folder."""
    return {**os.environ, **OFFLINE, **dict.fromkeys(CACHES, folder)}
