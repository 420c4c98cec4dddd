"""igraph's random numbers, seeded for the length of a `with` block."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import igraph


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make what igraph draws in the body depend on the seed alone; then give it back its default source."""
    igraph.set_random_number_generator(random.Random(seed))  # noqa: S311 - random walks, no secret
    try:
        yield
    finally:
        igraph.set_random_number_generator(random)
