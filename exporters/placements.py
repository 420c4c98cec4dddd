"""Where the edges of a graph are: the choice, for whoever offers it."""

from enum import StrEnum

IN_PLACE_EDGES = 250_000_000
"""Weights of matrices from which on `auto` leaves edges in the file: their rows would take 1.4 GB."""


class EdgePlacement(StrEnum):
    """Where the edges of a graph are."""

    AUTO = "auto"
    """In the file, where it holds more than `IN_PLACE_EDGES` weights of matrices as they are."""
    STORED = "stored"
    IN_PLACE = "in-place"
