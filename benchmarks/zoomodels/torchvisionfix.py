"""torchvision beside a torch without its operations.

The wheel of torchvision on PyPI is built for CUDA; beside a torch for CPUs its operations cannot be loaded, and
the import fails where it registers what they look like. No model of the zoo calls them.
"""

import torch

_LIBRARIES = []


def import_torchvision() -> None:
    """Declare what is missing, and import."""
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)  # what it declared goes when it goes
        import torchvision  # noqa: F401
