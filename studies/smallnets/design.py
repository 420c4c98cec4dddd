"""The cells of the design: architecture, share of weights removed, images to learn from."""

from dataclasses import dataclass
from itertools import product

DEPTHS, WIDTHS = (1, 2, 3), (8, 16, 32)
LEVELS = (0.0, 0.5, 0.8)
IMAGES = (125, 500)
SEEDS = 8
STEPS = 200
"""Full-batch steps of Adam before pruning, and after."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks that are trained together: an architecture and a number of images, all levels and seeds."""

    depth: int
    width: int
    images: int

    @property
    def name(self) -> str:
        """For the file of its rows."""
        return f"{self.depth}x{self.width}-{self.images}"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units per layer."""
        return (64, *(self.depth * (self.width,)), 10)


FAMILIES = tuple(
    Family(depth=depth, width=width, images=images)
    for depth, width, images in product(DEPTHS, WIDTHS, IMAGES)
)
