"""An architecture of the zoo as data: what to build, how small, and what to feed it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Built:
    """A module with example inputs."""

    module: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One row of the zoo."""

    name: str
    family: str
    source: str
    """"torchvision", "timm", "transformers" or "own"."""
    group: str
    """Heading of the page under which the family stands."""
    build: Callable[[], Built] = field(repr=False)

    def made(self) -> Built:
        """The module with random weights, the same ones each time."""
        torch.manual_seed(0)
        built = self.build()
        spread(built.module)
        return built


def spread(module: nn.Module) -> None:
    """Make a change anywhere visible everywhere that it gets to.

    Parameters that start equal (zeros, ones, layer scales of 1e-6) or very small get random values of ordinary
    size.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.is_floating_point() or parameter.numel() < 2:
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            first = parameter.flatten()[0].clone()
            if bool((parameter == first).all()):
                centre = float(first) if abs(float(first)) > 1e-2 else (0.5 if first else 0.0)
                parameter.copy_(centre + (0.2 * abs(centre) or 0.1) * noise)
            elif parameter.ndim > 1 and float(parameter.std()) < 0.05:
                fan_in = parameter.numel() / parameter.shape[0]
                parameter.copy_(noise / fan_in**0.5)


def tensor(*shape: int) -> torch.Tensor:
    """Random numbers of ordinary size."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def ids(*shape: int, below: int = 50) -> torch.Tensor:
    """Random token ids, none of them among the first few, which are often special."""
    return torch.randint(5, below, shape, generator=torch.Generator().manual_seed(3))
