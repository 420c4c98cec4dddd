"""Architectures of torchvision: (name, family, group, shape of the input, what to pass to make it small)."""

import functools
from typing import Any

from zoomodels.spec import Architecture, Built, tensor
from zoomodels.torchvisionfix import import_torchvision

_IMAGE = (1, 3, 32, 32)
_CNN = "convolutional"
_BACKBONE = {"weights_backbone": None}
MODELS: tuple[tuple[str, str, str, tuple[int, ...], dict[str, Any]], ...] = (
    ("mnasnet0_5", "MnasNet", _CNN, _IMAGE, {}),
    ("mobilenet_v2", "MobileNetV2", _CNN, _IMAGE, {"width_mult": 0.25}),
    ("mobilenet_v3_small", "MobileNetV3", _CNN, _IMAGE, {}),
    ("shufflenet_v2_x0_5", "ShuffleNetV2", _CNN, _IMAGE, {}),
    ("squeezenet1_0", "SqueezeNet", _CNN, (1, 3, 64, 64), {}),
    ("squeezenet1_1", "SqueezeNet", _CNN, (1, 3, 64, 64), {}),
    ("googlenet", "GoogLeNet", _CNN, (1, 3, 64, 64), {"aux_logits": False, "init_weights": False}),
    ("regnet_y_400mf", "RegNetY", _CNN, _IMAGE, {}),
    ("lraspp_mobilenet_v3_large", "LR-ASPP", "segmentation", (1, 3, 64, 64), _BACKBONE),
)


def _build(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> Built:
    import_torchvision()
    import torchvision

    module = torchvision.models.get_model(name, weights=None, num_classes=10, **options)
    return Built(module=module, args=(tensor(*shape),))


def architectures() -> list[Architecture]:
    """All of them."""
    return [
        Architecture(
            name=f"torchvision_{name}",
            family=family,
            source="torchvision",
            group=group,
            build=functools.partial(_build, name, shape, options),
        )
        for name, family, group, shape, options in MODELS
    ]
