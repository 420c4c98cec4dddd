"""onnxruntime itself, with its reports switched off."""

from typing import Any

from emergraph.quiet import silence


def onnxruntime() -> Any:  # noqa: ANN401 - the module itself, which has no type annotations
    """Import onnxruntime. Its reports begin during the import, unless they were switched off before."""
    silence()
    import onnxruntime as ort

    # all that is left to do where it was imported before
    ort.disable_telemetry_events()
    ort.set_default_logger_severity(4)
    return ort
