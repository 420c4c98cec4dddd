"""Modules of torch as ONNX models in memory, exported as emergraph does it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch
from onnx.inliner import inline_local_functions

from emergraph.exporters.pytorch.onnxexport import save_onnx


def as_onnx(module: torch.nn.Module, *args: Any) -> onnx.ModelProto:
    """The model of a module without local functions."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "module.onnx"
        save_onnx(module.eval(), args, {}, None, path, type(module).__name__)
        return inline_local_functions(onnx.load(path))
