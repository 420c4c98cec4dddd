"""The format `text-matrix`: after a first line of its own, a line `NAME ROWS COLUMNS` before each matrix."""

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.formats import Format, Sample

FIRST = b"emergraph text-matrix\n"


def is_text_matrix(sample: Sample) -> bool:
    """Tell by the first line."""
    return sample.head.startswith(FIRST)


def read_text_matrix(content: memoryview) -> dict[str, NDArray[np.float32]]:
    """Return the matrices by name; what is wrong with a file is raised, and becomes one line."""
    lines = bytes(content[len(FIRST) :]).decode().splitlines()
    weights: dict[str, NDArray[np.float32]] = {}
    while lines:
        name, rows, columns = lines.pop(0).split()
        values = [[float(word) for word in lines.pop(0).split()] for _ in range(int(rows))]
        weights[name] = np.array(values, dtype=np.float32).reshape(int(rows), int(columns))
    return weights


TEXT_MATRIX = Format(
    name="text-matrix",
    title="matrices in text",
    step="export it: emergraph export FILE STORE",
    sniff=is_text_matrix,
    read=read_text_matrix,
)
